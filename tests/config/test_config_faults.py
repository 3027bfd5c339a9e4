"""Messages about faulty recipes: all at once, in plain words, with the place of each."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

from mimsuite import config
from mimsuite.config.faults import faults_of
from mimsuite.config.keys.section import DropPath, Key, Positive, Section, Size, marked
from mimsuite.config.keys.shared import Recipe
from mimsuite.config.layers import of_overrides
from mimsuite.config.schema import describe, dotted_keys
from mimsuite.errors import UserError

RECIPE = """\
method:
  name: mae
model:
  encoder:
    image_size: 32
    patch_size: 8
    width: 32
    heads: 4
mask:
  ratio: 0.75
target:
  normalize: true
optim:
  lr: 1e-3
schedule:
  epochs: 1
train:
  global_batch: 8
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE)
    return "r.yaml"


def faults(recipe, *overrides, **options):
    with pytest.raises(UserError) as caught:
        config.load(recipe, overrides, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mask.ratoi=0.5", "mask.ratoi: unknown key. Did you mean mask.ratio? (command line)"),
        ("maks.ratio=0.5", "maks: unknown key. Did you mean mask? (command line)"),
        ("ratio=0.5", "ratio: unknown key. Did you mean mask.ratio? (command line)"),
        (
            "schedule.warmup=1",
            "schedule.warmup: unknown key. Did you mean schedule.warmup_epochs or "
            "schedule.warmup_lr? (command line)",
        ),
        (
            "mask.zzz=1",
            "mask.zzz: unknown key. Keys here: kind, ratio, decode_ratio. (command line)",
        ),
        ("mask.ratio=lots", "mask.ratio: expected a number, got 'lots' (command line)"),
        ('mask.ratio="0.75"', "mask.ratio: expected a number, got '0.75' (command line)"),
        ("mask.ratio=true", "mask.ratio: expected a number, got true (command line)"),
        ("mask.ratio=1.5", "mask.ratio: expected a number from 0 to below 1, got 1.5"),
        ("optim.weight_decay=-1", "optim.weight_decay: expected a number, 0 or more, got -1"),
        ("augment.hflip=2", "augment.hflip: expected a number from 0 to 1, got 2"),
        ("optim.layer_decay=0", "expected a number above 0 and up to 1 or null, got 0"),
        ("train.global_batch=1e3", "train.global_batch: expected a whole number, got 1000.0"),
        ("train.global_batch=0", "train.global_batch: expected a whole number above 0, got 0"),
        ("train.compile=no", "train.compile: expected true or false, got 'no'"),
        ("train.device=1", "train.device: expected text, got 1; quotes make it text"),
        (
            "train.precision=bf61",
            "train.precision: expected one of auto, fp32, tf32, bf16, fp16, got 'bf61'. "
            "Did you mean bf16? (command line)",
        ),
        ("augment.mean=0.5", "augment.mean: expected a list of numbers, got 0.5"),
        ("optim.betas=[0.9]", "optim.betas: expected a list of 2 numbers, got [0.9]"),
        (
            "optim.betas=[0.9, 2]",
            "optim.betas: expected a list of 2 numbers from 0 to 1, got [0.9, 2]",
        ),
        (
            "model.encoder.image_size=big",
            "model.encoder.image_size: expected a whole number or a list of 2 whole numbers, "
            "got 'big' (command line)",
        ),
        (
            "model.encoder.image_size=[32, 0]",
            "model.encoder.image_size: expected a whole number above 0 or a list of 2 whole "
            "numbers above 0, got [32, 0] (command line)",
        ),
        ("model.encoder=3", "model.encoder: expected a section, got 3 (command line)"),
        ("mask=null", "mask: expected a section, got null (command line)"),
        ("smoke=[1]", "smoke: expected a section, got [1] (command line)"),
        (
            "optim.lr_per_256=1e-4",
            "optim: set exactly one of optim.lr and optim.lr_per_256; null clears one "
            "(r.yaml:14, command line)",
        ),
        (
            "model.encoder.patch_size=7",
            "model.encoder: patch_size 7 does not divide image_size 32 x 32 "
            "(command line, r.yaml:5)",
        ),
        ("mask.ratio=0.999", "mask.ratio 0.999 leaves 0 of 16 patches visible"),
        ("method.name=mea", "method.name: unknown method 'mea'. Did you mean mae?"),
        ("method.name=zzz", "give its file with --plugin (command line)"),
        ("method.name=3", "method.name: expected text, got 3"),
    ],
)
def test_one_fault_is_one_line_with_its_place(recipe, override, message):
    text = faults(recipe, override)
    assert message in text
    assert "\n" not in text


