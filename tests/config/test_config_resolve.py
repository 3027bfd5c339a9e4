"""Resolving: precedence, origins, completeness, and stored documents."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimsuite import config
from mimsuite.config.layers import leaves
from mimsuite.config.yaml import inline, parse
from mimsuite.errors import UserError

BASE = """\
method: {name: mae}
model:
  encoder: {image_size: 32, patch_size: 8, width: 32, heads: 4}
mask: {ratio: 0.75}
target: {normalize: true}
optim: {lr_per_256: 1e-3}
schedule: {epochs: 10}
train: {global_batch: 64}
smoke:
  schedule.epochs: 1
  train.global_batch: 16
"""
CHILD = """\
base: base.yaml
mask: {ratio: 0.5}
train: {seed: 7}
smoke:
  model.encoder.width: 16
"""


@pytest.fixture
def child(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "child.yaml").write_text(CHILD)
    return "child.yaml"


def test_precedence_and_origins(child):
    resolved = config.load(child, ["mask.ratio=0.6", "optim.weight_decay=0"])
    assert resolved.recipe.mask.ratio == 0.6
    assert resolved.recipe.train.seed == 7
    assert resolved.recipe.train.global_batch == 64
    assert resolved.recipe.log.every_steps == 20
    origins = resolved.origins
    assert origins["mask.ratio"] == "command line"
    assert origins["train.seed"] == "child.yaml:3"
    assert origins["train.global_batch"] == "base.yaml:8"
    assert origins["log.every_steps"] == "default"
    assert origins["smoke.schedule.epochs"] == "base.yaml:10"
    assert resolved.changed == {"mask.ratio": 0.6, "optim.weight_decay": 0.0}


def test_the_file_alone_changes_nothing(child):
    resolved = config.load(child)
    assert resolved.changed == {}
    assert parse(resolved.changed_yaml()).value is None


def test_smoke_lies_between_file_and_command_line(child):
    assert config.load(child).recipe.schedule.epochs == 10
    resolved = config.load(child, ["train.global_batch=32"], smoke=True)
    assert resolved.recipe.schedule.epochs == 1
    assert resolved.recipe.model.encoder.width == 16
    assert resolved.recipe.train.global_batch == 32
    assert resolved.origins["schedule.epochs"] == "smoke"
    assert resolved.origins["train.global_batch"] == "command line"
    assert resolved.changed == {
        "model.encoder.width": 16,
        "schedule.epochs": 1.0,
        "train.global_batch": 32,
    }


def test_smoke_sizes_can_be_given_on_the_command_line(child):
    resolved = config.load(child, ["smoke.data.workers=0"], smoke=True)
    assert resolved.recipe.data.workers == 0
    assert resolved.origins["data.workers"] == "smoke"


def test_the_document_is_complete_ordered_and_every_value_has_an_origin(child):
    resolved = config.load(child)
    document = resolved.document
    assert list(document) == list(type(resolved.recipe).model_fields)
    assert document["base"] is None
    assert document["augment"]["crop_scale"] == [0.2, 1.0]
    assert json.loads(json.dumps(document)) == document
    assert set(resolved.origins) == {".".join(keys) for keys, _ in leaves(document)}


def test_a_stored_document_resolves_to_itself(child):
    resolved = config.load(child, ["train.seed=3"], smoke=True)
    for stored in (resolved.document, parse(resolved.yaml()).value):
        again = config.from_document(stored, "runs/x")
        assert again.document == resolved.document
        assert again.recipe == resolved.recipe
        assert again.changed == {}
        assert set(again.origins.values()) == {"runs/x"}


def test_a_resolved_recipe_is_a_recipe_file(child, tmp_path):
    resolved = config.load(child, ["optim.betas=[0.8, 0.9]"])
    (tmp_path / "elsewhere").mkdir()
    stored = tmp_path / "elsewhere/config.yaml"
    stored.write_text(resolved.yaml())
    assert config.load(stored).document == resolved.document


def test_the_changes_over_the_recipe_give_the_same_recipe(child, tmp_path):
    resolved = config.load(child, ["optim.betas=[0.8, 0.9]", "data.source='a: b'"], smoke=True)
    (tmp_path / "diff.yaml").write_text(f"base: child.yaml\n{resolved.changed_yaml()}")
    assert config.load("diff.yaml").document == resolved.document


def test_a_faulty_stored_document_names_where_it_is_from(child):
    document = config.load(child).document
    document["mask"]["ratio"] = 2
    with pytest.raises(UserError, match=r"mask\.ratio: expected .* got 2 \(runs/x/config\.yaml\)"):
        config.from_document(document, "runs/x/config.yaml")
    with pytest.raises(UserError, match=r"\(stored recipe\)"):
        config.from_document(document)


def test_with_overrides_keeps_what_was_known(child):
    resolved = config.load(child, ["mask.ratio=0.6"])
    changed = config.with_overrides(resolved, {"data.source": "1e3", "train.seed": 9}, "--data")
    assert changed.recipe.data.source == "1e3"
    assert changed.origins["data.source"] == "--data"
    assert changed.origins["mask.ratio"] == "command line"
    assert changed.origins["train.global_batch"] == "base.yaml:8"
    assert changed.origins["log.every_steps"] == "default"
    assert changed.changed == {"mask.ratio": 0.6, "data.source": "1e3", "train.seed": 9}
    assert resolved.recipe.data.source == ""
    texts = config.with_overrides(resolved, ["train.seed=11"])
    assert texts.origins["train.seed"] == "command line"
    with pytest.raises(UserError, match=r"train\.seed: expected .* \(here\)"):
        config.with_overrides(resolved, {"train.seed": -1}, "here")


def test_a_rate_can_be_replaced_by_the_other_kind(child):
    resolved = config.load(child, ["optim.lr=0.1", "optim.lr_per_256=null"])
    assert resolved.recipe.lr == 0.1
    assert config.load(child).recipe.lr == pytest.approx(1e-3 * 64 / 256)


def test_a_recipe_of_unimported_classes_can_be_pickled(child):
    recipe = config.load(child).recipe
    again = pickle.loads(pickle.dumps(recipe))
    assert again == recipe
    assert type(again) is type(recipe)
    assert pickle.loads(pickle.dumps(recipe.method)) == recipe.method


@settings(max_examples=30, deadline=None)
@given(
    ratio=st.floats(0.1, 0.9),
    betas=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    source=st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="~$:\\")
    ),  # as it is
)
def test_any_values_survive_config_yaml(tmp_path_factory, ratio, betas, source):
    path = tmp_path_factory.getbasetemp() / "property.yaml"
    path.write_text(BASE)
    values = {"mask.ratio": ratio, "optim.betas": list(betas), "data.source": source}
    resolved = config.load(path, [f"{key}={inline(value)}" for key, value in values.items()])
    assert resolved.changed == values
    assert config.from_document(parse(resolved.yaml()).value).document == resolved.document
