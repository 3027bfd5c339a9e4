"""Lists with a file that is gone, comments and bars: one bad row never condemns a list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mimsuite.cli.main import main
from mimsuite.data import open_source
from mimsuite.data.damage import CorruptSample
from mimsuite.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(8):
        Image.fromarray(np.full((8, 8, 3), 30 * number, np.uint8)).save(tmp_path / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize("gone", ["gone.png", "no\0name.png", "x" * 300 + ".png", "~/gone.png"])
@pytest.mark.parametrize("header", ["", "path,label\n"])
def test_a_file_that_is_gone_is_one_corrupt_sample(gone: str, header: str, folder: Path) -> None:
    rows = [f"{number}.png,{number % 2}" for number in range(8)]
    rows[3] = f"{gone},1"
    (folder / "l.csv").write_text(header + "\n".join(rows))
    source = open_source(str(folder / "l.csv"))
    assert source.labels().tolist() == [0, 1] * 4
    with pytest.raises(CorruptSample):
        source.decode(source.read(*source.locate(3)))
    for position in (0, 4, 7):
        pixels = source.decode(source.read(*source.locate(position)))
        assert int(pixels.max()) == 30 * position


def test_commands_name_it(folder: Path, capsys: Any) -> None:
    (folder / "l.txt").write_text("0.png 1\n1.png 0\nsub/gone.png 1\n3.png 0\n")
    assert main(["data", "verify", str(folder / "l.txt")]) == 3
    assert "sub/gone.png: missing" in capsys.readouterr().err
    assert main(["data", "pack", str(folder / "l.txt"), str(folder / "out")]) == 0
    assert "left out sub/gone.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("0.png\ngone.png\n", "1 of 2 listed files do not exist"),
        ("pictures,kind\n0.png,1\n1.png,0\n2.png,1\n", "call the column of files `path`"),
    ],
)
def test_lists_that_are_refused(text: str, fault: str, folder: Path) -> None:
    (folder / "l.csv").write_text(text)
    with pytest.raises(DataError, match=fault):
        open_source(str(folder / "l.csv"))


@pytest.mark.parametrize(
    "text",
    [
        "img|class\n0.png|a\n1.png|b\n",
        "0.png|a\n1.png|b\n",
        "# made by hand\n# twice\npath,label\n0.png,a\n1.png,b\n",
        "# path label\n0.png a\n1.png b\n",
    ],
)
def test_bars_and_comments(text: str, folder: Path) -> None:
    (folder / "l.txt").write_text(text)
    source = open_source(str(folder / "l.txt"))
    assert (source.classes, source.labels().tolist()) == (["a", "b"], [0, 1])


def test_a_folder_of_frames_that_is_gone(tmp_path: Path) -> None:
    for clip in ("a", "b", "c"):
        (tmp_path / clip).mkdir()
        for number in range(4):
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / clip / f"{number}.png")
    (tmp_path / "l.txt").write_text("a 4 0\ngone 4 1\nb 4 1\nc 4 0\n")
    source = open_source(str(tmp_path / "l.txt"), modality="video")
    assert source.labels().tolist() == [0, 1, 1, 0]
    assert len(source.decode(source.read(*source.locate(2)))) == 4
    with pytest.raises(CorruptSample):
        source.read(*source.locate(1))
