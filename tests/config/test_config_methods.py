"""Method files: recipe classes read without torch, plugins, and what cannot be read."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from mimsuite import config
from mimsuite.config import methods
from mimsuite.config.header import read_header
from mimsuite.config.keys.section import Section
from mimsuite.config.keys.shared import Recipe
from mimsuite.errors import UserError

TOY = '''\
"""A toy method."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator

from mimsuite.config.keys.section import EmptySection
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.methods import Method

Weight = Annotated[float, Field(gt=0.0)]
_LARGEST = math.pi * 10
_TABLE = torch.zeros(3)


class ToySection(MethodSection):
    name: Literal["toy", "toy-b"]
    weight: Weight = 1.0

    @model_validator(mode="after")
    def _not_too_much(self) -> ToySection:
        if self.weight > _LARGEST:
            raise ValueError("method.weight is too large")
        return self


class ToyRecipe(Recipe):
    card: ClassVar[MethodCard] = MethodCard("none", "experimental")
    method: ToySection
    model: EmptySection = EmptySection()
    mask: EmptySection = EmptySection()
    target: EmptySection = EmptySection()


class Toy(Method):
    Recipe = ToyRecipe

    def __init__(self, recipe: ToyRecipe) -> None:
        super().__init__(recipe)
        assert isinstance(recipe, ToyRecipe)
