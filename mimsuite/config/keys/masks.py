"""`mask:` the mask samplers that methods choose from. Nothing here imports torch."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, Tag, model_validator

from mimsuite.config.keys.section import Positive, Range, Section, by_kind

_PARTS: tuple[Literal["context"], Literal["target"]] = ("context", "target")
_SIZES = 1000  # random numbers at which rectangle sizes are checked
_LARGEST = 128  # largest grid side to suggest


def require_both(keys: str, visible: int, tokens: int, what: str) -> None:
    """Refuse, with ``ValueError``, a mask that leaves nothing visible or nothing masked.

    Args:
        keys: the keys that decide it, for the message.
        visible: how many of the ``tokens`` stay visible.
        what: the tokens in words: patches, groups, cubes.
    """
    if not 0 < visible < tokens:
        raise ValueError(
            f"{keys} leaves {visible} of {tokens} {what} visible: at least one must be visible and "
            f"one masked"
        )


class RandomMaskSection(Section):
    """`mask:` each token is masked with equal probability."""

    kind: Literal["random"] = "random"
    ratio: Annotated[float, Field(ge=0.0, lt=1.0)]

    def visible(self, tokens: int) -> int:
        """How many tokens stay visible: ``int(N * (1 - ratio))`` in float64, as published."""
        return int(tokens * (1 - self.ratio))

    def dropped(self, tokens: int) -> int | None:
        """How many masked tokens are not decoded; ``None``: the decoder gets all of them."""
        return None

    def require_grid(self, grid: tuple[int, int]) -> None:
        """Refuse, with ``ValueError``, a grid of tokens that this mask does not fit."""


class PartlyDecodedSection(RandomMaskSection):
    """`mask:` random masking in which the decoder may get only a part of the masked tokens."""

    # Share of all tokens that is decoded, at most `ratio`, drawn with the mask; null: all masked
    # tokens. Fewer tokens make a step cheaper.
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
    side: Positive  # side of a square in patches

    def visible(self, tokens: int) -> int:
        """Tokens of ``int(squares * (1 - ratio))`` squares, in float64, as published."""
        size = self.side**2
        return int(tokens // size * (1 - self.ratio)) * size

    def require_grid(self, grid: tuple[int, int]) -> None:
        if grid[0] % self.side or grid[1] % self.side:
            raise ValueError(
                f"mask.side {self.side} does not divide the {grid[0]} x {grid[1]} patches"
            )


# Masks of methods that reconstruct masked patches, selected by `kind`.
RebuiltMaskSection = Annotated[
    Annotated[PartlyDecodedSection, Tag("random")] | Annotated[SquareMaskSection, Tag("squares")],
    by_kind("random"),
]


class AttentiveMaskSection(RandomMaskSection):
    """`mask:` tokens to which the teacher's class token attends stay visible more often."""

    kind: Literal["attentive"]  # type: ignore[assignment]


