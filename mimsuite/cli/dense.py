"""`mimsuite dense-probe`: segments and depth from frozen patch features."""

from __future__ import annotations

from typing import Annotated

import typer

from mimsuite.cli import options
from mimsuite.cli.model_io import beside, compose_for, write_result
from mimsuite.cluster import require_single_process
from mimsuite.errors import UserError

WordsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RECIPE] [KEY=VALUE ...]",
        help="The probe's recipe (default: by the data's layout), and keys to change.",
        show_default=False,
    ),
]


def dense_probe(
    model: options.ModelArgument,
    words: WordsArgument = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="FOLDER", help="Images with masks or depth; see docs."),
    ] = None,
    baselines: options.BaselinesOption = False,
    seed: options.SeedOption = None,
    device: options.DeviceOption = "auto",
    smoke: options.SmokeOption = False,
    out: options.ResultOption = None,
    as_json: options.JsonOption = False,
) -> int:
    """Predict segments and depth by linear heads on frozen patch features.

    Layer and learning rate are chosen on held-out training images. Segments are also predicted by
    nearest patches, without training. Folder layouts: ADE20K, Pascal VOC, NYUv2, or that of
    `data synth scenes`.

    Example: mimsuite dense-probe runs/first --data ./scenes --baselines
    """
    require_single_process()
    named = [word for word in words or [] if "=" not in word]
    if len(named) > 1:
        raise UserError(f"'{named[1]}' is not a key=value, and '{named[0]}' already is the recipe")
    from mimsuite.evaluate.dense.probe import dense_probe as probe
    from mimsuite.evaluate.dense.result import show_dense
    from mimsuite.evaluate.probe_recipe import DENSE

    overrides = [word for word in words or [] if "=" in word]
    recipe = compose_for(
        model, "".join(named), DENSE, data, overrides, seed=seed, device=device, smoke=smoke
    )
    result = probe(model, recipe, baselines=baselines)
    show_dense(model, result)
    write_result(result, out or beside(model, "dense_probe.json"), as_json)
    return 0
