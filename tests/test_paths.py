"""Paths are expanded alike, wherever they are given."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mimsuite import config
from mimsuite.cli.main import COMMANDS, load_command, main
from mimsuite.data import open_source
from mimsuite.errors import UserError
from mimsuite.paths import expand_path


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home with some pictures; the working directory is elsewhere."""
    folder = tmp_path / "home"
    for name in ("a", "b"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(6):
            pixels = np.full((16, 16, 3), 20 * number, np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{number}.png")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("PHOTOS", str(folder / "photos"))
    return folder


@pytest.mark.parametrize(
    "text", ["~/photos", "$HOME/photos", "${HOME}/photos", "$PHOTOS", "${PHOTOS}"]
)
def test_homes_and_variables(home, text):
    assert expand_path(text) == str(home / "photos")


@pytest.mark.parametrize(
    "text",
    ["embedded:fashion-mnist", "s3://bucket/$KEY/a.tar", "https://h/~me/a.tar", "a/b", "", "random",
     "x~", "cost$5", "train-{0..3}.tar", "12:30.png", "pipe:cat $X"],
)  # fmt: skip
def test_what_is_no_path_of_that_kind_stays(home, text):
    assert expand_path(text) == text


def test_a_file_that_is_called_so_is_meant(home):
    for name in ("a$UNSET", "C:x.png"):
        Path(name).write_text("")
        assert expand_path(name) == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("$NOWHERE/x", "the variable NOWHERE is not set"),
        ("${NOWHERE}", "the variable NOWHERE is not set"),
        ("~no-such-user/x", "there is no user 'no-such-user'"),
        (r"C:\Users\me\photos", "Windows path; inside WSL it is /mnt/c/Users/me/photos"),
        ("C:/photos", "inside WSL it is /mnt/c/photos"),
        ("d:\\", "inside WSL it is /mnt/d"),
        ("C:Usersmephotos", "inside WSL it begins with /mnt/c/"),
        ("E:", "inside WSL it begins with /mnt/e/"),
        (r"\\server\share", "network path of Windows"),
    ],
)
def test_what_cannot_be_a_path_here_is_named(home, text, message):
    with pytest.raises(UserError) as fault:
        expand_path(text)
    assert message in str(fault.value)
    with pytest.raises(UserError):
        open_source(text)
    with pytest.raises(UserError, match=r"data\.source: "):
        config.load("image/mae-tiny-fashion", [f"data.source={json.dumps(text)}"])
    assert main(["data", "inspect", text]) == 2
    assert main(["runs", "list", text]) == 2
    assert not list(Path().iterdir())


def test_every_recipe_key_that_is_a_path(home, tmp_path):
    recipe = Path("mine.yaml")
    recipe.write_text(
        "base: image/mae-tiny-fashion\ndata:\n  source: ~/photos\n  cache: $HOME/cache\n"
    )
    data = config.load("~/../here/mine.yaml").recipe.data
    assert (data.source, data.cache) == (str(home / "photos"), str(home / "cache"))
    stored = config.load(recipe).document["data"]["source"]
    assert stored == str(home / "photos")
    mixed = "data.mixture=[{source: ~/photos}, {source: $PHOTOS}]"
    mixture = config.load("image/mae-tiny-fashion", [mixed, "data.source=''"]).recipe.data.mixture
    assert mixture is not None
    assert {one.source for one in mixture} == {str(home / "photos")}


def test_lists_may_begin_their_paths_with_the_home(home):
    Path("list.csv").write_text("path,label\n~/photos/a/0.png,0\n$PHOTOS/b/1.png,1\n")
    assert len(open_source("list.csv")) == 2


def test_every_option_that_is_a_path_expands_it():
    """None is forgotten: the word in its help tells."""
    words = ("SRC", "DIR", "FILE", "FOLDER", "RUN", "PATH", "SHARDS", "CKPT")
    pending = [load_command(name) for name in COMMANDS]
    found = 0
    while pending:
        command = pending.pop()
        pending += getattr(command, "commands", {}).values()
        for parameter in command.params:
            asked = parameter.metavar or ""
            if parameter.name != "plugin" and any(word in asked for word in words):
                assert parameter.callback.args[1] is True, (command.name, parameter.name)
                found += 1
    assert found > 50


def test_a_run_in_the_home(home, capsys):
    """`--out=~/runs/x` and `--data=~/x`, which no shell expands."""
    small = ["--smoke", "train.global_batch=4", "schedule.epochs=1", "schedule.warmup_epochs=0"]
    words = ["image/mae-tiny-fashion", *small]
    assert main(["pretrain", *words, "--data=~/photos", "--out=~/runs/x"]) == 0
    assert (home / "runs" / "x" / "DONE").exists()
    assert f"mimsuite knn {home}/runs/x --data {home}/photos" in capsys.readouterr().err
    assert main(["data", "inspect", "~/photos", "--sheet=~/sheet.png"]) == 0
    assert (home / "sheet.png").exists()
    assert main(["export", "~/runs/x", "--format", "safetensors", "--out=$HOME/w.safetensors"]) == 0
    assert main(["pretrain", *words, "--data=$PHOTOS", "--init-from=~/w.safetensors",
                 "--out=~/runs/y"]) == 0  # fmt: skip
    assert not list(Path().iterdir())