'''
RECIPE = """\
method: {name: toy, weight: 2}
optim: {lr: 1e-3}
schedule: {epochs: 1}
train: {global_batch: 8}
"""


@pytest.fixture(autouse=True)
def _no_plugins(monkeypatch):
    monkeypatch.setattr(methods, "_plugins", [])


@pytest.fixture
def toy(tmp_path):
    path = tmp_path / "toy.py"
    path.write_text(TOY)
    (tmp_path / "toy.yaml").write_text(RECIPE)
    return path


BUILT_IN = sorted({file.path for file in methods._files() if file.module is not None})


@pytest.mark.parametrize("path", BUILT_IN, ids=lambda path: path.stem)
def test_classes_read_without_torch_equal_the_imported_ones(path):
    module = importlib.import_module(f"mimsuite.methods.{path.stem}")
    classes = read_header(path).classes
    assert any(issubclass(cls, Recipe) for cls in classes.values())
    imported = {
        name
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Section)
        and value.__module__ == module.__name__
    }
    assert set(classes) == imported
    for name, cls in classes.items():
        assert cls.model_json_schema() == getattr(module, name).model_json_schema()
        if issubclass(cls, Recipe):
            assert cls.card == getattr(module, name).card
        checks = cls.__pydantic_decorators__.model_validators
        assert list(checks) == list(getattr(module, name).__pydantic_decorators__.model_validators)


def test_methods_are_found_by_name():
    assert config.method_file("mae").name == "mae.py"
    assert config.recipe_class("mae").__name__ == "MAERecipe"
    assert config.recipe_class("mae") is config.recipe_class("mae")
    assert {"mae", "classify"} <= set(methods.method_list())


def test_an_unknown_method_suggests_and_names_the_plugin_option():
    with pytest.raises(UserError, match=r"unknown method 'mea'. Did you mean mae\?"):
        config.method_file("mea")
    with pytest.raises(UserError, match=r"Known: .*mae.*--plugin"):
        config.recipe_class("something-else")


def test_a_plugin_is_read_without_torch_and_built_with_it(toy):
    assert config.register_plugin(toy) == ["toy", "toy-b"]
    assert config.register_plugin(str(toy)) == ["toy", "toy-b"]
    assert methods._plugins == [toy]
    resolved = config.load(toy.with_suffix(".yaml"))
    assert resolved.recipe.method.weight == 2.0
    with pytest.raises(UserError, match=r"method: method.weight is too large \(command line\)"):
        config.load(toy.with_suffix(".yaml"), ["method.weight=99"])

    from mimsuite.methods import build, method_class

    method = build(resolved.recipe)
    assert type(method).__name__ == "Toy"
    assert method_class(resolved.recipe) is type(method)
    assert method.recipe == type(method.recipe).model_validate(resolved.document)
    assert build(method.recipe).recipe is method.recipe


def test_reading_a_plugin_loads_no_torch(toy):
    program = (
        "import sys; from mimsuite import config; config.register_plugin(sys.argv[1]);"
        "config.load(sys.argv[2]); assert 'torch' not in sys.modules"
    )
    recipe = toy.with_suffix(".yaml")
    subprocess.run([sys.executable, "-c", program, str(toy), str(recipe)], check=True)


def test_a_changed_plugin_is_read_again(toy):
    config.register_plugin(toy)
    assert "weight" in config.recipe_class("toy").model_fields["method"].annotation.model_fields
    toy.write_text(TOY.replace("weight: Weight", "weights: Weight"))
    os.utime(toy, ns=(1, 1))
    assert "weights" in config.recipe_class("toy").model_fields["method"].annotation.model_fields


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("weight: Weight", "weight: Wait", r"toy.py:20: .* ToySection cannot use Wait"),
        ("_LARGEST:", "_TABLE:", r"toy.py:20: .* ToySection cannot use _TABLE"),
        ("class ToySection(", "class ToySection((", r"toy.py:\d+: not valid Python"),
        ('name: Literal["toy", "toy-b"]', "name: str", "no recipe class with a method name"),
        ("ToyRecipe(Recipe)", "ToyRecipe", "no recipe class with a method name"),
        ('"toy", "toy-b"', '"mae"', "a method called 'mae' exists already"),
        (
            "mask: EmptySection = EmptySection()",
            "mask: EmptySection = 1 / 0",
            "cannot be read: division by zero",
        ),
    ],
)
def test_what_is_no_plugin_says_why(toy, old, new, message):
    toy.write_text(TOY.replace(old, new))
    with pytest.raises(UserError, match=message):
        config.register_plugin(toy)
    assert methods._plugins == []


@pytest.mark.parametrize("name", ["missing.py", "toy.yaml", "."])
def test_a_plugin_is_a_python_file(toy, name):
    with pytest.raises(UserError, match="expected a Python file"):
        config.register_plugin(toy.parent / name)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    Recipe = ToyRecipe\n", "", "defines a recipe but no method 'toy'"),
        ("import torch\n", "import torch\nimport nowhere_at_all\n", "cannot be imported"),
    ],
)
def test_a_plugin_that_cannot_be_built_says_why(toy, old, new, message):
    toy.write_text(TOY.replace(old, new))
    config.register_plugin(toy)
    recipe = config.load(toy.with_suffix(".yaml")).recipe

    from mimsuite.methods import build

    with pytest.raises(UserError, match=message):
        build(recipe)


def test_sections_can_come_from_another_method_file(tmp_path):
    path = tmp_path / "more.py"
    path.write_text(
        "from typing import Literal\n"
        "from mimsuite.methods.mae import MAE, MAERecipe\n"
        "from mimsuite.config.vocabulary import *\n"
        "class MoreSection(MethodSection):\n"
        "    name: Literal['more']\n"
        "class MoreRecipe(MAERecipe):\n"
        "    method: MoreSection\n"
    )
    assert config.register_plugin(path) == ["more"]
    fields = config.recipe_class("more").model_fields
    assert fields["target"].annotation.__name__ == "PixelTargetSection"


def test_installed_methods_are_found_without_importing_their_package(tmp_path, monkeypatch):
    package = tmp_path / "somepackage"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "toy.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("toy", "somepackage.toy:Toy", "mimsuite.methods")
    monkeypatch.setattr(methods.importlib.metadata, "entry_points", lambda group: [entry])
    methods._installed.cache_clear()
    try:
        assert config.method_file("toy") == package / "toy.py"
        assert methods.find_method("toy-b").module == "somepackage.toy"
    finally:
        methods._installed.cache_clear()
