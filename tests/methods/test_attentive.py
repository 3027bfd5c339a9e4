"""The attentive probe: what is trained, what it pools, and on which encoders."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.methods import build
from mimsuite.methods.classify import Classifier
from mimsuite.noise import FixedNoise


def probe(**keys: Any) -> Any:
    changes = {
        "model.encoder.image_size": 16,
        "model.encoder.width": 16,
        "model.encoder.depth": 1,
        "model.encoder.heads": 2,
        "target.classes": 4,
        **keys,
    }
    resolved = config.with_overrides(config.load("image/tiny-attentive"), changes, "test")
    torch.manual_seed(0)
    return build(resolved.recipe)


def step(method: Classifier, batch: Batch) -> Any:
    rows = FixedNoise({})
    context = method.prepare(batch, rows)
    return method(batch, method.mask(batch, rows, context), context)


def batch(samples: int = 6) -> Batch:
    return Batch.of_images(torch.randn(samples, 3, 16, 16), torch.arange(samples) % 4)


@pytest.mark.parametrize("kind", ["vit", "beit"])
def test_only_the_head_is_trained_on_any_encoder(kind: str) -> None:
    method = probe(**{"model.encoder.kind": kind}).train()
    before = {name: tensor.clone() for name, tensor in method.encoder.state_dict().items()}
    trained = {name.partition(".")[0] for name, p in method.named_parameters() if p.requires_grad}
    assert trained == {"pooler", "head"}
    assert not method.encoder.training
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    step(method, batch()).loss.backward()
    assert method.pooler.query.grad.any() or method.pooler.cross_attn.q_bias.grad.any()
    optimizer.step()
    assert all(torch.equal(t, before[n]) for n, t in method.encoder.state_dict().items())


def test_all_tokens_are_pooled_class_token_too() -> None:
    method = probe().eval()
    torch.nn.init.normal_(method.pooler.query)
    features = method.encoder.encode(batch(2))
    pooled = method.pooled(features)
    for part in ("cls", "tokens"):
        changed = {"cls": features.cls, "tokens": features.tokens}
        changed[part] = -changed[part]
        other = type(features)(**changed)
        assert not torch.allclose(method.pooled(other), pooled)


def test_evaluation_uses_running_statistics() -> None:
    """Not those of the test batch: a sample's logits do not depend on its neighbours."""
    method = probe().train()
    for _ in range(3):
        step(method, batch(8))
    method.eval()
    images = batch(6).image
    with torch.no_grad():
        whole = method.logits(images)
        torch.testing.assert_close(whole[:2], method.logits(images[:2]))
