"""`mimsuite recipes`: list, show, copy, validate, diff, weights. Does not load torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mimsuite.cli.options import (
    JsonOption,
    OverridesArgument,
    RecipeArgument,
    SmokeOption,
    complete_recipe,
)
from mimsuite.errors import UserError

app = typer.Typer(no_args_is_help=True, help="List, show, copy, check and compare recipes.")


@app.command("list")
def list_recipes(as_json: JsonOption = False) -> None:
    """List the recipes, with the status and proof of their methods, and whether they learn.

    Proof: step = one step equals the published code's tensors; trajectory = 20 optimizer steps
    equal them; weights = official weights behave as published; reproduced = the published figure
    was reached. Learning is the verdict of trainings over several seeds: helps = the pretrained
    features beat every baseline with an interval above zero; not yet; raw input wins.

    Example: mimsuite recipes list
    """
    from mimsuite.cli.output import print_json, print_list, warn
    from mimsuite.config.catalog import names
    from mimsuite.config.summary import summary

    entries = []
    for name in names():
        try:
            entries.append(summary(name)._asdict())
        except UserError as error:  # one faulty file must not hide the others
            warn(str(error))
    if as_json:
        print_json(entries)
        return
    columns = ("name", "title", "task", "status", "proof", "learning", "published")
    rows = [[", ".join(e[c]) if c == "proof" else e[c] for c in columns] for e in entries]
    print_list(columns, rows)


@app.command()
def show(
    name: RecipeArgument,
    overrides: OverridesArgument = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print every key with the origin of its value.")
    ] = False,
    smoke: SmokeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Print a recipe file, or with --resolved every key, its value and its origin.

    Example: mimsuite recipes show image/mae-vitb16-in1k --resolved mask.ratio=0.6
    """
    from mimsuite import config
    from mimsuite.cli.output import print_json
    from mimsuite.config import catalog

    if not resolved:
        if overrides or smoke:
            raise UserError("KEY=VALUE and --smoke change the resolved recipe: add --resolved")
        file = catalog.find(name)
        text = file.read()
        if as_json:
            print_json({"name": file.name, "path": str(file.path), "yaml": text})
        else:
            print(text, end="" if text.endswith("\n") else "\n")
        return
    recipe = config.load(name, overrides or [], smoke=smoke)
    if as_json:
        parts = ("name", "document", "origins", "changed")
        print_json({part: getattr(recipe, part) for part in parts})
    else:
        print(_annotated(recipe.document, recipe.origins))


def _annotated(document: dict[str, Any], origins: dict[str, str]) -> str:
    """A document as YAML with each value's origin in a comment, the comments aligned."""
    lines = list(_annotated_lines(document, origins))
    longest = 60  # a longer line shifts only its own comment
    column = max((len(text) for text, _ in lines if len(text) <= longest), default=0)
    return "\n".join(
        f"{text.ljust(column)}  # {origin}" if origin else text for text, origin in lines
    )


def _annotated_lines(
    section: dict[str, Any], origins: dict[str, str], prefix: str = "", depth: int = 0
) -> list[tuple[str, str]]:
    from mimsuite.config.yaml import inline

    lines = []
    for key, value in section.items():
        dotted, start = prefix + key, f"{'  ' * depth}{inline(key)}:"
        if isinstance(value, dict) and value:
            lines.append((start, ""))
            lines += _annotated_lines(value, origins, dotted + ".", depth + 1)
        else:
            lines.append((f"{start} {inline(value)}", origins[dotted]))
    return lines


@app.command()
def copy(
    name: RecipeArgument,
    file: Annotated[Path, typer.Argument(help="New YAML file.", show_default=False)],
) -> None:
    """Copy a recipe to a new file, to change it there.

    Example: mimsuite recipes copy image/mae-vitb16-in1k mine.yaml
    """
    from mimsuite.cli.output import say
    from mimsuite.config import catalog

    text = catalog.find(name).read()
    if file.suffix not in (".yaml", ".yml"):
        raise UserError(f"{file}: a recipe file's name ends in .yaml")
    try:
        with file.open("x", encoding="utf-8") as target:
            target.write(text)
    except FileExistsError:
        raise UserError(f"{file} exists already; nothing was copied") from None
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}") from None
    say(f"wrote {file}; after changing it: mimsuite recipes validate {file}")


@app.command()
def validate(
    file: RecipeArgument,
    overrides: OverridesArgument = None,
    as_json: JsonOption = False,
) -> None:
    """Check a recipe, with and without its smoke sizes; print all faults at once.

    Example: mimsuite recipes validate mine.yaml
    """
    from mimsuite import config
    from mimsuite.cli.output import print_json, say

    resolved = config.load(file, overrides or [])
    config.load(file, overrides or [], smoke=True)
    if as_json:
        print_json({"name": resolved.name, "valid": True})
    else:
        recipe = resolved.recipe
        say(f"{resolved.name} is valid: {recipe.recipe.task} by {recipe.method.name}")


@app.command()
def diff(
    first: Annotated[
        str,
        typer.Argument(
            metavar="A", help="Recipe name or YAML file.", autocompletion=complete_recipe
        ),
    ],
    second: Annotated[
        str,
        typer.Argument(
            metavar="B", help="Recipe name or YAML file.", autocompletion=complete_recipe
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Print the keys whose resolved values differ between two recipes.

    Example: mimsuite recipes diff image/mae-vitb16-in1k image/mae-vitl16-in1k
    """
    from mimsuite import config
    from mimsuite.cli.output import print_json, print_table
    from mimsuite.config.layers import leaves
    from mimsuite.config.yaml import inline

    one, two = (
        {".".join(keys): value for keys, value in leaves(config.load(name).document)}
        for name in (first, second)
    )
    # A missing key differs from a null one.
    keys = [key for key in one | two if key not in one or key not in two or one[key] != two[key]]
    if as_json:
        sides = (("a", one), ("b", two))
        print_json([{"key": k, **{n: s[k] for n, s in sides if k in s}} for k in keys])
        return
    rows = [
        [key, *(inline(side[key]) if key in side else "-" for side in (one, two))] for key in keys
    ]
    print_table(("key", first, second), rows)


@app.command()
def weights(as_json: JsonOption = False) -> None:
    """List the official checkpoints with address, licence and matching recipe.

    Nothing is downloaded. Pass a downloaded file to --init-from or to `mimsuite import`.

    Example: mimsuite recipes weights
    """
    from mimsuite.cli.output import print_json
    from mimsuite.config.keys.weights_list import published_weights

    found = published_weights()
    if as_json:
        print_json([entry._asdict() for entry in found])
        return
    for entry in found:  # lines, not columns: the addresses alone would fill a terminal's width
        print(f"{entry.file}: {entry.holds}")
        for label in ("url", "licence", "recipe"):
            print(f"  {label:<9}{getattr(entry, label)}")
