"""Every recipe that ships: valid, documented, small under --smoke, with the published settings."""

from __future__ import annotations

import re

import pytest

from mimsuite import config
from mimsuite.config import catalog
from mimsuite.config.keys.section import Key
from mimsuite.config.keys.weights_list import published_weights
from mimsuite.config.schema import dotted_keys

NAMES = config.recipe_names()
PUBLISHED = [name for name in NAMES if name.endswith("-in1k")]


def test_the_catalog_has_the_published_recipes():
    for size in ("vitb16", "vitl16", "vith14"):
        for task in ("", "-finetune", "-linprobe"):
            assert f"image/mae-{size}{task}-in1k" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_valid_as_it_is_and_small(name):
    resolved = config.load(name)
    assert resolved.name == name
    smoke = config.load(name, smoke=True)
    assert smoke.changed, "has no smoke: section"
    assert set(smoke.changed) <= set(dotted_keys(type(smoke.recipe), mark=Key.SIZE))
    assert smoke.recipe.schedule.epochs <= 2
    encoder = smoke.recipe.model.encoder
    assert encoder.width <= 64 or encoder.kind == "frozen"  # a published network has its own width
    assert config.from_document(resolved.document).document == resolved.document


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_what_it_is_and_names_recipes_that_exist(name):
    about = config.load(name).recipe.recipe
    assert about.title
    assert about.paper
    for follow_up in (about.finetune, about.linear_probe):
        assert follow_up == "" or follow_up in NAMES


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_is_documented(name):
    text = catalog.find(name).read()
    header = text[: text.index("\n\n")]
    assert all(line.startswith("#") for line in header.splitlines())
    for word in ("arXiv:", "Expected:", "mimsuite ", "GPU-hours:", name):
        assert word in header
    body = text.split("\nsmoke:")[0][len(header) :]
    keys = [line for line in body.splitlines() if re.match(r" *\w+: \S", line)]
    assert keys
    assert [line for line in keys if "  # " not in line] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_copied_recipe_does_not_depend_on_where_it_lies(name, tmp_path):
    copied = tmp_path / "copied.yaml"
    copied.write_text(catalog.find(name).read())
    assert config.load(copied).document == config.load(name).document


# width, depth, heads, patch size
SIZES = {"b16": (768, 12, 12, 16), "l16": (1024, 24, 16, 16), "h14": (1280, 32, 16, 14)}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("task", ["", "-finetune", "-linprobe"])
def test_encoders_have_the_published_shape(size, task):
    encoder = config.load(f"image/mae-vit{size}{task}-in1k").recipe.model.encoder
    shape = (encoder.width, encoder.depth, encoder.heads, encoder.patch_size)
    assert shape == SIZES[size]
    assert encoder.trained_positions == (task == "-finetune")


@pytest.mark.parametrize("size", SIZES)
def test_pretraining_has_the_published_settings(size):
    recipe = config.load(f"image/mae-vit{size}-in1k").recipe
    assert recipe.lr == pytest.approx(2.4e-3)
    assert recipe.optim.betas == (0.9, 0.95)
    assert recipe.optim.weight_decay == 0.05
    assert recipe.optim.layer_decay is None
    assert recipe.optim.clip_grad is None
    assert (recipe.schedule.epochs, recipe.schedule.warmup_epochs) == (800, 40)
    assert recipe.mask.ratio == 0.75
    assert recipe.target.normalize
    assert recipe.augment.crop_scale == (0.2, 1.0)
    decoder = recipe.model.decoder
    assert (decoder.width, decoder.depth, decoder.heads) == (512, 8, 16)


@pytest.mark.parametrize(
    ("size", "epochs", "rate", "decay", "drop_path"),
    [("b16", 100, 5e-4, 0.65, 0.1), ("l16", 50, 1e-3, 0.75, 0.2), ("h14", 50, 1e-3, 0.75, 0.3)],
)
def test_fine_tuning_has_the_published_settings(size, epochs, rate, decay, drop_path):
    recipe = config.load(f"image/mae-vit{size}-finetune-in1k").recipe
    assert recipe.schedule.epochs == epochs
    assert recipe.lr == pytest.approx(rate * 4)
    assert recipe.optim.layer_decay == decay
    assert recipe.model.encoder.drop_path == drop_path
    assert recipe.optim.betas == (0.9, 0.999)
    assert (recipe.schedule.warmup_epochs, recipe.schedule.min_lr) == (5, 1e-6)
    target = recipe.target
    assert (target.mixup, target.cutmix, target.label_smoothing) == (0.8, 1.0, 0.1)
    assert (recipe.augment.randaugment, recipe.augment.erase) == ("rand-m9-mstd0.5-inc1", 0.25)
    assert (recipe.model.pool, recipe.model.head_init_std) == ("mean", 2e-5)


@pytest.mark.parametrize(("size", "epochs"), [("b16", 90), ("l16", 50), ("h14", 50)])
def test_the_linear_probe_has_the_published_settings(size, epochs):
    recipe = config.load(f"image/mae-vit{size}-linprobe-in1k").recipe
    assert recipe.optim.name == "lars"
    assert recipe.lr == pytest.approx(6.4)
    assert recipe.optim.weight_decay == 0
    assert (recipe.schedule.epochs, recipe.schedule.warmup_epochs) == (epochs, 10)
    assert recipe.augment.crop == "single-try"
    model = recipe.model
    assert (model.pool, model.head, model.freeze) == ("cls", "bn-linear", True)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("image/mae-vitb16-in1k", 111.9),
        ("image/mae-vitl16-in1k", 329.5),
        ("image/mae-vith14-in1k", 657.1),
        ("image/mcmae-b-in1k", 115.0),
        ("image/mcmae-b-finetune-in1k", 85.4),
        ("image/crate-mae-tiny-in1k", 11.6),
        ("image/crate-mae-small-in1k", 25.4),
        ("image/crate-mae-base-in1k", 44.6),
        ("image/crate-mae-large-in1k", 154.3),
        ("image/crate-tiny-in1k", 6.1),
        ("image/crate-small-in1k", 13.1),
        ("image/crate-base-in1k", 22.8),
        ("image/crate-large-in1k", 77.6),
    ],
)
def test_models_have_the_published_number_of_parameters(name, millions):
    import torch

    from mimsuite.methods import build

    with torch.device("meta"):
        method = build(config.load(name).recipe)
    # The published count includes the fixed positions of encoder and decoder.
    count = sum(tensor.numel() for tensor in method.state_dict().values())
    assert count / 1e6 == pytest.approx(millions, abs=0.06)


def test_official_weights_name_recipes_that_load():
    weights = published_weights()
    assert len({entry.file for entry in weights}) == len(weights)
    for entry in weights:
        name, *overrides = entry.recipe.split()
        config.load(name, overrides)
        assert entry.url.endswith(entry.file) or entry.url.startswith("https://drive.google.com/")
        assert entry.licence


def test_an_installed_package_has_its_catalog_inside(tmp_path, monkeypatch):
    (tmp_path / "mimsuite/_recipes/image").mkdir(parents=True)
    text = catalog.find("image/mae-vitb16-in1k").read()
    (tmp_path / "mimsuite/_recipes/image/only.yaml").write_text(text)
    monkeypatch.setattr(catalog, "_PACKAGE", tmp_path / "mimsuite")
    catalog.names.cache_clear()
    try:
        assert config.recipe_names() == ("image/only",)
        origins = config.load("image/only").origins
        assert origins["mask.ratio"].startswith("recipes/image/only.yaml:")
    finally:
        catalog.names.cache_clear()
