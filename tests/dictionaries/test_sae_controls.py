"""tools/check_golden.py on dictionaries: one mistake in one place fails the check."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mimsuite.dictionaries import jumprelu, losses, training
from mimsuite.dictionaries.atoms import Atoms, project
from mimsuite.dictionaries.base import Coded
from mimsuite.dictionaries.batchtopk import BatchTopKDictionary
from mimsuite.dictionaries.pursuit import PursuitDictionary
from mimsuite.dictionaries.topk import largest

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent / "tools"), str(TESTS)]
from golden import run, sae  # noqa: E402
from golden_cases import stored  # noqa: E402

Patch = pytest.MonkeyPatch


def gradient_through_the_norm(patch: Patch) -> None:
    patch.setattr(
        Atoms,
        "forward",
        lambda self: project(self._weights, self.projection) * self.multiplier.exp(),
    )


def absolute_choice(patch: Patch) -> None:
    def pursue(self: PursuitDictionary, x: Tensor, atoms: Tensor) -> tuple[Tensor, Tensor]:
        left, codes = x, x.new_zeros(len(x), len(atoms))
        for _ in range(self.active):
            best = (left @ atoms.T).abs().argmax(dim=1)
            code = (left * atoms[best]).sum(dim=1, keepdim=True)
            codes = codes.scatter_add(1, best[:, None], code)
            left = left - code * atoms[best]
        return left, codes

    patch.setattr(PursuitDictionary, "pursue", pursue)


def l1_of_a_row(patch: Patch) -> None:
    plain = sae._penalty

    def divided(hparams: object, rows: int) -> object:
        return plain(hparams, 1)  # type: ignore[arg-type]

    patch.setattr(sae, "_penalty", divided)


def detached_error(patch: Patch) -> None:
    def explained(x: Tensor, coded: Coded) -> Tensor:
        unchosen = coded.before.relu() - coded.codes
        second = largest(unchosen, unchosen.shape[1] // 2)
        return ((x - coded.output).detach() - second @ coded.atoms).square().mean()

    patch.setattr(losses, "explained_by_unchosen", explained)


def schedule_from_its_first_entry(patch: Patch) -> None:
    patch.setattr(sae, "published_rate", lambda table, step, own, final: table[step])


def no_clip(patch: Patch) -> None:
    patch.setattr(
        training.torch.nn.utils,
        "clip_grad_norm_",
        lambda parameters, most: torch.stack(
            [p.grad.norm() for p in parameters if p.grad is not None]
        ).norm(),
    )


def kernels_without_the_second_width(patch: Patch) -> None:
    patch.setattr(
        jumprelu,
        "KERNELS",
        {
            name: lambda d, width, kernel=kernel: kernel(d, width) * width
            for name, kernel in jumprelu.KERNELS.items()
        },
    )


def fit_from_nothing(patch: Patch) -> None:
    from mimsuite.dictionaries import orthogonal

    plain = orthogonal.non_negative_fit
    patch.setattr(
        orthogonal,
        "non_negative_fit",
        lambda atoms, x, start, steps: plain(atoms, x, torch.zeros_like(start), steps),
    )


def strict_threshold(patch: Patch) -> None:
    def pick(self: BatchTopKDictionary, rectified: Tensor) -> Tensor:
        threshold = self._of_batch(rectified) if self.training else self.running_threshold
        if self.training:
            self._follow(threshold.detach())
        return rectified * (rectified > threshold)

    patch.setattr(BatchTopKDictionary, "pick", pick)


def later_rows_share_too(patch: Patch) -> None:
    def pick(self: BatchTopKDictionary, rectified: Tensor) -> Tensor:
        threshold = self._of_batch(rectified.detach())
        if self.training:
            self._follow(threshold)
        return rectified * (rectified >= threshold)

    patch.setattr(BatchTopKDictionary, "pick", pick)


@pytest.mark.parametrize(
    ("mistake", "case", "seen"),
    [
        (gradient_through_the_norm, "topk-a", "grad.dictionary._weights"),
        (gradient_through_the_norm, "topk-traj-a", "loss"),
        (absolute_choice, "mp-a", "codes"),
        (l1_of_a_row, "vanilla-a", "loss"),
        (detached_error, "topk-a", "grad.encoder.final_block.0.weight"),
        (schedule_from_its_first_entry, "batchtopk-traj-a", "rate"),
        (no_clip, "vanilla-traj-a", "loss"),
        (kernels_without_the_second_width, "jumprelu-a", "grad.thresholds"),
        (kernels_without_the_second_width, "jumprelu-traj-a", "grad_norm"),
        (fit_from_nothing, "omp-a", "codes"),
        (strict_threshold, "batchtopk-a", "codes"),
        (later_rows_share_too, "batchtopk-a", "eval.codes"),
    ],
)
def test_a_mistake_fails_its_case(
    mistake: Callable[[Patch], None], case: str, seen: str, monkeypatch: Patch
) -> None:
    mistake(monkeypatch)
    report = run.check(stored(case))
    assert report.verdict == "fail", report.error
    assert seen in {finding.name for finding in report.findings if not finding.ok}, report.error


def test_what_the_product_cannot_do_is_named(tmp_path: Path) -> None:
    from golden_cases import document, tensors, write

    for key, value in (("encoder", "resnet"), ("normalization", "l3"), ("loss_kind", "huber")):
        case = document("topk-a")
        case["hparams"][key] = value
        report = run.check(write(tmp_path, case, tensors("topk-a")))
        assert report.exit_code == 2, report.error
        assert f"hparams.{key}" in report.error
