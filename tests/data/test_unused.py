"""What lies in a source and is not used is counted and named."""

import json

import pytest
from PIL import Image

from mimsuite.cli.main import main
from mimsuite.data import open_source
from mimsuite.data.unused import Unused, notice, noticing


def test_counts_by_kind_with_the_first_names():
    unused = Unused()
    assert not unused
    unused.add(".heic files", ["a", "b"])
    unused.add(".heic files", ["c", "d"])
    unused.add("columns", count=7)
    assert unused.lines() == ["columns (7)", ".heic files (4): a, b, c ..."]
    assert unused.as_json()[1] == {"what": ".heic files", "count": 4, "first": ["a", "b", "c"]}


def test_what_decoders_notice_is_counted_among_the_samples_looked_at():
    notice("nobody listens")
    unused = Unused()
    for key in ("x", "y", "z"):
        with noticing() as found:
            if key != "y":
                notice("alpha")
                notice("alpha")
        unused.looked(key, found)
    assert unused.lines() == ["alpha (2 of 3 samples looked at): x, z"]
    other = Unused()
    other.update(unused)
    assert other.as_json() == unused.as_json()


@pytest.fixture
def album(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/3.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), "red").save(path)
    for name in ("a/4.psd", "b/5.PSD", "notes", "Thumbs.db", ".DS_Store"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_a_folder_counts_files_by_ending(album):
    source = open_source(str(album))
    assert len(source) == 3
    assert source.unused.lines() == [
        ".psd files (2): a/4.psd, b/5.PSD",
        "files without an ending (1): notes",
    ]


def test_inspect_says_it(album, capsys):
    assert main(["data", "inspect", str(album), "--json"]) == 0
    (split,) = json.loads(capsys.readouterr().out)["splits"].values()
    assert split["unused"][0] == {
        "what": ".psd files", "count": 2, "first": ["a/4.psd", "b/5.PSD"]
    }  # fmt: skip
    assert main(["data", "inspect", str(album)]) == 0
    assert ".psd files" in capsys.readouterr().out


def test_pretraining_says_it_at_its_start(album, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["pretrain", "image/mae-tiny-fashion", "--smoke", "--data", str(album), "--out"]
    keys = ["train.global_batch=2", "data.lanes=1"]
    assert main([*words, str(out), *keys]) == 0
    said = capsys.readouterr().err
    assert ": 3 samples" in said
    assert ".psd files (2): a/4.psd, b/5.PSD" in said
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    (unused,) = (event for event in events if event["event"] == "unused")
    assert unused["unused"][0]["count"] == 2
    assert ".psd files" in (out / "train.log").read_text()


def test_a_folder_of_none_says_what_is_there(tmp_path, capsys):
    (tmp_path / "x.psd").write_bytes(b"x")
    assert main(["data", "inspect", str(tmp_path)]) == 3
    assert "there are .psd files (1): x.psd" in capsys.readouterr().err
