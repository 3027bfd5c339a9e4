"""`mimsuite data ...` from the command line: answers on stdout, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mimsuite.cli.main import main


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIMSUITE_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_synth_pack_verify_index_inspect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, out = str(tmp_path / "made"), str(tmp_path / "out")

    def answer(*words: str) -> dict:
        assert main(["data", *words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert answer("synth", "images", made, "--count", "30", "--size", "16")["samples"] == {
        "train": 24,
        "test": 6,
    }
    assert answer("pack", made, out, "--shard-size", "20")["samples"] == 30
    assert answer("verify", out)["sound"] is True
    assert len(answer("index", out)["shards"]) == 3
    sheet = tmp_path / "sheet.png"
    splits = answer("inspect", out, "--sheet", str(sheet))["splits"]
    assert {name: split["samples"] for name, split in splits.items()} == {"train": 24, "test": 6}
    assert sheet.is_file()
    for words in (["inspect", out], ["verify", out], ["index", out]):
        assert main(["data", *words]) == 0
        assert "train" in capsys.readouterr().out


def test_verify_of_damage_exits_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["data", "synth", "images", str(tmp_path / "made"), "--count", "6", "--size", "16"])
    main(["data", "pack", str(tmp_path / "made"), str(tmp_path / "out")])
    shard = tmp_path / "out" / "test-000000.tar"
    shard.write_bytes(shard.read_bytes()[:1000])
    assert main(["data", "verify", str(tmp_path / "out")]) == 3
    said = capsys.readouterr()
    assert "test-000000.tar" in said.out
    assert said.err.strip().splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["inspect", "embedded:nothing"], 2),
        (["inspect", "pipe:true"], 2),
        (["inspect", ".", "--channels", "blue"], 2),
        (["verify", "nowhere"], 2),
        (["index", "nowhere"], 3),
        (["synth", "songs", "x"], 2),
    ],
)
def test_faults_are_one_line(
    words: list[str],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", *words]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
