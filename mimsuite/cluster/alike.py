"""Checks that all ranks have the same kind of device and software, and a device each."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist

from mimsuite.errors import UserError

_DEVICE = "id"  # must differ between ranks; all other facts must agree
_READ_SECONDS = 10  # how long rank 0, which hosts the store, waits for the others to read it


def facts_of(device: torch.device) -> dict[str, str]:
    """Facts that must agree between ranks, in readable words, and the id of this device."""
    facts = {"device": device.type, "torch": torch.__version__}
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        facts["capability"] = f"{about.major}.{about.minor}"
        facts[_DEVICE] = f"{about.name}, GPU-{about.uuid}"
    return facts


def require_alike(facts: Sequence[Mapping[str, str]]) -> None:
    """Refuse ranks that would hang or compute different results.

    Args:
        facts: the :func:`facts_of` of each rank.

    Raises:
        UserError: names the first rank that differs.
    """
    owners: dict[str, int] = {}
    for rank, ours in enumerate(facts):
        for name in sorted({*facts[0], *ours} - {_DEVICE}):
            if ours.get(name) != facts[0].get(name):
                raise UserError(
                    f"rank {rank} has {name} {ours.get(name)}, rank 0 has {facts[0].get(name)}: "
                    f"start all ranks on nodes of one kind, with the same software"
                )
        if _DEVICE in ours:
            owner = owners.setdefault(ours[_DEVICE], rank)
            if owner != rank:
                raise UserError(
                    f"rank {owner} and rank {rank} have the same device ({ours[_DEVICE]}): give "
                    f"each task a GPU of its own, or start fewer processes"
                )


def compare(store: dist.Store, world: int, serves: bool) -> None:
    """Compare the facts that all ranks have put into the store as ``here/RANK``.

    Args:
        serves: whether this process hosts the store.

    Raises:
        UserError: the ranks differ; raised on all of them.
    """
    facts = [json.loads(text) for text in store.multi_get([f"here/{n}" for n in range(world)])]
    store.add("compared", 1)
    try:
        require_alike(facts)
    except UserError:
        until = time.monotonic() + _READ_SECONDS
        while serves and store.add("compared", 0) < world and time.monotonic() < until:
            time.sleep(0.05)
        raise
