"""What every decoder is: from a stored sample to what its modality's views are cut from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

# Of `data.channels`; for modalities other than images only what they say.
Channels = Literal["rgb", "gray", "rgba", "gray16", "native"]


class Decoder(ABC):
    """Decodes the samples of one modality. Picklable: it goes to loader workers.

    Attributes:
        channels: of images; see :class:`~mimsuite.data.image.decode.ImageDecoder`.
        channel_count: channels of every sample; None where samples say it themselves.
        max_pixels: pixels, voxels or points; larger samples are refused before they are decoded.
        sequences: whether a folder of images may be one sample, as the frames of a video.
        in_place: whether a local file is read by seeking, and not loaded whole.
        in_parts: whether it reads the parts that it wants of a sample in a shard, and checks them
            itself; such a sample comes as a :class:`~mimsuite.data.local_file.Stretch`.
        layouts: modules that know further ways in which such samples lie on a disk; see
            :mod:`mimsuite.data.sources.layouts`.
    """

    channels: Channels = "native"
    channel_count: int | None = None
    max_pixels: int = 64_000_000
    sequences = False
    in_place = False
    in_parts = False
    layouts: tuple[str, ...] = ()

    @property
    @abstractmethod
    def extensions(self) -> tuple[str, ...]:
        """File name extensions, lower case, of what it decodes."""

    @abstractmethod
    def __call__(self, payload: Any) -> Any:
        """Decode one sample.

        Args:
            payload: the bytes of a file; of some sources an array, or a file to read in place.

        Raises:
            CorruptSample: it cannot be decoded, or is too large.
        """
