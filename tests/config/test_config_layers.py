"""Layers: the base chain, overrides, deep merge, and where each key was set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimsuite.config import catalog, layers
from mimsuite.config.layers import Layer, leaves, nested, of_overrides, parse_override
from mimsuite.config.yaml import inline
from mimsuite.errors import UserError


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def read(path):
    return layers.read_chain(catalog.find(path))


# --- overrides -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "keys", "value"),
    [
        ("mask.ratio=0.6", ("mask", "ratio"), 0.6),
        ("optim.lr=1e-3", ("optim", "lr"), 0.001),
        ("data.source=/a=b/c", ("data", "source"), "/a=b/c"),
        ("data.source=embedded:fashion", ("data", "source"), "embedded:fashion"),
        ("optim.betas=[0.9, 0.95]", ("optim", "betas"), [0.9, 0.95]),
        ("optim.lr=", ("optim", "lr"), None),
        ("train.seed=-1", ("train", "seed"), -1),
        ("mask={kind: random}", ("mask",), {"kind": "random"}),
        ("smoke.model.encoder.width=8", ("smoke", "model.encoder.width"), 8),
    ],
)
def test_an_override_is_read_like_a_recipe(text, keys, value):
    assert parse_override(text) == (keys, value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mask.ratio", "'mask.ratio' is not an override: expected KEY=VALUE"),
        ("=3", "'' is not a key"),
        ("mask..ratio=3", "'mask..ratio' is not a key"),
        ("mask ratio=3", "'mask ratio' is not a key"),
        ("0.1=3", "'0.1' is not a key"),
        ("mask.ratio=[1", "mask.ratio=[1: not valid YAML"),
        ("mask.ratio=&x 1", "mask.ratio=&x 1: anchors"),
        ("mask={a: 1, a: 2}", "a is already set on line 1"),
        ("model={encoder.width: 3}", "model.encoder.width: dotted keys"),
    ],
)
def test_what_is_no_override_says_so(text, message):
    with pytest.raises(UserError, match=r"^[^\n]+$") as caught:
        parse_override(text)
    assert message in str(caught.value)


def test_the_base_cannot_be_overridden():
    with pytest.raises(UserError, match="base cannot be overridden"):
        of_overrides(["base=image/other"])


_NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True).filter(
    lambda name: name not in ("smoke", "base")
)
_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(st.integers(), max_size=3),
)


@given(st.lists(_NAMES, min_size=1, max_size=4), _VALUES)
def test_any_value_survives_the_command_line(names, value):
    keys, read = parse_override(f"{'.'.join(names)}={inline(value)}")
    assert keys == tuple(names)
    assert repr(read) == repr(value)


@given(st.dictionaries(st.sampled_from(["a.b", "a.c", "d", "e.f.g"]), st.integers()))
def test_nested_is_the_inverse_of_leaves(values):
    document = nested(values)
    assert {".".join(keys): value for keys, value in leaves(document)} == values
    assert of_overrides(values).document == document


def test_later_overrides_win_and_name_their_origin():
    layer = of_overrides(["a.b=1", "a.c=2", "a.b=3"], "here")
    assert layer.document == {"a": {"b": 3, "c": 2}}
    assert layer.origins == {("a",): "here", ("a", "b"): "here", ("a", "c"): "here"}


# --- merging -------------------------------------------------------------------------------------


def test_sections_merge_and_everything_else_replaces():
    under = Layer({"a": {"x": 1, "y": [1, 2]}, "b": {"z": 1}}, {})
    over = Layer({"a": {"y": [3]}, "b": 5}, {})
    assert over.over(under).document == {"a": {"x": 1, "y": [3]}, "b": 5}
    assert under.document == {"a": {"x": 1, "y": [1, 2]}, "b": {"z": 1}}


def test_origins_of_replaced_keys_are_forgotten():
    under = Layer({"b": {"z": 1}}, {("b",): "f:1", ("b", "z"): "f:2"})
    assert Layer({"b": 5}, {("b",): "g:1"}).over(under).origins == {("b",): "g:1"}


# --- files and their bases -----------------------------------------------------------------------


def test_a_file_is_laid_over_its_base_and_keys_know_their_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "top.yaml", "mask:\n  ratio: 0.5\n  kind: random\n")
    write(tmp_path, "sub/middle.yaml", "base: ../top.yaml\nmask:\n  ratio: 0.6\n")
    leaf = write(tmp_path, "leaf.yaml", "base: sub/middle.yaml\ntrain:\n  seed: 1\n")
    layer = read(leaf)
    assert layer.document == {"mask": {"ratio": 0.6, "kind": "random"}, "train": {"seed": 1}}
    assert layer.place(("mask", "ratio")) == "sub/middle.yaml:3"
    assert layer.place(("mask", "kind")) == "top.yaml:3"
    assert layer.place(("train", "seed")) == "leaf.yaml:3"
    assert layer.place(("train", "missing")) == "leaf.yaml:2"
    assert layer.place(("nowhere",)) == "leaf.yaml"


def test_a_base_may_be_a_catalog_name(tmp_path):
    leaf = write(tmp_path, "leaf.yaml", "base: image/mae-vitb16-in1k\nmask:\n  ratio: 0.6\n")
    layer = read(leaf)
    assert layer.document["mask"] == {"kind": "random", "ratio": 0.6}
    assert layer.place(("mask", "kind")).startswith("recipes/image/mae-vitb16-in1k.yaml:")


def test_a_circle_of_bases_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "a.yaml", "base: b.yaml\n")
    write(tmp_path, "b.yaml", "base: c.yaml\n")
    write(tmp_path, "c.yaml", "base: b.yaml\n")
    with pytest.raises(UserError, match=r"circle: a\.yaml -> b\.yaml -> c\.yaml -> b\.yaml"):
        read(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x: {}\nbase: nope.yaml", "base: {0}/nope.yaml: no such recipe file ({0}/r.yaml:2)"),
        ("base: [a, b]", "base: expected one catalog name or one path, got ['a', 'b']"),
        ("base: image/mae-vitb16-in1", "Did you mean image/mae-vitb16-in1k? ({0}/r.yaml:1)"),
        ("base: 3", "base: expected one catalog name or one path, got 3 ({0}/r.yaml:1)"),
        ("- a\n- b", "{0}/r.yaml: expected sections"),
        ("mask.ratio: 1", "mask.ratio: dotted keys are for the command line; here write mask: "),
        ("mask.ratio: 1", "here write mask: {{ratio: ...}} ({0}/r.yaml:1)"),
        ("a:\n  b.c.d: 1", "here write b: {{c: {{d: ...}}}} ({0}/r.yaml:2)"),
    ],
)
def test_faults_of_files_name_their_place(tmp_path, text, message):
    path = write(tmp_path, "r.yaml", text)
    with pytest.raises(UserError) as caught:
        read(path)
    assert message.format(tmp_path) in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name, message in [
        ("missing.yaml", "no such recipe file"),
        ("binary.yaml", "not a text file"),
        (".", "is a folder"),
        ("image/mae-vitb16-in1", "Did you mean image/mae-vitb16-in1k?"),
        ("mae-vitb16-in1k", "Did you mean image/mae-vitb16-in1k?"),
        ("zzz", "mimsuite recipes list"),
    ]:
        with pytest.raises(UserError, match=message.replace("?", r"\?")):
            read(tmp_path / name if name.endswith((".yaml", ".")) else name)


def test_a_catalog_file_given_by_path_has_its_catalog_name():
    path = catalog.folder() / "image/mae-vitb16-in1k.yaml"
    assert catalog.find(path) == catalog.find("image/mae-vitb16-in1k")
