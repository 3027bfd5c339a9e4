"""Farthest centres and nearest neighbours against the plainest way of finding them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mimsuite.tokens import farthest_points, group, nearest, points


def plain_farthest(cloud: torch.Tensor, count: int) -> list[int]:
    picked = [0]
    for _ in range(count - 1):
        distance = (cloud[:, None] - cloud[picked]).square().sum(-1).amin(1)
        picked.append(int(distance.argmax()))
    return picked


def kernel_farthest(cloud: torch.Tensor, count: int) -> list[int]:
    """The rule of the CUDA kernel, thread by thread."""
    total = len(cloud)
    threads = min(512, 1 << (total.bit_length() - 1))
    running = [1e10] * total
    picked = [0]
    for _ in range(count - 1):
        best = [(-1.0, 0)] * threads
        for k in range(total):
            if float(cloud[k].square().sum()) <= 1e-3:
                continue
            running[k] = min(running[k], float((cloud[k] - cloud[picked[-1]]).square().sum()))
            if running[k] > best[k % threads][0]:
                best[k % threads] = (running[k], k)
        winner = best[0]
        for other in best[1:]:
            winner = other if other[0] > winner[0] else winner
        picked.append(winner[1])
    return picked


def lattice(side: int) -> torch.Tensor:
    axis = torch.arange(side, dtype=torch.float32) - side // 2
    return torch.cartesian_prod(axis, axis, axis)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 1000), st.integers(24, 70))
def test_farthest_points_are_the_plain_rule(seed: int, total: int) -> None:
    clouds = torch.randn(3, total, 3, generator=torch.Generator().manual_seed(seed))
    found = farthest_points(clouds, 12, "plain")
    assert found.tolist() == [plain_farthest(cloud, 12) for cloud in clouds]


@pytest.mark.parametrize("cloud", [lattice(4), lattice(5) * 0.02, torch.rand(40, 3) * 0.1])
def test_the_kernel_rule_with_ties_and_points_near_the_origin(cloud: torch.Tensor) -> None:
    found = farthest_points(cloud[None], 10)[0]
    assert found.tolist() == kernel_farthest(cloud, 10)


def test_no_candidate_means_the_first_point() -> None:
    assert farthest_points(torch.rand(1, 20, 3) * 1e-3, 5).tolist() == [[0] * 5]


def test_neighbours_are_nearest_first_in_parts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud, queries = torch.randn(2, 50, 3), torch.randn(2, 9, 3)
    whole = nearest(cloud, queries, 7)
    brute = (queries[:, :, None] - cloud[:, None]).square().sum(-1).argsort(-1)[..., :7]
    assert torch.equal(whole, brute)
    monkeypatch.setattr(points, "_LARGEST_TABLE", 200)
    assert torch.equal(nearest(cloud, queries, 7), whole)


def test_groups_hold_their_centre_and_are_relative_to_it() -> None:
    clouds = torch.randn(2, 60, 3)
    groups = group(clouds, 8, 5)
    assert groups.points.shape == (2, 8, 5, 3)
    assert torch.equal(groups.ids[..., 0], groups.center_ids)
    assert not groups.points[:, :, 0].any()
    absolute = groups.points + groups.center.unsqueeze(2)
    rows = torch.arange(2)[:, None, None]
    torch.testing.assert_close(absolute, clouds[rows, groups.ids])


def test_too_few_points_are_named() -> None:
    with pytest.raises(ValueError, match="4 points cannot make 8 groups"):
        group(torch.randn(1, 4, 3), 8, 2)
