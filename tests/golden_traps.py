"""What the golden tests of several methods share: which answers are compared, which cases are
refused, and mistakes that any of them could make, as patches of the product."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS.parent / "tools"), str(TESTS)]
from golden import build, run  # noqa: E402
from golden_cases import document, stored, tensors, write  # noqa: E402

from mimsuite.methods.base import Progress  # noqa: E402
from mimsuite.targets import FeatureTarget  # noqa: E402
from mimsuite.train import optim  # noqa: E402

Patch = Callable[[pytest.MonkeyPatch], None]


def each(patches: Collection[Patch]) -> pytest.MarkDecorator:
    """A test for each of some mistakes, as its argument ``wrong``."""
    return pytest.mark.parametrize("wrong", patches, ids=lambda patch: patch.__name__)


def all_is_compared(*names: str, idle: Callable[[str], bool] = lambda name: False) -> None:
    """Check that the cases pass, and that every answer but ``idle`` ones was looked at."""
    for name in names:
        report = run.check(stored(name))
        assert report.verdict == "pass", report.line()
        compared = {finding.name for finding in report.findings}
        assert {n for n in run.Case.read(stored(name)).answers() if not idle(n)} <= compared


def all_are_refused(folder: Path, name: str, *changes: dict[str, Any]) -> None:
    """Check that a case with each change of its hyperparameters cannot be run."""
    case = document(name)
    for change in changes:
        changed = case | {"hparams": case["hparams"] | change}
        assert run.check(write(folder, changed, tensors(name))).exit_code == 2, change


def fails(wrong: Patch, patch: pytest.MonkeyPatch, name: str) -> None:
    """Check that a case fails by its figures, not by an error, with a mistake in the product."""
    wrong(patch)
    report = run.check(stored(name))
    assert report.verdict == "fail"
    assert not report.error


# --- mistakes -------------------------------------------------------------------------------------


def other_eps(kind: type[nn.Module], eps: float = 1e-5, loader: str = "load") -> Patch:
    """Norms of a kind with another epsilon; ``loader`` is what loads the case's weights."""

    def block_eps(patch: pytest.MonkeyPatch) -> None:
        load = getattr(build, loader)

        def loaded(method: Any, *rest: Any) -> None:
            load(method, *rest)
            for module in method.modules():
                if isinstance(module, kind):
                    module.eps = eps  # type: ignore[assignment]

        patch.setattr(build, loader, loaded)

    return block_eps


def target_eps(patch: pytest.MonkeyPatch) -> None:
    wrong = lambda self, x: F.layer_norm(x, x.shape[-1:], eps=1e-6)  # noqa: E731
    patch.setattr(FeatureTarget, "__call__", wrong)


def no_target_norm(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FeatureTarget, "__call__", lambda self, x: x)


def momentum_early(method: type) -> Patch:
    """The momentum of the next step."""

    def momentum_early(patch: pytest.MonkeyPatch) -> None:
        right = method.after_step  # type: ignore[attr-defined]
        patch.setattr(
            method,
            "after_step",
            lambda self, p: right(self, Progress(p.step + 1, p.total, p.epoch_steps, p.skipped)),
        )

    return momentum_early


def student_targets(method: type, features: Callable[[Any, Any], Tensor]) -> Patch:
    """Targets from ``features(method, batch)`` in place of the teacher's."""

    def student_targets(patch: pytest.MonkeyPatch) -> None:
        prepare = method.prepare  # type: ignore[attr-defined]

        def wrong(self: Any, batch: Any, *rest: Any) -> Any:
            context = prepare(self, batch, *rest)
            context.prepared["target"] = features(self, batch).detach()
            return context

        patch.setattr(method, "prepare", wrong)

    return student_targets


def constant_decay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(optim, "decay_at", lambda section, start, *rest: start)


def rate_late(patch: pytest.MonkeyPatch) -> None:
    right = optim.rate_at
    patch.setattr(
        optim, "rate_at", lambda section, lr, step, n: right(section, lr, max(step - 1, 0), n)
    )


def spared(method: type, name: str) -> Patch:
    """No weight decay of a parameter."""

    def token_spared(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(method, "no_weight_decay", lambda self: {name})

    return token_spared
