"""List files: one sample per line, with its label, split, or start and length.

Columns are separated by tabs, commas, semicolons, bars or blanks. The separator, and the folder
that paths are relative to, are chosen so that the first lines name existing files. A path may
therefore contain the other separators.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path

from mimsuite.data import splits
from mimsuite.data.decoder import Decoder
from mimsuite.data.sources.files import FileSource, Listing, ending_of
from mimsuite.data.sources.frame_folders import FrameSource
from mimsuite.data.sources.label_texts import ClassIds, class_ids, is_label
from mimsuite.data.strings import StringTable
from mimsuite.errors import DataError, UserError
from mimsuite.paths import expand_path

LIST_EXTENSIONS = (".txt", ".csv", ".tsv")
_FROM_ELSEWHERE = re.compile(r"~\w*/|\$\{?\w+\}?/", re.ASCII)  # ~/a.jpg, $DATA/a.jpg
_LOOKED_AT = 16  # lines used to find the separator and the folder
# Column names accepted in a header, the preferred first.
_HEADER = {
    "path": (
        *("path", "file", "filename", "file_name", "filepath", "file_path"),
        *("image", "image_path", "img_path", "image_file", "image_name", "img", "img_name"),
        *("video", "video_path", "video_name", "id", "image_id", "video_id"),
    ),
    "label": ("label", "target", "class", "cls", "labels", "class_id", "class_name", "category"),
    "split": ("split",),
    "start": ("start",),
    "length": ("length",),
}
_Cells = list[str]
_Cut = Callable[[str], _Cells]


@dataclass(frozen=True)
class _Row:
    path: str
    label: str = ""
    split: str = ""
    start: str = ""
    length: str = ""


@dataclass(frozen=True)
class _Table:
    """A parsed list.

    Attributes:
        rows: one per sample.
        root: folder that paths are relative to.
        separator: description of the separator, for messages.
        unused: names of unused columns -> number of filled cells.
    """

    rows: list[_Row]
    root: Path
    separator: str
    unused: dict[str, int]


def list_splits(file: Path) -> set[str]:
    """The splits in a list's ``split`` column; empty without such a column."""
    return {row.split for row in _table(file, ()).rows if row.split}


def open_list(
    file: Path, split: str, decoder: Decoder, name: str, root: Path | None = None
) -> FileSource:
    """Open a list file: per line a path, optionally a label, or start and length in a video.

    A header may name the columns (``path``, ``label``, ``split``, ``start``, ``length``); other
    columns are reported as unused. Paths are relative to ``root`` or, without it, to the list's
    folder, one of the two folders above it, or the current folder. Whole numbers are class ids,
    other labels are class names; ``-1``, ``None`` and ``nan`` mean unlabelled.

    A path without a file is a corrupt sample, as long as most of the listed files exist.

    Raises:
        UserError: no such split, or the list asks for parts of videos.
        DataError: the list is empty, or most files are missing.
    """
    table = _table(file, decoder.extensions, root)
    split = splits.choose(name, split, {row.split for row in table.rows if row.split})
    chosen = [row for row in table.rows if row.split in ("", split)]
    if not chosen:
        raise DataError(f"{name}: the list is empty")
    found = [_found(table.root, row.path, decoder.extensions) for row in chosen]
    _check(name, table, chosen, found, folders=decoder.sequences)
    known = class_ids(row.label for row in table.rows)
    listing = Listing(
        [path or row.path.replace("\0", "?") for row, path in zip(chosen, found, strict=True)],
        [known.ids.get(row.label, -1) for row in chosen],
        known.names,
    )
    frames = all((table.root / path).is_dir() for path in found if path is not None)
    source = (FrameSource if frames else FileSource)(
        table.root, listing, name=name, split=split, decoder=decoder
    )
    hint = "" if any(row.label for row in table.rows) else "; classes are in a column `label`"
    for column, filled in table.unused.items():
        source.unused.add(f"cells of {column} of the list{hint}", count=filled)
    _keep_texts(source, known, chosen)
    return source


