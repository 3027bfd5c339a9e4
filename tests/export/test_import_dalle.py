"""`import --from dalle`: tensors come out of a pickled module, and nothing of it runs."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from mimsuite.batch import Batch
from mimsuite.cli.main import main
from mimsuite.config.keys.tokenizers import DalleTokenizerSection
from mimsuite.errors import UserError
from mimsuite.models.dalle import DalleEncoder
from mimsuite.targets import build_tokenizer
from mimsuite.weights.pickled_module import read_module


def convert(path: Path, out: Path, *options: str) -> int:
    return main(["import", str(path), "--from", "dalle", "--out", str(out), *options])


@pytest.fixture
def published() -> Iterator[nn.Module]:
    """An encoder whose classes live in a package `dall_e`, which is gone when it is read."""
    package, module = ModuleType("dall_e"), ModuleType("dall_e.encoder")
    sys.modules |= {"dall_e": package, "dall_e.encoder": module}
    encoder = DalleEncoder(width=16, depth=1, codes=24)
    kinds: dict[type, type] = {}
    for part in encoder.modules():
        kind = type(part)
        if kind.__module__ == "mimsuite.models.dalle":
            if kind not in kinds:
                kinds[kind] = type(kind.__name__, (kind,), {"__module__": "dall_e.encoder"})
                setattr(module, kind.__name__, kinds[kind])
            part.__class__ = kinds[kind]
    yield encoder
    sys.modules.pop("dall_e", None)
    sys.modules.pop("dall_e.encoder", None)


def forget() -> None:
    del sys.modules["dall_e"], sys.modules["dall_e.encoder"]


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_come_out_whole(tmp_path: Path, published: nn.Module, zipped: bool) -> None:
    path = tmp_path / "encoder.pkl"
    torch.save(published, path, _use_new_zipfile_serialization=zipped)
    expected = {name: tensor.clone() for name, tensor in published.state_dict().items()}
    forget()
    found = read_module(path, "dall_e")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_converted_file_is_a_tokenizer(
    tmp_path: Path, published: nn.Module, capsys: Any
) -> None:
    path, out = tmp_path / "encoder.pkl", tmp_path / "encoder.safetensors"
    torch.save(published, path)
    assert convert(path, out) == 0
    assert f"weights={out} target.tokenizer.codes=24" in capsys.readouterr().err
    section = DalleTokenizerSection(kind="dalle", weights=str(out), codes=24, width=16, depth=1)
    statistics = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    tokenizer = build_tokenizer(section, patch=8, channels=3, statistics=statistics, grid=(4, 4))
    pixels = torch.rand(2, 3, 32, 32)
    batch = Batch.of_images((pixels - 0.5) / 0.5)
    with torch.no_grad():
        expected = published(pixels).argmax(1).flatten(1)
    assert torch.equal(tokenizer(batch), expected)
    other = DalleTokenizerSection(kind="dalle", weights=str(out), codes=25, width=16, depth=1)
    wrong = build_tokenizer(other, patch=8, channels=3, statistics=statistics, grid=(4, 4))
    with pytest.raises(
        UserError, match=r"target\.tokenizer\.width, depth or codes do not match the file"
    ):
        wrong.setup(None, 0)


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("zipped", [True, False])
def test_without_from_the_message_names_it(
    tmp_path: Path, published: nn.Module, capsys: Any, zipped: bool
) -> None:
    path = tmp_path / "my encoder.pkl"
    torch.save(published, path, _use_new_zipfile_serialization=zipped)
    forget()
    assert main(["import", str(path)]) == 2
    assert f"`mimsuite import '{path}' --from dalle`" in capsys.readouterr().err


def test_what_is_there_stays(tmp_path: Path, published: nn.Module, capsys: Any) -> None:
    path, out = tmp_path / "encoder.pkl", tmp_path / "encoder.safetensors"
    torch.save(published, path)
    out.write_text("mine")
    assert convert(path, out) == 2
    assert "--force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert convert(path, out, "--heads", "3") == 2
    assert "--heads is not for --from dalle" in capsys.readouterr().err
    assert convert(path, out, "--force") == 0


class Touch:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        import os

        return os.system, (f"touch {self.path}",)


class Evaluated(Touch):
    def __reduce__(self) -> Any:
        return eval, (f"open({str(self.path)!r}, 'w')",)


@pytest.mark.parametrize("kind", [Touch, Evaluated])
@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_runs(tmp_path: Path, kind: type[Touch], zipped: bool, capsys: Any) -> None:
    path, mark = tmp_path / "encoder.pkl", tmp_path / "ran"
    torch.save({"model": kind(mark)}, path, _use_new_zipfile_serialization=zipped)
    assert convert(path, tmp_path / "out.safetensors") == 2
    assert not mark.exists()
    assert not (tmp_path / "out.safetensors").exists()
    message = capsys.readouterr().err
    assert "nothing was run" in message
    assert message.count("\n") == 1


def test_what_is_no_module_is_refused(tmp_path: Path, capsys: Any) -> None:
    text, plain, cut = (tmp_path / name for name in ("text.pkl", "plain.pkl", "cut.pkl"))
    text.write_text("hello")
    plain.write_bytes(pickle.dumps([1, 2]))
    torch.save(nn.Linear(2, 2), cut)
    cut.write_bytes(cut.read_bytes()[:-200])
    for path in (text, plain, cut, tmp_path / "none.pkl"):
        assert convert(path, tmp_path / "out.safetensors") == 2
        assert str(path) in capsys.readouterr().err
