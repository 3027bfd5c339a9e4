"""The moving average follows the weights, and stands still over a skipped step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mimsuite.train.average import MovingAverage

GOOD, BAD = torch.tensor(0.0), torch.tensor(1.0)


def changed(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(1)
    return model


def test_it_moves_by_its_decay_and_buffers_with_it():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = MovingAverage(model, 0.9)
    before = {name: tensor.clone() for name, tensor in average.tensors.items()}
    average.update(changed(model), GOOD)
    for name, tensor in average.tensors.items():
        moved = 1 if name.endswith("num_batches_tracked") else 0.1
        assert torch.allclose(tensor, before[name] + moved, atol=1e-6), name


def test_a_skipped_step_leaves_every_bit():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = MovingAverage(model, 0.9)
    before = {name: tensor.clone() for name, tensor in average.tensors.items()}
    with torch.no_grad():
        model[1].running_mean.fill_(float("nan"))  # a bad batch may reach the buffers
    average.update(model, BAD)
    assert all(torch.equal(tensor, before[name]) for name, tensor in average.tensors.items())


def test_a_weight_with_two_names_has_both():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    average = MovingAverage(model, 0.5)
    before = average.tensors["1.weight"].clone()
    with torch.no_grad():
        model[0].weight.add_(1)
    average.update(model, GOOD)
    assert torch.allclose(average.tensors["1.weight"], before + 0.5)
    assert torch.equal(average.tensors["0.weight"], average.tensors["1.weight"])


def test_it_is_put_back_whole():
    model = nn.Linear(2, 2)
    average, other = MovingAverage(model, 0.5), MovingAverage(model, 0.5)
    average.update(changed(model), GOOD)
    other.load(average.tensors)
    assert all(torch.equal(other.tensors[n], tensor) for n, tensor in average.tensors.items())


@pytest.mark.parametrize("decay", [0.9, 0.999, 0.9999])
def test_the_weight_of_a_step_is_that_of_plain_lerp(decay):
    model = nn.Linear(50, 50)
    average = MovingAverage(model, decay)
    expected = average.tensors["weight"].clone().lerp_(changed(model).weight.detach(), 1 - decay)
    average.update(model, GOOD)
    assert torch.equal(average.tensors["weight"], expected)
