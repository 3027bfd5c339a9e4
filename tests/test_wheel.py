"""Wheel and sdist, installed as users install them: recipes and embedded data are inside."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from mimsuite import __version__, config

ROOT = Path(__file__).parents[1]
HELD = ("torch", "torchvision")  # large, and of one build with each other: taken as they are


def run(*words: object, cwd: Path) -> str:
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment(place: Path, what: Path, *requirements: str) -> Path:
    """The bin folder of a fresh environment that holds a built file, outside the clone.

    It borrows what it needs from this environment, but for the requirements, which it gets anew.
    """
    run(sys.executable, "-m", "venv", "--without-pip", place, cwd=place.parent)
    python = place / "bin" / "python"
    here = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place)
    # After its own place in the search path, so that what it holds itself is what is imported.
    (Path(here.strip()) / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    if requirements:
        run(*pip, *requirements, cwd=place)
    run(*pip, "--no-deps", what, cwd=place)
    return place / "bin"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """The sdist, and the wheel that is built from it."""
    place = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "build", "--outdir", place, ROOT, cwd=place)
    (wheel,), (sdist,) = place.glob("mimsuite-*.whl"), place.glob("mimsuite-*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """The bin folder of an environment with the wheel."""
    return environment(tmp_path_factory.mktemp("wheel") / "env", built["wheel"])


def test_the_wheel_has_all_recipes(installed, tmp_path):
    where = "import mimsuite; print(mimsuite.__file__)"
    found = run(installed / "python", "-c", where, cwd=tmp_path)
    assert Path(found.strip()).is_relative_to(installed.parent)
    assert run(installed / "mimsuite", "--version", cwd=tmp_path) == f"mimsuite {__version__}\n"
    listed = run(installed / "mimsuite", "recipes", "list", cwd=tmp_path)
    for recipe in config.recipe_names():
        assert f"{recipe} " in listed


@pytest.mark.parametrize("recipe", ["image/mae-tiny-fashion", "image/mae-tiny-clipart"])
def test_the_wheel_trains_on_the_data_that_it_brings(installed, tmp_path, recipe):
    run(installed / "mimsuite", "pretrain", recipe, "--smoke", "--out", "run", cwd=tmp_path)
    assert (tmp_path / "run/DONE").exists()


def test_the_version_is_told_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__


def embedded(name: str) -> bool:
    return config.load(name).recipe.data.source.startswith("embedded:")


def pretrained_for(name: str) -> str | None:
    """A pretraining recipe on embedded data that names this one as what follows."""
    for candidate in filter(embedded, config.recipe_names()):
        about = config.load(candidate).recipe.recipe
        if name in (about.finetune, about.linear_probe, about.attentive_probe):
            return candidate
    return None


@pytest.mark.slow
@pytest.mark.parametrize("name", config.recipe_names())
def test_every_recipe_of_the_wheel_runs_small(installed, tmp_path, name):
    """A recipe that starts from a run has one made first, by a recipe that names it."""
    recipe = config.load(name).recipe
    task = recipe.recipe.task
    first = name if task == "pretrain" else pretrained_for(name)
    if first is None or not embedded(first):
        pytest.skip(f"the data of {first or name} does not come with the package")
    mimsuite = installed / "mimsuite"
    run(mimsuite, "pretrain", first, "--smoke", "--out", "run", cwd=tmp_path)
    assert (tmp_path / "run/DONE").exists()
    if task != "pretrain":
        more = ("--recipe", name, "--smoke", "--out", "after")
        run(mimsuite, task, "run", *more, cwd=tmp_path)
        assert list((tmp_path / "after").rglob("DONE"))


@pytest.mark.slow
def test_the_sdist_installs_and_trains(built, tmp_path):
    bin_ = environment(tmp_path / "env", built["sdist"])
    command = (bin_ / "mimsuite", "pretrain", "image/mae-tiny-fashion", "--smoke", "--out", "run")
    run(*command, cwd=tmp_path)
    assert (tmp_path / "run/DONE").exists()


def first_hour(bin_: Path, cwd: Path) -> None:
    """The commands that read most of the dependencies."""
    mimsuite = bin_ / "mimsuite"
    for line in (
        "--help",
        "pretrain --help",
        "recipes list",
        "recipes validate image/mae-vitb16-in1k",
        "pretrain image/mae-tiny-clipart --smoke --out run",
        "knn run --baselines",
        "card run",
        "export run --format timm",
    ):
        run(mimsuite, *line.split(), cwd=cwd)
    assert (cwd / "run/card.html").exists()


@pytest.mark.slow
def test_the_lowest_versions_that_are_allowed(built, tmp_path):
    """All but torch and torchvision, at the lower bounds that pyproject.toml states."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lowest = []
    for requirement in project["dependencies"]:
        name, version = re.match(r"([\w-]+)>=([\w.]+)", requirement).groups()
        if name not in HELD:
            lowest.append(f"{name}=={version}")
    first_hour(environment(tmp_path / "env", built["wheel"], *lowest), tmp_path)


def interpreter(version: str) -> str | None:
    """A Python that runs: by name, or installed beside this one, as pyenv and uv do."""
    beside = Path(sys.base_prefix).parent.glob(f"*{version}*/bin/python{version}")
    for found in (shutil.which(f"python{version}"), *map(str, beside)):
        if found and subprocess.run([found, "--version"], capture_output=True).returncode == 0:
            return found
    return None


@pytest.fixture(scope="module", params=["3.12", "3.13"])
def newer(request, built, tmp_path_factory) -> Path:
    """The bin folder of another Python's environment: the wheel, and what reads recipes."""
    python = interpreter(request.param)
    if python is None:
        pytest.skip(f"no Python {request.param} on this machine")
    place = tmp_path_factory.mktemp("newer") / "env"
    run(python, "-m", "venv", "--system-site-packages", place, cwd=place.parent)
    pip = (place / "bin/python", "-m", "pip", "install", "--quiet")
    run(*pip, "typer", "rich", "pydantic", "pyyaml", cwd=place)
    run(*pip, "--no-deps", built["wheel"], cwd=place)
    return place / "bin"


@pytest.mark.slow
def test_a_newer_python_compiles_all_and_reads_recipes(newer, tmp_path):
    package = next(newer.parent.glob("lib/python*/site-packages/mimsuite"))
    run(newer / "python", "-W", "error", "-m", "compileall", "-q", "-f", package, cwd=tmp_path)
    for line in ("--help", "recipes list", "recipes validate image/mae-vitb16-in1k"):
        run(newer / "mimsuite", *line.split(), cwd=tmp_path)


@pytest.mark.slow
def test_a_newer_python_trains(newer, built, tmp_path):
    """Where it has torch: that and what comes with it are gigabytes to fetch."""
    there = subprocess.run([newer / "python", "-c", "import torch, torchvision"])
    if there.returncode:
        pytest.skip("this Python has no torch and torchvision")
    run(newer / "python", "-m", "pip", "install", "--quiet", built["wheel"], cwd=tmp_path)
    first_hour(newer, tmp_path)
