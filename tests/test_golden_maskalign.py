"""The MaskAlign cases: what they leave out, what they cannot ask for, what they would notice."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS.parent / "tools"), str(TESTS)]
from golden import run  # noqa: E402
from golden_cases import document, stored, tensors, write  # noqa: E402

NAME = "maskalign-a"
OPTIONAL = {"len_keep", "num_patches", "num_levels"}


def test_every_answer_is_compared() -> None:
    report = run.check(stored(NAME))
    assert report.verdict == "pass"
    compared = {finding.name for finding in report.findings}
    assert run.Case.read(stored(NAME)).answers().keys() <= compared
    assert report.skipped == {}


def test_missing_hparams_are_named(tmp_path: Path) -> None:
    case = document(NAME)
    for key in case["hparams"]:
        hparams = {k: v for k, v in case["hparams"].items() if k != key}
        report = run.check(write(tmp_path, case | {"hparams": hparams}, tensors(NAME)))
        if key in OPTIONAL | {"target_norm_eps", "smooth_l1_beta"}:  # of which only one is built
            assert report.verdict == "pass", key
        else:
            assert report.exit_code == 2, (key, report.error)
            assert f"hparams.{key}" in report.error


@pytest.mark.parametrize(
    "hparams",
    [
        {"target_norm_eps": 1e-6},
        {"smooth_l1_beta": 0.5},
        {"head_type": "mlp3"},
        {"fusion_type": "attention"},
        {"mask_type": "block"},
        {"loss_weights": "top3"},
        {"dropout": 0.1},
        {"rotary": True},
    ],
    ids=str,
)
def test_what_is_not_built_is_named(tmp_path: Path, hparams: dict[str, Any]) -> None:
    case = document(NAME)
    case["hparams"] |= hparams
    report = run.check(write(tmp_path, case, tensors(NAME)))
    assert report.exit_code == 2
    assert f"hparams.{next(iter(hparams))}" in report.error


@pytest.mark.parametrize(
    "hparams",
    [
        {"loss_weights": "last"},
        {"fusion_type": "simple"},
        {"target_norm": "none"},
        {"loss_type": "l2"},
        {"smooth_l1_scale": 1.0},
        {"norm_eps": 1e-5},
    ],
    ids=str,
)
def test_other_settings_are_noticed(tmp_path: Path, hparams: dict[str, Any]) -> None:
    case = document(NAME)
    case["hparams"] |= hparams
    assert run.check(write(tmp_path, case, tensors(NAME))).exit_code == 1


@pytest.mark.parametrize("name", ["student_last", "grad.distill_weights", "importance"])
def test_a_wrong_answer_is_noticed(tmp_path: Path, name: str) -> None:
    wrong = tensors(NAME)
    wrong[name] = wrong[name] * 1.01
    report = run.check(write(tmp_path, document(NAME), wrong))
    assert report.exit_code == 1
    assert [finding.name for finding in report.findings if not finding.ok] == [name]


def test_random_masks_are_injected_too(tmp_path: Path) -> None:
    case, given = document(NAME), tensors(NAME)
    case["hparams"] |= {"mask_type": "random", "target_norm": "l2", "loss_type": "l2"}
    answers = run.Case.read(stored(NAME)).answers().keys() - {"ids_keep"}
    fed = {name: tensor for name, tensor in given.items() if name not in answers}
    case["compare"] = {"ids_keep": {"exact": True}}
    assert run.check(write(tmp_path, case, fed)).verdict == "pass"


def test_a_blind_case_can_be_dumped(tmp_path: Path) -> None:
    case = document(NAME)
    answers = run.Case.read(stored(NAME)).answers()
    fed = {name: tensor for name, tensor in tensors(NAME).items() if name not in answers}
    out = tmp_path / "out.safetensors"
    assert run.check(write(tmp_path, case, fed), out).verdict == "dumped"
    computed = load_file(out)
    for name, answer in answers.items():
        torch.testing.assert_close(computed[name], answer, atol=1e-5, rtol=1e-4)


def test_the_sampling_would_notice_uniform_masks(tmp_path: Path) -> None:
    assert run.check(stored("maskalign-sampling")).verdict == "pass"
    given = tensors("maskalign-sampling")
    given["importance"] = torch.ones(16)
    case = document("maskalign-sampling")
    assert run.check(write(tmp_path, case, given)).exit_code == 1
