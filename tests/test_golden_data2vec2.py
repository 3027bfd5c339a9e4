"""The data2vec 2.0 cases: a product that falls into a trap of the method fails the check."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS.parent / "tools"), str(TESTS)]
from golden import run  # noqa: E402
from golden_cases import stored  # noqa: E402
from golden_traps import (  # noqa: E402
    Patch,
    all_are_refused,
    all_is_compared,
    each,
    fails,
    other_eps,
    student_targets,
)

import mimsuite.models.conv_decoder as conv_decoder  # noqa: E402
from mimsuite.config.keys.masks import SquareBlockMaskSection  # noqa: E402
from mimsuite.methods import data2vec2  # noqa: E402
from mimsuite.methods.base import Progress  # noqa: E402
from mimsuite.methods.data2vec2 import Data2Vec2  # noqa: E402
from mimsuite.models.blocks import Block  # noqa: E402
from mimsuite.models.post_norm_vit import PostNormBlock, PostNormViT  # noqa: E402
from mimsuite.train import optim  # noqa: E402

NAMES = ("data2vec2-a", "data2vec2-traj-a", "data2vec2-masks-a", "data2vec2-ft-a")


@pytest.mark.parametrize("name", NAMES)
def test_every_answer_is_compared(name: str) -> None:
    all_is_compared(name)


def test_hparams_that_are_not_built_are_refused(tmp_path: Path) -> None:
    changes = ({"target_norm_eps": 1e-6}, {"loss_beta": 1.0}, {"num_extra_tokens": 2}, {"x": 1})
    all_are_refused(tmp_path, "data2vec2-a", *changes)


# --- one step ---


def pre_norm(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Any, x: Tensor, keep: Any = None, *, inner: bool = False) -> Any:
        y = Block.forward(self, x, keep)
        return (y, y) if inner else y

    patch.setattr(PostNormBlock, "forward", wrong)


def targets_behind_the_block(patch: pytest.MonkeyPatch) -> None:
    right = PostNormBlock.forward

    def wrong(self: Any, x: Tensor, keep: Any = None, *, inner: bool = False) -> Any:
        y = right(self, x, keep)
        return (y, y) if inner else y

    patch.setattr(PostNormBlock, "forward", wrong)


def averaged(instance: bool = True, last: bool = True, eps: float = 1e-5) -> Patch:
    def mean(layers: Sequence[Tensor]) -> Tensor:
        own = [x.transpose(1, 2) for x in layers]
        own = [F.instance_norm(x, eps=eps) for x in own] if instance else own
        found = (sum(own) / len(own)).transpose(1, 2)  # type: ignore[union-attr]
        return F.layer_norm(found, found.shape[-1:], eps=eps) if last else found

    return lambda patch: patch.setattr(data2vec2, "average_layers", mean)


def stem_counts(patch: pytest.MonkeyPatch) -> None:
    right = PostNormViT.mlp_outputs
    patch.setattr(PostNormViT, "mlp_outputs", lambda self, x, last: right(self, x, last + 1))


def one_layer(patch: pytest.MonkeyPatch) -> None:
    right = PostNormViT.mlp_outputs
    patch.setattr(PostNormViT, "mlp_outputs", lambda self, x, last: right(self, x, 1))


def zeros_for_noise(patch: pytest.MonkeyPatch) -> None:
    right = Data2Vec2._fill
    patch.setattr(Data2Vec2, "_fill", lambda self, *rest: 0 * right(self, *rest))


def decoder_eps(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(conv_decoder, "_EPS", 1e-6)


def decoder_without_residual(patch: pytest.MonkeyPatch) -> None:
    right = conv_decoder.ConvLayer.forward
    patch.setattr(conv_decoder.ConvLayer, "forward", lambda self, x: right(self, x) - x)


def class_term_of_means(patch: pytest.MonkeyPatch) -> None:
    right = Data2Vec2.losses

    def wrong(self: Any, cls: Tensor, *rest: Tensor) -> Any:
        regression, term = right(self, cls, *rest)
        return regression, term / len(cls)

    patch.setattr(Data2Vec2, "losses", wrong)


def token_means(patch: pytest.MonkeyPatch) -> None:
    right = Data2Vec2.losses

    def wrong(self: Any, cls: Tensor, *rest: Tensor) -> Any:
        regression, term = right(self, cls, *rest)
        return regression / cls.shape[-1] ** 0.5, term

    patch.setattr(Data2Vec2, "losses", wrong)


def _averaged_own(method: Any, batch: Any) -> Tensor:
    layers = method.encoder.mlp_outputs(method.encoder.patches(batch.image), 2)
    return data2vec2.average_layers(layers)


STEP = {
    "blocks' eps": other_eps(nn.LayerNorm),
    "norms in front": pre_norm,
    "targets behind the block": targets_behind_the_block,
    "targets' eps": averaged(eps=1e-6),
    "no norm of layers": averaged(instance=False),
    "no norm of the mean": averaged(last=False),
    "a block of the stem averaged": stem_counts,
    "one layer alone": one_layer,
    "the student's targets": student_targets(Data2Vec2, _averaged_own),
    "zeros in place of noise": zeros_for_noise,
    "decoder's eps": decoder_eps,
    "decoder without residual": decoder_without_residual,
    "class term divided by rows": class_term_of_means,
    "mean over the width": token_means,
}


@pytest.mark.parametrize("name", STEP)
def test_a_wrong_step_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(STEP[name], monkeypatch, "data2vec2-a")


# --- a trajectory ---


def decay_as_usual(patch: pytest.MonkeyPatch) -> None:
    right = optim.param_groups
    patch.setattr(optim, "param_groups", lambda method, decay, *rest: right(method, decay))


def teacher_to_the_end(patch: pytest.MonkeyPatch) -> None:
    right = Data2Vec2.after_step

    def wrong(self: Any, p: Progress) -> None:
        right(self, Progress(p.step, p.total + 1, p.epoch_steps, p.skipped))

    patch.setattr(Data2Vec2, "after_step", wrong)


def momentum_late(patch: pytest.MonkeyPatch) -> None:
    right = Data2Vec2._momentum
    patch.setattr(Data2Vec2, "_momentum", lambda self, step: right(self, max(step - 1, 0)))


def no_clip(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(nn.utils, "clip_grads_with_norm_", lambda *rest: None)


def token_spared(patch: pytest.MonkeyPatch) -> None:
    right = optim.param_groups

    def wrong(*rest: Any) -> Any:
        groups = right(*rest)
        own = {**groups[0], "names": ["encoder.cls_token"], "weight_decay": 0.0, "decay_share": 0.0}
        place = groups[0]["names"].index("encoder.cls_token")
        groups[0]["names"].pop(place)
        own["params"] = [groups[0]["params"].pop(place)]
        return [*groups, own]

    patch.setattr(optim, "param_groups", wrong)


@each([decay_as_usual, teacher_to_the_end, momentum_late, no_clip, token_spared])
def test_a_wrong_trajectory_fails(wrong: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(wrong, monkeypatch, "data2vec2-traj-a")


# --- masks, groups ---


def test_shares_are_cut_as_published() -> None:
    """1 - 0.8 is below 0.2 in float64, which the stored grids do not show."""
    section = SquareBlockMaskSection(ratio=0.8)
    assert [section.covered(tokens) for tokens in (100, 196, 25)] == [19, 39, 4]


def test_other_squares_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    from golden import data2vec2 as tool

    right = tool.mask_keys
    monkeypatch.setattr(tool, "mask_keys", lambda given: {**right(given), "adjust": 0.0})
    assert run.check(stored("data2vec2-masks-a")).verdict == "fail"
    monkeypatch.setattr(tool, "mask_keys", lambda given: {**right(given), "side": 1})
    assert run.check(stored("data2vec2-mask-stats")).verdict == "fail"


def test_a_stem_at_the_lowest_rate_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PostNormViT, "rate_layer", lambda self, name: self.layer_id(name))
    failed = {f.name for f in run.check(stored("param-groups")).findings if not f.ok}
    assert failed == {"data2vec2_ft_form_b.lr_scale", "data2vec2_ft_form_l.lr_scale"}


def test_a_linear_drop_path_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def linear(self: Any) -> list[float]:
        return torch.linspace(0, self.section.drop_path, self.depth).tolist()

    monkeypatch.setattr(PostNormViT, "drop_path_rates", linear)
    failed = {f.name for f in run.check(stored("param-groups")).findings if not f.ok}
    assert failed == {"data2vec2_ft_form_b.drop_path"}