def _keep_texts(source: FileSource, known: ClassIds, rows: list[_Row]) -> None:
    texts = [row.label for row in rows]
    source.texts = StringTable.of(texts) if any(texts) else None
    source.no_classes = known.other
    if known.other is not None:
        source.unused.add(known.other, [text for text in texts if is_label(text)])


def _check(
    name: str, table: _Table, rows: list[_Row], found: Sequence[str | None], *, folders: bool
) -> None:
    """Refuse a list if most files are missing, if it names folders that are no samples, or if it
    asks for parts of videos."""
    missing = [row.path for row, path in zip(rows, found, strict=True) if path is None]
    header = missing == [rows[0].path] and len(rows) > 1 and not ending_of(rows[0].path)
    if header or 2 * len(missing) >= len(rows):
        raise DataError(
            f"{name}: {len(missing)} of {len(rows)} listed files do not exist, the first is "
            f"{table.root / missing[0]} (columns are read as separated by {table.separator})"
            + ("; if the first line is a header, call the column of files `path`" if header else "")
            + "; data.root=FOLDER names the folder that paths are relative to"
        )
    for number, (row, path) in enumerate(zip(rows, found, strict=True), 1):
        if path is None:
            continue
        place = table.root / path
        if not folders and not ending_of(row.path) and place.is_dir():
            raise UserError(f"{name}: {place} is a folder; only files are read from this list")
        if not _is_whole(row, place):
            raise UserError(
                f"{name}: row {number} asks for a part of {row.path} (start {row.start or 0}, "
                f"length {row.length or -1}), and only whole files are read: cut it, or list it as "
                f"`path label`"
            )


def _is_whole(row: _Row, place: Path) -> bool:
    """Whether start and length mean the whole video; a folder's length is its number of frames."""
    if row.start not in ("", "0") or row.length in ("", "-1"):
        return row.start in ("", "0")
    frames = sum(1 for _ in place.iterdir()) if place.is_dir() else None
    return frames is not None and row.length.isdecimal() and int(row.length) >= frames


# --- parsing a list ---


def _table(file: Path, known: tuple[str, ...], root: Path | None = None) -> _Table:
    lines = [line for line in _text(file).splitlines() if line.strip()]
    lines = list(dropwhile(lambda line: line.startswith("# "), lines))  # comments
    try:
        return (
            _without_header(file, lines, known, root)
            if not (header := _header(file, lines))
            else _with_header(file, lines, header, known, root)
        )
    except csv.Error as fault:
        raise DataError(f"{file}: no list of files ({fault})") from None


def _text(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as fault:
        raise DataError(f"cannot read {file}: {fault.strerror}") from None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # as spreadsheets save it
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "surrogateescape")


def _by(delimiter: str) -> _Cut:
    return lambda line: [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]


_SEPARATED: dict[str, _Cut] = {
    "tabs": _by("\t"),
    "commas": _by(","),
    "semicolons": _by(";"),
    "bars": _by("|"),
    "blanks": str.split,
}


def _header(file: Path, lines: list[str]) -> tuple[str, list[str]] | None:
    """The separator and column names, if the first line is a header."""
    for separator, cut in _SEPARATED.items():
        names = [cell.lower() for cell in cut(lines[0])] if lines else []
        column = _column(names, "path")
        if column is not None and not (file.parent / names[column]).is_file():
            return separator, names
    return None


def _column(names: list[str], role: str) -> int | None:
    return next((names.index(name) for name in _HEADER[role] if name in names), None)


def _with_header(
    file: Path,
    lines: list[str],
    header: tuple[str, list[str]],
    known: tuple[str, ...],
    given: Path | None,
) -> _Table:
    separator, names = header
    roles = {role: column for role in _HEADER if (column := _column(names, role)) is not None}
    cut, last = _SEPARATED[separator], len(names) - 1
    if separator == "blanks":  # a path may contain blanks
        cut = (lambda line: line.rsplit(None, last)) if roles["path"] == 0 else cut
    cells = [cut(line) for line in lines[1:]]
    labels = {number: name or str(number + 1) for number, name in enumerate(names)}
    root, _ = _best(file, {separator: [_at(row, roles["path"]) for row in cells]}, known, given)
    return _made(file, cells, roles, labels, root, separator)


