"""`mimsuite robustness`: train a probe on clean samples, test it on corrupted ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mimsuite.cli import options
from mimsuite.cli.model_io import beside, open_on_device, write_result
from mimsuite.cluster import require_single_process
from mimsuite.errors import UserError

if TYPE_CHECKING:
    from mimsuite.config import Resolved
    from mimsuite.data import Source

_FIGURE = "balanced_accuracy"


def robustness(
    model: options.ModelArgument,
    overrides: options.OverridesArgument = None,
    data: options.DataOption = None,
    shifted: Annotated[
        str | None,
        typer.Option("--shifted", metavar="SRC", help="The same classes in another style."),
    ] = None,
    baselines: options.BaselinesOption = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of corruptions, splits.")] = 0,
    device: options.DeviceOption = "auto",
    out: options.ResultOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Train a linear probe on clean samples and test it on corrupted ones.

    Images: noise, blur, contrast, pixelation, translation. Points: jitter, rotation, dropped
    points. Video: shuffled frames. Three severities each. With --shifted SRC, the probe is also
    tested on another set with the same class names.

    Example: mimsuite robustness runs/first --data ./photos --baselines
    """
    require_single_process()
    from mimsuite import evaluate

    opened = open_on_device(model, overrides, data, device)
    train, test = evaluate.open_labelled(opened.resolved)
    if test is None:
        raise UserError(
            f"{train.name} has no split '{opened.resolved.recipe.eval.split}' to corrupt: add one, "
            f"or cut the set with data.folds=5"
        )
    result = evaluate.robustness(
        opened.method,
        opened.resolved,
        train,
        test,
        shifted=_open_shifted(opened.resolved, shifted) if shifted else None,
        baselines=baselines,
        seed=seed,
    )
    _show(f"robustness, {test.name}", result)
    write_result(result, out or beside(model, "robustness.json"), as_json)


def _open_shifted(resolved: Resolved, source: str) -> Source:
    """The test split of ``source`` if it has one, otherwise all of it."""
    from mimsuite import config
    from mimsuite.data import source_splits
    from mimsuite.evaluate.sources import open_said, require_labels

    shifted = config.with_overrides(resolved, {"data.source": source}, "--shifted")
    recipe = shifted.recipe
    existing = source_splits(source, channels=recipe.data.channels)
    wanted = (recipe.eval.split, "test", "val", "train")
    opened = open_said(shifted, next((name for name in wanted if name in existing), existing[0]))
    require_labels(opened)
    return opened


def _show(title: str, result: Mapping[str, Any]) -> None:
    """Print a row per level: every variant, and the gain over a random encoder."""
    from mimsuite.console import say, stderr, warn
    from mimsuite.evaluate.show import result_table
    from mimsuite.evaluate.variants import title_of

    variants = list(result["clean"][_FIGURE])
    gain = [f"over {title_of('random_init')}"] if "random_init" in variants else []
    table = result_table(
        f"{title}: linear probe, balanced accuracy in %",
        ["", "strength", *map(title_of, variants), *gain],
    )
    rows = [("clean", "", result["clean"])]
    for name, one in result["corruptions"].items():
        for number, level in enumerate(one["severities"], 1):
            rows.append((f"{name} {number}", f"{level['strength']:g}", level))
    rows.append(("mean of corrupted", "", result["corrupted"]))
    if "shifted" in result:
        rows.append((f"shifted: {result['shifted']['source']}", "", result["shifted"]))
    for name, strength, found in rows:
        cells = [f"{100 * found[_FIGURE][variant]:.1f}" for variant in variants]
        table.add_row(name, strength, *cells, *(_gain(found) for _ in gain))
    stderr().print(table)
    for name, one in result["corruptions"].items():
        say(f"{name}: {one['unit']}")
    say(f"{result['n_train']} training and {result['n_test']} test samples")
    say(result["protocol"])
    for note in result["notes"]:
        warn(note)


def _gain(found: Mapping[str, Any]) -> str:
    interval = found["intervals"]["random_init"][_FIGURE]
    value, low, high = (100 * interval[key] for key in ("difference", "low", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
