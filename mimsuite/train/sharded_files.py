"""Sharded state too large for one process: a file of each rank in the same checkpoint.

``part-00001-of-00004.safetensors`` holds what rank 1 has of each tensor, as ``model/NAME``,
``optim/NAME/ENTRY`` and ``ema/NAME``; ``parts.json`` lists, for each tensor, the files whose pieces
make it up when put together along the first axis. So any number of processes can read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor

from mimsuite.cluster.sharding import local
from mimsuite.train.tensor_files import write_tensors

INDEX = "parts.json"
Groups = Mapping[str, Mapping[str, Tensor]]


def pieces_of(groups: Groups, rank: int) -> dict[str, Tensor]:
    """What a rank has of the state, by ``GROUP/NAME``; shares memory with it.

    Args:
        groups: ``model``, ``optim``, ``ema`` -> tensors by name, DTensors among them.
    """
    pieces = {}
    for group, tensors in groups.items():
        for name, tensor in tensors.items():
            piece = local(tensor)
            if piece.numel() and (rank == 0 or isinstance(tensor, DTensor)):
                pieces[f"{group}/{name}"] = piece
    return pieces


def write_part(folder: Path, pieces: Mapping[str, Tensor], rank: int, world: int) -> str:
    """Write what this rank has.

    Args:
        folder: of the checkpoint in the making; made where it is missing.
        pieces: as :func:`pieces_of` names them.

    Returns:
        a report for :func:`index`: JSON with ``file``, ``facts``, ``names``, or with ``error``.
    """
    file = f"part-{rank:05d}-of-{world:05d}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        facts = write_tensors(folder / file, pieces)
    except OSError as error:
        return failure(rank, error)
    return json.dumps({"file": file, "facts": facts, "names": list(pieces)})


def failure(rank: int, error: OSError) -> str:
    """The report of a rank that could not write its part."""
    return json.dumps({"error": f"rank {rank}: {error}"})


def index(reports: list[str]) -> tuple[dict[str, Any], dict[str, dict[str, list[str]]]]:
    """Put the reports of all ranks together.

    Returns:
        size and digest by file, and group -> name -> files in the order of ranks.

    Raises:
        OSError: a rank could not write its part.
    """
    files: dict[str, Any] = {}
    found: dict[str, dict[str, list[str]]] = {}
    for report in map(json.loads, reports):
        if "error" in report:
            raise OSError(report["error"])
        files[report["file"]] = report["facts"]
        for key in report["names"]:
            group, _, name = key.partition("/")
            found.setdefault(group, {}).setdefault(name, []).append(report["file"])
    return files, found