def test_the_place_of_a_key_in_a_file_is_its_line(recipe, tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE.replace("  ratio: 0.75", "  # half\n  ratoi: 0.75"))
    assert faults(recipe) == (
        "r.yaml has 2 faults\n"
        "  mask.ratio: required, but not set; expected a number from 0 to below 1 (r.yaml:9)\n"
        "  mask.ratoi: unknown key. Did you mean mask.ratio? (r.yaml:11)"
    )


def test_the_place_of_an_inherited_key_is_in_the_base(recipe, tmp_path):
    (tmp_path / "base.yaml").write_text(RECIPE.replace("0.75", "lots"))
    (tmp_path / "r.yaml").write_text("base: base.yaml\ntrain: {seed: 3}\n")
    assert faults(recipe) == "mask.ratio: expected a number, got 'lots' (base.yaml:10)"


def test_all_faults_come_at_once_in_the_order_of_sections(recipe, tmp_path):
    (tmp_path / "r.yaml").write_text(
        RECIPE.replace("lr: 1e-3", "lr: lots").replace("normalize: true", "normalise: yes")
        + "smoke: {mask.ratio: 0.5, model.encoder.widht: 8}\n"
    )
    first, *lines = faults(recipe, "train.sed=1").splitlines()
    assert first == "r.yaml has 6 faults"
    assert [line.split(":")[0].strip() for line in lines] == [
        "target.normalize",
        "target.normalise",
        "optim.lr",
        "train.sed",
        "smoke",
        "smoke",
    ]


def test_faults_of_shared_sections_show_although_the_method_is_unknown(recipe):
    text = faults(recipe, "method.name=mea", "train.sed=1")
    assert "unknown method 'mea'" in text
    assert "train.sed: unknown key. Did you mean train.seed?" in text


def test_a_missing_method_is_named(recipe, tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE.replace("method:\n  name: mae\n", ""))
    assert "method: required, but not set; expected a section (r.yaml)" in faults(recipe)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("mask.ratio: 0.5", "smoke: mask.ratio: not a size; smoke only shrinks sizes. (r.yaml:20)"),
        ("target.normalize: no", "not a size"),
        ("data.source: x", "not a size"),
        ("train.seed: 1", "not a size"),
        ("optim.lr: 1", "not a size"),
        (
            "model.encoder.widht: 8",
            "smoke: model.encoder.widht: unknown key. Did you mean model.encoder.width? "
            "(r.yaml:20)",
        ),
        ("model: {encoder: {width: 8}}", "smoke: model: not a size"),
    ],
)
def test_smoke_takes_size_keys_only(recipe, tmp_path, entry, message):
    (tmp_path / "r.yaml").write_text(f"{RECIPE}smoke:\n  {entry}\n")
    assert message in faults(recipe)


def test_smoke_values_are_checked_when_they_are_applied(recipe, tmp_path):
    (tmp_path / "r.yaml").write_text(f"{RECIPE}smoke:\n  model.encoder.width: wide\n")
    config.load(recipe)
    text = faults(recipe, smoke=True)
    assert text == "model.encoder.width: expected a whole number, got 'wide' (smoke)"


