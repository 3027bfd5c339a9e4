"""A sweep of bad input over all commands, in one process.

Every case ends with exit code 2, 3 or 4 and one message on stderr that names the culprit; without
a traceback, and without anything written, least of all a run directory that looks valid.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from string import Template

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mimsuite import config
from mimsuite.cli.main import COMMANDS, load_command, main
from mimsuite.config.layers import leaves
from mimsuite.errors import UserError
from tests.cli.bad_input_cases import CASES as FIRST_CASES
from tests.cli.bad_input_more_cases import MORE_CASES
from tests.cli.bad_input_world import make

SWEEP = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
CASES = [*FIRST_CASES, *MORE_CASES]
# An index beside foreign shards is no output: the next command would make the same.
BYPRODUCTS = (".idx",)


class World:
    """The places that cases name, and what is in them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.places = make(root)
        self.before = self.content()

    def words(self, line: str) -> list[str]:
        names = {name: str(path) for name, path in self.places.items()}
        return [Template(word).safe_substitute(names) for word in shlex.split(line)]

    def content(self) -> dict[str, int]:
        """Every file with the time of its last change; folders by name alone."""
        found = (path for path in self.root.rglob("*") if path.suffix not in BYPRODUCTS)
        return {str(p): p.stat().st_mtime_ns if p.is_file() else 0 for p in found}

    def changes(self) -> list[str]:
        """What a command wrote or changed; it is taken away, so that each case stands alone."""
        after = self.content()
        new = sorted(after.keys() - self.before.keys())
        for name in new:
            shutil.rmtree(name, ignore_errors=True)
            Path(name).unlink(missing_ok=True)
        changed = {name for name, time in self.before.items() if after.get(name) != time}
        self.before = self.content()
        return [*new, *sorted(changed)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(root))  # no SLURM profile of the user's own
        patch.chdir(root)
        yield World(root)


def refused(capfd: pytest.CaptureFixture[str], words: list[str]) -> tuple[int, str]:
    """Exit code and message of a command that must be refused with one message."""
    capfd.readouterr()
    code = main(words)
    out, err = capfd.readouterr()
    assert code in (2, 3, 4), f"exit code {code}\n{err}"
    assert "Traceback" not in err
    assert "internal:" not in err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, err
    # A check of data prints what it found; nothing else answers a wrong question.
    assert out == "" or words[:2] == ["data", "verify"]
    return code, err[err.index("error: ") :]


@pytest.mark.parametrize(
    ("line", "codes", "culprit"), CASES, ids=[f"{n}-{c[0].split()[0]}" for n, c in enumerate(CASES)]
)
def test_a_bad_command(world, capfd, line, codes, culprit):
    code, message = refused(capfd, world.words(line))
    assert str(code) in str(codes), message
    assert culprit in message
    assert world.changes() == []


def test_there_are_enough_cases_and_no_trap_has_sprung(world):
    assert len(CASES) >= 200
    assert {words[0] for words in OPTIONS} == set(COMMANDS)
    assert not (world.root / "sprung").exists()


# --- every command and option there is, known to this file or not --------------------------------


def leaf_commands() -> Iterator[tuple[list[str], object]]:
    for name in COMMANDS:
        command = load_command(name)
        inner = getattr(command, "commands", None)
        if inner is None:
            yield [name], command
        else:
            yield from (([name, below], leaf) for below, leaf in inner.items())


def test_every_command_that_takes_something_has_cases():
    """Those without an argument or option of their own have only a wrong option, below."""
    tried = [shlex.split(line) for line, _, _ in CASES]
    for words, command in leaf_commands():
        own = {p.name for p in command.params} - {"as_json", "json", "plugin", "debug", "help"}
        if own:
            assert sum(line[: len(words)] == words for line in tried) >= 2, words


def wrong_options() -> Iterator[list[str]]:
    """Every command with an option that it has not, and its options with values out of range."""
    for words, command in leaf_commands():
        yield [*words, "--no-such-option"]
        needed = [p for p in command.params if p.param_type_name == "argument" and p.required]
        arguments = ["1" for _ in needed]
        if needed:
            yield words
        for option in command.params:
            if option.param_type_name != "option" or option.hidden:
                continue
            flag = max(option.opts, key=len)
            number = option.type_descriptor.annotation in (int, float, int | None, float | None)
            wrong = ["many"] if number else []
            if option.min is not None:
                wrong.append(str(option.min - 1))
            if option.max is not None:
                wrong.append(str(option.max + 1))
            yield from ([*words, *arguments, flag, value] for value in wrong)


OPTIONS = list(wrong_options())


