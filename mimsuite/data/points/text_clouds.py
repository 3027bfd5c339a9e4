"""Clouds as text: rows of numbers, optionally below a header that names the columns.

Numbers are separated by blanks, tabs, commas or semicolons; decimal commas are accepted. A header
is for example ``X Y Z R G B Nx Ny Nz``, optionally after ``//`` or ``#``. In ``.pts`` files the
first line is the number of points.

Unnamed columns are recognised by content: three columns of unit length are normals; three in
0 ... 1, or integers in 0 ... 255, are colours; integers in the last column, directly after normals,
are part ids, as in ShapeNetPart. Other columns (intensity, time) are dropped and reported as
unused. A fourth column holds part ids only if a header calls it ``part`` or ``label``.
"""

from __future__ import annotations

import io
import re

import numpy as np

from mimsuite.data.points.cloud_rows import are_parts
from mimsuite.data.unused import notice
from mimsuite.errors import CorruptSample

_COMMENTS = ("#", "//")
_NAMES = {
    **{name: name for name in ("x", "y", "z", "nx", "ny", "nz", "r", "g", "b")},
    **{f"normal_{axis}": f"n{axis}" for axis in "xyz"},
    **{f"normal{axis}": f"n{axis}" for axis in "xyz"},
    **{word: word[0] for word in ("red", "green", "blue", "rf", "gf", "bf")},
    **dict.fromkeys(("part", "parts", "part_id", "part_label", "label", "seg", "segment"), "part"),
}
_TRIPLES = {"points": "xyz", "normals": ("nx", "ny", "nz"), "colors": "rgb"}
_UNNAMED = "columns of a text cloud beyond coordinates, normals, colours"
_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+(e[-+]?\d+)?", re.IGNORECASE)
_UNITS = re.compile(r"[\"']|\(.*|\[.*")  # units in a column's name, and its quotes
_HEAD = 1 << 12  # bytes used to recognise a file


def is_cloud(start: bytes) -> bool:
    """Whether the first bytes of a file (4096 or more) look like a text cloud."""
    if b"\0" in start:
        return False
    lines = start[:_HEAD].decode("utf-8-sig", "replace").splitlines()
    if len(start) >= _HEAD and len(lines) > 1:
        lines.pop()  # the last line is incomplete
    try:
        _, _, rows = _split(lines)
        table = _table(rows[:8])
    except CorruptSample:
        return False
    return bool(3 <= table.shape[1] <= 64)


def read_text(data: bytes) -> dict[str, np.ndarray]:
    """Columns (N, 3) ``points``, ``normals``, ``colors`` in 0 ... 1, and (N,) ``parts``, float64.

    Raises:
        CorruptSample: kind ``decode`` or ``truncated``.
    """
    if not data.strip():
        raise CorruptSample("decode", "an empty file")
    header, count, rows = _split(data.decode("utf-8-sig", "replace").splitlines())
    table = _table(rows)
    if count is not None and len(table) < count:
        raise CorruptSample("truncated", f"{len(table)} of {count} points are there")
    if table.shape[1] < 3:
        raise CorruptSample("decode", f"a text of {table.shape[1]} columns; a cloud has 3 or more")
    if header is None:
        return _by_content(table, counted=count is not None)
    if len(header) != table.shape[1]:
        raise CorruptSample(
            "decode", f"its header names {len(header)} columns, its rows have {table.shape[1]}"
        )
    return _by_name(table, header)


def _split(lines: list[str]) -> tuple[list[str] | None, int | None, list[str]]:
    """(column names, number of points by the first line, rows of numbers)."""
    header, count = None, None
    for number, line in enumerate(lines):
        comment = line.lstrip().startswith(_COMMENTS)
        words = [word for word in re.split(r"[\s,;]+", line.lstrip(" \t#/")) if word]
        if not words:
            continue
        names = [_UNITS.sub("", word).lower() for word in words]
        if {"x", "y", "z"} <= set(names):
            header = names
        elif not comment and len(words) == 1 and words[0].isdecimal() and count is None:
            count = int(words[0])
        elif not comment:
            return header, count, lines[number:]
    raise CorruptSample("decode", "a text without rows of numbers")


def _table(rows: list[str]) -> np.ndarray:
    """Parse rows of numbers to (N, C) float64."""
    text = "\n".join(rows)
    if _has_decimal_commas(rows[0]):
        text = text.replace(",", ".")
    text = text.replace(",", " ").replace(";", " ")
    try:
        return np.loadtxt(io.StringIO(text), dtype=np.float64, ndmin=2, comments=_COMMENTS)
    except ValueError:
        raise CorruptSample("decode", "no point cloud or mesh of a known format") from None


def _has_decimal_commas(row: str) -> bool:
    words = [word.rstrip(",") for word in re.split(r"[\s;]+", row) if word]
    with_comma = [word for word in words if "," in word]
    return (
        len(words) >= 3
        and bool(with_comma)
        and all(_DECIMAL_COMMA.fullmatch(word) for word in with_comma)
    )


def _by_name(table: np.ndarray, header: list[str]) -> dict[str, np.ndarray]:
    known = [_NAMES.get(name) for name in header]
    found = {
        kind: table[:, [known.index(name) for name in names]]
        for kind, names in _TRIPLES.items()
        if all(name in known for name in names)
    }
    used = {name for kind in found for name in _TRIPLES[kind]}
    if "colors" in found:
        found["colors"] = unit_colours(found["colors"])
    if "part" in known and are_parts(column := table[:, known.index("part")]):
        found["parts"] = column
        used.add("part")
    left = [name for name, meaning in zip(header, known, strict=True) if meaning not in used]
    if left:
        notice(f"columns of a text cloud: {', '.join(left)}")
    return found


def _by_content(table: np.ndarray, *, counted: bool) -> dict[str, np.ndarray]:
    found, at, width = {"points": table[:, :3]}, 3, table.shape[1]
    left = 0
    if counted and width == 7:  # .pts: x y z intensity r g b
        at, left = 4, 1
    while at < width:
        three = table[:, at : at + 3]
        if three.shape[1] == 3 and "normals" not in found and _are_normals(three):
            found["normals"] = three
            at += 3
        elif three.shape[1] == 3 and "colors" not in found and _are_colours(three):
            found["colors"] = unit_colours(three)
            at += 3
        elif at == width - 1 and "normals" in found and are_parts(table[:, at]):
            found["parts"] = table[:, at]
            at += 1
        else:
            left += 1
            at += 1
    if left:
        notice(_UNNAMED)
    return found


def _are_normals(three: np.ndarray) -> bool:
    lengths = np.linalg.norm(three, axis=1)
    lengths = lengths[np.isfinite(lengths) & (lengths > 0)]
    return bool(len(lengths) and (np.abs(lengths - 1) < 0.02).mean() > 0.9)


def _are_colours(three: np.ndarray) -> bool:
    three = three[np.isfinite(three).all(axis=1)]
    whole = bool((three % 1 == 0).all())
    return bool(len(three) and three.min() >= 0 and three.max() <= (255 if whole else 1))


def unit_colours(colours: np.ndarray) -> np.ndarray:
    """(N, 3) in 0 ... 1; the largest value decides between 8 bits, 16 bits and fractions."""
    largest = float(np.nanmax(colours))
    return colours / (65535 if largest > 255 else 255 if largest > 1 else 1)
