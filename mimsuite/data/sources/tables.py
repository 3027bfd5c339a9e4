"""Parquet files, and folders saved by Hugging Face `datasets`: one image per row.

Each row group, or record batch, is a shard. Needs pyarrow.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mimsuite.data import splits
from mimsuite.data.damage import CorruptSample
from mimsuite.data.decoder import Decoder
from mimsuite.data.image.kinds import IMAGE_EXTENSIONS
from mimsuite.data.shards import holds_shards
from mimsuite.data.source import MAX_SAMPLE_BYTES, Source
from mimsuite.data.sources.files import walk
from mimsuite.data.sources.label_texts import class_ids, is_label
from mimsuite.data.strings import StringTable
from mimsuite.errors import DataError, UserError

EXTENSIONS = (".parquet", ".arrow")
_LABELS = ("label", "labels", "target", "class", "cls", "fine_label")
_OPEN_AT_ONCE = 2  # row groups that a process keeps in memory


@dataclass(frozen=True)
class _Group:
    """A row group: its file, its number there, and the number of its first row."""

    file: Path
    number: int
    first: int
    rows: int


class TableSource(Source):
    """Images in a column of tables.

    Args:
        groups: row groups of the split; each is a shard.
        column: name of the image column: bytes, or a struct with the field ``bytes``.
        labels: (rows,) class ids, -1 = unlabelled.
    """

    def __init__(
        self,
        groups: list[_Group],
        column: str,
        labels: np.ndarray,
        classes: list[str] | None,
        *,
        name: str,
        split: str,
        decoder: Decoder,
    ) -> None:
        super().__init__(
            name=name,
            split=split,
            classes=classes,
            counts=np.array([group.rows for group in groups], dtype=np.int64),
            labelled=bool((labels >= 0).any()),
            decoder=decoder,
        )
        self.groups, self.column, self._labels = groups, column, labels
        self.texts: StringTable | None = None  # label texts, if there are any
        self._read: OrderedDict[int, Any] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_read": OrderedDict()}

    def key(self, shard: int, offset: int) -> str:
        group = self.groups[shard]
        return f"{group.file.stem}/{group.first + offset:08d}"

    def shard_name(self, shard: int) -> str:
        return self.groups[shard].file.name

    def label(self, shard: int, offset: int) -> int | None:
        label = int(self._labels[self._ends[shard] - self.counts[shard] + offset])
        return None if label < 0 else label

    def labels(self) -> np.ndarray:
        return self._labels.copy()

    def label_texts(self) -> Sequence[str] | None:
        return None if self.texts is None else list(self.texts)

    def payload(self, shard: int, offset: int) -> bytes:
        value = self._value(shard, offset).as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise CorruptSample("missing", f"no bytes in column '{self.column}'")
        if len(data) > MAX_SAMPLE_BYTES:
            raise CorruptSample("too-large", f"more than {MAX_SAMPLE_BYTES} bytes")
        return data

    def sample_bytes(self, shard: int, offset: int) -> int:
        try:
            return len(self.payload(shard, offset))
        except CorruptSample:
            return 0

    def _value(self, shard: int, offset: int) -> Any:
        if shard not in self._read:
            while len(self._read) >= _OPEN_AT_ONCE:
                self._read.popitem(last=False)
            group = self.groups[shard]
            try:
                self._read[shard] = _column(group.file, self.column, group)
            except DataError as fault:
                raise CorruptSample("decode", str(fault)) from None
        return self._read[shard][offset]


# --- which files ---


def speaks_of(path: Path) -> bool:
    """Whether a path is a table, or a folder of them."""
    return bool(table_files(path))


def splits_in(path: Path, decoder: Decoder) -> Collection[str] | None:
    """The splits of a set of tables; None if the path is no such set."""
    return set(table_files(path)) or None


def table_files(path: Path) -> dict[str, list[Path]]:
    """Split -> tables of a file or folder; empty if it is no set of tables."""
    if path.is_file():
        return {"train": [path]} if path.suffix in EXTENSIONS else {}
    if not path.is_dir():
        return {}
    if (path / "dataset_dict.json").is_file():
        parts = [part for part in sorted(path.iterdir()) if (part / "state.json").is_file()]
        return {splits.split_of(part.name) or part.name: _saved(part) for part in parts}
    if (path / "state.json").is_file() and (path / "dataset_info.json").is_file():
        return {"train": _saved(path)}
    found = sorted(file for place in (path, path / "data") for file in place.glob("*.parquet"))
    # Tables beside shards or images are only metadata.
    if not found or holds_shards(path) or next(walk(path, IMAGE_EXTENSIONS), None) is not None:
        return {}
    named: dict[str, list[Path]] = {}
    for file in found:
        named.setdefault(splits.split_in(file.name) or "", []).append(file)
    return named if "" not in named else {"train": found}


def _saved(folder: Path) -> list[Path]:
    """The tables listed in a saved set's ``state.json``, in order."""
    try:
        listed = json.loads((folder / "state.json").read_bytes())["_data_files"]
        names = [Path(item["filename"]).name for item in listed]
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise DataError(f"{folder / 'state.json'} lists no tables ({fault!r})") from None
    return [folder / name for name in names]


