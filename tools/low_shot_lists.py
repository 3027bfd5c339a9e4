"""Write the lists of labelled samples of the embedded sets: `mimsuite low-shot` with seed 0.

    python tools/low_shot_lists.py

`mimsuite/data/embedded/low_shot.json` holds, for other tools, by set and number of labels of each
class (or share of them) the keys of five draws. Furniture has no test split, so its lists are those
beside the first of five folds.
"""

from __future__ import annotations

import json
from pathlib import Path

from mimsuite.data.sources.few import lists
from mimsuite.data.sources.folds import split_fold
from mimsuite.data.sources.opening import open_source
from mimsuite.evaluate.probes.lowshot import AMOUNTS, DRAWS, draw_numbers

FILE = Path(__file__).parent.parent / "mimsuite" / "data" / "embedded" / "low_shot.json"


def made() -> dict[str, dict[str, list[list[str]]]]:
    sources = {
        "embedded:fashion-mnist": open_source("embedded:fashion-mnist"),
        "embedded:openclipart": open_source("embedded:openclipart"),
        "embedded:furniture data.folds=5 data.fold=0": split_fold(
            open_source("embedded:furniture", modality="points"), folds=5, fold=0
        )[0],
    }
    found = {}
    for name, source in sources.items():
        keys = [source.key(*source.locate(position)) for position in range(len(source))]
        found[name] = lists(source.labels(), keys, AMOUNTS, draw_numbers(0, DRAWS))
    return found


def written(by_set: dict[str, dict[str, list[list[str]]]]) -> str:
    """As JSON, a draw a line."""
    sets = []
    for name, by_amount in by_set.items():
        amounts = []
        for amount, draws in by_amount.items():
            lines = ",\n".join(f"      {json.dumps(keys)}" for keys in draws)
            amounts.append(f"    {json.dumps(amount)}: [\n{lines}\n    ]")
        sets.append(f"  {json.dumps(name)}: {{\n" + ",\n".join(amounts) + "\n  }")
    return "{\n" + ",\n".join(sets) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(written(made()))
    print(FILE)
