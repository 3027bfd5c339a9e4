"""`mimsuite recipes`: list, show, copy, validate, diff, weights."""

from __future__ import annotations

import json

import pytest

from mimsuite import config
from mimsuite.cli.main import main
from mimsuite.cli.output import print_list
from mimsuite.config import catalog, learning
from mimsuite.config.yaml import parse

NAME = "image/mae-vitb16-in1k"
LARGE = "image/mae-vitl16-in1k"


@pytest.fixture
def mimsuite(capsys):
    """Run a command; returns its stdout, or of a failing one its stderr."""

    def run(*arguments, code=0):
        assert main([str(argument) for argument in arguments]) == code
        shown = capsys.readouterr()
        return shown.err if code else shown.out

    return run


def test_list_is_one_line_a_recipe(mimsuite):
    head, *lines = mimsuite("recipes", "list").splitlines()
    assert head.split() == ["name", "title", "task", "status", "proof", "learning", "published"]
    assert [line.split()[0] for line in lines] == list(config.recipe_names())
    (line,) = [line for line in lines if line.startswith(NAME + " ")]
    assert "fine-tune 83.6, linear 67.8" in line
    assert "verified" in line


def test_list_as_json(mimsuite):
    entries = json.loads(mimsuite("recipes", "list", "--json"))
    (entry,) = [entry for entry in entries if entry["name"] == NAME]
    assert entry["task"] == "pretrain"
    assert entry["method"] == "mae"
    assert "step" in entry["proof"]
    assert entry["paper"] == "arXiv:2111.06377"


def test_learning_and_status_follow_the_rows(mimsuite, monkeypatch):
    found = {
        "learning": {NAME: {"one": "helps", "two": "rows are missing"}, LARGE: {"one": "not yet"}},
        "ablations": {"mr-mae": ["helps", "helps"], "hybrid-distill": ["helps", "not yet"]},
    }
    monkeypatch.setattr(learning, "_found", lambda: found)
    entries = {e["name"]: e for e in json.loads(mimsuite("recipes", "list", "--json"))}
    assert entries[NAME]["learning"] == "helps"
    assert entries[LARGE]["learning"] == "not yet"
    assert entries["image/mr-mae-tiny-clipart"]["status"] == "faithful"
    assert entries["image/hybrid-tiny-clipart"]["status"] == "experimental"


def test_a_faulty_recipe_does_not_hide_the_others(capsys, monkeypatch, tmp_path):
    for name in (NAME, LARGE):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(catalog.find(name).read())
    (tmp_path / "image/faulty.yaml").write_text("recipe: [")
    monkeypatch.setattr(catalog, "folder", lambda: tmp_path)
    catalog.names.cache_clear()
    try:
        assert main(["recipes", "list"]) == 0
    finally:
        catalog.names.cache_clear()
    shown = capsys.readouterr()
    assert "warning: recipes/image/faulty.yaml:1: not valid YAML" in shown.err
    assert LARGE in shown.out


def test_on_a_terminal_a_recipe_stays_on_one_line(capsys, monkeypatch):
    rows = [("image/one", "A title that is far longer than the forty-four that fit", "verified")]
    for columns, line in [
        (100, "image/one  A title that is far longer than the forty-f…  verified"),
        (56, "image/one  A title that is far longer than the forty-f…"),
        (24, "image/one  A title that…"),
        (20, "image/one"),
    ]:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        print_list(("name", "title", "status"), rows)
        shown = capsys.readouterr()
        assert shown.out.splitlines()[1:] == [line]
        assert ("not shown for want of width" in shown.err) == (columns < 100)


def test_show_prints_the_file(mimsuite):
    assert mimsuite("recipes", "show", NAME) == catalog.find(NAME).read()
    as_json = json.loads(mimsuite("recipes", "show", NAME, "--json"))
    assert as_json["yaml"] == catalog.find(NAME).read()


