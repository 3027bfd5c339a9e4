from __future__ import annotations

import argparse
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mimsuite.errors import UserError
from mimsuite.weights.files import read_weights_file

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def save(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize("container", [None, "model", "state_dict", "module"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("zipped", [True, False])
def test_containers_and_prefixes(
    tmp_path: Path, container: str | None, prefix: str, zipped: bool
) -> None:
    state = OrderedDict((prefix + name, tensor) for name, tensor in STATE.items())
    content = state if container is None else {container: state, "epoch": 3}
    file = read_weights_file(
        save(tmp_path / "w.pth", content, _use_new_zipfile_serialization=zipped)
    )
    assert file.tensors.keys() == STATE.keys()
    assert all(torch.equal(file.tensors[name], STATE[name]) for name in STATE)
    assert file.dropped == ([] if container is None else ["epoch"])


def test_training_checkpoint_with_a_namespace(tmp_path: Path) -> None:
    args = argparse.Namespace(norm_pix_loss=True, mask_ratio=0.6, lr=None, output_dir="./out")
    content = {"model": STATE, "optimizer": {"state": {}}, "epoch": 3, "scaler": {}, "args": args}
    file = read_weights_file(save(tmp_path / "checkpoint-3.pth", content))
    assert file.facts["mask_ratio"] == 0.6
    assert file.dropped == ["optimizer", "epoch", "scaler"]


def test_a_prefix_of_some_names_only_stays(tmp_path: Path) -> None:
    state = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert read_weights_file(save(tmp_path / "w.pth", state)).tensors.keys() == state.keys()


def test_safetensors_and_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"  # the content decides, not the name
    save_file(STATE, path, metadata={"who": "me"})
    file = read_weights_file(path)
    assert file.metadata == {"who": "me"}
    assert torch.equal(file.tensors["a.weight"], STATE["a.weight"])


def test_large_values_are_finite(tmp_path: Path) -> None:
    state = {"a": torch.full((4,), torch.finfo(torch.float32).max)}
    assert read_weights_file(save(tmp_path / "w.pth", state)).tensors["a"].isfinite().all()


def test_half_precision_becomes_float32_and_integers_stay(tmp_path: Path) -> None:
    state = {"a": torch.ones(2, dtype=torch.bfloat16), "n": torch.tensor(3)}
    file = read_weights_file(save(tmp_path / "w.pth", state))
    assert file.tensors["a"].dtype is torch.float32
    assert file.tensors["n"].dtype is torch.int64
    assert "bfloat16" in file.notes[0]


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("where", ["bare", "model", "beside", "args", "name"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, where: str, zipped: bool) -> None:
    mark = tmp_path / "ran"
    hostile = Hostile(f"touch {mark}")
    content: Any = {
        "bare": hostile,
        "model": {"model": {"a": hostile}},
        "beside": {"model": STATE, "extra": hostile},
        "args": {"model": STATE, "args": argparse.Namespace(x=hostile)},
        "name": {"model": {**STATE, "x": [hostile]}},
    }[where]
    path = save(tmp_path / "w.pth", content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match="asks for Python code") as caught:
        read_weights_file(path)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_a_plain_hostile_pickle_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    for protocol in (2, 4):
        path = tmp_path / f"w{protocol}.pth"
        path.write_bytes(pickle.dumps(Hostile(f"touch {mark}"), protocol=protocol))
        with pytest.raises(UserError):
            read_weights_file(path)
    assert not mark.exists()


def test_classes_beyond_the_list_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "w.pth", {"model": STATE, "out": Fraction(1, 2)})
    with pytest.raises(UserError, match=r"fractions\.Fraction"):
        read_weights_file(path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_every_truncation_is_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "safetensors":
        save_file(STATE, path)
    else:
        save(path, {"model": STATE}, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for size in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError) as caught:
            read_weights_file(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def _zip_of(name: str, content: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "a PNG image"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "a JPEG image"),
        (b"<!DOCTYPE html><html><body>404", "a web page: the download failed"),
        (b"\n <html>", "a web page: the download failed"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"lr: 0.1\n", "a text file"),
        ("é".encode() * 400, "a text file"),
        (b"\x1f\x8b" + bytes(50), "a gzip archive"),
        (bytes(257) + b"ustar" + bytes(300), "a tar archive"),
        (b"\x00\xfe" * 40, "binary data of an unknown kind"),
        (_zip_of("word/document.xml", b"x"), "a zip archive without weights"),
        (_zip_of("archive/data.pkl", b"x" * 99, zipfile.ZIP_DEFLATED), "a compressed archive"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=found):
        read_weights_file(path)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([torch.ones(1)], "holds no weights: found a list"),
        (torch.ones(3), "holds no weights: found a Tensor"),
        ({"epoch": 3, "best": 0.5}, "holds no weights: found entries epoch, best"),
        ({}, "holds no weights: found entries nothing"),
        ({"model": {"a": torch.ones(1), "b": 3}}, "b is not a tensor but of type int"),
        ({"a": torch.tensor([1.0, float("nan")])}, "a holds values that are not finite"),
        ({"a": torch.ones(1).expand(1 << 40)}, "claims shape"),
        ({"a\n\x1b[2J": torch.ones(1)}, "an entry has an impossible name"),
        ({"a" * 1000: torch.ones(1)}, "an entry has an impossible name"),
        ({3: torch.ones(1)}, "an entry has an impossible name"),
        ({"a": torch.eye(2).to_sparse()}, "a is not a plain tensor"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "a is not a plain tensor"),
        ({"a": torch.ones(2, device="meta")}, "a is not a plain tensor"),
    ],
)
def test_content_that_is_no_weights(tmp_path: Path, content: Any, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        read_weights_file(save(tmp_path / "w.pth", content))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_weights_file(tmp_path / "none.pth")