class RedundantMaskSection(RandomMaskSection):
    """`mask:` tokens that resemble the others are dropped between the encoder's blocks.

    Each of the blocks `after` drops the same number; after the last one, `ratio` are gone.
    """

    kind: Literal["redundant"] = "redundant"  # type: ignore[assignment]
    after: tuple[Positive, ...]  # block numbers, from 1, after which tokens are dropped

    def kept(self, tokens: int) -> dict[int, int]:
        """Block number -> how many tokens remain after it."""
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
    """`mask:` mask rectangles of patches until an exact number is masked (BEiT, CAE).

    Exactly one of `ratio` and `count` is set.
    """

    kind: Literal["block"]
    ratio: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    count: Positive | None = None  # masked patches per sample
    min_block: Positive = 16  # smallest block, in patches (smaller only for the last one)
    max_block: Positive | None = None  # largest block, in patches; None: all that remain to mask
    aspect: Range = (0.3, 1 / 0.3)  # height / width of a block, drawn uniformly in the logarithm

    def visible(self, tokens: int) -> int:
        """How many tokens stay visible; `ratio` is rounded as in random masking."""
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
    """`mask:` squares around random patches; single patches are then removed or added until the
    count is exact (data2vec 2.0)."""

    kind: Literal["square-blocks"] = "square-blocks"
    ratio: Annotated[float, Field(gt=0.0, lt=1.0)]  # share of patches hidden from the encoder
    squares: Literal["visible", "masked"] = "visible"  # the part that squares cover
    side: Positive = 3  # side of a square in patches
    adjust: Annotated[float, Field(ge=0.0)] = 0.0  # extra squares, as a share of the patches

    @property
    def share(self) -> float:
        """Share of patches covered by squares; in float64, as published."""
        return 1 - self.ratio if self.squares == "visible" else self.ratio

    def covered(self, tokens: int) -> int:
        """Number of patches that squares finally cover."""
        return int(tokens * self.share)

    def centres(self, tokens: int) -> int:
        """Number of squares drawn; they may overlap."""
        return int(tokens * ((self.share + self.adjust) / self.side**2))

    def visible(self, tokens: int) -> int:
        """How many tokens stay visible."""
        covered = self.covered(tokens)
        return covered if self.squares == "visible" else tokens - covered

    def require_grid(self, grid: tuple[int, int]) -> None:
        """Refuse, with ``ValueError``, a grid without visible or without masked patches."""
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
    """`mask:` target rectangles to predict from a large context rectangle without them (I-JEPA).

    A rectangle covers `scale` of the patches at `aspect` = height / width. One random number per
    step sets both for all samples of the step, so large targets are tall and small ones wide.
    """

    kind: Literal["multi-block"] = "multi-block"
    contexts: Positive = 1  # context rectangles per sample
    context_scale: Range = (0.85, 1.0)
    targets: Positive = 4  # target rectangles per sample
    target_scale: Range = (0.15, 0.2)
    aspect: Range = (0.75, 1.5)  # height / width of targets; contexts: about that of the grid
    min_keep: Annotated[int, Field(ge=0)] = 10  # each context and target has more patches than this
    overlap: bool = False  # contexts may contain target patches
    # All contexts of a batch are cut to one length; the last patches in raster order are dropped.
    # batch: to the shortest of the micro-batch, as published, so results depend on its size;
    # fixed: to `context_tokens`; shorter contexts are drawn again.
    context_cut: Literal["batch", "fixed"] = "batch"
    context_tokens: Positive | None = None

    def size(
        self, grid: tuple[int, int], number: float, part: Literal["context", "target"]
    ) -> tuple[int, int]:
        """(height, width) for a number in [0, 1); at least one row and column stay free."""
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
        """Fewest patches of a context."""
        return max(self.min_keep + 1, self.context_tokens or 0)

    def fits(self, grid: tuple[int, int]) -> bool:
        """Whether every possible rectangle has enough patches."""
        numbers = [step / _SIZES for step in range(_SIZES)]
        sizes = {part: {self.size(grid, n, part) for n in numbers} for part in _PARTS}
        least = {part: min(height * width for height, width in sizes[part]) for part in _PARTS}
        return least["target"] > self.min_keep and least["context"] >= self.least

    def check_grid(self, grid: tuple[int, int]) -> None:
        """Refuse, with ``ValueError``, a grid on which a rectangle may have too few patches."""
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
    """One set of blocks of a clip: covered tokens are predicted from the uncovered ones.

    One block size is drawn per step for all samples: `scale` of a frame's tokens at `aspect` =
    height / width, and `time` of the token frames.
    """

    blocks: Positive
    scale: Range
    time: Range = (1.0, 1.0)
    aspect: Range = (0.75, 1.5)  # height / width, drawn uniformly
    # Share of token frames, from the first, that the context may use; the rest is predicted too
    context_time: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    max_context: Positive | None = None  # largest number of context tokens; null: no limit
    # All samples keep the same number of tokens, so some tokens may be in neither part. target:
    # predict them too; context: encode them too; none: leave them out
    complement: Literal["none", "target", "context"] = "none"
    inverse: bool = False  # encode the blocks and predict the rest
    context_tokens: Positive | None = None  # `mask.cut=fixed`: context length before complement
    target_tokens: Positive | None = None  # `mask.cut=fixed`: target length before complement

    def size(
        self, grid: tuple[int, int, int], time: float, scale: float, aspect: float
    ) -> tuple[int, int, int]:
        """(frames, height, width) of the blocks in tokens, from three numbers in [0, 1)."""
        frames, rows, columns = grid
        long = int(frames * _part(self.time, time))
        places = int(rows * columns * _part(self.scale, scale))
        shape = _part(self.aspect, aspect)
        height, width = round(math.sqrt(places * shape)), round(math.sqrt(places / shape))
        return max(1, long), min(rows, height), min(columns, width)

    def fits(self, grid: tuple[int, int, int]) -> bool:
        """Whether every possible block covers a token, and none covers all of them."""
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
                raise ValueError(f"{name} {high:g} is above 1, the whole")
        return self


