"""The wheel, installed as users install it: recipes and embedded data are inside."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*words: object, cwd: Path) -> str:
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A fresh environment that holds the wheel; it borrows the dependencies of this one."""
    place = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", place / "dist", ROOT, cwd=place)
    run(sys.executable, "-m", "venv", "--without-pip", place / "env", cwd=place)
    python = place / "env" / "bin" / "python"
    (wheel,) = (place / "dist").glob("mimsuite-*.whl")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel, cwd=place)
    here = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place)
    # After the wheel's own place in the search path, so that the wheel is what is imported.
    (Path(here.strip()) / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return place


def test_the_wheel_has_all_recipes(installed):
    mimsuite = installed / "env" / "bin" / "mimsuite"
    where = "import mimsuite; print(mimsuite.__file__)"
    found = run(installed / "env" / "bin" / "python", "-c", where, cwd=installed)
    assert Path(found.strip()).is_relative_to(installed)
    listed = run(mimsuite, "recipes", "list", cwd=installed)
    for recipe in (ROOT / "recipes").rglob("*.yaml"):
        assert recipe.relative_to(ROOT / "recipes").with_suffix("").as_posix() in listed


@pytest.mark.parametrize("recipe", ["image/mae-tiny-fashion", "image/mae-tiny-clipart"])
def test_the_wheel_trains_on_the_data_that_it_brings(installed, recipe):
    out = installed / Path(recipe).name
    run(installed / "env" / "bin" / "mimsuite", "pretrain", recipe, "--smoke", "--out", out,
        cwd=installed)  # fmt: skip
    assert (out / "DONE").exists()