def test_show_resolved_is_yaml_with_the_origin_of_every_value(mimsuite):
    arguments = ("recipes", "show", LARGE, "--resolved", "mask.ratio=0.6", "--smoke")
    shown = mimsuite(*arguments)
    resolved = config.load(LARGE, ["mask.ratio=0.6"], smoke=True)
    assert parse(shown).value == resolved.document
    lines = shown.splitlines()
    assert "  ratio: 0.6" in [line.partition("#")[0].rstrip() for line in lines]
    comments = {line.partition(":")[0].strip(): line.partition("  # ")[2] for line in lines}
    assert comments["ratio"] == "command line"
    assert comments["global_batch"] == "smoke"
    assert comments["clip_grad"] == "default"
    assert comments["betas"].startswith("recipes/image/mae-vitb16-in1k.yaml:")
    assert comments["title"].startswith("recipes/image/mae-vitl16-in1k.yaml:")
    assert len({line.index("  # ") for line in lines if "  # " in line}) == 1
    as_json = json.loads(mimsuite(*arguments, "--json"))
    assert as_json["document"] == resolved.document
    assert as_json["origins"] == resolved.origins
    assert as_json["changed"] == resolved.changed


def test_show_changes_nothing_unless_resolved(mimsuite):
    assert "add --resolved" in mimsuite("recipes", "show", NAME, "mask.ratio=0.6", code=2)


def test_copy_then_change_then_validate(mimsuite, tmp_path):
    mine = tmp_path / "mine.yaml"
    mimsuite("recipes", "copy", NAME, mine)
    assert mine.read_text() == catalog.find(NAME).read()
    mimsuite("recipes", "validate", mine)
    text = mine.read_text().replace("ratio: 0.75", "ratoi: 0.75")
    mine.write_text(text)
    line = 1 + text[: text.index("ratoi")].count("\n")
    wrong = mimsuite("recipes", "validate", mine, code=2)
    assert f"mask.ratoi: unknown key. Did you mean mask.ratio? ({mine}:{line})" in wrong


def test_copy_never_overwrites(mimsuite, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("mine")
    assert "exists already" in mimsuite("recipes", "copy", NAME, mine, code=2)
    assert mine.read_text() == "mine"
    assert "ends in .yaml" in mimsuite("recipes", "copy", NAME, tmp_path / "mine", code=2)
    nowhere = tmp_path / "nowhere/mine.yaml"
    assert "cannot be written" in mimsuite("recipes", "copy", NAME, nowhere, code=2)


def test_validate_checks_the_smoke_sizes_too(mimsuite, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"base: {NAME}\nsmoke:\n  model.encoder.heads: 5\n")
    assert "heads 5 does not divide width 32 (smoke)" in mimsuite(
        "recipes", "validate", mine, code=2
    )


def test_validate_as_json(mimsuite):
    shown = json.loads(mimsuite("recipes", "validate", NAME, "mask.ratio=0.6", "--json"))
    assert shown == {"name": NAME, "valid": True}


def test_diff_prints_the_keys_that_differ(mimsuite):
    head, *lines = mimsuite("recipes", "diff", NAME, LARGE).splitlines()
    assert head.split() == ["key", NAME, LARGE]
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows["model.encoder.width"] == ["768", "1024"]
    assert "mask.ratio" not in rows
    entries = json.loads(mimsuite("recipes", "diff", NAME, LARGE, "--json"))
    assert {"key": "model.encoder.depth", "a": 12, "b": 24} in entries


def test_diff_tells_a_missing_key_from_null(mimsuite):
    other = "image/mae-vitb16-finetune-in1k"
    entries = json.loads(mimsuite("recipes", "diff", NAME, other, "--json"))
    by_key = {entry["key"]: entry for entry in entries}
    assert by_key["mask.ratio"] == {"key": "mask.ratio", "a": 0.75}
    assert by_key["optim.layer_decay"] == {"key": "optim.layer_decay", "a": None, "b": 0.65}


def test_diff_of_a_recipe_with_itself_is_empty(mimsuite):
    assert json.loads(mimsuite("recipes", "diff", NAME, NAME, "--json")) == []


def test_weights_say_where_whose_and_for_what(mimsuite):
    shown = mimsuite("recipes", "weights")
    assert "https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base_full.pth" in shown
    assert "CC-BY-NC-4.0" in shown
    entries = json.loads(mimsuite("recipes", "weights", "--json"))
    files = {entry["file"]: entry for entry in entries}
    assert files["mae_pretrain_vit_huge_full.pth"]["recipe"] == "image/mae-vith14-in1k"


def test_a_table_on_a_terminal_is_fitted(monkeypatch, capsys):
    from mimsuite.cli.output import print_table

    monkeypatch.setenv("TERM", "dumb")  # 80 columns, no colours
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    print_table(("name", "text"), [["image/some-recipe", "[red] words " * 9]])
    shown = capsys.readouterr().out
    assert "image/some-recipe" in shown
    assert "[red]" in shown
    assert max(map(len, shown.splitlines())) <= 80
