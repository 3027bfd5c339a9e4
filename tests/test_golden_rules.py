"""tools/check_golden.py: the comparison rules and the generated weights and inputs."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS.parent / "tools"), str(TESTS)]
from golden.case import CaseFault, rule_for  # noqa: E402
from golden.compare import compare, compare_value  # noqa: E402
from golden.fills import det_images, det_noise, fill  # noqa: E402


def passes(own: Any, reference: Any, **rule: Any) -> bool:
    tensor = lambda value: value if isinstance(value, Tensor) else torch.tensor(value)  # noqa: E731
    return compare("x", tensor(own), tensor(reference), rule).ok


def test_an_exact_name_beats_a_prefix_and_a_longer_prefix_a_shorter_one() -> None:
    rules = {"grad.*": 1, "grad.blocks.*": 2, "grad.blocks.0": 3, "*": 4}
    assert rule_for("grad.blocks.0", rules) == 3
    assert rule_for("grad.blocks.1", rules) == 2
    assert rule_for("grad.norm", rules) == 1
    assert rule_for("loss", rules) == 4
    assert rule_for("loss", {"grad.*": 1}) is None


def test_bounds_hold_for_every_element() -> None:
    assert passes([1.0, 100.0], [1.0, 101.0], atol=0.0, rtol=0.01)
    assert not passes([1.02, 101.0], [1.0, 101.0], atol=0.0, rtol=0.01)
    assert passes([0.0009], [0.0], atol=0.001, rtol=0.0)
    assert not passes([0.0009], [0.0], atol=0.0, rtol=1.0)
    assert passes([0.0], [0.0], atol=0.0, rtol=0.0)


def test_norm_is_over_the_whole_tensor() -> None:
    reference = torch.ones(100)
    changed = reference.clone()
    changed[0] += 0.05
    assert passes(changed, reference, norm=0.006)
    assert not passes(changed, reference, norm=0.004)
    assert not passes([1e-9], [0.0], norm=1.0)


def test_exact_needs_equality_of_values_whatever_the_dtype() -> None:
    assert passes([True, False], [1.0, 0.0], exact=True)
    assert not passes([1, 2], [1, 3], exact=True)


def test_infinite_and_undefined_numbers_never_pass() -> None:
    for value in (math.nan, math.inf):
        assert not passes([value], [1.0], atol=1e9, rtol=1e9)
        assert not passes([value], [1.0], norm=1e9)
        assert not passes([value], [1.0], exact=True)


def test_shapes_must_agree() -> None:
    assert not passes([1.0], [[1.0]], atol=1.0)


def test_slice_limits_the_first_axis() -> None:
    assert passes([1, 2, 9], [1, 2, 3], exact=True, slice=[0, 2])
    assert not passes([1, 2, 9], [1, 2, 3], exact=True, slice=[0, 3])


def test_unordered_is_a_set_along_the_last_axis() -> None:
    assert passes([[1, 2, 3]], [[3, 1, 2]], exact=True, unordered=True)
    assert not passes([[1, 2, 2]], [[3, 1, 2]], exact=True, unordered=True)


def test_unordered_rows_may_come_in_any_order() -> None:
    reference = torch.randn(2, 5, 3)
    shuffled = reference[:, torch.tensor([3, 1, 4, 0, 2])] + 1e-7
    assert passes(shuffled, reference, atol=1e-6, unordered_rows=True)
    assert not passes(shuffled, reference, atol=1e-6)
    shuffled[:, 0] = shuffled[:, 1]  # each row is used once
    assert not passes(shuffled, reference, atol=1e-6, unordered_rows=True)


def test_same_zeros() -> None:
    assert passes([0.0, 1.0], [0.0, 1.0], atol=1e-6, same_zeros=True)
    assert not passes([1e-9, 1.0], [0.0, 1.0], atol=1e-6, same_zeros=True)


def test_an_angle_is_equal_modulo_half_a_turn() -> None:
    assert passes([[1.0, 0.1 + math.pi]], [[1.0, 0.1]], atol=1e-6, angle_modulo_180=1)
    assert not passes([[1.0 + math.pi, 0.1]], [[1.0, 0.1]], atol=1e-6, angle_modulo_180=1)


def test_a_zero_gradient_is_zero_or_absent() -> None:
    zero, rule = torch.zeros(3), {"norm": 1e-4}
    assert compare("grad.a", None, zero, rule).ok
    assert compare("grad.a", torch.zeros(3), zero, rule).ok
    assert not compare("grad.a", torch.full((3,), 1e-12), zero, rule).ok
    assert not compare("grad.a", None, torch.ones(3), rule).ok


def test_a_rule_that_says_nothing_is_refused() -> None:
    for rule in ("see tolerances", {}, {"optional": True}):
        with pytest.raises(CaseFault, match=r"compare\.x"):
            compare("x", torch.zeros(1), torch.ones(1), rule)


def test_values_of_tables() -> None:
    close, exact = {"atol": 0.0, "rtol": 1e-9}, {"exact": True}
    assert compare_value("x", 1.0 + 1e-12, 1.0, close).ok
    assert compare_value("x", [1.0, 2.0], [1.0, 2.0], close).ok
    assert compare_value("x", {"a": (1, 2)}, {"a": [1, 2]}, exact).ok
    assert not compare_value("x", {"a": [1, 2]}, {"a": [1, 3]}, exact).ok
    assert not compare_value("x", {"a": 1, "b": 2}, {"a": 1}, exact).ok
    assert not compare_value("x", {"a": 1}, {"a": 1, "b": 2}, exact).ok
    assert not compare_value("x", None, 1.0, close).ok


# --- generated weights and inputs -----------------------------------------------------------------


def test_rule1_counts_keys_in_sorted_order() -> None:
    shapes = {
        "b.norm1.weight": torch.Size([2]),
        "a": torch.Size([2, 2]),
        "b.proj.weight": torch.Size([3]),
    }
    state = fill("rule1", shapes)
    wave = lambda rank, i: 0.02 * math.sin(0.1 * i + rank)  # noqa: E731
    assert state["a"].shape == (2, 2)
    torch.testing.assert_close(state["a"].flatten(), torch.tensor([wave(0, i) for i in range(4)]))
    expected = torch.tensor([1 + wave(1, 0), 1 + wave(1, 1)])
    torch.testing.assert_close(state["b.norm1.weight"], expected)
    torch.testing.assert_close(state["b.proj.weight"][2], torch.tensor(wave(2, 2)))


def test_rule2_scales_by_the_fan_in() -> None:
    state = fill("rule2", {"w": torch.Size([2, 3, 4]), "bias": torch.Size([2])})
    torch.testing.assert_close(state["bias"][1], torch.tensor(0.1 * math.sin(1.7)))
    torch.testing.assert_close(state["w"][0, 0, 1], torch.tensor(math.sin(1.7 + 1) / math.sqrt(12)))


def test_unknown_rule_is_refused() -> None:
    with pytest.raises(CaseFault, match="rule9"):
        fill("rule9", {})


def test_generated_inputs() -> None:
    images = det_images(2, 4)
    assert images.shape == (2, 3, 4, 4)
    torch.testing.assert_close(images[1, 2, 3, 3], torch.tensor(math.sin(0.95)))
    noise = det_noise(2, 5)
    assert noise.shape == (2, 5)
    torch.testing.assert_close(noise[1, 4], torch.tensor(9 * 0.6180339887498949 % 1))
