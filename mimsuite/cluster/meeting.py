"""How ranks find each other: once for each process, for all that it will train."""

from __future__ import annotations

import atexit
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta

import torch
import torch.distributed as dist

from mimsuite.cluster.alike import compare, facts_of
from mimsuite.cluster.group import START_SECONDS, STORE_SECONDS, ProcessGroupPeers
from mimsuite.cluster.peers import ALONE, PeerError, Peers, rank_names
from mimsuite.cluster.rank_info import RankInfo
from mimsuite.files import allow_many_files
from mimsuite.waiting import waiting

_LOOK_SECONDS = 0.1  # interval of the checks for arrived ranks

_joined: ProcessGroupPeers | None = None


def join(
    info: RankInfo,
    device: torch.device,
    seconds: float,
    stopped: Callable[[], None] = lambda: None,
    facts: Mapping[str, str] | None = None,
) -> Peers:
    """The peers of a run; processes stay connected between runs.

    Args:
        seconds: how long a rank waits for the others in a step.
        stopped: called while waiting; raises if the process shall end.
        facts: further facts that must agree between ranks, by readable names.

    Raises:
        PeerError: not all ranks connected.
        UserError: the ranks do not match.
    """
    if info.world == 1:
        return ALONE
    global _joined
    if _joined is None or not dist.is_initialized():
        _meet(info, device, stopped, {**facts_of(device), **(facts or {})})
        _joined = ProcessGroupPeers(info, device)
    _joined.start(seconds)
    return _joined


def met() -> bool:
    """Whether this process is connected to others."""
    return dist.is_initialized()


def _meet(
    info: RankInfo, device: torch.device, stopped: Callable[[], None], facts: Mapping[str, str]
) -> None:
    """Connect the processes; done once per process, for all runs."""
    allow_many_files()
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        store = _await_all(info, stopped, facts)
        with waiting("the other ranks, to connect with them"):
            dist.init_process_group(
                backend,
                store=dist.PrefixStore("group", store),
                rank=info.rank,
                world_size=info.world,
                timeout=timedelta(seconds=START_SECONDS),
            )
    except (RuntimeError, ValueError, OSError) as error:
        first = str(error).splitlines()[0]
        raise PeerError(
            f"rank {info.rank} of {info.world} found no peers at {info.address}:{info.port} "
            f"({first}): were all ranks started, with the same MASTER_ADDR and MASTER_PORT?"
        ) from None
    atexit.register(_part)


def _await_all(info: RankInfo, stopped: Callable[[], None], facts: Mapping[str, str]) -> dist.Store:
    """Wait until all ranks are connected and match; returns their store.

    Waits in Python, because torch's wait would ignore signals and could not name missing ranks.
    """
    until = time.monotonic() + START_SECONDS
    # torchrun's agent already hosts a store at this address.
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    serves = info.rank == 0 and not agent
    if not serves:
        _await_server(info, until, stopped)
    store: dist.Store = dist.TCPStore(
        info.address,
        info.port,
        info.world,
        is_master=serves,
        timeout=timedelta(seconds=START_SECONDS),
        wait_for_workers=False,
        multi_tenant=True,
    )
    if agent:  # that store survives a restart of the ranks
        store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    store.set(f"here/{info.rank}", json.dumps(facts))
    store.add("here", 1)

    def missing() -> list[int]:
        return [rank for rank in range(info.world) if not store.check([f"here/{rank}"])]

    with waiting(lambda: "" if info.rank else f"{rank_names(missing())} of {info.world}"):
        while store.add("here", 0) < info.world:
            stopped()
            if time.monotonic() > until:
                raise RuntimeError(f"{rank_names(missing())} did not come in {START_SECONDS} s")
            time.sleep(_LOOK_SECONDS)
    compare(store, info.world, serves)
    return store


def _await_server(info: RankInfo, until: float, stopped: Callable[[], None]) -> None:
    """Wait until rank 0's address accepts connections.

    Raises:
        OSError: it does not in time.
    """
    fault = ""
    with waiting(lambda: f"rank 0 at {info.address}:{info.port}{fault}"):
        while True:
            stopped()
            try:
                socket.create_connection((info.address, info.port), timeout=2).close()
                return
            except OSError as error:
                if time.monotonic() > until:
                    raise
                fault = f" ({error.strerror or error})"
            time.sleep(_LOOK_SECONDS)


def _part() -> None:
    """Disconnect at process exit. Connections to a lost rank are dropped, not closed: closing would
    wait for that rank."""
    if _joined is None or not _joined.lost:
        dist.destroy_process_group()
        return
    if _joined.device.type == "cuda":  # otherwise its kernels keep the device busy
        aborts = threading.Thread(target=dist.distributed_c10d._abort_process_group, daemon=True)
        aborts.start()
        aborts.join(STORE_SECONDS)
