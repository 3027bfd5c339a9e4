"""One face for samples of every modality: their figures, what shards store, their pictures.

Images, and modalities with a codec of their own, are decoded in this process by the decoder of
their source; everything else in a child, within limits of time and memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from PIL import Image

from mimsuite.config.keys.shared import AugmentSection
from mimsuite.data import modalities
from mimsuite.data.damage import CorruptSample
from mimsuite.data.image.augment import EvalTransform, unit
from mimsuite.data.image.encode import encode, extension_of, shrink
from mimsuite.data.local_file import LocalFile
from mimsuite.data.modalities import IMAGE, Modality
from mimsuite.data.packing.isolated import shared
from mimsuite.data.source import MAX_SAMPLE_BYTES, Sample, Source

SAMPLE_SECONDS = 120.0  # of processor time that one sample may take
Facts = dict[str, int | float | str]


class Codec(Protocol):
    """What ``data pack``, ``verify`` and ``inspect`` do with a sample; all raise CorruptSample."""

    def facts(self, source: Source, sample: Sample) -> Facts:
        """Figures by name, once all of the sample was decoded."""

    def store(self, source: Source, sample: Sample, options: dict[str, Any]) -> tuple[str, bytes]:
        """(extension, bytes) as a shard holds it; ``options`` are those of its modality."""

    def picture(self, source: Source, sample: Sample) -> Image.Image:
        """RGB, of the modality's tile size or smaller."""


def codec(modality: str, seconds: float = SAMPLE_SECONDS) -> Codec:
    """The codec of a modality.

    Args:
        seconds: of processor time for one sample that is decoded in a child process; decoders of
            images have no loops that a file could make endless.
    """
    known = modalities.get(modality)
    if known.codec is None:
        return IsolatedCodec(known, seconds)
    own: Codec = modalities.target(known.codec)()
    return own


@dataclass(frozen=True)
class ImageCodec:
    """Images."""

    view: EvalTransform = field(
        default_factory=lambda: EvalTransform(AugmentSection(), IMAGE.tile[0])
    )

    def facts(self, source: Source, sample: Sample) -> Facts:
        image = source.decode(sample)
        return {
            "height": image.shape[1],
            "width": image.shape[2],
            "channels": f"{image.shape[0]} x {str(image.dtype).removeprefix('torch.')}",
        }

    def store(self, source: Source, sample: Sample, options: dict[str, Any]) -> tuple[str, bytes]:
        image = source.decode(sample)
        side, quality = options.get("short_side"), options.get("quality")
        stored = sample.payload if isinstance(sample.payload, bytes) else None
        extension = extension_of(stored) if stored is not None else ""
        small = image if side is None else shrink(image, side)
        if stored is None or small is not image or (quality is not None and stored):
            return encode(small, quality=quality, jpeg=extension == "jpg")
        return extension, stored

    def picture(self, source: Source, sample: Sample) -> Image.Image:
        pixels = unit(self.view(source.decode(sample))).clamp(0, 1)
        # More than three channels show their first three.
        pixels = pixels[:3] if len(pixels) >= 3 else pixels[:1].expand(3, -1, -1)
        return Image.fromarray((pixels * 255).byte().permute(1, 2, 0).numpy())


@dataclass(frozen=True)
class IsolatedCodec:
    """Samples whose module of files runs in a child process."""

    modality: Modality
    seconds: float

    def facts(self, source: Source, sample: Sample) -> Facts:
        return self._call("facts", sample)[0]

    def store(self, source: Source, sample: Sample, options: dict[str, Any]) -> tuple[str, bytes]:
        whole = len(sample.payload) if isinstance(sample.payload, LocalFile) else 0
        if whole > MAX_SAMPLE_BYTES and not any(options.values()):
            raise CorruptSample(
                "too-large",
                f"{whole} bytes, and a shard takes {MAX_SAMPLE_BYTES} a sample: leave it a file, "
                "or shrink it by --short-side or --gop",
            )
        figures, content = self._call("store", sample, **options)
        if len(content) > MAX_SAMPLE_BYTES:
            raise CorruptSample("too-large", f"{len(content)} bytes when packed: too many")
        return figures["extension"], content

    def picture(self, source: Source, sample: Sample) -> Image.Image:
        figures, content = self._call("picture", sample)
        return Image.fromarray(np.frombuffer(content, np.uint8).reshape(figures["shape"]))

    def _call(self, name: str, sample: Sample, **options: Any) -> tuple[dict[str, Any], bytes]:
        if isinstance(sample.payload, np.ndarray):
            raise CorruptSample("decode", f"an array is no {self.modality.name} file")
        function = f"{self.modality.formats}:{name}"
        return shared().call(function, sample.payload, seconds=self.seconds, **options)
