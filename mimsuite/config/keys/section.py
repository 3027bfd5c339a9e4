"""The base of all sections, and the types that their keys share. Nothing here imports torch."""

from __future__ import annotations

from enum import Flag
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field

from mimsuite.errors import UserError
from mimsuite.paths import expand_path


class Key(Flag):
    """What a key means beside its value, in its type: ``Annotated[Positive, Key.SIZE]``.

    Of an encoder each of the last three says what the one before it says, and more.
    """

    SIZE = 1  # `smoke:` may shrink it
    FREE = 2  # weights do not depend on it: they load where it differs
    TUNABLE = 4 | FREE  # the recipe that tunes decides on it, not the pretrained run
    TRAINING = 8 | TUNABLE  # frozen features do not depend on it


Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]
Dimension = Annotated[Positive, Key.SIZE]  # of a model
DropPath = Annotated[Fraction, Key.TRAINING]  # probability of leaving a residual branch out
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


def marked(section: type[BaseModel], mark: Key) -> set[str]:
    """The keys of a section that have a mark."""
    return {
        name
        for name, field in section.model_fields.items()
        if any(isinstance(item, Key) and mark in item for item in field.metadata)
    }


class Nothing(Section):
    """A section that this method does not use; it must stay empty."""


def by_kind(default: str) -> Discriminator:
    """Tells the tagged sections of a union apart by ``kind``; ``default`` where none is given."""

    def kind(given: Any) -> str:
        if isinstance(given, dict):
            return str(given.get("kind", default))
        return str(getattr(given, "kind", default))

    return Discriminator(kind)
