"""What may lie beside tensors, and what of it may not: nothing is ever called."""

from __future__ import annotations

import argparse
import os
import pickle
import types
from collections import Counter, OrderedDict, defaultdict
from datetime import datetime
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pytest
import torch

from mimsuite.errors import UserError
from mimsuite.weights.files import read_weights_file
from tests import needs

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3)}


class Calls:
    """Unpickling it calls a function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@pytest.fixture(params=[True, False], ids=["zip", "old"])
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    def write(content: Any) -> Path:
        path = tmp_path / "w.pth"
        torch.save(content, path, _use_new_zipfile_serialization=request.param)
        return path

    return write


@pytest.mark.parametrize(
    "value",
    [
        *(
            np.float64(91.2),
            np.float32(1),
            np.int64(-3),
            np.bool_(True),
            np.str_("best"),
            np.str_(),
        ),
        *(np.arange(6.0), np.asfortranarray(np.eye(3)), np.array(["a", "bc"]), np.zeros((0, 3))),
        *(Path("/a/b"), PurePosixPath("a"), PureWindowsPath("C:\\x\\y")),
        *(defaultdict(list, a=[1]), defaultdict(int, a=1), defaultdict(dict), defaultdict(None)),
        *(OrderedDict(a=1), Counter("aab"), {"deep": [(np.float16(1), {"x": Path("y")})]}),
        *(types.SimpleNamespace(a=1), argparse.Namespace(out=Path("x")), datetime(2024, 1, 2)),
        *(np.dtype("float32"), float, torch.float16, torch.Size([2])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_read_and_named(save: Any, value: Any) -> None:
    file = read_weights_file(save({"model": STATE, "beside": value}))
    assert torch.equal(file.tensors["a.weight"], STATE["a.weight"])
    assert file.dropped == ["beside"]


def test_settings_are_kept_as_plain_values(save: Any) -> None:
    args = argparse.Namespace(
        num_heads=np.int64(3), mask_ratio=np.float64(0.6), out=Path("/runs/x"), more={"a": (1, 2)}
    )
    facts = read_weights_file(save({"model": STATE, "args": args})).facts
    assert facts == {"num_heads": 3, "mask_ratio": 0.6, "out": "/runs/x", "more": {"a": [1, 2]}}
    assert type(facts["num_heads"]) is int


def test_settings_that_hold_themselves(save: Any) -> None:
    args = argparse.Namespace(mask_ratio=0.6, more=[])
    args.more.append(args.more)
    assert read_weights_file(save({"model": STATE, "args": args})).facts["mask_ratio"] == 0.6


def test_settings_of_omegaconf(save: Any) -> None:
    omegaconf = needs.module("omegaconf")
    args = omegaconf.OmegaConf.create({"mask_ratio": 0.6, "more": [1, {"a": "b"}]})
    facts = read_weights_file(save({"model": STATE, "config": args})).facts
    assert facts == {"mask_ratio": 0.6, "more": [1, {"a": "b"}]}


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", "<i8"])
def test_weights_that_are_arrays(save: Any, kind: str) -> None:
    file = read_weights_file(
        save({"w": np.arange(6).reshape(2, 3).astype(kind), "b": STATE["a.weight"]})
    )
    assert torch.equal(file.tensors["w"].float(), torch.arange(6.0).reshape(2, 3))


HIDDEN = pickle.dumps(Calls(os.system, "touch ran"))


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        (defaultdict(os.system), "system"),
        (defaultdict(eval), "eval"),
        (defaultdict(Fraction), "fractions.Fraction"),
        (np.array([object()]), "numpy.object_"),
        (Calls(np.dtype, "O"), "numpy.object_"),
        (Calls(np._core.multiarray.scalar, np.dtype("O"), HIDDEN), "numpy.object_"),
        (np.array([(1, "x")], dtype=[("a", "i4"), ("b", "U1")]), "numpy.object_"),
        (Calls(np.load, "x.npy"), "numpy.load"),
        (Calls(np.frombuffer, b"1234"), "numpy.frombuffer"),
        (Calls(getattr, Path("x"), "touch"), "getattr"),
        (Calls(exec, "import os"), "exec"),
        (Calls(pickle.loads, HIDDEN), "pickle.loads"),
        (Fraction(1, 2), "fractions.Fraction"),
        (np.random.RandomState(1), "numpy.random"),
    ],
)
def test_refused_in_one_line(
    save: Any, value: Any, asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        read_weights_file(save({"model": STATE, "beside": value}))
    assert "asks for Python code" in str(caught.value)
    assert asked in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("ran").exists()


def test_stand_ins_call_nothing(save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builtins and paths that are called do nothing and touch nothing."""
    monkeypatch.chdir(tmp_path)
    for value in (Calls(list, "abc"), Calls(int, "9" * 100_000), Calls(Path, "x"), Calls(dict)):
        assert read_weights_file(save({"model": STATE, "beside": value})).dropped == ["beside"]
    assert sorted(tmp_path.iterdir()) == [tmp_path / "w.pth"]


def test_an_array_that_claims_more_than_it_holds(save: Any) -> None:
    class Claims:
        def __reduce__(self) -> Any:
            make = np._core.multiarray._reconstruct
            state = (1, (1 << 40,), np.dtype("f8"), False, b"12345678")
            return make, (np.ndarray, (0,), b"b"), state

    with pytest.raises(UserError, match="w is not a tensor but of type Array"):
        read_weights_file(save({"w": Claims(), "b": STATE["a.weight"]}))
