"""`mask:` the samplers from which methods choose. Nothing here imports torch."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, Tag, model_validator

from mimsuite.config.keys.section import Positive, Range, Section, by_kind

_PARTS: tuple[Literal["context"], Literal["target"]] = ("context", "target")
_SIZES = 1000  # numbers at which the sizes of rectangles are looked at
_LARGEST = 128  # side of a grid that is proposed


class RandomMaskSection(Section):
    """`mask:` each token is masked with equal probability."""

    kind: Literal["random"] = "random"
    ratio: Annotated[float, Field(ge=0.0, lt=1.0)]

    def visible(self, tokens: int) -> int:
        """How many tokens stay visible: ``int(N * (1 - ratio))`` in float64, as published."""
        return int(tokens * (1 - self.ratio))

    def dropped(self, tokens: int) -> int | None:
        """How many masked tokens nobody decodes; ``None``: the decoder is given all of them."""
        return None

    def require_grid(self, grid: tuple[int, int]) -> None:
        """Refuse, with ``ValueError``, a grid of tokens that this mask does not fit."""


class PartlyDecodedSection(RandomMaskSection):
    """`mask:` as random masking, and the decoder may be given a part of the masked tokens."""

    # Share of all tokens that is decoded, at most `ratio`, drawn with the mask; null: all that are
    # masked. Fewer tokens make a step cheaper.
    decode_ratio: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None

    def dropped(self, tokens: int) -> int | None:
        """``int(N * (ratio - decode_ratio))`` in float64, as published."""
        if self.decode_ratio is None:
            return None
        return int(tokens * (self.ratio - self.decode_ratio))

    @model_validator(mode="after")
    def _of_the_masked(self) -> PartlyDecodedSection:
        if self.decode_ratio is not None and self.decode_ratio > self.ratio:
            raise ValueError(
                f"mask.decode_ratio {self.decode_ratio} exceeds mask.ratio {self.ratio}: only "
                f"masked tokens are decoded"
            )
        return self


class SquareMaskSection(RandomMaskSection):
    """`mask:` whole squares of patches, each with equal probability (Pixio)."""

    kind: Literal["squares"] = "squares"  # type: ignore[assignment]
    side: Positive  # patches along a side of a square

    def visible(self, tokens: int) -> int:
        """Tokens of ``int(squares * (1 - ratio))`` squares, in float64, as published."""
        size = self.side**2
        return int(tokens // size * (1 - self.ratio)) * size

    def require_grid(self, grid: tuple[int, int]) -> None:
        if grid[0] % self.side or grid[1] % self.side:
            raise ValueError(
                f"mask.side {self.side} does not divide the {grid[0]} x {grid[1]} patches"
            )


# Masks of methods that rebuild what is masked, told apart by `kind`.
RebuiltMaskSection = Annotated[
    Annotated[PartlyDecodedSection, Tag("random")] | Annotated[SquareMaskSection, Tag("squares")],
    by_kind("random"),
]


class AttentiveMaskSection(RandomMaskSection):
    """`mask:` tokens to which the teacher's class token attends stay visible more often."""

    kind: Literal["attentive"]  # type: ignore[assignment]


class RedundantMaskSection(RandomMaskSection):
    """`mask:` tokens that resemble the others are left out on the way through the encoder.

    `ratio` of them are gone behind the last of the blocks `after`, the same number behind each.
    """

    kind: Literal["redundant"] = "redundant"  # type: ignore[assignment]
    after: tuple[Positive, ...]  # numbers of the blocks behind which tokens are left out

    def kept(self, tokens: int) -> dict[int, int]:
        """Block number -> how many tokens are left behind it."""
        stages = len(self.after)
        return {
            number: int(tokens * (1 - self.ratio * stage / stages))
            for stage, number in enumerate(self.after, start=1)
        }

    @model_validator(mode="after")
    def _in_order(self) -> RedundantMaskSection:
        if list(self.after) != sorted(set(self.after)):
            raise ValueError(
                f"after {list(self.after)}: block numbers in rising order are expected"
            )
        return self


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


