"""The attentive probes: a product that falls into a trap of a published probe fails the check."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS.parent / "tools"), str(TESTS)]
from golden import attentive_probes  # noqa: E402
from golden_traps import Patch, each, fails, rate_late  # noqa: E402

from mimsuite.data.video import clip_indices  # noqa: E402
from mimsuite.models.attentive import BlockPooler, QueryBlock, QueryPooler  # noqa: E402
from mimsuite.models.features import Features  # noqa: E402


def encoder_eps(patch: pytest.MonkeyPatch) -> None:
    load = attentive_probes._load

    def wrong(method: Any, state: Any) -> None:
        load(method, state)
        for module in method.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = 1e-6

    patch.setattr(attentive_probes, "_load", wrong)


def blocks_on_the_query(patch: pytest.MonkeyPatch) -> None:
    """The order of the first version."""

    def wrong(self: Any, features: Features) -> Tensor:
        tokens = features.tokens
        query = self.cross_attention_block(self.query_tokens.expand(len(tokens), -1, -1), tokens)
        for block in self.blocks:
            query = block(query)
        return query[:, 0]

    patch.setattr(BlockPooler, "forward", wrong)


def query_normed(patch: pytest.MonkeyPatch) -> None:
    right = QueryBlock.forward
    patch.setattr(
        QueryBlock, "forward", lambda self, query, tokens: right(self, self.norm1(query), tokens)
    )


def biases_spared(patch: pytest.MonkeyPatch) -> None:
    right = attentive_probes.build_optimizer

    def wrong(method: Any, recipe: Any) -> Any:
        changed = recipe.optim.model_copy(update={"decay_all": False})
        return right(method, recipe.model_copy(update={"optim": changed}))

    patch.setattr(attentive_probes, "build_optimizer", wrong)


@each([encoder_eps, blocks_on_the_query, query_normed, biases_spared, rate_late])
def test_a_wrong_probe_of_blocks_fails(wrong: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(wrong, monkeypatch, "vjepa-probe-a")


def other_scale(patch: pytest.MonkeyPatch) -> None:
    right = QueryPooler.forward

    def wrong(self: Any, features: Features) -> Tensor:
        with torch.no_grad():
            self.query_token.mul_(2.0)
        return right(self, features)

    patch.setattr(QueryPooler, "forward", wrong)


def halves_swapped(patch: pytest.MonkeyPatch) -> None:
    right = QueryPooler.forward

    def wrong(self: Any, features: Features) -> Tensor:
        with torch.no_grad():
            for part in (self.kv.weight, self.kv.bias):
                part.copy_(torch.cat(part.chunk(2)[::-1]))
        return right(self, features)

    patch.setattr(QueryPooler, "forward", wrong)


@each([other_scale, halves_swapped])
def test_a_wrong_probe_of_one_query_fails(wrong: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(wrong, monkeypatch, "capi-attnpool-a")


def rounded_rate(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(clip_indices, "stride_at", lambda rate, fps: max(1, int(rate / fps)))


def even_strides(patch: pytest.MonkeyPatch) -> None:
    def wrong(end: int, length: int, stride: int) -> list[int]:
        return [end - length * stride + stride * number for number in range(length)]

    patch.setattr(clip_indices, "dense_until", wrong)


@each([rounded_rate, even_strides])
def test_other_frames_fail(wrong: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(wrong, monkeypatch, "vjepa-clip-indices")
