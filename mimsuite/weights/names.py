"""Translation between our parameter names and those of published code."""

from __future__ import annotations

import re
from collections.abc import Sequence


class Names:
    """Pairs of patterns (ours, published); the first matching pair applies.

    A pattern that is empty or ends in a dot or an underscore matches a prefix, any other a whole
    name; ``{}`` matches the same number in both. Names that match no pattern are not changed.

    Example:
        >>> names = Names([("encoder.blocks.{}.", "blocks3.{}."), ("encoder.norm.", "norm.")])
        >>> names.published("encoder.blocks.7.norm1.bias")
        'blocks3.7.norm1.bias'
    """

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self.pairs = tuple(pairs)
        self._to = [(_compiled(ours), published) for ours, published in pairs]
        self._from = [(_compiled(published), ours) for ours, published in pairs]

    def published(self, name: str) -> str:
        """The published name for our name."""
        return _renamed(name, self._to)

    def ours(self, name: str) -> str:
        """Our name for a published name."""
        return _renamed(name, self._from)


def _compiled(pattern: str) -> re.Pattern[str]:
    end = "" if pattern == "" or pattern.endswith((".", "_")) else "$"
    return re.compile(re.escape(pattern).replace(r"\{\}", r"(\d+)") + end)


def _renamed(name: str, table: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, template in table:
        if match := pattern.match(name):
            return template.format(*match.groups()) + name[match.end() :]
    return name
