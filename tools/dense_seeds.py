"""Results of `mimsuite dense-probe --baselines` over several seeds as one table.

    python tools/dense_seeds.py scenes-0/dense_probe.json scenes-1/dense_probe.json ...

Each cell is the mean over seeds [lowest, highest]; a gain is that of pretrained over the row's,
with its 95 % interval by a bootstrap of seeds and test images, paired.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mimsuite.cli import output
from mimsuite.errors import MimsuiteError, UserError
from mimsuite.evaluate.dense_result import gains_over_seeds


def table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown, a row for each figure and variant."""
    lines = [
        "| figure | encoder | mean [lowest, highest] | gain of pretrained |",
        "|---|---|---|---|",
    ]
    baselines = [name for name in results[0]["per_image"] if name != "pretrained"]
    found = {name: gains_over_seeds(results, name) for name in baselines}
    for figure in results[0]["figures"]:
        name, factor = figure["name"], 100 if figure["unit"] == "%" else 1
        for variant in ("pretrained", *baselines):
            values = [factor * one[name][variant] for one in results]
            mean = sum(values) / len(values)
            cell = f"{mean:.2f} {figure['unit']} [{min(values):.2f}, {max(values):.2f}]"
            gain = ""
            if variant in found:
                one = found[variant][name]
                low, middle, high = (factor * x for x in (one.low, one.difference, one.high))
                gain = f"{middle:+.2f} [{low:+.2f}, {high:+.2f}]"
            lines.append(f"| {figure['title']} | {variant} | {cell} | {gain} |")
    kind = "synthetic scenes, " if results[0]["synthetic"] else ""
    first = results[0]
    lines.append("")
    lines.append(
        f"{kind}labels {first['resolution']}, {first['n_train']} training and {first['n_test']} "
        f"test images, seeds {', '.join(str(one['seed']) for one in results)}"
    )
    return "\n".join(lines)


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path, metavar="JSON")
    paths = parser.parse_args(words).results
    try:
        print(table([_read(path) for path in paths]))
    except MimsuiteError as error:
        output.error(str(error))
        return error.exit_code
    return 0


def _read(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if not isinstance(result, dict) or "per_image" not in result:
        raise UserError(f"{path}: not the result of a dense-probe")
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
