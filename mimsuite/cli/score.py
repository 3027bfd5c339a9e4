"""`mimsuite score`: find samples that are hard or unusual for a pretrained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mimsuite.cli.options import DataOption, DeviceOption, JsonOption, ModelArgument
from mimsuite.cluster import require_single_process
from mimsuite.errors import UserError

if TYPE_CHECKING:
    import torch

    from mimsuite.evaluate.probes.difficulty import Difficulty


def score(
    model: ModelArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.csv", help="Where the scores go.")],
    data: DataOption = None,
    split: Annotated[str, typer.Option("--split", help="Split to score.")] = "train",
    masks: Annotated[int, typer.Option("--masks", min=1, help="Masks per sample.")] = 8,
    neighbours: Annotated[
        int, typer.Option("--neighbours", min=1, help="Nearest samples to average over.")
    ] = 5,
    anomaly: Annotated[
        str | None,
        typer.Option(
            "--anomaly", metavar="CLASS,...", help="Classes that are anomalies: print the AUROC."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the masks.")] = 0,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Score samples by their error under masks and by the distance to their nearest features.

    Distances are to the split `train`, without the classes named by --anomaly. FILE.csv lists the
    samples by error, hardest first; `data pack --only` accepts any part of it.

    Example: mimsuite score runs/first --data ./photos --out hard.csv
    """
    require_single_process()
    from mimsuite import config
    from mimsuite.checkpoints import open_model
    from mimsuite.cli.output import print_json, say
    from mimsuite.evaluate import extract
    from mimsuite.evaluate.probes import difficulty
    from mimsuite.evaluate.sources import open_said
    from mimsuite.report.reconstruct import rebuilding_method
    from mimsuite.train.device import choose_device

    opened = open_model(model)
    for note in opened.notes:
        say(note)
    resolved = opened.resolved
    if data is not None:
        resolved = config.with_overrides(resolved, {"data.source": data}, "command line")
    method = rebuilding_method(opened, model).to(choose_device(device))
    wanted = open_said(resolved, split)
    strange = _numbers(anomaly, wanted.classes) if anomaly else []
    last = method.layer_count() - 1
    found = extract(method, wanted, resolved, pools=["mean"], layers=[last])
    same, normal = split == "train", found
    if not same:
        others = open_said(resolved, "train")
        normal = extract(method, others, resolved, pools=["mean"], layers=[last])
    if strange:
        _require_both(found.labels, strange)
    (queries,) = found.features.values()
    (reference,) = normal.features.values()
    if strange and normal.labels is not None:
        import torch

        kept = ~torch.isin(normal.labels, torch.tensor(strange))
        same = same and bool(kept.all())
        reference = reference[kept]
    distances = difficulty.neighbour_distances(reference, queries, neighbours, same=same)
    errors = difficulty.masked_errors(method, wanted, resolved, masks, seed)
    result = difficulty.difficulty(errors, found, distances)
    difficulty.save_difficulty(result, out)
    figures = {"samples": len(result.keys), "masks": masks, **_auroc(result, strange)}
    if as_json:
        print_json({**figures, "scores": str(out)})
        return
    for name in ("masked_error", "neighbour_distance"):
        if f"auroc_{name}" in figures:
            say(f"AUROC of {name.replace('_', ' ')}: {figures[f'auroc_{name}']:.3f}")
    say(f"{len(result.keys)} samples, hardest first: {out}")


def _numbers(names: str, classes: list[str] | None) -> list[int]:
    """Class ids from class names, or from numbers if classes have no names."""
    found = []
    for name in names.split(","):
        if classes and name in classes:
            found.append(classes.index(name))
        elif not classes and name.isdigit():
            found.append(int(name))
        else:
            known = f": {', '.join(classes)}" if classes else ""
            raise UserError(f"--anomaly {name}: no such class{known}")
    return found


def _require_both(labels: torch.Tensor | None, strange: list[int]) -> None:
    """Refuse a split in which all or none of the samples are of the named classes."""
    known = set() if labels is None else set(labels[labels >= 0].tolist())
    if not known & set(strange) or not known - set(strange):
        raise UserError("--anomaly: some samples, but not all, must be of the named classes")


def _auroc(result: Difficulty, strange: list[int]) -> dict[str, Any]:
    """AUROC of both scores for the named classes."""
    import torch

    from mimsuite.evaluate.probes.difficulty import auroc

    if not strange or result.labels is None:
        return {}
    labelled = result.labels >= 0
    anomalous = torch.isin(result.labels[labelled], torch.tensor(strange))

    def of(scores: torch.Tensor) -> float:
        return auroc(scores[labelled], anomalous)

    return {
        "auroc_masked_error": of(result.masked_error),
        "auroc_neighbour_distance": of(result.neighbour_distance),
    }
