"""Base class of decoders: from a stored sample to the tensor that views are cut from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

# Values of `data.channels`; modalities other than images may accept fewer or ignore it.
Channels = Literal["rgb", "gray", "rgba", "gray16", "native"]


class Decoder(ABC):
    """Decodes the samples of one modality. Must be picklable: loader workers receive a copy.

    Attributes:
        channels: image channels; see :class:`~mimsuite.data.image.decode.ImageDecoder`.
        channel_count: channels of every sample; None where samples differ.
        max_pixels: pixels, voxels or points; larger samples are refused before decoding.
        sequences: whether a folder of images may be one sample (the frames of a video).
        in_place: whether a local file is read by seeking instead of being loaded whole.
        in_parts: whether it reads only the parts that it needs of a sample in a shard, and checks
            them itself; such a sample comes as a :class:`~mimsuite.data.local_file.Stretch`.
        label_map: extension under which shards store the classes of a sample's voxels; empty: they
            are not read.
        layouts: modules that read further on-disk layouts of such samples; see
            :mod:`mimsuite.data.sources.layouts`.
    """

    channels: Channels = "native"
    channel_count: int | None = None
    max_pixels: int = 64_000_000
    sequences = False
    in_place = False
    in_parts = False
    label_map = ""
    layouts: tuple[str, ...] = ()

    @property
    @abstractmethod
    def extensions(self) -> tuple[str, ...]:
        """Lower-case extensions of the files it decodes."""

    @abstractmethod
    def __call__(self, payload: Any) -> Any:
        """Decode one sample.

        Args:
            payload: the bytes of a file; from some sources an array, or a file to read in place.

        Raises:
            CorruptSample: it cannot be decoded, or is too large.
        """

    def with_label_map(self, payload: Any, label_map: Any) -> Any:
        """Decode a sample with the classes of its voxels; arguments and errors as for a call."""
        return self(payload)
