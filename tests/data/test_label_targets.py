"""Labels that are no classes: read, carried through sources, and refused where they do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mimsuite.data import open_source
from mimsuite.data.source import Source
from mimsuite.data.sources.few import Subset
from mimsuite.data.sources.folds import split_fold
from mimsuite.data.sources.joined import JoinedSource
from mimsuite.data.sources.label_targets import parse
from mimsuite.errors import DataError, UserError
from tests import needs

NAN = float("nan")


@pytest.fixture
def listed(tmp_path: Path) -> Callable[..., Source]:
    def make(*labels: str, name: str = "l.csv") -> Source:
        rows = ["path,label"]
        for number, label in enumerate(labels):
            Image.new("L", (4, 4), 10 * number).save(tmp_path / f"{number}.png")
            rows.append(f"{number}.png,{label}")
        (tmp_path / name).write_text("\n".join(rows))
        return open_source(str(tmp_path / name), channels="gray")

    return make


def test_numbers_with_gaps() -> None:
    found = parse("regression", ["0.5;-1", "", "1e3|nan", " nan "], "set")
    expected = np.array([[0.5, -1], [NAN, NAN], [1000, NAN], [NAN, NAN]], dtype=np.float32)
    np.testing.assert_array_equal(found.values, expected)
    assert found.known.tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["1", "cat"], "'cat' (sample 2) is no finite number"),
        (["1", "inf"], "'inf' (sample 2) is no finite number"),
        (["1;2", "3"], "'3' (sample 2) has 1 numbers, the first has 2"),
        (["", "nan", ";"], "no sample has a label"),
    ],
)
def test_what_is_no_number(texts: list[str], words: str) -> None:
    with pytest.raises(DataError) as fault:
        parse("regression", texts, "set")
    assert words in str(fault.value)


@pytest.mark.parametrize(
    ("texts", "names", "rows"),
    [
        (["dog;cat", "cat", ";", ""], ("cat", "dog"), [[1, 1], [1, 0], [0, 0], [NAN, NAN]]),
        (["b | a", "b|", "-1"], ("a", "b"), [[1, 1], [0, 1], [NAN, NAN]]),
        (["a, b", "a", "b"], ("a", "b"), [[1, 1], [1, 0], [0, 1]]),
        (["tench, Tinca tinca", "cat"], ("cat", "tench, Tinca tinca"), [[0, 1], [1, 0]]),
        (["3;1", "1"], ("1", "3"), [[1, 1], [1, 0]]),
    ],
)
def test_several_labels(texts: list[str], names: tuple[str, ...], rows: list[list[float]]) -> None:
    found = parse("multilabel", texts, "set")
    assert found.names == names
    np.testing.assert_array_equal(found.values, rows)


def test_columns_of_a_model() -> None:
    found = parse("multilabel", ["a;z", "z", ""], "set")
    ours, strange = found.under(["a", "b"], 2, "set")
    np.testing.assert_array_equal(ours.values, [[1, 0], [0, 0], [NAN, NAN]])
    assert strange == 2
    with pytest.raises(DataError, match="none of the labels"):
        found.under(["q"], 1, "set")
    with pytest.raises(DataError, match="1 numbers a sample, the model has 2"):
        parse("regression", ["1"], "set").under(None, 2, "set")


def test_whole_numbers_may_be_regressed(listed: Callable[..., Source]) -> None:
    source = listed("3", "-1", "7")
    assert source.labelled
    source.take_targets("regression")
    assert (source.labelled, source.classes, source.annotated) == (False, None, True)
    labels = [source.read(*source.locate(n)).label for n in range(3)]
    np.testing.assert_array_equal(labels, [[3], [-1], [7]])


def test_what_is_used_is_no_longer_counted_as_unused(listed: Callable[..., Source]) -> None:
    source = listed("0.5", "1.5")
    assert "numbers with a fraction" in source.other_labels
    assert source.unused
    source.take_targets("regression")
    assert not source.unused


def test_targets_stay_with_their_samples(listed: Callable[..., Source]) -> None:
    source = listed(*(str(n / 2) for n in range(10)))
    source.take_targets("regression")
    kept, held = split_fold(Subset(source, np.array([7, 1, 4, 2])), 2, 1)
    joined = JoinedSource([kept, held])
    assert joined.targets is not None
    for part in (kept, held, joined):
        for position in range(len(part)):
            sample = part.read(*part.locate(position))
            assert isinstance(sample.label, np.ndarray)
            assert part.targets is not None
            assert sample.label.tolist() == part.targets.values[position].tolist()
            assert sample.label[0] == int(sample.key.split(".")[0]) / 2


def test_sources_without_texts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "a" / "0.png")
    with pytest.raises(UserError, match="lists, tables and shards"):
        open_source(str(tmp_path)).take_targets("regression")


@pytest.mark.parametrize("form", ["cls", "json"])
def test_shards(
    form: str, write_tar: Callable[..., Path], tmp_path: Path, picture: Callable[..., bytes]
) -> None:
    texts = ["0.5;2", "-1;3", ""] if form == "cls" else ["[0.5, 2]", "[-1, 3]", "null"]
    members = []
    for number, text in enumerate(texts):
        content = text if form == "cls" else f'{{"label": {text}}}'
        members += [(f"{number}.png", picture(number)), (f"{number}.{form}", content.encode())]
    source = open_source(str(write_tar(tmp_path / "a.tar", members)))
    source.take_targets("regression")
    labels = [source.read(*source.locate(n)).label for n in range(3)]
    np.testing.assert_array_equal(labels, [[0.5, 2], [-1, 3], [NAN, NAN]])


def test_minus_one_alone_and_an_empty_list_in_json(
    write_tar: Callable[..., Path], tmp_path: Path, picture: Callable[..., bytes]
) -> None:
    def source(*labels: str) -> Source:
        members = []
        for number, label in enumerate(labels):
            content = f'{{"label": {label}}}'.encode()
            members += [(f"{number}.png", picture(number)), (f"{number}.json", content)]
        return open_source(str(write_tar(tmp_path / f"{len(labels)}.tar", members)))

    numbers, names = source("-1", "2.5"), source('["a"]', "[]", '["a", "b"]')
    numbers.take_targets("regression")
    names.take_targets("multilabel")
    assert numbers.targets is not None
    assert names.targets is not None
    assert numbers.targets.values.tolist() == [[-1], [2.5]]
    assert names.targets.values.tolist() == [[1, 0], [0, 0], [1, 1]]


def test_tables(tmp_path: Path, picture: Callable[..., bytes]) -> None:
    arrow = needs.module("pyarrow")
    parquet = needs.module("pyarrow.parquet")
    table = arrow.table({"image": [picture(n) for n in range(3)], "label": [["a", "b"], [], ["b"]]})
    parquet.write_table(table, tmp_path / "t.parquet")
    source = open_source(str(tmp_path / "t.parquet"))
    source.take_targets("multilabel")
    assert source.targets is not None
    assert source.targets.values.tolist() == [[1, 1], [0, 0], [0, 1]]
