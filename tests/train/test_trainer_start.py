"""A trainer that has not begun: it can warn, and holds all of its attributes."""

from __future__ import annotations

import ast
import inspect

import pytest
import torch

from mimsuite import config
from mimsuite.methods import build
from mimsuite.train import trainer as module
from mimsuite.train.preempt import StopFlag
from mimsuite.train.trainer import Trainer
from mimsuite.train.warm_up import _kept


def test_it_warns_before_there_is_a_run_directory(capsys: pytest.CaptureFixture[str]) -> None:
    resolved = config.load("image/mae-tiny-fashion", smoke=True)
    method = build(resolved.recipe)
    trainer = Trainer(method, resolved, lambda batch: batch, torch.device("cpu"), 2, StopFlag())
    trainer.warn("something is odd")
    assert "warning: something is odd" in capsys.readouterr().err


def test_an_average_that_begins_with_a_resume_begins_as_the_weights() -> None:
    def trainer(**keys: object) -> Trainer:
        resolved = config.load("image/mae-tiny-fashion", words(keys), smoke=True)
        method = build(resolved.recipe)
        return Trainer(method, resolved, lambda batch: batch, torch.device("cpu"), 2, StopFlag())

    def words(keys: dict[str, object]) -> list[str]:
        return [f"train.{name}={value}" for name, value in keys.items()]

    before, after = trainer(), trainer(ema=0.9999)
    after.load(before.state())
    assert after.average is not None
    weights = before.method.state_dict()
    assert after.average.tensors.keys() == weights.keys()
    assert all(torch.equal(t, weights[name]) for name, t in after.average.tensors.items())


def test_a_rehearsal_that_fails_leaves_no_trace() -> None:
    method = torch.nn.BatchNorm1d(2)
    before = {name: buffer.clone() for name, buffer in method.named_buffers()}
    drawn = torch.get_rng_state()

    def rehearse() -> None:
        with _kept(method):  # type: ignore[arg-type]
            method(torch.randn(8, 2))
            raise MemoryError

    with pytest.raises(MemoryError):
        rehearse()
    assert all(torch.equal(buffer, before[name]) for name, buffer in method.named_buffers())
    assert torch.equal(torch.get_rng_state(), drawn)


def test_all_attributes_are_born_in_init() -> None:
    (body,) = (
        node
        for node in ast.parse(inspect.getsource(module)).body
        if isinstance(node, ast.ClassDef) and node.name == "Trainer"
    )
    born = {
        function.name: {
            node.attr
            for node in ast.walk(function)
            if isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
        }
        for function in body.body
        if isinstance(function, ast.FunctionDef)
    }
    assert len(born["__init__"]) > 15
    assert set().union(*born.values()) == born["__init__"]
