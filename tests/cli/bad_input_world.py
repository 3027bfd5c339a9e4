"""A folder of what goes wrong: runs, data and files, whole, cut, empty and strange.

Cases name a place as ``$name``. All is small, and made once for a whole sweep.
"""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save_file

from mimsuite.cli.main import main
from tests.data.dense_folders import scenes

RECIPE = "image/mae-tiny-fashion"
SMALL = ("--smoke", "schedule.epochs=1", "train.global_batch=4", "train.device=cpu")


class Trap:
    """Its pickle would write a file when loaded carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def run(*words: object) -> None:
    """A command that must succeed."""
    assert main([str(word) for word in words]) == 0, words


def make(root: Path) -> dict[str, Path]:
    """Everything below ``root``; returns the places by name."""
    root.mkdir(exist_ok=True)
    places = {**_data(root), **_runs(root), **_weights(root), **_recipes(root), **_grids(root)}
    places["nothing"] = root / "nothing"
    places["out"] = root / "out"  # never there, before a command or after it
    places["file"] = root / "file.txt"
    places["file"].write_text("in the way\n")
    places["full"] = root / "full"
    places["full"].mkdir()
    (places["full"] / "mine.txt").write_text("mine\n")
    return places


def photos(folder: Path, count: int = 8) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        shade = (number * 25, 200 - number * 20, 90)
        Image.new("RGB", (40, 40), shade).save(folder / f"{number}.png")
    return folder


def noise(seed: int, size: int) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def _data(root: Path) -> dict[str, Path]:
    good = photos(root / "photos")
    labelled, empty, text, broken = (root / n for n in ("labelled", "empty", "text", "broken"))
    for split in ("train", "test"):
        for label in ("a", "b"):
            photos(labelled / split / label, 4)
    for folder in (empty, text, broken):
        folder.mkdir()
    (text / "README.txt").write_text("no picture here\n")
    for number in range(8):
        (broken / f"{number}.png").write_bytes(noise(number, 300))
    shards, cut, foreign = (root / name for name in ("shards", "cut", "foreign"))
    run("data", "pack", good, shards)
    shutil.copytree(shards, cut)
    for shard in cut.glob("*.tar"):
        shard.write_bytes(shard.read_bytes()[:-7000])
    foreign.mkdir()
    with tarfile.open(foreign / "a.tar", "w") as tar:
        entry = tarfile.TarInfo("../outside.png")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"oops"))
    noisy = root / "noise.tar"
    noisy.write_bytes(noise(0, 20480))
    lists = {
        "missing.csv": "path,label\nphotos/0.png,a\nphotos/none.png,b\n",
        "wrong.csv": "file;class\nphotos/0.png;a\n",
        "empty.txt": "",
        "binary.txt": None,
    }
    for name, content in lists.items():
        (root / name).write_bytes(noise(1, 200) if content is None else content.encode())
    run("data", "synth", "points", root / "points", "--count", 4)
    return {
        "photos": good,
        "labelled": labelled,
        "empty": empty,
        "text": text,
        "broken": broken,
        "shards": shards,
        "cut": cut,
        "foreign": foreign,
        "noisetar": noisy,
        "points": root / "points",
        "masks": scenes(root / "masks", 4, 2),
        **{name.replace(".", "_"): root / name for name in lists},
    }


def _runs(root: Path) -> dict[str, Path]:
    """A finished run and a fine-tuned one, and damaged copies of the first."""
    good, tuned = root / "run", root / "tuned"
    run("pretrain", RECIPE, "--data", root / "photos", "--out", good, *SMALL)
    words = ["finetune", good, "--data", root / "labelled", "--out", tuned, *SMALL]
    run(*words, "data.per_class=null")
    names = ("cutrun", "bare", "noconfig", "badconfig", "oddconfig", "badstate", "nometrics")
    copies = {name: root / name for name in names}
    for copy in copies.values():
        shutil.copytree(good, copy)
    checkpoints = {name: newest(copy) for name, copy in copies.items()}
    for file in checkpoints["cutrun"].glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-10])
    shutil.rmtree(copies["bare"] / "checkpoints")
    (copies["noconfig"] / "config.yaml").unlink()
    (copies["badconfig"] / "config.yaml").write_bytes(noise(2, 500))
    (copies["oddconfig"] / "config.yaml").write_text("method: {name: nonsense}\n")
    state = checkpoints["badstate"] / "state.json"
    state.write_text(state.read_text()[:20])
    (copies["nometrics"] / "metrics.jsonl").write_bytes(noise(3, 500))
    return {
        "run": good,
        "tuned": tuned / "pretrained",
        "tunedfolder": tuned,
        "checkpoint": newest(good),
        "cutcheckpoint": checkpoints["cutrun"],
        **copies,
    }


def newest(folder: Path) -> Path:
    return max((folder / "checkpoints").iterdir())


def _weights(root: Path) -> dict[str, Path]:
    places = {}
    for suffix in ("pth", "safetensors", "npz", "ply", "json", "yaml", "onnx"):
        places[f"random_{suffix}"] = root / f"random.{suffix}"
        places[f"random_{suffix}"].write_bytes(noise(4, 400))
        places[f"zero_{suffix}"] = root / f"zero.{suffix}"
        places[f"zero_{suffix}"].touch()
    whole, half = root / "whole.pth", root / "half.pth"
    torch.save({"model": {"cls_token": torch.zeros(1, 1, 768)}}, whole)
    half.write_bytes(whole.read_bytes()[:-300])
    with (root / "trap.pth").open("wb") as file:
        pickle.dump(Trap(root / "sprung"), file)
    torch.save({"model": Trap(root / "sprung")}, root / "trapped.pth")
    save_file({"something": np.zeros(3, np.float32)}, root / "other.safetensors")
    named = ("whole", "half", "trap", "trapped")
    return {**places, **{n: root / f"{n}.pth" for n in named}, "other": root / "other.safetensors"}


def _recipes(root: Path) -> dict[str, Path]:
    texts = {
        "tabs": "mask:\n\tratio: 0.5\n",
        "twice": f"base: {RECIPE}\nmask: {{ratio: 0.5, ratio: 0.6}}\n",
        "nobase": "base: image/no-such-recipe\n",
        "itself": "base: ./itself.yaml\n",
        "list": "- a\n- b\n",
        "blank": "",
        "python": f"base: {RECIPE}\nmask: !!python/object/apply:os.system ['true']\n",
        "laughs": "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(
            f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n"
            for a, b in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "section": f"base: {RECIPE}\nmusk: {{ratio: 0.5}}\n",
        "scalar": f"base: {RECIPE}\nmask: 0.5\n",
        "nomethod": "method: {name: mea}\n",
        "deep": f"base: {RECIPE}\nmask: " + "[" * 3000 + "]" * 3000 + "\n",
        "many": f"base: {RECIPE}\n---\nbase: {RECIPE}\n",
    }
    for name, text in texts.items():
        (root / f"{name}.yaml").write_text(text)
    (root / "latin.yaml").write_bytes(
        f"base: {RECIPE}\nrecipe: {{title: caf\xe9}}\n".encode("latin-1")
    )
    return {f"{name}_yaml": root / f"{name}.yaml" for name in (*texts, "latin")}


def _grids(root: Path) -> dict[str, Path]:
    pickled = root / "pickled.npz"
    np.savez(pickled, rgbsigma=np.array([Trap(root / "sprung")], dtype=object))
    flat = root / "flat.npz"
    np.savez(flat, rgbsigma=np.zeros((4, 4), np.float32))
    cameras = root / "cameras.json"
    cameras.write_text(json.dumps({"frames": []}))
    plain = root / "field.py"
    plain.write_text("def load():\n    return 1\n\ndef good():\n    return print, print\n")
    splats = root / "ascii.ply"
    splats.write_text("ply\nformat ascii 1.0\nelement vertex 0\nend_header\n")
    return {
        "pickled": pickled,
        "flat": flat,
        "cameras": cameras,
        "splats": splats,
        "field": plain,
    }