def open_set(path: Path, split: str, decoder: Decoder, name: str) -> TableSource:
    """Open the images of a split, with the labels of a class column.

    An unreadable table counts as one corrupt sample, unless all are unreadable.

    Raises:
        UserError: no such split, samples other than images, or pyarrow is missing.
        DataError: no table can be read, or a table has no image column.
    """
    if "jpg" not in decoder.extensions:
        raise UserError(f"{name}: tables are read as pictures only")
    found = table_files(path)
    split = splits.choose(name, split, found)
    every = {part: [_Table(file) for file in files] for part, files in found.items()}
    tables = every[split]
    sound = [table for table in tables if table.fault is None]
    if tables and not sound and tables[0].fault is not None:
        raise tables[0].fault
    if not any(table.groups for table in sound):
        raise DataError(f"{name}: no rows in split '{split}'")
    column, label = sound[0].pictures(name), sound[0].label()
    texts = {part: _texts(some, label) for part, some in every.items()} if label else {}
    names = sound[0].class_names(label)
    known = class_ids(text for part in texts.values() for text in part)
    ids = [known.ids.get(text, -1) for text in texts.get(split, ())]
    groups = [group for table in tables for group in table.groups]
    rows = sum(group.rows for group in groups)
    source = TableSource(
        groups,
        column,
        np.array(ids if label else [-1] * rows, dtype=np.int64),
        names or known.names,
        name=name,
        split=split,
        decoder=decoder,
    )
    others = [field for field in sound[0].fields if field not in (column, label)]
    source.unused.add("columns of the table", others)
    source.texts = StringTable.of(texts[split]) if texts else None
    source.no_classes = known.other
    if known.other is not None:
        source.unused.add(known.other, [text for text in texts[split] if is_label(text)])
    return source


def _texts(tables: Iterable[_Table], label: str) -> list[str]:
    return [text for table in tables for text in table.texts(label)]