class SquareBlockMaskSection(Section):
    """`mask:` squares around random patches, of which patches are taken away or to which single
    ones are added until the count is exact (data2vec 2.0)."""

    kind: Literal["square-blocks"] = "square-blocks"
    ratio: Annotated[float, Field(gt=0.0, lt=1.0)]  # hidden from the encoder
    squares: Literal["visible", "masked"] = "visible"  # what they cover
    side: Positive = 3  # patches of a square
    adjust: Annotated[float, Field(ge=0.0)] = 0.0  # more squares: of this share of the patches

    @property
    def share(self) -> float:
        """Of the patches, covered by squares; in float64, as published."""
        return 1 - self.ratio if self.squares == "visible" else self.ratio

    def covered(self, tokens: int) -> int:
        """Patches that squares cover in the end."""
        return int(tokens * self.share)

    def centres(self, tokens: int) -> int:
        """Squares that are drawn; they may overlap."""
        return int(tokens * ((self.share + self.adjust) / self.side**2))

    def visible(self, tokens: int) -> int:
        """How many tokens stay visible."""
        covered = self.covered(tokens)
        return covered if self.squares == "visible" else tokens - covered

    def require_grid(self, grid: tuple[int, int]) -> None:
        """Refuse, with ``ValueError``, a grid that leaves nothing to see or nothing to predict."""
        tokens = grid[0] * grid[1]
        visible = self.visible(tokens)
        if 0 < visible < tokens:
            return
        what = "nothing to predict" if visible else "nothing to see"
        raise ValueError(
            f"mask.ratio {self.ratio} of {grid[0]} x {grid[1]} patches leaves {what}: change it, "
            f"or take more patches"
        )


class MultiBlockMaskSection(Section):
    """`mask:` rectangles to predict, and a large one to see, less what is predicted (I-JEPA).

    A rectangle covers `scale` of the patches at `aspect` = height / width; one random number a step
    draws both, for all samples of the step. So large targets are tall and small ones wide.
    """

    kind: Literal["multi-block"] = "multi-block"
    contexts: Positive = 1  # rectangles to see
    context_scale: Range = (0.85, 1.0)
    targets: Positive = 4  # rectangles to predict
    target_scale: Range = (0.15, 0.2)
    aspect: Range = (0.75, 1.5)  # of targets; contexts are as near to square as the grid
    min_keep: Annotated[int, Field(ge=0)] = 10  # a context and a target have more patches
    overlap: bool = False  # contexts may hold what is predicted
    # All contexts of a batch have one length. batch: of the shortest in the micro-batch, as
    # published, so that results depend on its size; fixed: `context_tokens`, shorter ones are drawn
    # again. Either way the last ones in raster order are left out.
    context_cut: Literal["batch", "fixed"] = "batch"
    context_tokens: Positive | None = None

    def size(
        self, grid: tuple[int, int], number: float, part: Literal["context", "target"]
    ) -> tuple[int, int]:
        """(height, width) of a rectangle by a number in [0, 1); one row and column stay free."""
        rows, columns = grid
        target = part == "target"
        low, high = self.target_scale if target else self.context_scale
        flat, tall = self.aspect if target else (1.0, 1.0)
        patches = int(rows * columns * (low + number * (high - low)))
        aspect = flat + number * (tall - flat)
        height, width = round(math.sqrt(patches * aspect)), round(math.sqrt(patches / aspect))
        return min(height, rows - 1), min(width, columns - 1)

    @property
    def least(self) -> int:
        """Patches that a context has at least."""
        return max(self.min_keep + 1, self.context_tokens or 0)

    def fits(self, grid: tuple[int, int]) -> bool:
        """Whether every rectangle that may be drawn has enough patches."""
        numbers = [step / _SIZES for step in range(_SIZES)]
        sizes = {part: {self.size(grid, n, part) for n in numbers} for part in _PARTS}
        least = {part: min(height * width for height, width in sizes[part]) for part in _PARTS}
        return least["target"] > self.min_keep and least["context"] >= self.least

    def check_grid(self, grid: tuple[int, int]) -> None:
        """Refuse, with ``ValueError``, a grid on which no rectangle might be valid."""
        if self.fits(grid):
            return
        side = next((n for n in range(2, _LARGEST) if self.fits((n, n))), None)
        wanted = f"a context of {self.least} and targets of {self.min_keep + 1} patches at least"
        mend = "" if side is None else f"; the smallest square grid that works is {side} x {side}"
        raise ValueError(
            f"mask: blocks on {grid[0]} x {grid[1]} patches do not always reach {wanted}{mend}: "
            f"take more patches, or lower mask.min_keep or mask.context_tokens"
        )

    @model_validator(mode="after")
    def _is_whole(self) -> MultiBlockMaskSection:
        if (self.context_cut == "fixed") == (self.context_tokens is None):
            raise ValueError("set context_tokens with context_cut fixed, and with nothing else")
        for name in ("context_scale", "target_scale", "aspect"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} {low:g} to {high:g} is an empty range")
        for name in ("context_scale", "target_scale"):
            if getattr(self, name)[1] > 1:
                raise ValueError(f"{name} {getattr(self, name)[1]:g} is more than all patches")
        return self