@pytest.mark.parametrize("words", OPTIONS, ids=" ".join)
def test_an_option_that_is_not_there_or_out_of_range(world, capfd, words):
    code, message = refused(capfd, words)
    assert code == 2
    flag = next((word for word in words if word.startswith("--")), "Missing argument")
    assert flag in message
    assert world.changes() == []


# --- keys and values -----------------------------------------------------------------------------

RECIPES = (
    "image/mae-tiny-fashion",
    "image/cae-tiny-clipart",
    "video/videomae2-tiny-motion",
    "points/cmae-tiny-furniture",
    "volume/nerf-mae-tiny-rooms",
)
KEYS = [
    (name, ".".join(keys)) for name in RECIPES for keys, _ in leaves(config.load(name).document)
]
VALUES = st.one_of(
    st.sampled_from(
        ["", "null", "true", "-1", "0", "1", "1e400", "-1e308", "0.5", "[]", "{}", "[1, 2]", "..."]
    ),
    st.integers(-(10**20), 10**20).map(str),
    st.floats(allow_nan=True).map(str),
    st.text(max_size=12),
    st.lists(st.integers(-3, 300), max_size=4).map(str),
)


@SWEEP
@given(st.sampled_from(KEYS), VALUES)
def test_any_value_of_any_key_is_taken_or_refused_by_name(capfd, where, value):
    name, key = where
    capfd.readouterr()
    code = main(["recipes", "validate", name, f"{key}={value}"])
    message = capfd.readouterr().err
    assert code in (0, 2), message
    if code == 2:
        assert message.startswith("error: ")
        assert key.rpartition(".")[2].split("[")[0] in message


@SWEEP
@given(st.text(min_size=1, max_size=20).filter(lambda text: not text.startswith("-")))
def test_any_word_is_an_override_or_refused(capfd, word):
    capfd.readouterr()
    code = main(["recipes", "validate", RECIPES[0], word])
    message = capfd.readouterr().err
    assert code == 2, message
    assert message.startswith("error: ")
    assert "internal:" not in message


@SWEEP
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode()))
def test_any_bytes_as_a_recipe(capfd, tmp_path, content):
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"mine\.yaml"):
        config.load(file)


# --- files ---------------------------------------------------------------------------------------

READERS = {  # what reads a file, by its ending
    "pth": "import $file --out $out.safetensors",
    "safetensors": "import $file --out $out.safetensors",
    "tar": "data inspect $file",
    "txt": "data inspect $file",
    "csv": "data pack $file $out",
    "npz": "data nerf-grid-check $file",
    "ply": "data nerf-grid-splats $file --out $out.npz",
    "json": "data fit-nerf $file --out $out.npz",
}
STARTS = (b"", b"PK\x03\x04", b"\x80\x02}q\x00", b"ply\nformat binary_little_endian 1.0\n", b"{")


@SWEEP
@given(
    st.sampled_from(sorted(READERS)),
    st.sampled_from(STARTS),
    st.binary(max_size=600),
)
def test_any_bytes_as_a_file(world, capfd, ending, start, content):
    file = world.root / f"any.{ending}"
    file.write_bytes(start + content)
    line = READERS[ending].replace("$file", shlex.quote(str(file)))
    _, message = refused(capfd, world.words(line))
    assert file.name in message
    file.unlink()
    assert world.changes() == []


@SWEEP
@given(st.data())
def test_a_checkpoint_with_any_byte_changed_is_not_used(world, capfd, data):
    checkpoint = world.places["checkpoint"]
    copy = world.root / "changed" / checkpoint.name
    shutil.copytree(checkpoint, copy)
    file = data.draw(st.sampled_from(sorted(copy.iterdir())), label="file")
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1), label="byte")
    if data.draw(st.booleans(), label="cut"):
        del content[at:]
    else:
        content[at] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    file.write_bytes(content)
    try:
        code, message = refused(
            capfd, world.words(f"features {copy} --out $out.safetensors --data $photos")
        )
        assert code == 2
        assert copy.name in message
    finally:
        shutil.rmtree(copy.parent)
    assert world.changes() == []


@SWEEP
@given(st.data())
def test_a_shard_with_any_byte_changed_is_not_packed_silently(world, capfd, data):
    shards = world.root / "changed"
    shutil.copytree(world.places["shards"], shards)
    file = next(shards.glob("*.tar"))
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1), label="byte")
    content[at] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    file.write_bytes(content)
    capfd.readouterr()
    try:
        code = main(["data", "verify", str(shards)])
        out, err = capfd.readouterr()
    finally:
        shutil.rmtree(shards)
    assert code == 3, f"{out}\n{err}"
    assert str(shards) in err
    assert os.path.basename(file) in out
