"""One interface for samples of every modality: their properties, stored form and pictures.

Images, videos stored as images, and modalities with their own codec are decoded in this process, as
in training. Everything else is decoded in a child process with limits of time and memory.
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
from mimsuite.data.local_file import LocalFile, Stored
from mimsuite.data.modalities import IMAGE, Modality
from mimsuite.data.packing.isolated import shared
from mimsuite.data.source import MAX_SAMPLE_BYTES, Payload, Sample, Source
from mimsuite.data.sources.frame_folders import Frames

SAMPLE_SECONDS = 120.0  # limit of processor time for one sample
Facts = dict[str, int | float | str]


class Codec(Protocol):
    """The operations of ``data pack``, ``verify`` and ``inspect``; all raise CorruptSample."""

    def facts(self, source: Source, sample: Sample) -> Facts:
        """Decode the whole sample; its properties by name."""

    def store(self, source: Source, sample: Sample, options: dict[str, Any]) -> dict[str, bytes]:
        """Extension -> bytes to store in a shard; ``options`` are the modality's pack options."""

    def picture(self, source: Source, sample: Sample) -> Image.Image:
        """An RGB picture of at most the modality's tile size."""


def codec(source: Source, modality: str, seconds: float = SAMPLE_SECONDS) -> Codec:
    """The codec for the samples of a source.

    Args:
        seconds: limit of processor time for a sample decoded in a child process. Images need no
            limit: no file can make their decoders loop forever.
    """
    known = modalities.get(modality)
    if source.in_frames:
        return FramesCodec()
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

    def store(self, source: Source, sample: Sample, options: dict[str, Any]) -> dict[str, bytes]:
        image = source.decode(sample)
        side, quality = options.get("short_side"), options.get("quality")
        stored = sample.payload if isinstance(sample.payload, bytes) else None
        extension = extension_of(stored) if stored is not None else ""
        small = image if side is None else shrink(image, side)
        if stored is None or small is not image or (quality is not None and stored):
            return dict([encode(small, quality=quality, jpeg=extension == "jpg")])
        return {extension: stored}

    def picture(self, source: Source, sample: Sample) -> Image.Image:
        pixels = unit(self.view(source.decode(sample))).clamp(0, 1)
        # With more than three channels, show the first three.
        pixels = pixels[:3] if len(pixels) >= 3 else pixels[:1].expand(3, -1, -1)
        return Image.fromarray((pixels * 255).byte().permute(1, 2, 0).numpy())


class FramesCodec:
    """Videos stored as image files; see
    :class:`~mimsuite.data.sources.frame_folders.Frames`."""

    def facts(self, source: Source, sample: Sample) -> Facts:
        frames = _frames(source, sample)
        height = width = 0
        for frame in frames.decoded([*range(len(frames))]):
            _, height, width = frame.shape
        kinds = sorted({extension_of(frames.load(number)) for number in (0, len(frames) - 1)})
        return {
            "frames": len(frames),
            "height": height,
            "width": width,
            "codec": f"{', '.join(kinds)}, a file a frame",
        }

    def store(self, source: Source, sample: Sample, options: dict[str, Any]) -> dict[str, bytes]:
        """The images unchanged and numbered; H.264 in mp4 if a size or key frames are requested."""
        frames, side, gop = _frames(source, sample), options.get("short_side"), options.get("gop")
        pictures = frames.decoded([*range(len(frames))])
        if side is None and gop is None:
            stored = [frames.load(number) for number, _ in enumerate(pictures)]
            if sum(map(len, stored)) > MAX_SAMPLE_BYTES:
                raise CorruptSample("too-large", f"its frames take over {MAX_SAMPLE_BYTES} bytes")
            return {f"{n:06d}.{extension_of(data)}": data for n, data in enumerate(stored, 1)}
        from mimsuite.data.video.files import from_pictures

        return {"mp4": from_pictures((p.permute(1, 2, 0).numpy() for p in pictures), side, gop)}

    def picture(self, source: Source, sample: Sample) -> Image.Image:
        from mimsuite.data.video.files import SHOWN, filmstrip

        frames = _frames(source, sample)
        shown = frames.read(lambda total: [int(total * share) for share in SHOWN])
        return filmstrip([Image.fromarray(frame) for frame in shown])


def _frames(source: Source, sample: Sample) -> Frames:
    found = source.decode(sample)
    assert isinstance(found, Frames)
    return found


@dataclass(frozen=True)
class IsolatedCodec:
    """Samples whose ``formats`` module runs in a child process."""

    modality: Modality
    seconds: float

    def facts(self, source: Source, sample: Sample) -> Facts:
        found = self._call("facts", sample.payload)[0]
        if sample.label_map is not None:
            found |= self._call("facts", sample.label_map, labels=True)[0]
        return found

    def store(self, source: Source, sample: Sample, options: dict[str, Any]) -> dict[str, bytes]:
        whole = len(sample.payload) if isinstance(sample.payload, LocalFile) else 0
        if whole > MAX_SAMPLE_BYTES and not any(options.values()):
            raise CorruptSample(
                "too-large",
                f"{whole} bytes, and a shard takes {MAX_SAMPLE_BYTES} a sample: leave it a file, "
                "or shrink it by --short-side or --gop",
            )
        figures, content = self._call("store", sample.payload, **options)
        stored = {figures["extension"]: content}
        if sample.label_map is not None:
            figures, labels = self._call("store", sample.label_map, labels=True, **options)
            modalities.target(f"{self.modality.label_formats}:check")(content, labels)
            stored[figures["extension"]] = labels
        if (size := max(map(len, stored.values()))) > MAX_SAMPLE_BYTES:
            raise CorruptSample("too-large", f"{size} bytes when packed: too many")
        return stored

    def picture(self, source: Source, sample: Sample) -> Image.Image:
        figures, content = self._call("picture", sample.payload)
        return Image.fromarray(np.frombuffer(content, np.uint8).reshape(figures["shape"]))

    def _call(
        self, name: str, payload: Payload, *, labels: bool = False, **options: Any
    ) -> tuple[dict[str, Any], bytes]:
        """Call a function of the modality's ``formats``, or of its ``label_formats``."""
        if not isinstance(payload, Stored):
            raise CorruptSample("decode", f"an array is no {self.modality.name} file")
        formats = self.modality.label_formats if labels else self.modality.formats
        return shared().call(f"{formats}:{name}", payload, seconds=self.seconds, **options)
