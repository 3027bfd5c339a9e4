"""Chamfer distance and consistency against their written-out formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mimsuite.targets import chamfer, consistency
from mimsuite.targets.chamfer import nearest_ids


def broadcast(a: Tensor, b: Tensor, kind: str) -> Tensor:
    table = (a[:, :, None] - b[:, None]).square().sum(-1)  # (P, n, m)
    sides = table.amin(2), table.amin(1)
    if kind == "l2":
        return sides[0].mean() + sides[1].mean()
    return (sides[0].sqrt().mean() + sides[1].sqrt().mean()) / 2


@pytest.mark.parametrize("kind", ["l1", "l2"])
@pytest.mark.parametrize("limit", [1 << 26, 200, 8])
def test_chamfer_and_its_gradient(kind: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(nearest_ids.__wrapped__.__globals__, "_LARGEST_TABLE", limit)
    a, b = torch.randn(5, 9, 3), torch.randn(5, 7, 3)
    losses = []
    for function in (chamfer, broadcast):
        sides = [side.clone().requires_grad_() for side in (a, b)]
        loss = function(*sides, kind)
        loss.backward()
        losses.append((loss.detach(), *(side.grad for side in sides)))
    torch.testing.assert_close(losses[0], losses[1])


def test_equal_points_have_a_finite_gradient() -> None:
    a = torch.randn(2, 4, 3, requires_grad=True)
    chamfer(a, a.detach().clone(), "l1").backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()


def test_autocast_does_not_reach_it() -> None:
    a, b = torch.randn(4, 8, 3), torch.randn(4, 8, 3)
    with torch.autocast("cpu", torch.bfloat16):
        inside = chamfer(a, b)
    assert inside.dtype is torch.float32
    assert torch.equal(inside, chamfer(a, b))


def test_consistency_is_its_formula() -> None:
    first, second = torch.randn(3, 6, 8), torch.randn(3, 6, 8)
    comasked = torch.rand(3, 6) > 0.5
    table = 1 - normalize(first, dim=-1) @ normalize(second, dim=-1).transpose(1, 2)  # (B, N, N)
    apart, count = consistency(first, second, comasked, "all_pairs")
    torch.testing.assert_close(apart, ((table + 1e-8) * comasked[:, :, None]).sum() / 6)
    assert count == comasked.sum()
    apart, count = consistency(first, second, comasked, "same_token")
    torch.testing.assert_close(apart, table.diagonal(dim1=1, dim2=2)[comasked].sum())
