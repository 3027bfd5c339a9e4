"""Sharded state too large for one process: a file of each rank in the same checkpoint.

``part-00001-of-00004.safetensors`` holds what rank 1 has of each tensor, as ``model/NAME``,
``optim/NAME/ENTRY`` and ``ema/NAME``; ``parts.json`` lists, for each tensor, the files whose pieces
make it up when put together along the first axis. So any number of processes can read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as dump_tensors
from torch import Tensor
from torch.distributed.tensor import DTensor

from mimsuite.cluster.sharding import local
from mimsuite.files import write_synced

INDEX = "parts.json"
Groups = Mapping[str, Mapping[str, Tensor]]


def write_part(folder: Path, groups: Groups, rank: int, world: int) -> str:
    """Write what this rank has.

    Args:
        folder: of the checkpoint in the making; made where it is missing.
        groups: ``model``, ``optim``, ``ema`` -> tensors by name, DTensors among them.

    Returns:
        a report for :func:`index`: JSON with ``file``, ``facts``, ``names``, or with ``error``.
    """
    pieces = {}
    for group, tensors in groups.items():
        for name, tensor in tensors.items():
            piece = local(tensor)
            if piece.numel() and (rank == 0 or isinstance(tensor, DTensor)):
                pieces[f"{group}/{name}"] = piece.contiguous()
    file = f"part-{rank:05d}-of-{world:05d}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        facts = write_synced(folder / file, dump_tensors(pieces))
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


class Pieces(Mapping[str, Tensor]):
    """Whole tensors by name, each read and put together when it is asked for."""

    def __init__(self, folder: Path, group: str, files: dict[str, list[str]]) -> None:
        self._group, self._files = group, files
        names = {file for pieces in files.values() for file in pieces}
        self._open = {name: safe_open(folder / name, "pt") for name in names}

    def __getitem__(self, name: str) -> Tensor:
        key = f"{self._group}/{name}"
        pieces = [self._open[file].get_tensor(key) for file in self._files[name]]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)