class ClipBlocksSection(Section):
    """One set of blocks of a clip: what they cover is predicted, from what none of them does.

    Their size is drawn once a step, for all samples: `scale` of the places of a frame at `aspect` =
    height / width, and `time` of the token frames.
    """

    blocks: Positive
    scale: Range
    time: Range = (1.0, 1.0)
    aspect: Range = (0.75, 1.5)  # drawn uniformly
    # The context is of this first share of the token frames; the others are predicted too
    context_time: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    max_context: Positive | None = None  # tokens of the context at most
    # All samples have as many tokens, so that some may be in neither part. target: predict them
    # too; context: see them too
    complement: Literal["none", "target", "context"] = "none"
    inverse: bool = False  # see the blocks, and predict the rest
    context_tokens: Positive | None = None  # of `mask.cut=fixed`, before any complement
    target_tokens: Positive | None = None  # likewise

    def size(
        self, grid: tuple[int, int, int], time: float, scale: float, aspect: float
    ) -> tuple[int, int, int]:
        """(frames, height, width) of the blocks in tokens, by three numbers in [0, 1)."""
        frames, rows, columns = grid
        long = int(frames * _part(self.time, time))
        places = int(rows * columns * _part(self.scale, scale))
        shape = _part(self.aspect, aspect)
        height, width = round(math.sqrt(places * shape)), round(math.sqrt(places / shape))
        return max(1, long), min(rows, height), min(columns, width)

    def fits(self, grid: tuple[int, int, int]) -> bool:
        """Whether every block that may be drawn covers a token, and none covers all of them."""
        last = 1 - 1 / _SIZES
        numbers = [step / _SIZES for step in range(_SIZES)]
        for scale in (0.0, last):
            for time in (0.0, last):
                sizes = {self.size(grid, time, scale, number) for number in numbers}
                if grid in sizes or any(0 in size for size in sizes):
                    return False
        return True

    @model_validator(mode="after")
    def _ranges_hold(self) -> ClipBlocksSection:
        for name in ("scale", "time", "aspect"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} {low:g} to {high:g} is an empty range")
            if name != "aspect" and high > 1:
                raise ValueError(f"{name} {high:g} is more than all there is")
        return self


