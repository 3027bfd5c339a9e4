"""Results of a dense probe, as JSON and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mimsuite.config.keys.section import height_width
from mimsuite.errors import UserError
from mimsuite.evaluate.baselines import VARIANTS
from mimsuite.evaluate.bootstrap import Interval
from mimsuite.evaluate.dense.interval import gains
from mimsuite.evaluate.dense.tasks import Depth, Segments, Task

if TYPE_CHECKING:
    from mimsuite.config import Resolved
    from mimsuite.data.dense import DenseSource
    from mimsuite.evaluate.dense.probe import Outcome

# Task -> prefix of its figures' names in results.
PREFIXES = {"segments": "", "knn": "knn_", "depth": ""}
_TITLES = {"segments": "linear segmentation", "knn": "kNN segmentation", "depth": "linear depth"}
_INTERVALS = ("random_init", "raw_input", "majority")


def resolution_of(recipe: Resolved) -> str:
    """The resolution at which test figures are computed: ``96 x 96`` or ``as stored``."""
    if recipe.recipe.target.scored == "stored":
        return "as stored"
    height, width = height_width(recipe.recipe.target.resolution)
    return f"{height} x {width}"


def dense_result(
    recipe: Resolved,
    tasks: Mapping[str, Task],
    found: Mapping[str, Mapping[str, Outcome]],
    test: DenseSource,
    keys: Sequence[str],
    n_fit: int,
    n_held: int,
) -> dict[str, Any]:
    """JSON-able results.

    Args:
        found: variant -> ``segments``, ``knn``, ``depth`` -> outcome.
        keys: names of the test images.

    Returns:
        the measured ones of ``miou``, ``pixel_accuracy``, ``knn_miou``, ``knn_pixel_accuracy``,
        ``delta1`` and ``rmse`` (metres), per variant (null for variants not requested);
        ``resolution`` of labels; ``synthetic``; ``iou`` and ``knn_iou`` per variant and class (null
        if a class neither occurs nor is predicted); ``chosen`` and ``intervals`` per variant;
        ``per_image`` (see :func:`counts_of`); ``keys``; ``classes``; ``n_train``,
        ``n_validation``, ``n_test``, ``seed``, ``recipe``, ``protocol``, ``notes``.
    """
    resolution = resolution_of(recipe)
    figures, measured, classes = [], {}, list(test.listing.classes)
    for name, task in tasks.items():
        by_variant = {v: task.figures_of(one[name].counts) for v, one in found.items()}
        for figure in task.figures:
            key = PREFIXES[name] + figure.name
            measured[key] = {
                v: by_variant[v][figure.name] if v in by_variant else None for v in VARIANTS
            }
            title = f"{'kNN ' if name == 'knn' else ''}{figure.title}"
            figures.append({"name": key, "title": f"{title} at {resolution}", "unit": figure.unit})
    return measured | {
        "resolution": resolution,
        "synthetic": test.listing.synthetic,
        "figures": figures,
        "main": "miou" if "segments" in tasks else "delta1",
        "measured": list(tasks),
        **{
            f"{PREFIXES[name]}iou": {v: _by_class(one[name], classes) for v, one in found.items()}
            for name in tasks
            if name in ("segments", "knn")
        },
        "chosen": {v: {name: one[name].chosen for name in tasks} for v, one in found.items()},
        "intervals": _intervals(tasks, found),
        "per_image": {
            v: {name: _packed(one[name].counts) for name in tasks} for v, one in found.items()
        },
        "keys": list(keys),
        "classes": classes,
        "n_train": n_fit + n_held,
        "n_validation": n_held,
        "n_test": len(keys),
        "seed": recipe.recipe.train.seed,
        "recipe": recipe.name,
        "protocol": _protocol(recipe, resolution, n_held),
        "notes": _notes(test),
    }


def counts_of(result: Mapping[str, Any], variant: str, name: str) -> np.ndarray:
    """(N, ...) float64 counts of the test images, from ``per_image`` of a result.

    For segments and kNN (N, K, 3); a result stores rows ``[class, right, predicted, true]`` of each
    image and omits rows of zeros. For depth (N, 3): known pixels, close pixels and the sum of
    squared errors.
    """
    rows = result["per_image"][variant][name]
    if name == "depth":
        return np.array(rows, dtype=np.float64)
    counts = np.zeros((len(rows), len(result["classes"]), 3))
    for image, listed in enumerate(rows):
        for label, *numbers in listed:
            counts[image, label] = numbers
    return counts


def gains_over_seeds(results: Sequence[Mapping[str, Any]], variant: str) -> dict[str, Interval]:
    """Interval, over seeds and images, of the gain of ``pretrained`` over ``variant``, per figure.

    Args:
        results: one result per seed, on the same test images.

    Raises:
        UserError: different test images or label resolutions, or the baseline is missing.
    """
    first = results[0]
    for one in results:
        for key in ("keys", "resolution", "classes", "measured"):
            if one[key] != first[key]:
                raise UserError(f"not of the same test images: '{key}' differs")
        if variant not in one["per_image"]:
            raise UserError(f"a result without '{variant}': probe with --baselines")
    found = {}
    for name in first["measured"]:
        ours, theirs = (
            np.stack([counts_of(one, which, name) for one in results])
            for which in ("pretrained", variant)
        )
        # Figures need only the counts; the range of valid truth is already applied to them.
        task = Depth(1e-3, 1e3) if name == Depth.name else Segments(len(first["classes"]))
        for figure, interval in gains(task, ours, theirs).items():
            found[PREFIXES[name] + figure] = interval
    return found


def _packed(counts: np.ndarray) -> list[Any]:
    if counts.ndim == 2:
        return counts.tolist()
    return [
        [[label, *map(int, image[label])] for label in np.flatnonzero(image.any(1)).tolist()]
        for image in counts
    ]


def _by_class(outcome: Outcome, classes: Sequence[str]) -> dict[str, float | None]:
    iou = Segments.iou(outcome.counts.sum(0)).tolist()
    return {name: None if np.isnan(one) else one for name, one in zip(classes, iou, strict=True)}


def _intervals(
    tasks: Mapping[str, Task], found: Mapping[str, Mapping[str, Outcome]]
) -> dict[str, Any]:
    """Gain of the pretrained encoder over each other variant, per figure."""
    intervals: dict[str, Any] = {}
    for variant in _INTERVALS:
        if variant not in found:
            continue
        intervals[variant] = {
            PREFIXES[name] + figure: interval.as_dict()
            for name, task in tasks.items()
            for figure, interval in gains(
                task,
                found["pretrained"][name].counts[None],
                found[variant][name].counts[None],
            ).items()
        }
    return intervals


def _protocol(recipe: Resolved, resolution: str, n_held: int) -> str:
    section: Any = recipe.recipe  # a DenseRecipe
    height, width = height_width(section.target.resolution)
    images = " x ".join(map(str, height_width(section.model.encoder.image_size)))
    return (
        f"dense: {recipe.name} on frozen patch features of images scaled to {images}; linear "
        f"heads at {len(section.optim.factors)} learning rates trained side by side on labels of "
        f"{height} x {width}, patch outputs interpolated bilinearly, and {section.eval.neighbours} "
        f"nearest training patches; layer and rate chosen on {n_held} held-out training images, "
        f"then trained on all; figures are at label resolution {resolution}; the test split was "
        f"scored once"
    )


def _notes(test: DenseSource) -> list[str]:
    if not test.listing.synthetic:
        return []
    return ["synthetic scenes, rendered: these figures say nothing about photographs"]


def show_dense(title: str, result: Mapping[str, Any]) -> None:
    """Print a table for each measured task."""
    from mimsuite.evaluate.show import show_result

    kind = "synthetic scenes, " if result["synthetic"] else ""
    for name in result["measured"]:
        depth = name == "depth"
        keys = [f"{PREFIXES[name]}{key}" for key in (("delta1", "rmse") if depth else ("miou",))]
        if name == "segments":
            keys.append("pixel_accuracy")
        chosen = {v: one[name] for v, one in result["chosen"].items() if "features" in one[name]}
        last = name == result["measured"][-1]
        part = {
            **result,
            "figures": [figure for figure in result["figures"] if figure["name"] in keys],
            "main": keys[0],
            "chosen": chosen,
            "classes": len(result["classes"]),
            "protocol": result["protocol"] if last else f"labels {result['resolution']}",
            "notes": result["notes"] if last else [],
        }
        show_result(f"{title}: {_TITLES[name]} ({kind}labels {result['resolution']})", part)
