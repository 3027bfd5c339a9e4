"""What is done to blocks changes memory and time, never the mathematics."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.config.keys.shared import TrainSection
from mimsuite.errors import UserError
from mimsuite.methods import Method, build
from mimsuite.noise import Noise
from mimsuite.report.training_pictures import draw_panels
from mimsuite.train.blocks import blocks_of, prepare_blocks, without_compiled
from mimsuite.train.step import run_method

CPU = torch.device("cpu")


def section(**keys: Any) -> TrainSection:
    return TrainSection(global_batch=4, **keys)


@pytest.fixture
def method() -> Method:
    keys = ["model.encoder.drop_path=0.3", "model.encoder.depth=2", "model.decoder.depth=2"]
    recipe = config.load("image/mae-tiny-fashion", keys, smoke=True).recipe
    torch.manual_seed(0)
    return build(recipe).train()


def gradients(method: Method) -> tuple[Tensor, dict[str, Tensor]]:
    images = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    batch = Batch.of_images(images)
    method.zero_grad()
    loss = run_method(method, batch, Noise(0, 3, batch.index)).loss
    loss.backward()
    named = method.named_parameters()
    return loss.detach(), {name: p.grad.clone() for name, p in named if p.grad is not None}


def kept_for_backward(method: Method) -> int:
    """Bytes of activations."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        gradients(method)
    return sum(kept.values())


def test_blocks_are_found_by_the_name_of_their_list(method):
    assert len(blocks_of(method)) == 4
    inner = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(1, 1)])})
    outer = nn.ModuleDict({"blocks": nn.ModuleList([inner]), "heads": nn.ModuleList([nn.ReLU()])})
    assert blocks_of(outer) == [inner, inner["blocks"][0]]


def test_recomputed_activations_give_the_very_gradients(method):
    names = list(method.state_dict())
    loss, expected = gradients(method)
    memory = kept_for_backward(method)
    prepare_blocks(method, section(checkpoint_activations=True), CPU)
    again, found = gradients(method)
    assert torch.equal(again, loss)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert list(method.state_dict()) == names
    assert kept_for_backward(method) < 0.7 * memory


@pytest.fixture
def compiled(monkeypatch) -> Iterator[CompileCounterWithBackend]:
    """Counts the graphs of compiled blocks; they are run without a compiler."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    monkeypatch.setattr("mimsuite.train.blocks._require_compiler", lambda device: None)
    yield counter
    torch._dynamo.reset()


def has_symbols(graph: torch.fx.GraphModule) -> bool:
    values = [n.meta.get("example_value") for n in graph.graph.nodes if n.op == "placeholder"]
    sizes = [s for value in values for s in (value.shape if isinstance(value, Tensor) else [value])]
    return any(isinstance(size, torch.SymInt) for size in sizes)


@pytest.mark.parametrize("again", [False, True])
def test_compiled_blocks_are_graphs_of_fixed_sizes(method, compiled, again):
    _, expected = gradients(method)
    prepare_blocks(method, section(compile=True, checkpoint_activations=again), CPU)
    _, found = gradients(method)
    assert len(compiled.graphs) >= 2  # blocks of the encoder and of the decoder
    assert not any(has_symbols(graph) for graph in compiled.graphs)
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)


def test_pictures_compile_nothing(method, compiled):
    prepare_blocks(method, section(compile=True), CPU)
    gradients(method)
    graphs = len(compiled.graphs)
    batch = Batch.of_images(torch.randn(3, 1, 28, 28))
    with without_compiled():
        assert draw_panels(method, batch, 0)
    assert len(compiled.graphs) == graphs
    draw_panels(method, batch, 0)
    assert len(compiled.graphs) > graphs


@pytest.mark.slow
def test_compiled_blocks_give_the_same_gradients(method):
    assert shutil.which("g++"), "needs a C++ compiler"
    names = list(method.state_dict())
    loss, expected = gradients(method)
    prepare_blocks(method, section(compile=True), CPU)
    again, found = gradients(method)
    assert float(again) == pytest.approx(float(loss), rel=1e-5)
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=1e-6), name
    assert list(method.state_dict()) == names


def test_compiling_without_a_compiler_is_refused_in_one_line(method, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "g++")
    with pytest.raises(UserError, match=r"train.compile=true needs a C\+\+ compiler"):
        prepare_blocks(method, section(compile=True), CPU)


@pytest.mark.parametrize("key", ["compile", "checkpoint_activations"])
def test_a_model_without_blocks_is_refused(key):
    with pytest.raises(UserError, match=f"train.{key}: this model has no blocks"):
        prepare_blocks(nn.Linear(2, 2), section(**{key: True}), CPU)
