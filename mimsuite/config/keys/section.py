"""The base of all sections, and the types that their keys share. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field

from mimsuite.errors import UserError
from mimsuite.paths import expand_path

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]
FirstBlocks = Annotated[int, Field(ge=0)]  # so many blocks from the first one on
Size = Positive | tuple[Positive, Positive]


def _expand(text: str) -> str:
    try:
        return expand_path(text)
    except UserError as error:
        raise ValueError(str(error)) from None


PathText = Annotated[str, AfterValidator(_expand)]  # a path, or what is written in place of one
Range = tuple[Annotated[float, Field(gt=0.0)], Annotated[float, Field(gt=0.0)]]


def height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """(H, W) of a size key that is one number for a square or two for a rectangle."""
    return (size, size) if isinstance(size, int) else size


class Section(BaseModel):
    """A recipe section: unknown keys are errors, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Nothing(Section):
    """A section that this method does not use; it must stay empty."""


def by_kind(default: str) -> Discriminator:
    """Tells the tagged sections of a union apart by ``kind``; ``default`` where none is given."""

    def kind(given: Any) -> str:
        if isinstance(given, dict):
            return str(given.get("kind", default))
        return str(getattr(given, "kind", default))

    return Discriminator(kind)
