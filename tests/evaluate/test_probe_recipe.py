"""The recipe that probes a run has the run's encoder, of whatever kind the recipe's own is."""

from __future__ import annotations

import pytest

from mimsuite import config
from mimsuite.config.keys.section import Key, marked
from mimsuite.evaluate.probe_recipe import with_encoder_of


@pytest.mark.parametrize(
    ("pretrained", "recipe"),
    [
        ("image/convmae-tiny-clipart", "image/mae-tiny-finetune"),
        ("image/crate-mae-tiny-fashion", "image/data2vec2-vitb16-finetune-in1k"),
        ("image/mae-tiny-clipart", "image/mcmae-b-linprobe-in1k"),
    ],
)
def test_a_recipe_for_another_kind_of_encoder_takes_the_runs(pretrained: str, recipe: str) -> None:
    run, probe = config.load(pretrained), config.load(recipe)
    composed = with_encoder_of(run, probe, "folder", (), Key.TUNABLE)
    ours, theirs = run.document["model"]["encoder"], probe.document["model"]["encoder"]
    assert ours["kind"] != theirs["kind"]
    section = type(run.recipe.model.encoder)
    decided = {
        key: theirs.get(key, section.model_fields[key].default)  # as the probe's recipe has it
        for key in marked(section, Key.TUNABLE)
    }
    assert composed.document["model"]["encoder"] == ours | decided
