"""The CAPI cases: a product that falls into a trap of the method fails the check."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS.parent / "tools"), str(TESTS)]
from golden import capi as tool  # noqa: E402
from golden import run  # noqa: E402
from golden_cases import stored  # noqa: E402
from golden_traps import (  # noqa: E402
    Patch,
    all_are_refused,
    all_is_compared,
    each,
    fails,
    momentum_early,
    other_eps,
)

from mimsuite.config.keys.shared import GroupSection  # noqa: E402
from mimsuite.methods import capi as method_file  # noqa: E402
from mimsuite.methods.capi import CAPI  # noqa: E402
from mimsuite.models import QueryDecoder, RegisterViT, register_vit  # noqa: E402


def test_every_answer_is_compared() -> None:
    all_is_compared("capi-droppath-a", "capi-eval-a", "capi-traj-a", "capi-masks-a")
    all_is_compared("capi-attnpool-a")


def test_hparams_that_are_not_built_are_refused(tmp_path: Path) -> None:
    changes = ({"qkv_bias": True}, {"sk_eps": 1e-6}, {"decoder_embed_dim": 8}, {"x": 1})
    all_are_refused(tmp_path, "capi-droppath-a", *changes)


def true_rotation(patch: pytest.MonkeyPatch) -> None:
    def wrong(x: Tensor, places: Tensor, frequencies: Tensor) -> Tensor:
        along = frequencies[0, : x.shape[-1] // 4]
        angles = torch.cat([places[..., :1] * along, places[..., 1:] * along], dim=-1)
        cosine, sine = angles.cos().unsqueeze(1), angles.sin().unsqueeze(1)
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)

    patch.setattr(register_vit, "turn_halves", wrong)


def columns_first(patch: pytest.MonkeyPatch) -> None:
    right = register_vit.places_2d
    patch.setattr(register_vit, "places_2d", lambda *args: right(*args).flip(1))


def registers_around_the_image(patch: pytest.MonkeyPatch) -> None:
    right = RegisterViT.places

    def wrong(self: Any, ids: Any = None, grid: Any = None) -> Tensor:
        made = right(self, ids, grid)
        whole = right(self)[:, : self.class_tokens]
        return torch.cat([whole.expand(len(made), -1, -1), made[:, self.class_tokens :]], dim=1)

    patch.setattr(RegisterViT, "places", wrong)


def balanced_over_the_batch(patch: pytest.MonkeyPatch) -> None:
    right = method_file.balanced_assignments
    patch.setattr(
        method_file,
        "balanced_assignments",
        lambda x, *rest: right(x.flatten(0, 1)[None], *rest)[0].view_as(x),
    )


def one_iteration_more(patch: pytest.MonkeyPatch) -> None:
    right = method_file.balanced_assignments
    patch.setattr(
        method_file, "balanced_assignments", lambda x, count, gather: right(x, count + 1, gather)
    )


def not_balanced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(method_file, "balanced_assignments", lambda x, *rest: x.softmax(dim=-1))


def no_registers_in_the_decoder(patch: pytest.MonkeyPatch) -> None:
    right = QueryDecoder.forward

    def wrong(self: Any, encoder: Any, memory: Any, *rest: Any, **options: Any) -> Tensor:
        tokens, places = (part[:, encoder.class_tokens :] for part in memory)
        return right(self, encoder, (tokens, places), *rest, **options)

    patch.setattr(QueryDecoder, "forward", wrong)


def no_drop_path_factor(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(register_vit, "_plus", lambda x, branch, kept: x + branch(None))


STEP = [
    true_rotation,
    columns_first,
    registers_around_the_image,
    other_eps(nn.RMSNorm, 1e-6, "load_published"),
    balanced_over_the_batch,
    one_iteration_more,
    not_balanced,
    no_registers_in_the_decoder,
    no_drop_path_factor,
]


@each(STEP)
def test_a_wrong_step_fails(wrong: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(wrong, monkeypatch, "capi-droppath-a")


def test_the_last_block_in_place_of_the_first_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    right = QueryDecoder.forward
    monkeypatch.setattr(
        QueryDecoder, "forward", lambda self, *args, blocks=None: right(self, *args)
    )
    report = run.check(stored("capi-eval-a"))
    assert report.verdict == "fail"
    assert {f.name for f in report.findings if f.ratio > 1} == {"global_repr"}


def lengths_spared(patch: pytest.MonkeyPatch) -> None:
    _spared(patch, "weight_g")


def registers_spared(patch: pytest.MonkeyPatch) -> None:
    _spared(patch, "registers")


def _spared(patch: pytest.MonkeyPatch, end: str) -> None:
    right = CAPI.decay_share
    patch.setattr(
        CAPI, "decay_share", lambda self, n, p: 0.0 if n.endswith(end) else right(self, n, p)
    )


def clusters_do_not_decay(patch: pytest.MonkeyPatch) -> None:
    right = CAPI.parameter_groups

    def wrong(self: Any) -> dict[str, GroupSection]:
        (group,) = right(self).values()
        return {"clusters.": group.model_copy(update={"weight_decay": 0.0})}

    patch.setattr(CAPI, "parameter_groups", wrong)


def prototypes_not_followed(patch: pytest.MonkeyPatch) -> None:
    right = CAPI._followed
    patch.setattr(CAPI, "_followed", lambda self: right(self)[:2])


def turning_trained(patch: pytest.MonkeyPatch) -> None:
    right = CAPI.rate_scale
    patch.setattr(
        CAPI, "rate_scale", lambda self, n: 1.0 if n.endswith("freqs") else right(self, n)
    )


def whole_cosine(patch: pytest.MonkeyPatch) -> None:
    right = tool.training

    def wrong(hparams: Any) -> dict[str, Any]:
        made = right(hparams)
        return made | {"schedule": made["schedule"] | {"cosine_share": 1.0}}

    patch.setattr(tool, "training", wrong)


TRAJECTORY = [
    lengths_spared,
    registers_spared,
    clusters_do_not_decay,
    prototypes_not_followed,
    turning_trained,
    momentum_early(CAPI),
    whole_cosine,
]


@each(TRAJECTORY)
def test_a_wrong_trajectory_fails(wrong: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(wrong, monkeypatch, "capi-traj-a")
