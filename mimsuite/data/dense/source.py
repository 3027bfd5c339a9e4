"""A source of images with per-pixel labels: reads and decodes the files of a listing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mimsuite.data.decoder import Decoder
from mimsuite.data.dense.layouts import LAYOUTS
from mimsuite.data.dense.listing import DenseListing
from mimsuite.data.dense.truth import decode_depth, decode_mask
from mimsuite.data.dense.views import DenseSample
from mimsuite.data.image.decode import ImageDecoder
from mimsuite.data.source import Sample
from mimsuite.data.sources.files import FileSource, Listing
from mimsuite.errors import CorruptSample, UserError

if TYPE_CHECKING:
    from mimsuite.config.keys.shared import Recipe


@dataclass(frozen=True)
class StoredDense(Sample):
    """An encoded image with its encoded mask and depth."""

    mask: bytes | None = None
    depth: bytes | None = None


class DenseSource(FileSource):
    """Each image is a sample; its key is its path below the root. Samples have no image class.

    Args:
        listing: the files; where ``masks`` or ``depths`` is ``None``, none are read.
    """

    def __init__(self, listing: DenseListing, *, name: str, split: str, decoder: Decoder) -> None:
        super().__init__(
            listing.root, _unlabelled(listing.images), name=name, split=split, decoder=decoder
        )
        self.listing, self.classes = listing, list(listing.classes) or None
        self._masks, self._depths = (
            FileSource(listing.root, _unlabelled(paths), name=name, split=split, decoder=decoder)
            if paths is not None
            else None
            for paths in (listing.masks, listing.depths)
        )

    def read(self, shard: int, offset: int) -> StoredDense:
        """The encoded files of a sample; raises ``CorruptSample`` where one cannot be read."""
        return StoredDense(
            key=self.key(shard, offset),
            shard_name=self.shard_name(shard),
            label=None,
            payload=self.payload(shard, offset),
            mask=self._masks.load(shard) if self._masks else None,
            depth=self._depths.load(shard) if self._depths else None,
        )

    def decode(self, sample: Sample) -> DenseSample:
        """Image and labels, of equal height and width; raises ``CorruptSample``."""
        assert isinstance(sample, StoredDense)
        image = self.decoder(sample.payload)  # bytes
        found = DenseSample(image, *self._truth(sample.mask, sample.depth))
        for name, truth in (("mask", found.segments), ("depth", found.depth)):
            if truth is not None and truth.shape != image.shape[-2:]:
                height, width = truth.shape
                raise CorruptSample(
                    "decode",
                    f"a {name} of {height} x {width} pixels for an image of "
                    f"{image.shape[-2]} x {image.shape[-1]}",
                )
        return found

    def truth(self, position: int) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Class map and depth of a sample at stored resolution, by its position in the source."""
        shard, _ = self.locate(position)
        mask = self._masks.load(shard) if self._masks else None
        depth = self._depths.load(shard) if self._depths else None
        return self._truth(mask, depth)

    def _truth(
        self, mask: bytes | None, depth: bytes | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        listed, most = self.listing, self.decoder.max_pixels
        segments, metres = None, None
        if mask is not None:
            count = len(listed.classes)
            found = decode_mask(mask, count, listed.shift, listed.ignored, most)
            segments = torch.from_numpy(found)
        if depth is not None:
            metres = torch.from_numpy(decode_depth(depth, listed.unit, most))
        return segments, metres


def open_dense(recipe: Recipe, split: str) -> DenseSource:
    """A split of a dense recipe's ``data.source``, in its ``data.layout``.

    Raises:
        UserError: no such folder or split, another layout, or the set lacks the labels needed.
        DataError: files are missing.
    """
    root, layout = Path(recipe.data.source), LAYOUTS[recipe.data.layout]  # type: ignore[attr-defined]
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder; pixel labels are read from folders")
    if not layout.looks_so(root):
        raise UserError(
            f"{root} does not have the layout data.layout={recipe.data.layout}: "  # type: ignore[attr-defined]
            f"expected {layout.SHAPE}"
        )
    listing: DenseListing = layout.listing(root, split)
    for key, paths in (("segments", listing.masks), ("depth", listing.depths)):
        if getattr(recipe.target, key) is not None and paths is None:
            raise UserError(
                f"target.{key}: data.layout={recipe.data.layout} has no such truth: "  # type: ignore[attr-defined]
                f"set target.{key}=null"
            )
    decoder = ImageDecoder(recipe.data.channels, recipe.data.max_pixels)
    return DenseSource(listing, name=recipe.data.source, split=split, decoder=decoder)


def _unlabelled(paths: Sequence[str]) -> Listing:
    return Listing(paths, [-1] * len(paths), None)