class _Table:
    """A table's schema and row groups.

    Attributes:
        fault: why it cannot be read; it then counts as one corrupt sample.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.fault: DataError | None = None
        self.fields: list[str] = []
        try:
            self.schema, rows = _outline(file)
        except DataError as fault:
            self.fault, self.groups = fault, [_Group(file, 0, 0, 1)]
            return
        ends = np.cumsum(rows).tolist()
        self.groups = [
            _Group(file, number, end - count, count)
            for number, (count, end) in enumerate(zip(rows, ends, strict=True))
            if count
        ]
        self.fields = self.schema.names
        self.features = _features(self.schema)

    def pictures(self, name: str) -> str:
        """The image column; raises a ``DataError`` if there is none."""
        arrow = _pyarrow()

        def holds_bytes(kind: Any) -> bool:
            if arrow.types.is_struct(kind):
                return bool(kind.get_field_index("bytes") >= 0)
            return bool(arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind))

        fitting = [field for field in self.fields if holds_bytes(self.schema.field(field).type)]
        meant = [f for f in fitting if self.features.get(f, {}).get("_type") == "Image"]
        if not fitting:
            raise DataError(
                f"{name}: no column of pictures (bytes) in {self.file.name}; it has: "
                f"{', '.join(self.fields)}"
            )
        return (meant or fitting)[0]

    def label(self) -> str | None:
        """The label column: by its usual name, else the column of type class label."""
        usual = [field for field in _LABELS if field in self.fields]
        classes = [field for field in self.fields if self.class_names(field)]
        return next(iter([f for f in usual if f in classes] + classes + usual), None)

    def class_names(self, field: str | None) -> list[str] | None:
        names = self.features.get(field or "", {}).get("names")
        return [str(name) for name in names] if isinstance(names, list) else None

    def texts(self, label: str) -> list[str]:
        return [text for group in self.groups for text in _group_texts(group, label)]


def _group_texts(group: _Group, column: str) -> list[str]:
    """Label texts of a row group; all unlabelled if it is damaged, as its images are then too."""
    try:
        return [_text(value) for value in _column(group.file, column, group).to_pylist()]
    except DataError:
        return [""] * group.rows


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ";".join(map(str, value)) or ";"  # an empty list: the sample has no label
    return "" if value is None else str(value)


def _features(schema: Any) -> dict[str, Any]:
    """The column types that `datasets` records in the schema."""
    try:
        noted = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {k: v for k, v in noted.items() if isinstance(v, dict)} if noted else {}


# --- pyarrow ---


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise UserError("tables need pyarrow: pip install 'mimsuite[hf]'") from None
    return pyarrow


def _outline(file: Path) -> tuple[Any, list[int]]:
    """The schema, and the number of rows of each group."""
    arrow = _pyarrow()
    try:
        if file.suffix == ".parquet":
            with arrow.parquet.ParquetFile(file) as table:
                meta = table.metadata
                counts = [meta.row_group(n).num_rows for n in range(meta.num_row_groups)]
                return table.schema_arrow, counts
        with arrow.memory_map(str(file)) as mapped, _reader(mapped) as reader:
            return reader.schema, [batch.num_rows for batch in reader]
    except (arrow.ArrowException, OSError) as fault:
        raise DataError(f"cannot read {file}: {' '.join(str(fault).split())[:160]}") from None


def _column(file: Path, column: str, group: _Group) -> Any:
    """One column of a row group."""
    arrow = _pyarrow()
    try:
        if file.suffix == ".parquet":
            with arrow.parquet.ParquetFile(file) as table:
                return table.read_row_group(group.number, columns=[column])[column]
        with arrow.memory_map(str(file)) as mapped, _reader(mapped) as reader:
            for number, batch in enumerate(reader):
                if number == group.number:
                    return batch.column(column)
    except (arrow.ArrowException, OSError, KeyError) as fault:
        raise DataError(f"cannot read {file}: {' '.join(str(fault).split())[:160]}") from None
    raise DataError(f"{file} changed since it was opened")


def _reader(mapped: Any) -> Any:
    """A reader for Arrow streams (written by `datasets`) or Arrow files."""
    arrow = _pyarrow()
    if mapped.size() >= 6 and mapped.read(6) == b"ARROW1":
        mapped.seek(0)
        file = arrow.ipc.open_file(mapped)
        batches = [file.get_batch(number) for number in range(file.num_record_batches)]
        return arrow.RecordBatchReader.from_batches(file.schema, batches)
    mapped.seek(0)
    return arrow.ipc.open_stream(mapped)
