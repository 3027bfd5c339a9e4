"""What `mimsuite data inspect` prints of each split."""

from __future__ import annotations

from typing import Any

from mimsuite.cli import output

_CORRUPT_SHOWN = 20  # lines printed; `data verify` prints all
_GENERAL = ("samples", "shards", "bytes", "looked_at", "corrupt", "unused", "labelled", "classes")


def show_splits(modality: str, splits: dict[str, dict[str, Any]]) -> None:
    """Tables of a source's splits: figures, corrupt samples, and what is not used."""
    figures = list(
        dict.fromkeys(name for split in splits.values() for name in split if name not in _GENERAL)
    )
    output.print_table(
        [f"{modality} split", "samples", "MB", "labelled", *figures, "corrupt"],
        [
            [
                name,
                str(split["samples"]),
                f"{split['bytes'] / 1e6:.1f}",
                str(split["labelled"]),
                *(_figure(split.get(figure)) for figure in figures),
                f"{len(split['corrupt'])} of {split['looked_at']} seen",
            ]
            for name, split in splits.items()
        ],
    )
    names = list(dict.fromkeys(label for split in splits.values() for label in split["classes"]))
    if names:
        print()
        output.print_table(
            ["class", *splits],
            [[n, *(str(split["classes"].get(n, 0)) for split in splits.values())] for n in names],
        )
    corrupt = [[name, text] for name, split in splits.items() for text in split["corrupt"]]
    if corrupt:
        print()
        output.print_table(["split", "corrupt"], corrupt[:_CORRUPT_SHOWN])
    unused = [(name, item) for name, split in splits.items() for item in split["unused"]]
    if unused:
        print()
        output.print_table(
            ["split", "not used", "count", "first"],
            [[name, item["what"], _share(item), ", ".join(item["first"])] for name, item in unused],
        )


def _share(item: dict[str, Any]) -> str:
    seen = f" of {item['looked_at']} seen" if "looked_at" in item else ""
    return f"{item['count']}{seen}"


def _figure(found: dict[str, Any] | None) -> str:
    """A range as ``16-128 (64)``; text unchanged."""
    if not found:
        return "-"
    if set(found) != {"min", "median", "max"}:
        return ", ".join(found)
    if found["min"] == found["max"]:
        return str(found["min"])
    return f"{found['min']}-{found['max']} ({found['median']})"
