"""Pages of the command line, one for each command, made from what Typer knows of it."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any, Literal, get_args, get_origin

from mimsuite.cli.main import COMMANDS, load_command

FOLDER = "commands"
_GLOBAL = ("plugin", "debug")


def pages() -> dict[str, str]:
    """File name -> text, the list of all first; commands of a group have pages of their own."""
    found = {"index.md": index_of()}
    for name in COMMANDS:
        command = load_command(name)
        below = getattr(command, "commands", {})
        found[f"{name}.md"] = group_page(name, below) if below else page_of(name, command)
        for inner_name, inner in below.items():
            found[f"{name}-{inner_name}.md"] = page_of(f"{name} {inner_name}", inner)
    return {f"{FOLDER}/{name}": text for name, text in found.items()}


def index_of() -> str:
    """The list of commands, by panel, and the options that all take."""
    lines = ["# Commands", "", "```", "mimsuite --help", "mimsuite --version", "```", ""]
    for panel in dict.fromkeys(command.panel for command in COMMANDS.values()):
        lines += [f"## {panel}", "", "| command | |", "|---|---|"]
        for name, command in COMMANDS.items():
            if command.panel == panel:
                lines.append(f"| [`mimsuite {name}`]({name}.md) | {command.help} |")
        lines.append("")
    command = load_command("pretrain")
    lines += ["## Options of all commands", ""]
    lines += _table([one for one in command.params if one.name in _GLOBAL])
    return "\n".join(lines)


def group_page(name: str, below: dict[str, Any]) -> str:
    """A group: the commands below it."""
    lines = [f"# `mimsuite {name}`", "", COMMANDS[name].help, "", "| command | |", "|---|---|"]
    for inner_name, inner in below.items():
        first = _literal(" ".join((inner.help or "").partition("\n\n")[0].split()))
        lines.append(f"| [`mimsuite {name} {inner_name}`]({name}-{inner_name}.md) | {first} |")
    return "\n".join([*lines, "", *_in_a_terminal(name)])


def page_of(words: str, command: Any) -> str:
    """One command."""
    return "\n".join([f"# `mimsuite {words}`", "", *_body(command), *_in_a_terminal(words)])


def _in_a_terminal(words: str) -> list[str]:
    return ["The same in a terminal:", "", "```", f"mimsuite {words} --help", "```", ""]


def _body(command: Any) -> list[str]:
    lines = []
    for paragraph in (command.help or "").split("\n\n"):
        text = " ".join(paragraph.replace("\b", "").split())
        if text.startswith("Example: "):
            lines += ["```sh", text.removeprefix("Example: "), "```", ""]
        elif text:
            lines += [text.replace("<", "&lt;").replace("*", "\\*"), ""]
    return [*lines, *_table([one for one in command.params if one.name not in _GLOBAL])]


def _table(parameters: list[Any]) -> list[str]:
    rows = list(_rows(parameters))
    return ["| | default | |", "|---|---|---|", *rows, ""] if rows else []


def _rows(parameters: list[Any]) -> Iterator[str]:
    for one in parameters:
        if getattr(one, "hidden", False) or one.name == "help":
            continue
        shown = _value(one)
        if one.param_type_name == "option":
            names = ", ".join([*one.opts, *one.secondary_opts])
            shown = names if one.is_flag else f"{names} {shown}"
        none = one.default is None or one.default is False or callable(one.default)
        default = "" if none else f"`{getattr(one.default, 'value', one.default)}`"
        if one.required:
            default = "needed"
        yield f"| `{_literal(shown)}` | {default} | {_literal(one.help or '')} |"


def _value(parameter: Any) -> str:
    """What stands for its value, as ``FILE``, ``N`` or ``auto\\|never``."""
    if parameter.metavar:
        return str(parameter.metavar)
    annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "|".join(str(one.value) for one in annotation)
    return {int: "N", float: "X"}.get(annotation, "TEXT")


def _literal(text: str) -> str:
    """Text in a table's cell, with Markdown's signs taken literally."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
