"""`mask:` the samplers from which methods choose. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mimsuite.config.section import Section


class RandomMaskSection(Section):
    """`mask:` each token is masked with equal probability."""

    kind: Literal["random"] = "random"
    ratio: Annotated[float, Field(ge=0.0, lt=1.0)]

    def visible(self, tokens: int) -> int:
        """How many tokens stay visible: ``int(N * (1 - ratio))`` in float64, as published."""
        return int(tokens * (1 - self.ratio))
