"""Drop path: branches are computed for the samples that keep them, with the same result."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mimsuite.models.blocks import Block
from mimsuite.models.drop_path import branch, residual
from mimsuite.models.rotary import turns_of

SOME = torch.tensor([2.0, 0.0, 2.0, 0.0, 0.0])


@pytest.mark.parametrize("keep", [SOME, torch.zeros(5), torch.full((5,), 2.0), None])
def test_a_residual_branch_of_the_kept_samples_is_that_of_all(keep: Tensor | None) -> None:
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(4, 4).double(), torch.randn(5, 3, 4).double()
    computed: list[int] = []

    def compute(rows: Tensor | None) -> Tensor:
        computed.append(5 if rows is None else len(rows))
        return layer(x if rows is None else x[rows])

    found = residual(x, keep, compute)
    torch.testing.assert_close(found, x + branch(layer(x), keep))
    assert computed == [2 if keep is SOME else 5]  # where none is kept, parameters get gradients
    found.sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("queries", [None, 2])
@pytest.mark.parametrize("shared", [True, False])
def test_blocks_drop_samples_with_their_queries_and_turns(
    queries: int | None, shared: bool
) -> None:
    torch.manual_seed(0)
    block, x = Block(24, 2, 2.0, 1e-6).double(), torch.randn(5, 4, 24).double()
    ids = torch.arange(4).expand(1, -1) if shared else torch.rand(5, 8).argsort(1)[:, :4]
    turns = turns_of(ids, (2, 2, 2), 12)
    found = block(x, keep=(SOME, SOME.flip(0)), queries=queries, turns=turns)
    own = block.attn(block.norm1(x), queries, 0, turns)
    expected = (x if queries is None else x[:, -queries:]) + SOME.view(-1, 1, 1) * own
    expected = expected + SOME.flip(0).view(-1, 1, 1) * block.mlp(block.norm2(expected))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)  # turns are float32
