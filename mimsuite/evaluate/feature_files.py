"""Write frozen features for other tools: safetensors, NumPy or CSV.

Letters: N samples, D width, K targets (numbers or labels) per sample.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mimsuite.evaluate.features import FeatureSet
from mimsuite.files import write_atomic


def save_features(features: FeatureSet, path: Path) -> list[Path]:
    """Write one feature table with labels and keys, in the format that the suffix names.

    * ``.safetensors``: ``features`` (N, D) float32 and, if known, ``labels`` (N,) int64 or (N, K)
      float32. A ``.json`` file has the name of the features, the sample keys and class names.
    * ``.npy``: (N, D) float32. A ``.keys.csv`` file has one row per sample: ``key`` and, if known,
      ``label`` (the class) or the K targets.
    * ``.csv``: those columns followed by ``f0``, ``f1`` ... in one table.

    Returns:
        the files written.

    Raises:
        ValueError: more than one table, or an unknown suffix.
    """
    if len(features.features) != 1:
        raise ValueError(f"one feature table, not {sorted(features.features)}")
    name, table = next(iter(features.features.items()))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        return _safetensors(name, features, path)
    header, rows = _columns(features)
    numbers = table.numpy()
    if path.suffix == ".npy":
        content = io.BytesIO()
        np.save(content, numbers)
        beside = path.with_suffix(".keys.csv")
        write_atomic(path, content.getvalue())
        _write_csv(beside, header, rows)
        return [path, beside]
    if path.suffix != ".csv":
        raise ValueError(f"no file of features ends in '{path.suffix}'")
    header += [f"f{column}" for column in range(numbers.shape[1])]
    # repr of a float32 is the shortest text that parses to the same number.
    texts = ([*row, *map(str, one)] for row, one in zip(rows, numbers, strict=True))
    _write_csv(path, header, texts)
    return [path]


def _safetensors(name: str, features: FeatureSet, path: Path) -> list[Path]:
    from safetensors.torch import save_file

    tensors = {"features": features.features[name].contiguous()}
    if features.labels is not None:
        tensors["labels"] = features.labels.contiguous()
    beside = path.with_suffix(".json")
    facts = {"features": name, "keys": features.keys, "classes": features.classes}
    save_file(tensors, str(path), metadata={"features": name})
    beside.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return [path, beside]


def _columns(features: FeatureSet) -> tuple[list[str], list[list[Any]]]:
    """The columns beside the features: their names, and one row per sample."""
    keys, labels, names = features.keys, features.labels, features.classes
    if labels is None:
        return ["key"], [[key] for key in keys]
    if labels.ndim == 1:
        texts = [_class(number, names) for number in labels.tolist()]
        return ["key", "label"], [[key, text] for key, text in zip(keys, texts, strict=True)]
    header = ["key", *(names or [f"label{column}" for column in range(labels.shape[1])])]
    cells = [["" if np.isnan(x) else str(x) for x in row] for row in labels.numpy()]
    return header, [[key, *row] for key, row in zip(keys, cells, strict=True)]


def _class(number: int, names: list[str] | None) -> str:
    if number < 0:
        return ""
    return names[number] if names and number < len(names) else str(number)


def _write_csv(path: Path, header: list[str], rows: Iterable[list[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_atomic(path, text.getvalue())
