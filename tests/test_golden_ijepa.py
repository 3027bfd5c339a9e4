"""The I-JEPA cases: a product that falls into a trap of the method fails the check."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS.parent / "tools"), str(TESTS)]
from golden import run  # noqa: E402
from golden_cases import document, tensors, write  # noqa: E402
from golden_traps import (  # noqa: E402
    Patch,
    all_are_refused,
    all_is_compared,
    constant_decay,
    each,
    fails,
    momentum_early,
    no_target_norm,
    other_eps,
    rate_late,
    spared,
    student_targets,
    target_eps,
)

from mimsuite.config.keys.masks import MultiBlockMaskSection  # noqa: E402
from mimsuite.masking import MultiBlockSampler  # noqa: E402
from mimsuite.methods.ijepa import IJEPA  # noqa: E402
from mimsuite.models import Predictor  # noqa: E402


def test_every_answer_is_compared() -> None:
    all_is_compared("ijepa-a", "ijepa-masks-a")
    all_is_compared("ijepa-traj-a", idle=lambda name: name.startswith("state_final."))


def test_hparams_that_are_not_built_are_refused(tmp_path: Path) -> None:
    changes = ({"target_norm_eps": 1e-6}, {"loss": "l1"}, {"smooth_l1_beta": 2.0}, {"x": 1})
    all_are_refused(tmp_path, "ijepa-a", *changes)


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


STEP = [
    *(target_eps, no_target_norm, other_eps(nn.LayerNorm), one_sequence, places_left_out),
    student_targets(IJEPA, lambda self, batch: self.target(_tokens(self, batch))),
]


def _tokens(method: IJEPA, batch: Any) -> Tensor:
    # Not through hooks, which record what the student sees
    return method.student.forward(method.student.patches(batch.image)).tokens


@each(STEP)
def test_a_wrong_step_fails(wrong: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(wrong, monkeypatch, "ijepa-a")


@each(
    [
        *(momentum_early(IJEPA), constant_decay, rate_late),
        spared(IJEPA, "predictor.mask_token"),
    ]
)
def test_a_wrong_trajectory_fails(wrong: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(wrong, monkeypatch, "ijepa-traj-a")


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
