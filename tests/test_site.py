"""The documentation as a site: pages that are made from the code, and a build without a warning."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from mimsuite.cli.main import main
from mimsuite.config.methods import method_list, recipe_class
from mimsuite.config.schema import dotted_keys
from tests import needs
from tests.pages import ROOT, commands

sys.path[:0] = [str(ROOT / "tools")]
import docs_commands  # noqa: E402
import docs_keys  # noqa: E402
import docs_site  # noqa: E402


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages that are made, as files."""
    place = tmp_path_factory.mktemp("made")
    for name, text in docs_site.made().items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(text)
    return {name: place / name for name in docs_site.made()}


def test_made_pages_are_short_and_their_commands_run(
    made: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    done = set()
    for name, page in made.items():
        assert len(page.read_text().splitlines()) < 200, name
        found = commands(page)
        assert found, name
        for command in found:
            if command not in done:
                assert main(list(command.words)) == 0, command.words
                done.add(command)
    capsys.readouterr()


def test_every_key_of_every_method_is_on_a_page(made: dict[str, Path]) -> None:
    known = {
        key
        for name, page in made.items()
        if name.startswith("keys/")
        for key in re.findall(r"^\| `([^`]+)` \| ", page.read_text(), re.MULTILINE)
    }
    for method in method_list():
        tops = set(recipe_class(method).model_fields)
        keys = {key.rpartition(".")[2] for key in dotted_keys(recipe_class(method))}
        assert keys - tops <= known, method


def test_a_key_has_its_type_default_and_comment(made: dict[str, Path]) -> None:
    """The comment above it and the one behind it, of its own class or the one it is from."""
    data = made["keys/data.md"].read_text()
    assert (
        "| `limit` | a whole number above 0 or null | `null` | use only this many, spread over the"
        in data
    )
    assert (
        "| `targets` | one of classes, regression, multilabel | `classes` | Kind of labels" in data
    )
    assert "Keys to change" in made["commands/pretrain.md"].read_text()


def test_signs_of_markdown_are_taken_literally() -> None:
    assert docs_keys._cell("a|b <c> d*e_f") == r"a\|b &lt;c> d\*e\_f"
    assert docs_commands._literal("RUN|CKPT") == r"RUN\|CKPT"


def test_marks_of_blocks_become_titles() -> None:
    assert docs_site._fence("sh exit=2") == 'sh title="exit code 2"'
    assert docs_site._fence("sh needs=clone") == docs_site._fence("") == "sh"
    assert docs_site._fence("python file=a.py") == 'python title="a.py"'


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]


@pytest.mark.slow  # ten seconds
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    needs.module("mkdocs")
    needs.module("material")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 100
    for page in pages:  # no script, style, font or picture from another host
        text = page.read_text()
        assert not re.search(r"<(?:script|img|link)[^>]+(?:src|href)=\"?https?://", text), page
