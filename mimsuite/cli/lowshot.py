"""`mimsuite low-shot`: how many labels a pretrained model saves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mimsuite.cli import options
from mimsuite.cli.model_io import compose_for, folder_for, open_on_device
from mimsuite.cluster import require_single_process
from mimsuite.errors import UserError

if TYPE_CHECKING:
    from mimsuite.data.sources.few import Amount
    from mimsuite.evaluate import ProbeData


def low_shot(
    model: options.ModelArgument,
    overrides: options.OverridesArgument = None,
    data: options.DataOption = None,
    labels: Annotated[
        str, typer.Option("--labels", metavar="N|P%,...", help="Numbers of labels per class.")
    ] = "1,5,20,1%,10%",
    baselines: options.BaselinesOption = False,
    finetune: Annotated[
        bool, typer.Option("--finetune", help="Also fine-tune on every draw; takes minutes.")
    ] = False,
    recipe: options.TuningOption = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed of the five draws; 0: the shipped lists.")
    ] = 0,
    device: options.DeviceOption = "auto",
    resume: options.ResumeOption = "never",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder for figures, picture and lists."),
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Probe with few labels per class, over five fixed draws.

    Linear and nearest-neighbour probes of the last layer's mean token (or of eval.layers and
    eval.pool), with the same hyperparameters for all numbers of labels. Features are extracted
    once. With --finetune, all weights are trained on every draw by the run's fine-tuning recipe.
    DIR gets low_shot.json, curve.png and lists.json with the keys of the labelled samples.

    Example: mimsuite low-shot runs/first --data ./photos --labels 1,5,20 --baselines
    """
    require_single_process()
    from mimsuite.data.sources.few import amount_of

    amounts = [amount_of(text.strip()) for text in labels.split(",")]
    if not finetune and (recipe is not None or resume != "never"):
        raise UserError("--recipe and --resume are for --finetune")
    from mimsuite.train.preempt import StopFlag

    stop = StopFlag().install() if finetune else None  # before torch is imported
    from mimsuite import evaluate
    from mimsuite.evaluate.probes.lowshot import one_table
    from mimsuite.evaluate.probes.lowshot_show import show_low_shot

    opened = open_on_device(model, overrides, data, device)
    resolved = one_table(opened.resolved, opened.method.layer_count() - 1)
    source, test = evaluate.open_labelled(resolved)
    found = evaluate.probe_data(opened.method, resolved, source, test, baselines=baselines)
    assert found is not None
    neighbours = resolved.recipe.eval.neighbours
    result = evaluate.low_shot(found, amounts, seed=seed, neighbours=neighbours)
    folder = out or folder_for(model, "low_shot", "auto")
    if finetune:
        composed = compose_for(
            model, recipe, "finetune", data, None, seed=None, device=device, smoke=False
        )
        kept = [amount_of(text) for text in result["amounts"]]
        tuned = evaluate.low_shot_finetune(
            model,
            composed,
            kept,
            folder / "finetune",
            seed=seed,
            baselines=baselines,
            resume=resume,
            stop=stop,
        )
        result["protocol"]["finetune"] = tuned.pop("protocol")
        result["finetune"] = tuned
    show_low_shot(f"low-shot, {source.name}", result)
    _write(folder, result, found)
    if as_json:
        from mimsuite.cli.output import print_json

        print_json(result)


def _write(folder: Path, result: dict[str, Any], data: ProbeData) -> None:
    """``low_shot.json``, ``curve.png`` and ``lists.json``."""
    import json

    from mimsuite.console import say
    from mimsuite.data.sources.few import amount_of, lists
    from mimsuite.evaluate.probes.lowshot_show import draw_low_shot
    from mimsuite.files import write_atomic
    from mimsuite.report import write_page

    amounts: list[Amount] = [amount_of(text) for text in result["amounts"]]
    keys = lists(data.train_labels.numpy(), data.train_keys, amounts, result["draws"])
    contents: dict[str, str | bytes] = {
        "low_shot.json": json.dumps(result, indent=2) + "\n",
        "curve.png": draw_low_shot(result),
        "lists.json": json.dumps(keys) + "\n",
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_atomic(folder / name, content)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    say(f"written to {folder}: {', '.join(contents)}")
    if (folder.parent / "config.yaml").is_file():
        write_page(folder.parent)