# --- unions of sections, as methods with several kinds of target have them -----------------------


class PixelsSection(Section):
    kind: Literal["pixels"] = "pixels"
    size: Size = 1


class TeacherSection(Section):
    kind: Literal["teacher"]
    layers: tuple[Positive, ...]
    weight: float | None = None


class UnionRecipe(Section):
    told: Annotated[PixelsSection | TeacherSection, Field(discriminator="kind")] = PixelsSection()
    guessed: PixelsSection | TeacherSection = PixelsSection()


def union_faults(**values: Any) -> list[str]:
    layer = of_overrides(values)
    with pytest.raises(ValidationError) as caught:
        UnionRecipe.model_validate(layer.document, strict=True)
    return faults_of(caught.value, UnionRecipe, layer)


@pytest.mark.parametrize("key", ["told", "guessed"])
def test_faults_in_a_union_are_of_the_kind_that_was_chosen(key):
    wrong = union_faults(**{f"{key}.kind": "teacher", f"{key}.layers": 3, f"{key}.sice": 2})
    assert wrong == [
        f"{key}.layers: expected a list of whole numbers, got 3 (command line)",
        f"{key}.sice: unknown key. Did you mean told.size or guessed.size? (command line)",
    ]


def test_a_kind_that_does_not_exist():
    (told,) = union_faults(**{"told.kind": "pixel"})
    expected = "expected a section with kind pixels or teacher"
    assert told == f"told: {expected}, got kind 'pixel' (command line)"
    (guessed,) = union_faults(**{"guessed.kind": "pixel"})
    assert guessed.startswith(f"guessed: {expected}, got")


def test_faults_inside_a_list_of_sections_are_named_with_their_number(recipe):
    mixed = "[{source: a, weight: -1}, {sauce: b}]"
    found = faults(recipe, f"data.mixture={mixed}").splitlines()[1:]
    assert [line.strip() for line in found] == [
        "data.mixture.0.weight: expected a number above 0, got -1 (command line)",
        "data.mixture.1.source: required, but not set; expected text (command line)",
        "data.mixture.1.sauce: unknown key. Did you mean data.mixture.1.source? (command line)",
    ]


def test_every_key_of_the_schema_is_listed():
    keys = list(dotted_keys(Recipe))
    assert {"optim", "optim.lr", "train.seed", "smoke"} <= set(keys)
    assert {"told.size", "told.layers"} <= set(dotted_keys(UnionRecipe))


class MarkedSection(Section):
    width: Annotated[int, Field(gt=0), Key.SIZE] = 8
    depth: Annotated[Positive | None, Key.SIZE | Key.TUNABLE] = None
    drop: DropPath = 0.0
    loss: Annotated[float, Field(gt=0.0)] = 1.0


class MarkedRecipe(Section):
    model: MarkedSection | TeacherSection = MarkedSection()


def test_a_mark_stands_at_the_key():
    assert list(dotted_keys(MarkedRecipe, mark=Key.SIZE)) == ["model.width", "model.depth"]
    assert (
        marked(MarkedSection, Key.TUNABLE) == marked(MarkedSection, Key.FREE) == {"depth", "drop"}
    )
    assert marked(MarkedSection, Key.TRAINING) == {"drop"}
    with pytest.raises(ValidationError):
        MarkedSection(width=0)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int | None, "a whole number or null"),
        (tuple[int, str], "a list of 2 values"),
        (list[float], "a list of numbers"),
        (list[bool], "a list of values, each true or false"),
        (dict[str, int], "a section"),
        (Literal["a"], "a"),
        (bytes, "another value"),
        (Annotated[int, Field(gt=1, lt=5)], "a whole number above 1 and below 5"),
        (Annotated[float, Field(le=2)], "a number, 2 or less"),
        (Annotated[float, Field(lt=2)], "a number below 2"),
    ],
)
def test_types_in_words(annotation, words):
    assert describe(annotation, bounds=True) == words
