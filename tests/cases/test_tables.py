"""Parquet files and folders saved by Hugging Face `datasets`."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mimsuite.cli.main import main
from mimsuite.data import CorruptSample, Source, open_source, source_splits
from mimsuite.data.shards import TarSource
from mimsuite.errors import DataError

FEATURES = {
    "image": {"_type": "Image"},
    "label": {"_type": "ClassLabel", "names": ["cat", "dog", "owl"]},
}


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (32, 32), value).save(stream, "PNG")
    return stream.getvalue()


def table(count: int, features: Any = FEATURES, **columns: list[Any]) -> pa.Table:
    pictures = [{"bytes": png(number), "path": f"{number}.png"} for number in range(count)]
    columns = {"image": pictures, "label": [n % 3 for n in range(count)], **columns}
    made = pa.table(columns)
    noted = {"huggingface": json.dumps({"info": {"features": features}})} if features else None
    return made.replace_schema_metadata(noted)


def save(folder: Path, content: pa.Table, rows: int = 4) -> None:
    """As `Dataset.save_to_disk` leaves it."""
    folder.mkdir(parents=True)
    name = "data-00000-of-00001.arrow"
    with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, content.schema) as w:
        w.write_table(content, max_chunksize=rows)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    (folder / "dataset_info.json").write_text("{}")


def greys(source: Source) -> list[int]:
    places = map(source.locate, range(len(source)))
    return [int(source.decode(source.read(*place))[0, 0, 0]) for place in places]


def test_a_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(table(10, caption=["c"] * 10), path, row_group_size=4)
    source = open_source(str(path))
    assert (source.counts.tolist(), source.classes) == ([4, 4, 2], ["cat", "dog", "owl"])
    assert source.labels().tolist() == [n % 3 for n in range(10)]
    assert greys(pickle.loads(pickle.dumps(source))) == list(range(10))
    assert source.key(1, 2) == "x/00000006"
    assert source.unused.lines() == ["columns of the table (1): caption"]


def test_a_folder_of_parquet_files_with_splits(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for split in ("train", "validation"):
        pq.write_table(table(3), tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    assert source_splits(str(tmp_path)) == ["train", "val"]
    assert greys(open_source(str(tmp_path), "val")) == [0, 1, 2]


def test_a_saved_set_and_one_of_splits(tmp_path: Path) -> None:
    save(tmp_path / "one", table(10))
    source = open_source(str(tmp_path / "one"))
    assert (source.counts.tolist(), greys(source)) == ([4, 4, 2], list(range(10)))
    for split in ("train", "test"):
        save(tmp_path / "dict" / split, table(3))
    (tmp_path / "dict/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert source_splits(str(tmp_path / "dict")) == ["test", "train"]
    assert open_source(str(tmp_path / "dict"), "test").labels().tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("labels", "ids", "classes"),
    [
        (["b", "a", None], [1, 0, -1], ["a", "b"]),
        ([2, -1, 0], [2, -1, 0], ["0", "1", "2"]),
        ([0.5, 1.0, 2.5], [-1, -1, -1], None),
        ([["a", "b"], ["a"], ["b"]], [-1, -1, -1], None),
    ],
)
def test_labels_without_names(
    tmp_path: Path, labels: list[Any], ids: list[int], classes: list[str] | None
) -> None:
    pq.write_table(table(3, None, label=labels), tmp_path / "x.parquet")
    source = open_source(str(tmp_path / "x.parquet"))
    assert (source.labels().tolist(), source.classes) == (ids, classes)
    assert bool(source.unused) == (classes is None)


def test_a_row_without_a_picture_is_one_corrupt_sample(tmp_path: Path) -> None:
    pictures = [png(1), None, b"no picture"]
    pq.write_table(table(3, None, image=pictures), tmp_path / "x.parquet")
    source = open_source(str(tmp_path / "x.parquet"))
    assert source.decode(source.read(0, 0)).shape == (3, 32, 32)
    for row in (1, 2):
        with pytest.raises(CorruptSample):
            source.decode(source.read(0, row))


def test_tables_beside_pictures_or_shards_are_not_the_set(tmp_path: Path) -> None:
    pq.write_table(pa.table({"url": ["x"]}), tmp_path / "00000.parquet")
    (tmp_path / "a.png").write_bytes(png(1))
    source = open_source(str(tmp_path))
    assert (len(source), source.unused.lines()) == (1, [".parquet files (1): 00000.parquet"])
    with tarfile.open(tmp_path / "00000.tar", "w") as archive:
        archive.add(tmp_path / "a.png", "a.png")
    assert isinstance(open_source(str(tmp_path)), TarSource)


def test_damage(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1" + bytes(50))
    with pytest.raises(DataError, match="cannot read"):
        open_source(str(tmp_path / "x.parquet"))
    pq.write_table(pa.table({"a": [1]}), tmp_path / "y.parquet")
    with pytest.raises(DataError, match=r"no column of pictures .* it has: a"):
        open_source(str(tmp_path / "y.parquet"))


def test_commands(tmp_path: Path) -> None:
    save(tmp_path / "one", table(10))
    pq.write_table(table(10), tmp_path / "x.parquet")
    for number, source in enumerate(("one", "x.parquet")):
        spec = str(tmp_path / source)
        assert main(["data", "inspect", spec]) == 0
        assert main(["data", "verify", spec]) == 0
        assert main(["data", "pack", spec, str(tmp_path / f"out{number}")]) == 0
        packed = open_source(str(tmp_path / f"out{number}"))
        assert np.bincount(packed.labels()).tolist() == [4, 3, 3]
        assert packed.classes == ["cat", "dog", "owl"]
