"""The I-JEPA cases: a product that falls into a trap of the method fails the check."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS.parent / "tools"), str(TESTS)]
from golden import build, run  # noqa: E402
from golden_cases import document, stored, tensors, write  # noqa: E402

from mimsuite.config.keys.masks import MultiBlockMaskSection  # noqa: E402
from mimsuite.masking import MultiBlockSampler  # noqa: E402
from mimsuite.methods.base import Progress  # noqa: E402
from mimsuite.methods.ijepa import IJEPA  # noqa: E402
from mimsuite.models import Predictor  # noqa: E402
from mimsuite.targets import FeatureTarget  # noqa: E402
from mimsuite.train import optim  # noqa: E402

Patch = Callable[[pytest.MonkeyPatch], None]


def test_every_answer_is_compared() -> None:
    for name in ("ijepa-a", "ijepa-traj-a", "ijepa-masks-a"):
        report = run.check(stored(name))
        assert report.verdict == "pass"
        compared = {finding.name for finding in report.findings}
        idle = {n for n in run.Case.read(stored(name)).answers() if n.startswith("state_final.")}
        assert run.Case.read(stored(name)).answers().keys() - idle <= compared


def test_hparams_that_are_not_built_are_refused(tmp_path: Path) -> None:
    case = document("ijepa-a")
    for change in ({"target_norm_eps": 1e-6}, {"loss": "l1"}, {"smooth_l1_beta": 2.0}, {"x": 1}):
        path = write(tmp_path, case | {"hparams": case["hparams"] | change}, tensors("ijepa-a"))
        assert run.check(path).exit_code == 2


def target_eps(patch: pytest.MonkeyPatch) -> None:
    wrong = lambda self, x: F.layer_norm(x, x.shape[-1:], eps=1e-6)  # noqa: E731
    patch.setattr(FeatureTarget, "__call__", wrong)


def no_target_norm(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FeatureTarget, "__call__", lambda self, x: x)


def block_eps(patch: pytest.MonkeyPatch) -> None:
    load = build.load

    def loaded(method: Any, case: Any, *names: str) -> None:
        load(method, case, *names)
        for module in method.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = 1e-5

    patch.setattr(build, "load", loaded)


def student_targets(patch: pytest.MonkeyPatch) -> None:
    prepare = IJEPA.prepare

    def wrong(self: Any, batch: Any, *rest: Any) -> Any:
        context = prepare(self, batch, *rest)
        with torch.no_grad():
            tokens = self.student(self.student.patches(batch.image)).tokens
        context.made["target"] = self.target(tokens)
        return context

    patch.setattr(IJEPA, "prepare", wrong)


def one_sequence(patch: pytest.MonkeyPatch) -> None:
    right = Predictor.forward

    def wrong(self: Any, latent: Tensor, ids: Tensor, targets: Tensor) -> Tensor:
        joined = targets.transpose(0, 1).flatten(1)[None]  # all targets of a sample together
        found = right(self, latent, ids, joined)[0]
        return found.unflatten(1, (len(targets), -1)).transpose(0, 1)

    patch.setattr(Predictor, "forward", wrong)


def places_left_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        Predictor,
        "asked",
        lambda self, ids, dtype: self.mask_token.expand(*ids.shape, -1),
    )


STEP = [target_eps, no_target_norm, block_eps, student_targets, one_sequence, places_left_out]


@pytest.mark.parametrize("wrong", STEP, ids=lambda patch: patch.__name__)
def test_a_wrong_step_fails(wrong: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong(monkeypatch)
    assert run.check(stored("ijepa-a")).verdict == "fail"


def momentum_early(patch: pytest.MonkeyPatch) -> None:
    right = IJEPA.after_step
    patch.setattr(
        IJEPA,
        "after_step",
        lambda self, p: right(self, Progress(p.step + 1, p.total, p.epoch_steps, p.skipped)),
    )


def constant_decay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(optim, "decay_at", lambda section, start, *rest: start)


def rate_late(patch: pytest.MonkeyPatch) -> None:
    right = optim.rate_at
    patch.setattr(
        optim, "rate_at", lambda section, lr, step, n: right(section, lr, max(step - 1, 0), n)
    )


def mask_token_spared(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(IJEPA, "no_weight_decay", lambda self: {"predictor.mask_token"})


@pytest.mark.parametrize(
    "wrong",
    [momentum_early, constant_decay, rate_late, mask_token_spared],
    ids=lambda patch: patch.__name__,
)
def test_a_wrong_trajectory_fails(wrong: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong(monkeypatch)
    assert run.check(stored("ijepa-traj-a")).verdict == "fail"


def test_targets_of_two_contexts_are_outermost(tmp_path: Path) -> None:
    """Row (target, context, sample) of what is predicted belongs to that row of the targets."""
    case, given = document("ijepa-a"), tensors("ijepa-a")
    given["enc_idx"] = given["enc_idx"].repeat(2, 1, 1)
    given["enc_idx"][1] = given["enc_idx"][0].flip(0)  # contexts of the other sample
    case["hparams"]["num_enc_masks"] = 2
    case["inputs"], answers = case["inputs"], {k: v for k, v in given.items() if _fed(k)}
    out = tmp_path / "out.safetensors"
    run.check(write(tmp_path, case, answers), out)
    from safetensors.torch import load_file

    found, before = load_file(out), tensors("ijepa-a")
    rows = found["pred"].unflatten(0, (4, 2, 2))
    torch.testing.assert_close(rows[:, 0].flatten(0, 1), before["pred"], rtol=0, atol=1e-5)
    wanted = found["target"].unflatten(0, (4, 2, 2))
    assert torch.equal(wanted[:, 0], wanted[:, 1])
    loss = F.smooth_l1_loss(found["pred"], found["target"])
    torch.testing.assert_close(found["loss"], loss)


def _fed(name: str) -> bool:
    return name.startswith(("imgs", "enc_idx", "pred_idx", "state."))


def test_a_corner_that_reaches_the_edge_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def corners(self: Any, key: Any, grid: Any) -> Any:
        generator = self._generator("wrong", *key)
        return lambda size: tuple(
            int(generator.random() * (side - length + 1))
            for side, length in zip(grid, size, strict=True)
        )

    monkeypatch.setattr(MultiBlockSampler, "_corners", corners)
    sampler = MultiBlockSampler(MultiBlockMaskSection())
    from mimsuite.noise import Noise

    rows = [sampler.sample(Noise(0, s, torch.arange(8)), (14, 14))["image"] for s in range(20)]
    assert max(int((mask.targets // 14).max()) for mask in rows) == 13  # the exact check would see
