"""What the indexes of some shards say together, so that a set opens without reading each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from mimsuite.data.shards.index import IndexHeader, member_counts
from mimsuite.data.unused import Unused

_MOST_NAMES = 100_000  # labels that are texts and no names of classes would fill index.json


class ShardFacts(BaseModel):
    """The headers of several shards in one.

    Attributes:
        samples, members: of all shards.
        counts: members by extension.
        classes: content of the first ``classes.json``.
        label_names: labels that are no numbers, sorted.
        unused: what lies in the shards and is never read, as :meth:`Unused.as_json` has it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: int
    members: int
    counts: dict[str, int]
    classes: list[str] | None = None
    label_names: list[str] = []
    unused: list[dict[str, Any]] = []


def facts_of(headers: Sequence[IndexHeader]) -> ShardFacts:
    """Put headers together."""
    counts, unused = Counter[str](), Unused()
    for header in headers:
        counts.update(member_counts(header))
        unused.add_json(header.unused)  # type: ignore[arg-type]
    return ShardFacts(
        samples=sum(header.samples for header in headers),
        members=sum(header.members for header in headers),
        counts=dict(counts),
        classes=next((header.classes for header in headers if header.classes is not None), None),
        label_names=sorted({name for header in headers for name in header.label_names}),
        unused=unused.as_json(),
    )


def facts_to_list(headers: Sequence[IndexHeader]) -> ShardFacts | None:
    """Facts for ``index.json``; None where the headers have to be read all the same, since keys
    tell the splits, or each label is a text of its own."""
    facts = facts_of(headers)
    if any(header.splits for header in headers) or len(facts.label_names) > _MOST_NAMES:
        return None
    return facts