def _without_header(
    file: Path, lines: list[str], known: tuple[str, ...], given: Path | None
) -> _Table:
    forms = {name: cut for name, cut in _SEPARATED.items() if name != "blanks"}
    forms["nothing"] = lambda line: [line.strip()]
    for count in (1, 2, 3):
        forms["blanks" if count == 1 else f"blanks ({count} after the path)"] = (
            lambda line, count=count: line.rsplit(None, count)  # type: ignore[misc]
        )
    paths = {name: [cut(line)[0] for line in lines[:_LOOKED_AT]] for name, cut in forms.items()}
    if file.suffix == ".csv":  # fall back to the extension if no form names a file
        paths = {name: paths[name] for name in ("commas", *(n for n in paths if n != "commas"))}
    root, separator = _best(file, paths, known, given)
    cells = [forms[separator](line) for line in lines]
    roles = _roles(cells, separator.startswith("blanks"), root)
    return _made(file, cells, roles, {}, root, separator.partition(" ")[0])


def _best(
    file: Path, paths: dict[str, list[str]], known: tuple[str, ...], given: Path | None
) -> tuple[Path, str]:
    """The folder and the separator with which most of the first lines name existing files."""
    here = file.resolve().parent
    roots = [given] if given else [file.parent, here.parent, here.parent.parent, Path()]
    best, most = (roots[0], next(iter(paths))), 0
    for root in dict.fromkeys(roots):
        for separator, names in paths.items():
            count = sum(_found(root, name, known) is not None for name in names[:_LOOKED_AT])
            if count > most:
                best, most = (root, separator), count
        if most:
            break
    return best


def _found(root: Path, path: str, known: tuple[str, ...]) -> str | None:
    """The path of an existing file or folder; an id may lack its extension."""
    if _FROM_ELSEWHERE.match(path):
        path = expand_path(path)
    candidates = [path]
    if path and ending_of(path) not in known:
        candidates += [f"{path}.{ending}" for ending in known]
    for name in candidates:
        try:
            if name and ((root / name).is_file() or (root / name).is_dir()):
                return name
        except (OSError, ValueError):  # not a valid file name
            continue
    return None


def _roles(cells: list[_Cells], blanks: bool, root: Path) -> dict[str, int]:
    """The meaning of the columns of a list without a header.

    ``path label``; ``path start length`` and ``path start length label``, the formats of VideoMAE
    V2; ``folder frames label`` for frame folders.
    """
    width = max((len(row) for row in cells), default=0)
    first, second = ([_at(row, column) for row in cells] for column in (1, 2))
    if width < 3 or not all(map(_is_whole_number, (*first, *second))):
        return {"path": 0, "label": 1}
    if all(int(frames) > 0 for frames in first) and any((root / row[0]).is_dir() for row in cells):
        return {"path": 0, "length": 1, "label": 2}
    if blanks or set(second) == {"-1"}:
        return {"path": 0, "start": 1, "length": 2, "label": 3}
    return {"path": 0, "label": 1}


def _is_whole_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _at(row: _Cells, column: int | None) -> str:
    return row[column].strip() if column is not None and column < len(row) else ""


def _made(
    file: Path,
    cells: list[_Cells],
    roles: dict[str, int],
    names: dict[int, str],
    root: Path,
    separator: str,
) -> _Table:
    def row_of(row: _Cells) -> _Row:
        found = {role: _at(row, column) for role, column in roles.items()}
        split = found.get("split", "")
        return _Row(**{**found, "split": splits.split_of(split) or split})

    rows = [row_of(row) for row in cells]
    empty = next((number for number, row in enumerate(rows, 1) if not row.path), None)
    if empty is not None:
        raise DataError(f"{file}: row {empty} names no file")
    width = max((len(row) for row in cells), default=0)
    filled = {
        f"column {names.get(column, column + 1)}": _filled(_at(row, column) for row in cells)
        for column in range(width)
        if column not in roles.values()
    }
    return _Table(rows, root, separator, {name: count for name, count in filled.items() if count})


def _filled(texts: Iterable[str]) -> int:
    return sum(bool(text) for text in texts)