class ClipBlocksMaskSection(Section):
    """`mask:` of each clip several sets of blocks, each predicted for itself (V-JEPA)."""

    kind: Literal["clip-blocks"] = "clip-blocks"
    sets: Annotated[tuple[ClipBlocksSection, ...], Field(min_length=1)]
    # All contexts of a set have one length, and so have its targets. batch: of the shortest in the
    # micro-batch, as published, so that results depend on its size; fixed: `context_tokens` and
    # `target_tokens`, shorter ones are drawn again. The last ones in raster order are left out.
    cut: Literal["batch", "fixed"] = "batch"

    def check_grid(self, grid: tuple[int, int, int]) -> None:
        """Refuse, with ``ValueError``, a grid on which some blocks leave nothing to see or to
        predict."""
        for number, one in enumerate(self.sets):
            if not one.fits(grid):
                frames, rows, columns = grid
                sides = (n for n in range(2, _LARGEST) if one.fits((frames, n, n)))
                side = next(sides, None)
                mend = "lower its scale or its time"
                if side is not None:
                    mend = f"the smallest square grid that works is {frames} x {side} x {side}"
                raise ValueError(
                    f"mask.sets.{number}: its blocks may leave nothing to see or nothing to "
                    f"predict on {frames} x {rows} x {columns} tokens; {mend}"
                )
            taken = (one.context_tokens or 0) + (one.target_tokens or 0)
            if taken > math.prod(grid):
                raise ValueError(
                    f"mask.sets.{number}: context_tokens and target_tokens are {taken} of "
                    f"{math.prod(grid)} tokens"
                )

    @model_validator(mode="after")
    def _is_whole(self) -> ClipBlocksMaskSection:
        for number, one in enumerate(self.sets):
            given = {one.context_tokens is not None, one.target_tokens is not None}
            if given != {self.cut == "fixed"}:
                raise ValueError(
                    f"sets.{number}: set context_tokens and target_tokens with cut fixed, and with "
                    f"nothing else"
                )
        return self


def _part(span: tuple[float, float], number: float) -> float:
    """What lies at ``number`` in [0, 1) between two ends."""
    return span[0] + number * (span[1] - span[0])


class RandomGroupMaskSection(RandomMaskSection):
    """`mask:` of groups of points, which published code counts the other way round."""

    def visible(self, tokens: int) -> int:
        """How many groups stay visible: all but ``int(G * ratio)``."""
        return tokens - int(self.ratio * tokens)


class BallMaskSection(RandomGroupMaskSection):
    """`mask:` the groups nearest to a random one (block masking of Point-BERT and Point-MAE)."""

    kind: Literal["ball"]  # type: ignore[assignment]


# Masks of a grid of image patches, told apart by `kind`.
ImageMaskSection = Annotated[RandomMaskSection | BlockMaskSection, Field(discriminator="kind")]

# Masks that need no more than a teacher, told apart by `kind`.
GuidedMaskSection = Annotated[RandomMaskSection | AttentiveMaskSection, Field(discriminator="kind")]


class PartlyDecodedAttentiveSection(PartlyDecodedSection, AttentiveMaskSection):
    """`mask:` as attentive masking, with `decode_ratio`."""

    kind: Literal["attentive"]  # type: ignore[assignment]


# The same for methods that have a decoder.
GuidedDecodedMaskSection = Annotated[
    PartlyDecodedSection | PartlyDecodedAttentiveSection, Field(discriminator="kind")
]

# Masks of groups of points, told apart by `kind`.
PointMaskSection = Annotated[RandomGroupMaskSection | BallMaskSection, Field(discriminator="kind")]


class ClipMaskSection(Section):
    """`mask:` tubes of a clip or single tokens of it, and what the decoder leaves out."""

    kind: Literal["tube", "spacetime"] = "tube"  # a place of all frames, or each token for itself
    ratio: Annotated[float, Field(ge=0.0, lt=1.0)]  # hidden from the encoder
    # Not decoded, of every 2 x 2 cell of tokens (VideoMAE V2); 0: all hidden tokens are (VideoMAE).
    decoder_ratio: Annotated[float, Field(ge=0.0, le=0.75)] = 0.0
    # Decode the tokens that the encoder sees too, which carry no loss. Published code does;
    # leaving them out is cheaper and changes the context of the others.
    decode_visible: bool = True

    def hidden(self, places: int) -> int:
        """How many of the places are hidden: ``int(ratio * n)`` in float64, as published."""
        return int(self.ratio * places)

    @model_validator(mode="after")
    def _fits(self) -> ClipMaskSection:
        if self.decoder_ratio not in (0.0, 0.25, 0.5, 0.75):
            raise ValueError(f"decoder_ratio {self.decoder_ratio} is none of 0, 0.25, 0.5 and 0.75")
        if not self.decode_visible and (self.kind != "tube" or not self.decoder_ratio):
            raise ValueError("decode_visible=false needs kind tube and a decoder_ratio")
        return self
