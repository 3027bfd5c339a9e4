"""Losses that look across samples: several ranks give what one process gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mimsuite.train.batchnorm import SummedBatchNorm

TOYS = f"{Path(__file__).with_name('toys.py')}:train"


@pytest.fixture
def train(ranks, tmp_path):
    def run(kind, world, parallel="ddp", accumulation=1, scope="global") -> dict[str, Tensor]:
        out = tmp_path / f"{world}-{parallel}-{accumulation}-{scope}.safetensors"
        words = (kind, parallel, str(accumulation), scope, str(out))
        codes, said = ranks.call(TOYS, *words, ranks=world)
        assert codes == [0] * world, said
        return load_file(out)

    return run


def assert_close(ours: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert ours.keys() == wanted.keys()
    torch.testing.assert_close(ours["losses"], wanted["losses"], rtol=1e-6, atol=1e-7)
    for name, tensor in wanted.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", ["contrastive", "norm", "prepared", "ratio"])
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_equal_one_process(train, kind, parallel):
    assert_close(train(kind, 2, parallel), train(kind, 1))


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize(("world", "accumulation"), [(2, 1), (2, 2), (3, 1)])
def test_a_momentum_teacher_is_the_same_on_any_number_of_ranks(
    train, parallel, world, accumulation
):
    one = train("momentum", 1)
    moved = [name for name in one if name.startswith("teacher")]
    assert len(moved) == 5
    for name in moved:
        assert not torch.equal(one[name], one[name.replace("teacher.module", "student")]), name
    assert_close(train("momentum", world, parallel, accumulation), one)


def test_a_parameter_that_cannot_be_cut_is_refused(ranks, tmp_path):
    words = ("unsplittable", "fsdp", "1", "global", str(tmp_path / "none"))
    codes, said = ranks.call(TOYS, *words)
    assert codes == [1, 1]
    assert "UserError: train.parallel=fsdp: " in said
    assert "temperature" in said


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_ratio_is_of_the_global_batch_with_accumulation_too(train, parallel):
    assert_close(train("ratio", 2, parallel, accumulation=2), train("ratio", 1))
    assert_close(train("ratio", 1, accumulation=4), train("ratio", 1))


def test_by_rank_it_is_the_mean_of_the_micro_batches_own_ratios(train):
    own = train("ratio", 2, scope="rank")
    assert_close(own, train("ratio", 1, accumulation=2, scope="rank"))
    assert (own["losses"] - train("ratio", 1)["losses"]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("kind", "shape"), [(nn.BatchNorm1d, (16, 3)), (nn.BatchNorm2d, (4, 3, 5, 5))]
)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_summed_batch_norm_of_one_process_is_batch_norm(kind, shape, momentum):
    torch.manual_seed(0)
    plain, x = kind(3, momentum=momentum), torch.randn(shape)
    ours = kind(3, momentum=momentum)
    ours.load_state_dict(plain.state_dict())
    ours = SummedBatchNorm.of(ours, lambda tensor: tensor)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    for norm, given in zip((plain, ours), inputs, strict=True):
        for _ in range(2):
            norm(given).pow(3).sum().backward()
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-4, atol=1e-4)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor, msg=name)
    torch.testing.assert_close(ours.eval()(x), plain.eval()(x))
