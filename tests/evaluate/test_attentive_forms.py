"""Forms of attentive pooling: trained on a run's frozen features, and from the file of a head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mimsuite import config, methods
from mimsuite.errors import UserError
from mimsuite.methods.classify import Classifier
from mimsuite.models import Features

FORMS: dict[str, dict[str, Any]] = {
    "query": {"kind": "query", "head_width": 8},
    "blocks": {"kind": "blocks", "depth": 2, "heads": 4},
}


def probe(form: str, classes: int = 3, **pooler: Any) -> Classifier:
    keys = {f"model.pooler.{k}": v for k, v in (FORMS[form] | pooler).items()}
    sizes = {"model.encoder.width": 32, "model.encoder.depth": 1, "target.classes": classes}
    resolved = config.with_overrides(config.load("image/tiny-attentive"), keys | sizes, "test")
    made: Classifier = methods.build(resolved.recipe)
    return made


def released(form: str, path: Path, container: str = "") -> Classifier:
    """Write the head of a probe as published code does."""
    method = probe(form)
    lead = "module." if form == "blocks" else ""
    state = {
        lead + method.pooler.published.published(name): tensor
        for name, tensor in method.state_dict().items()
        if not name.startswith("encoder.")
    }
    if form == "blocks":
        state["module.pooler.cross_attention_block.xattn.proj.weight"] = torch.zeros(32, 32)
    content: Any = state
    if container == "classifiers":
        content = {"classifiers": [state, state], "epoch": 20}
    elif container:
        content = {container: state, "epoch": 20}
    torch.save(content, path)
    return method


@pytest.mark.parametrize("form", FORMS)
def test_registers_are_read_by_blocks_alone(form: str) -> None:
    method = probe(form)
    tokens = torch.randn(2, 5, 32)
    plain = method.pooler(Features(tokens[:, :0], tokens))
    assert plain.shape == (2, 32)
    more = method.pooler(Features(torch.ones(2, 1, 32), tokens))
    assert torch.equal(plain, more) == (form == "query")


@pytest.mark.parametrize(
    ("form", "container"),
    [("query", ""), ("blocks", "classifiers"), ("blocks", "classifier")],
)
def test_a_released_head_is_taken(form: str, container: str, tmp_path: Path) -> None:
    path = tmp_path / "head.pt"
    theirs = released(form, path, container)
    encoder = {"encoder.x": torch.zeros(1)}
    state, lines = probe(form, weights=str(path)).adapt_state(encoder)
    for name, tensor in theirs.state_dict().items():
        if not name.startswith("encoder."):
            assert torch.equal(state[name], tensor)
    assert "encoder.x" in state
    assert not any("proj" in name for name in state if name.startswith("pooler.cross"))
    assert lines[-1] == f"head of 3 classes taken from {path}"
    state, lines = probe(form, classes=5, weights=str(path)).adapt_state(encoder)
    assert "head.weight" not in state  # it stays fresh
    assert lines[-1] == f"pooling taken from {path}"


def test_a_head_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "head.pt"
    released("blocks", path)
    for keys in ({"depth": 3}, {"mlp_ratio": 2.0}, {"depth": 1}):
        with pytest.raises(UserError, match=r"model\.pooler\.weights=.*head\.pt") as caught:
            probe("blocks", weights=str(path), **keys).adapt_state({})
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"holds no pooler\.query_token"):
        probe("query", weights=str(path)).adapt_state({})


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"model.pooler.kind": "query"}, "pooler.head_width 64 does not divide"),
        ({"model.pooler.kind": "blocks", "model.pooler.heads": 5}, "pooler.heads 5 does not"),
        ({"model.pool": "mean", "model.pooler.kind": "blocks"}, "needs pool=attentive"),
    ],
)
def test_poolers_that_do_not_fit_are_refused(keys: dict[str, Any], said: str) -> None:
    base = config.with_overrides(
        config.load("image/tiny-attentive"), {"model.encoder.width": 96}, "test"
    )
    with pytest.raises(UserError, match=said):
        config.with_overrides(base, keys, "test")
