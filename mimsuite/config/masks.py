"""`mask:` the samplers from which methods choose. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mimsuite.config.section import Positive, Range, Section


class RandomMaskSection(Section):
    """`mask:` each token is masked with equal probability."""

    kind: Literal["random"] = "random"
    ratio: Annotated[float, Field(ge=0.0, lt=1.0)]

    def visible(self, tokens: int) -> int:
        """How many tokens stay visible: ``int(N * (1 - ratio))`` in float64, as published."""
        return int(tokens * (1 - self.ratio))


class BlockMaskSection(Section):
    """`mask:` rectangles of patches are masked until exactly the wanted number is (BEiT, CAE).

    Exactly one of `ratio` and `count` is set.
    """

    kind: Literal["block"]
    ratio: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    count: Positive | None = None  # masked patches of a sample
    min_block: Positive = 16  # patches of the smallest block, while that many are still to mask
    max_block: Positive | None = None  # patches of the largest; None: all that are still to mask
    aspect: Range = (0.3, 1 / 0.3)  # height / width of a block; its logarithm is drawn uniformly

    def visible(self, tokens: int) -> int:
        """How many tokens stay visible; with `ratio` as in random masking."""
        if self.count is not None:
            return tokens - self.count
        assert self.ratio is not None
        return int(tokens * (1 - self.ratio))

    @model_validator(mode="after")
    def _fits(self) -> BlockMaskSection:
        if (self.ratio is None) == (self.count is None):
            raise ValueError("set exactly one of mask.ratio and mask.count; null clears one")
        if self.aspect[0] > self.aspect[1]:
            raise ValueError(f"aspect {self.aspect[0]} to {self.aspect[1]} is an empty range")
        return self


# Masks of a grid of image patches, told apart by `kind`.
ImageMaskSection = Annotated[RandomMaskSection | BlockMaskSection, Field(discriminator="kind")]
