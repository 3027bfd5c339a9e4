"""`mimsuite data ...` from the command line: answers on stdout, exit codes."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest

from mimsuite.cli import bar, data
from mimsuite.cli.main import main
from tests import needs


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
        (["synth", "video", "x", "--size", "8"], 2),
        (["pack", "nowhere", "x"], 2),
        (["pack", "embedded:fashion-mnist", "x", "--gop", "4"], 2),
        (["pack", "embedded:fashion-mnist", "x", "--modality", "sound"], 2),
        (["pack", "embedded:fashion-mnist", "x", "--features", "smell"], 2),
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


@pytest.mark.parametrize(
    ("modality", "figure"), [("video", "frames"), ("points", "points"), ("grids", "occupied")]
)
def test_every_modality_is_made_packed_checked_and_shown(
    modality: str, figure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if modality == "video":
        needs.module("av")
    made, out, sheet = (str(tmp_path / name) for name in ("made", "out", "sheet.png"))
    assert main(["data", "synth", modality, made, "--count", "10", "--size", "16"]) == 0
    assert main(["data", "pack", made, out, "--shard-size", "6"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert f"10 {modality} samples in " in said.err
    assert main(["data", "inspect", out, "--sheet", sheet]) == 0
    assert figure in capsys.readouterr().out.splitlines()[0]
    assert Path(sheet).stat().st_size > 1000
    assert main(["data", "verify", out]) == 0
    assert main(["data", "pack", made, out, "--shard-size", "6"]) == 2
    assert main(["data", "pack", made, out, "--shard-size", "6", "--resume"]) == 0
    assert "of the shards existed already" in capsys.readouterr().err
    assert main(["data", "inspect", out, "--modality", "image", "--json"]) == 2


def test_verify_prints_all_that_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "made"
    main(["data", "synth", "points", str(made), "--count", "30", "--size", "16"])
    broken = sorted(made.rglob("*.npy"))[::6]
    for path in broken:
        path.write_bytes(path.read_bytes()[:-1])
    capsys.readouterr()
    assert main(["data", "verify", str(made)]) == 3
    said = capsys.readouterr()
    assert sum(f"{path.name}: decode" in said.out for path in broken) == len(broken) == 5
    assert "5 problems" in said.err


def test_progress_is_plain_lines_without_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bar, "LINE_SECONDS", 0.0)
    main(["data", "synth", "image", str(tmp_path / "made"), "--count", "12", "--size", "16"])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "making: 1 of 12"
    assert lines[1].startswith("making: 2 of 12, 0:0")
    assert lines[11].startswith("making: 12 of 12, 0:00 left")


def test_examples_of_the_help_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ``Example:`` lines, on the folders that they name."""
    monkeypatch.chdir(tmp_path)
    for modality, name, size in (("image", "photos", 16), ("points", "meshes", 64)):
        main(["data", "synth", modality, name, "--count", "12", "--size", str(size)])
    if importlib.util.find_spec("nibabel"):
        main(["data", "synth", "scans", "scans", "--count", "8", "--size", "16"])
    if importlib.util.find_spec("av"):
        main(["data", "synth", "video", "clips", "--count", "8", "--size", "32"])
    lines = []
    for command in data.app.registered_commands:
        text = " ".join((command.callback.__doc__ or "").split())
        lines += re.findall(
            r"Example: mimsuite (data (?:pack|inspect|index|verify|synth) [^E]*)", text
        )
    assert len(lines) >= 8
    for line in sorted(lines, key=lambda line: "pack" not in line):
        words = line.replace("--count 600", "--count 12").replace("--count 160", "--count 8")
        words = words.replace("--workers 4", "--workers 1").split()
        if any(name in words and not Path(name).exists() for name in ("./clips", "./scans")):
            continue
        if "pack" in words:
            shutil.rmtree("shards", ignore_errors=True)
        assert main(words) == 0, line
