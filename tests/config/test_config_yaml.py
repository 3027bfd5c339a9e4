"""The YAML reader: YAML 1.2 scalars, plain documents only, a line for each key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimsuite.config.yaml import dump, inline, parse
from mimsuite.errors import UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.5e-4", 0.00015),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1", -1),
        ("+7", 7),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("64_000", "64_000"),
        ("0b11", "0b11"),
        ("12:30", "12:30"),
        ("2021-11-11", "2021-11-11"),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("off", "off"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("tRUE", "tRUE"),
        ("~", None),
        ("null", None),
        ("", None),
        ("'1e-3'", "1e-3"),
        ('"true"', "true"),
        ("'<<'", "<<"),
        ("rand-m9-mstd0.5-inc1", "rand-m9-mstd0.5-inc1"),
        ("embedded:fashion", "embedded:fashion"),
        ("[1, 2.0, x]", [1, 2.0, "x"]),
        ("{a: {b: []}}", {"a": {"b": []}}),
    ],
)
def test_scalars_are_yaml_1_2(text, value):
    read = parse(f"key: {text}").value["key"]
    assert read == value
    assert type(read) is type(value)


def test_each_key_knows_its_line():
    text = "# comment\nmodel:\n  width: 3\n\n  blocks: {depth: 2,\n    heads: 1}\nmask: 1\n"
    assert parse(text).lines == {
        ("model",): 2,
        ("model", "width"): 3,
        ("model", "blocks"): 5,
        ("model", "blocks", "depth"): 5,
        ("model", "blocks", "heads"): 6,
        ("mask",): 7,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n  b: 1\n  c: 2\n  b: 3", "f.yaml:4: a.b is already set on line 2"),
        ("a: &x 1", "f.yaml:1: anchors"),
        ("a: &x [1]\nb: *x", "f.yaml:1: anchors"),
        ("b: *x", "f.yaml:1: anchors"),
        ("a: 1\n<<: {b: 2}", "f.yaml:2: merge keys"),
        ("a: !!python/object/apply:os.system [ls]", "f.yaml:1: tag"),
        ("a: !!str 1", "f.yaml:1: tag"),
        ("a: ! 1", "f.yaml:1: tag"),
        ("a: 1\n2: 3", "f.yaml:2: key 2 is not text"),
        ("true: 3", "f.yaml:1: key true is not text"),
        ("? [a]\n: 3", "f.yaml:1: a key is not text"),
        ("a: .nan", "f.yaml:1: .nan is not a finite number"),
        ("a: -.inf", "f.yaml:1: -.inf is not a finite number"),
        ("a: 1e999", "f.yaml:1: 1e999 is not a finite number"),
        ("a: " + "9" * 5000, "f.yaml:1: 999"),
        ("a: [1,", "f.yaml:1: not valid YAML"),
        ("a: 1\n\tb: 2", "f.yaml:2: not valid YAML"),
        ("a: 1\n---\nb: 2", "another document"),
        ("a: \x00", "f.yaml: not valid YAML"),
        ("[" * 5000, "f.yaml:1: nested deeper"),
    ],
)
def test_what_is_hard_to_read_is_an_error(text, message):
    with pytest.raises(UserError) as caught:
        parse(text, "f.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_text_is_null():
    assert parse("# only a comment\n").value is None


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_PUZZLING = st.sampled_from(["1e-3", "no", "010", "~", "", "<<", "=", "a: b", "# x", " x ", "x\ny"])
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT
    | _PUZZLING
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_TEXT, _VALUES, max_size=4))
def test_what_is_written_reads_back_exactly(document):
    read = parse(dump(document)).value
    assert (read or {}) == document
    assert repr(read or {}) == repr(document)  # 1 is not 1.0


@given(_VALUES)
def test_inline_values_are_one_line_and_read_back(value):
    text = inline(value)
    assert "\n" not in text
    assert repr(parse(text).value) == repr(value)
