"""Base classes of encoders: their interface to methods, probes and the optimizer."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, ClassVar

from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.models.features import Features
from mimsuite.noise import Noise
from mimsuite.tokens import patchify
from mimsuite.weights.names import Names


class Encoder(nn.Module):
    """Base of encoders.

    Attributes:
        width: D, the width of its tokens.
        depth: number of blocks.
        norm: the layer norm of its output; a classifier on the mean token removes it.
        published: pairs of our and published tensor names, for the encoder and a classifier on it.
        published_mark: prefix of tensor names that only published checkpoints of this encoder
            have; empty for the plain transformer.
        classifier_published: whether published code has a classifier on it.
        embeddings: prefixes of the parameters in front of the first block.
    """

    published: Names = Names(
        [(name, name) for name in ("head.", "fc_norm.", "decoder_", "mask_token")]
        + [("encoder.", "")]
    )
    published_mark: ClassVar[str] = ""
    classifier_published: ClassVar[bool] = True
    embeddings: ClassVar[tuple[str, ...]] = ("cls_token", "pos_embed", "patch_embed")

    width: int
    depth: int
    norm: nn.Module

    def __init__(self, section: Any) -> None:
        super().__init__()
        self.section = section

    def encode(
        self, batch: Batch, *, noise: Noise | None = None, layers: Collection[int] = ()
    ) -> Features:
        """Features of unmasked samples, as every probe reads them."""
        raise NotImplementedError

    def layer_id(self, name: str) -> int:
        """Depth of a parameter for layer decay: 0 embeddings, i + 1 block i, depth + 1 the rest."""
        if name.startswith(self.embeddings):
            return 0
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return self.depth + 1

    def rate_layer(self, name: str) -> int:
        """The layer by which the rate of a parameter decays: its depth, if nothing else is said."""
        return self.layer_id(name)

    @classmethod
    def published_in(cls, names: Iterable[str]) -> Names:
        """Names of a published classifier on it that has these parameters."""
        return cls.published

    def sample(self) -> tuple[str, tuple[int, ...]]:
        """The view that :meth:`encode` reads, and the shape of one sample in it."""
        raise NotImplementedError


class ImageEncoder(Encoder):
    """Base of encoders of image patches, called as ``encoder(patches, ids)``.

    ``patches`` are (B, V, P) patch vectors and ``ids`` their (B, V) ids, ``None`` = all patches. A
    subclass has a parameter ``pos_embed``.

    Attributes:
        grid: rows and columns of patches at the trained image size.
        class_tokens: number of class tokens; their positions are the leading rows of
            ``pos_embed``.
    """

    class_tokens = 1

    def __init__(self, section: Any) -> None:
        super().__init__(section)
        self.grid: tuple[int, int] = section.grid
        self.width, self.depth = section.width, section.depth

    def patches(self, images: Tensor, ids: Tensor | None = None) -> Tensor:
        """Patch vectors of (B, C, H, W) images, all (B, N, P) or those of ``ids``."""
        return patchify(images, self.section.patch_size, ids)

    def encode(
        self, batch: Batch, *, noise: Noise | None = None, layers: Collection[int] = ()
    ) -> Features:
        """Features of all patches of ``batch.image``, of any size, as every probe reads them."""
        images = batch.image
        patch = self.section.patch_size
        grid = (images.shape[2] // patch, images.shape[3] // patch)
        features: Features = self(self.patches(images), noise=noise, layers=layers, grid=grid)
        return features

    def sample(self) -> tuple[str, tuple[int, ...]]:
        rows, columns = (side * self.section.patch_size for side in self.grid)
        return "image", (self.section.in_channels, rows, columns)
