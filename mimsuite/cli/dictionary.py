"""`mimsuite dictionary`: concepts in the patch features of a frozen encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimsuite.cli import options
from mimsuite.cli.model_io import run_of, with_options, write_result
from mimsuite.cluster import require_single_process
from mimsuite.errors import UserError


def dictionary(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[RUN|CKPT] [RECIPE] [KEY=VALUE ...]",
            help="The encoder, a recipe (default: image/dictionary-topk), and keys to change.",
            show_default=False,
        ),
    ],
    data: options.DataOption = None,
    seed: options.SeedOption = None,
    device: options.DeviceOption = "auto",
    smoke: options.SmokeOption = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Default: RUN/dictionary, or dictionaries/RECIPE."
        ),
    ] = None,
    as_json: options.JsonOption = False,
) -> int:
    """Train a sparse dictionary on frozen patch features, and show its concepts.

    DIR gets dictionary.safetensors (for `features --dictionary`), the weights in the layout of the
    overcomplete library, dictionary.json with all figures, and concepts.png, which shows the images
    that activate the strongest codes most. A recipe with model.teacher needs no RUN.

    Example: mimsuite dictionary runs/first --data ./photos
    """
    require_single_process()
    model, recipe, overrides = _sorted(words)
    from mimsuite.dictionaries.compose import compose_dictionary

    composed = compose_dictionary(model, recipe, data or "", overrides, smoke=smoke)
    from mimsuite.console import rows
    from mimsuite.dictionaries.run import train_dictionary
    from mimsuite.dictionaries.show import figure_lines
    from mimsuite.report import write_page

    composed = with_options(composed, seed, device)
    run = run_of(model) if model else None
    folder = out or (run / "dictionary" if run else Path("dictionaries") / Path(composed.name).name)
    _require_folder(folder)
    result = train_dictionary(model or None, composed, folder)
    rows((f"{what}: ", figure) for what, figure in figure_lines(result))
    write_result(result, folder / "dictionary.json", as_json)
    if run is not None and folder.resolve().parent == run:
        write_page(run)
    return 0


def _sorted(words: list[str]) -> tuple[str, str, list[str]]:
    """Split the words into encoder, recipe and keys."""
    from mimsuite.config import recipe_names

    named = [word for word in words if "=" not in word]
    recipes = [w for w in named if w in recipe_names() or Path(w).suffix in (".yaml", ".yml")]
    models = [word for word in named if word not in recipes]
    for found, what in ((recipes, "recipe"), (models, "encoder")):
        if len(found) > 1:
            raise UserError(f"'{found[1]}' is neither a key=value nor the first {what}")
    return "".join(models), "".join(recipes), [word for word in words if "=" in word]


def _require_folder(folder: Path) -> None:
    """Refuse a path that cannot become a folder, before any work is done."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), Path())
    if not there.is_dir():
        raise UserError(f"--out {folder}: {there} is a file, not a folder")
