"""Base class of all recipe sections, and the types that keys share. Nothing imports torch."""

from __future__ import annotations

from enum import Flag
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
)

from mimsuite.errors import UserError
from mimsuite.paths import expand_path


class Key(Flag):
    """Marks of a key, written in its type: ``Annotated[Positive, Key.SIZE]``.

    For encoder keys, TUNABLE includes FREE, and TRAINING includes TUNABLE.
    """

    SIZE = 1  # `smoke:` may shrink it
    FREE = 2  # weights of one value load into a model with another
    TUNABLE = 4 | FREE  # fine-tuning takes the value of its own recipe, not of the run
    TRAINING = 8 | TUNABLE  # has no effect on frozen features


Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]
Dimension = Annotated[Positive, Key.SIZE]  # a model size, such as width or depth
DropPath = Annotated[Fraction, Key.TRAINING]  # probability of skipping a residual branch
FirstBlocks = Annotated[int, Field(ge=0)]  # number of blocks, counted from the first
Size = Positive | tuple[Positive, Positive]


def _expand(text: str) -> str:
    try:
        return expand_path(text)
    except UserError as error:
        raise ValueError(str(error)) from None


PathText = Annotated[str, AfterValidator(_expand)]  # a path, or a word such as `random`


def _as_text(value: Any) -> Any:
    return str(value) if type(value) is int else value


Name = Annotated[str, BeforeValidator(_as_text)]  # a name, which may be a whole number: [1, 2]
Range = tuple[Annotated[float, Field(gt=0.0)], Annotated[float, Field(gt=0.0)]]


def height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """(H, W) from a size key: one number for a square, two for a rectangle."""
    return (size, size) if isinstance(size, int) else size


class Section(BaseModel):
    """A recipe section: unknown keys are errors, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def require_divides(key: str, value: int, whole: str, size: int) -> None:
    """Refuse, with ``ValueError``, the value of ``key`` if it does not divide that of ``whole``."""
    if size % value:
        raise ValueError(f"{key} {value} does not divide {whole} {size}")


def require_patches(patch: int, size: tuple[int, int]) -> None:
    """Refuse, with ``ValueError``, a patch size that does not divide an image size (H, W)."""
    height, width = size
    if height % patch or width % patch:
        raise ValueError(f"patch_size {patch} does not divide image_size {height} x {width}")


def marked(section: type[BaseModel], mark: Key) -> set[str]:
    """Names of a section's keys that have the mark."""
    return {
        name
        for name, field in section.model_fields.items()
        if any(isinstance(item, Key) and mark in item for item in field.metadata)
    }


class EmptySection(Section):
    """A section that this method does not use; it must stay empty."""


def by_kind(default: str) -> Discriminator:
    """Choose a section of a union by its ``kind`` key; ``default`` if the key is missing."""

    def kind(given: Any) -> str:
        if isinstance(given, dict):
            return str(given.get("kind", default))
        return str(getattr(given, "kind", default))

    return Discriminator(kind)
