"""The quick reading behind `recipes list` says what the checked recipe says, of every recipe."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mimsuite import config
from mimsuite.config import catalog, summary
from mimsuite.config.keys.shared import MethodCard, RecipeInfo
from mimsuite.config.methods import method_list
from mimsuite.errors import UserError


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """A catalog of its own: a file for each keyword."""
    forget = (catalog.names, summary._head)

    def make(**texts: str) -> None:
        for name, text in texts.items():
            (tmp_path / f"{name}.yaml").write_text(text)
        for cached in forget:
            cached.cache_clear()

    monkeypatch.setattr(catalog, "folder", lambda: tmp_path)
    yield make
    for cached in forget:
        cached.cache_clear()


@pytest.mark.parametrize("name", config.recipe_names())
def test_a_recipe_reads_as_when_it_is_checked(name, monkeypatch):
    full = summary.summary_in_full(name)
    monkeypatch.delattr(summary, "summary_in_full")  # the quick way alone
    assert summary.summary(name) == full


def test_methods_and_defaults_are_those_of_the_classes():
    assert sorted(summary._cards()) == method_list()
    for name, (paper, status, *proof) in summary._cards().items():
        card = config.recipe_class(name).card
        assert MethodCard(paper, status, *proof) == card
    assert summary._defaults() == RecipeInfo().model_dump()


def test_the_list_makes_no_schema():
    program = (
        "import sys; from mimsuite.cli.main import main; code = main(['recipes', 'list']);"
        "sys.exit(code or ('mimsuite.config.keys.shared' in sys.modules))"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL).returncode == 0
    )


WHOLE = """
model:
  encoder: {image_size: 28, patch_size: 7, in_channels: 1, width: 32, depth: 1, heads: 2}
  decoder: {width: 16, depth: 1, heads: 2}
mask: {kind: random, ratio: 0.75}
target: {kind: pixels, normalize: true}
optim: {lr: 1e-3}
schedule: {epochs: 1}
train: {global_batch: 8}
"""


@pytest.mark.parametrize(
    "written",
    [
        "recipe: {title: On one line}\nmethod: {name: mae}",
        "recipe:\n  title: >-\n    Folded\n    text\nmethod:\n  name: mae",
        'recipe:\n  title: "0.5: \\u00e9"  # quoted\n\n# a comment\n\nmethod:\n  name: "mae"',
        "method:\n  name: mae\nbase: null",
        "\ufeffrecipe:\n  title: With a mark\nmethod:\n  name: mae",
        "recipe : {title: A space}\nmethod: {name: mae}",
        "'recipe':\n  title: Quoted key\nmethod:\n  name: mae",
    ],
)
def test_any_way_to_write_it_reads_the_same(recipes, written):
    recipes(one=written + WHOLE, two="base: one\nrecipe:\n  published: '77'\n")
    for name in ("one", "two"):
        assert summary.summary(name) == summary.summary_in_full(name)
    assert summary.summary("two").published == "77"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("recipe: {title: [", "not valid YAML"),
        ("base: nowhere", "no recipe 'nowhere'"),
        ("base: one", "in a circle"),
        ("method: {name: mea}" + WHOLE, "unknown method 'mea'"),
        ("recipe: 3\nmethod: {name: mae}" + WHOLE, "recipe: expected a section"),
        ("- a list", "expected sections"),
        ("", "method: "),
    ],
)
def test_what_cannot_be_read_is_an_error_that_says_why(recipes, text, fault):
    recipes(one=text)
    with pytest.raises(UserError, match=fault):
        summary.summary("one")