class ClipBlocksMaskSection(Section):
    """`mask:` several sets of blocks per clip, each predicted separately (V-JEPA)."""

    kind: Literal["clip-blocks"] = "clip-blocks"
    sets: Annotated[tuple[ClipBlocksSection, ...], Field(min_length=1)]
    # All contexts of a set are cut to one length, and so are its targets; the last tokens in raster
    # order are dropped. batch: to the shortest of the micro-batch, as published, so results depend
    # on its size; fixed: to `context_tokens` and `target_tokens`; shorter ones are drawn again.
    cut: Literal["batch", "fixed"] = "batch"

    def check_grid(self, grid: tuple[int, int, int]) -> None:
        """Refuse, with ``ValueError``, a grid on which some blocks leave an empty part."""
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
    """Interpolate linearly between two ends, at ``number`` in [0, 1)."""
    return span[0] + number * (span[1] - span[0])


class RandomGroupMaskSection(RandomMaskSection):
    """`mask:` random groups of points; published code rounds the masked, not the visible, count."""

    def visible(self, tokens: int) -> int:
        """How many groups stay visible: all but ``int(G * ratio)``."""
        return tokens - int(self.ratio * tokens)


class BallMaskSection(RandomGroupMaskSection):
    """`mask:` the groups nearest to a random one (block masking of Point-BERT and Point-MAE)."""

    kind: Literal["ball"]  # type: ignore[assignment]


# Masks of a grid of image patches, selected by `kind`.
ImageMaskSection = Annotated[RandomMaskSection | BlockMaskSection, Field(discriminator="kind")]

# Masks that need nothing but a teacher, selected by `kind`.
GuidedMaskSection = Annotated[RandomMaskSection | AttentiveMaskSection, Field(discriminator="kind")]


class PartlyDecodedAttentiveSection(PartlyDecodedSection, AttentiveMaskSection):
    """`mask:` attentive masking, with `decode_ratio`."""

    kind: Literal["attentive"]


# Masks that need nothing but a teacher, for methods with a decoder.
GuidedDecodedMaskSection = Annotated[
    PartlyDecodedSection | PartlyDecodedAttentiveSection, Field(discriminator="kind")
]

# Masks of groups of points, selected by `kind`.
PointMaskSection = Annotated[RandomGroupMaskSection | BallMaskSection, Field(discriminator="kind")]


class ClipMaskSection(Section):
    """`mask:` tubes or single tokens of a clip, and the hidden tokens that are not decoded."""

    kind: Literal["tube", "spacetime"] = "tube"  # hide a place in all frames, or single tokens
    ratio: Annotated[float, Field(ge=0.0, lt=1.0)]  # share of tokens hidden from the encoder
    # Share of each 2 x 2 cell of tokens that is not decoded (VideoMAE V2); 0: decode all hidden
    # tokens (VideoMAE).
    decoder_ratio: Annotated[float, Field(ge=0.0, le=0.75)] = 0.0
    # Also decode visible tokens, which carry no loss, as published code does. Leaving them out is
    # cheaper and changes the context of the other tokens.
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
