"""The V-JEPA cases: a product that falls into a trap of the method fails the check."""

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
from golden import run  # noqa: E402
from golden_cases import document, stored, tensors, write  # noqa: E402
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

from mimsuite.masking import ClipBlockSampler  # noqa: E402
from mimsuite.methods.vjepa import VJEPA  # noqa: E402
from mimsuite.models import ClipPredictor, ClipViT, blocks, clip_predictor, clip_vit  # noqa: E402
from mimsuite.targets import FeatureTarget  # noqa: E402


def test_every_answer_is_compared() -> None:
    all_is_compared("vjepa-pretrain-a", "vjepa-v1-a", "vjepa-image-a", "vjepa-traj-a")
    all_is_compared("vjepa-probe-a")


def test_hparams_that_are_not_built_are_refused(tmp_path: Path) -> None:
    changes = ({"target_norm_eps": 1e-6}, {"loss_exp": 3.0}, {"clip_lengths": [8, 4]})
    all_are_refused(tmp_path, "vjepa-pretrain-a", *changes)


# --- a wrong step ---------------------------------------------------------------------------------


def turned(patch: pytest.MonkeyPatch, wrong: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Another rule for the numbers that turn."""

    def turn(x: Tensor, turns: Any, last: int | None = None) -> Tensor:
        cosine, sine = turns if last is None else (part[:, :, -last:] for part in turns)
        width = cosine.shape[-1]
        return torch.cat([wrong(x[..., :width], cosine, sine), x[..., width:]], dim=-1)

    patch.setattr(blocks, "turn", turn)


def textbook_rotation(patch: pytest.MonkeyPatch) -> None:
    def wrong(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        def paired(part: Tensor) -> Tensor:  # both numbers of a pair turn alike
            band = part.unflatten(-1, (3, 2, -1))[..., 0, :]
            return band.repeat_interleave(2, dim=-1).flatten(-2)

        even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
        return x * paired(cosine) + torch.stack([-odd, even], -1).flatten(-2) * paired(sine)

    turned(patch, wrong)


def half_split_pairs(patch: pytest.MonkeyPatch) -> None:
    def wrong(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        first, second = x.unflatten(-1, (3, 2, -1)).unbind(-2)
        return x * cosine + torch.stack([-second, first], -2).flatten(-3) * sine

    turned(patch, wrong)


def places_by(
    patch: pytest.MonkeyPatch, change: Callable[[Tensor, Any], tuple[Tensor, Any]]
) -> None:
    right = clip_vit.turns_of
    wrong = lambda ids, grid, width: right(*change(ids, grid), width)  # noqa: E731
    patch.setattr(clip_vit, "turns_of", wrong)
    patch.setattr(clip_predictor, "turns_of", wrong)


def places_by_rank(patch: pytest.MonkeyPatch) -> None:
    places_by(patch, lambda ids, grid: (torch.arange(ids.shape[1]).expand_as(ids), grid))


def time_last(patch: pytest.MonkeyPatch) -> None:
    right = clip_vit.turns_of

    def wrong(ids: Tensor, grid: Any, width: int) -> Any:
        return tuple(part.roll(-part.shape[-1] // 3, dims=-1) for part in right(ids, grid, width))

    patch.setattr(clip_vit, "turns_of", wrong)
    patch.setattr(clip_predictor, "turns_of", wrong)


def all_tokens_encoded(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Any, batch: Any, mask: Any, ctx: Any, number: int = 0) -> Tensor:
        latent = mask.gather(
            self.student(self.student.tubelets(self._clips(batch))).tokens, "visible"
        )
        return self.predictor(latent, mask.visible, mask.targets[0], self._token(number))

    patch.setattr(VJEPA, "predict", wrong)


def token_by_set(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(VJEPA, "_token", lambda self, number: number)


def squares(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FeatureTarget, "loss", lambda self, found, wanted: F.mse_loss(found, wanted))


def mean_of_all_tokens(patch: pytest.MonkeyPatch) -> None:
    right = VJEPA.forward

    def wrong(self: Any, batch: Any, masks: Any, ctx: Any) -> Any:
        from dataclasses import replace

        output = right(self, batch, masks, ctx)
        wanted = [m.gather_targets(ctx.prepared["target"])[0] for m in masks.values()]
        return replace(output, loss=F.l1_loss(output.prediction, torch.cat(wanted, dim=1)))

    patch.setattr(VJEPA, "forward", wrong)


STEP = [
    *(textbook_rotation, half_split_pairs, places_by_rank, time_last, all_tokens_encoded),
    *(other_eps(nn.LayerNorm), target_eps, no_target_norm, token_by_set, squares),
    student_targets(VJEPA, lambda self, batch: self.target(_tokens(self, batch))),
    mean_of_all_tokens,
]


def _tokens(method: Any, batch: Any) -> Tensor:
    tokens: Tensor = method.student(method.student.tubelets(method._clips(batch))).tokens
    return tokens


@each(STEP)
def test_a_wrong_step_fails(wrong: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(wrong, monkeypatch, "vjepa-pretrain-a")


# --- a wrong trajectory ---------------------------------------------------------------------------


def momentum_not_stretched(patch: pytest.MonkeyPatch) -> None:
    right = VJEPA.__init__

    def wrong(self: Any, recipe: Any) -> None:
        right(self, recipe)
        self.stretch = 1.0

    patch.setattr(VJEPA, "__init__", wrong)


@each(
    [
        *(momentum_early(VJEPA), momentum_not_stretched, constant_decay, rate_late),
        spared(VJEPA, "predictor.mask_tokens.0"),
    ]
)
def test_a_wrong_trajectory_fails(wrong: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(wrong, monkeypatch, "vjepa-traj-a")


def test_gradients_clipped_together_or_from_the_start_fail(tmp_path: Path) -> None:
    case = document("vjepa-v1-traj-a")
    assert run.check(stored("vjepa-v1-traj-a")).verdict == "pass"
    hparams = case["hparams"] | {"clip_grad": None}
    path = write(tmp_path, case | {"hparams": hparams}, tensors("vjepa-v1-traj-a"))
    assert run.check(path).verdict == "fail"


def test_networks_clipped_together_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VJEPA, "clip_parts", lambda self: ("",))
    assert run.check(stored("vjepa-v1-traj-a")).verdict == "fail"


# --- other traps ----------------------------------------------------------------------------------


def test_a_cut_of_the_first_tokens_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ClipBlockSampler.cut

    def wrong(self: Any, blocks: Any, drawn: Any, grid: Any) -> Any:
        least = [min(len(rows[n]) for rows in drawn) for n in (0, 1)]
        last = [(seen[-least[0] :], asked[-least[1] :]) for seen, asked in drawn]
        return right(self, blocks, last, grid)

    monkeypatch.setattr(ClipBlockSampler, "cut", wrong)
    assert run.check(stored("vjepa-masks")).verdict == "fail"


def test_an_interpolated_table_of_fewer_frames_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from mimsuite.tokens import resize_clip_positions

    monkeypatch.setattr(clip_vit, "fit_clip_positions", resize_clip_positions)
    assert run.check(stored("vjepa-encoder-sincos-a")).verdict == "fail"


def test_a_table_with_columns_first_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from golden import vjepa_tables

    from mimsuite.tokens import sincos_2d

    right = vjepa_tables.sincos_clip
    monkeypatch.setattr(
        vjepa_tables,
        "sincos_clip",
        lambda width, grid, even: (
            sincos_2d(width, grid[1:]) if grid[0] == 1 else right(width, grid, even)
        ),
    )
    assert run.check(stored("vjepa-sincos")).verdict == "fail"


def test_blocks_begin_scaled_in_the_second_version_only() -> None:
    from mimsuite import config
    from mimsuite.methods import build as build_method

    for scaled in (True, False):
        keys = {"model.scaled_start": scaled, "model.encoder.depth": 4}
        torch.manual_seed(0)
        recipe = config.with_overrides(config.load("video/vjepa2-tiny-motion"), keys, "test").recipe
        method: Any = build_method(recipe)
        for network in (method.student, method.predictor):
            assert isinstance(network, ClipViT | ClipPredictor)
            for number, block in enumerate(network.blocks, start=1):
                wanted = 0.02 / ((2 * number) ** 0.5 if scaled else 1)
                for weight in (block.attn.proj.weight, block.mlp.fc2.weight):
                    assert float(weight.std()) == pytest.approx(wanted, rel=0.06)
        assert not any(token.any() for token in method.predictor.mask_tokens)
