"""Rank detection. This version trains on one process and refuses what would silently do more."""

from __future__ import annotations

import os

from mimsuite.errors import UserError


def require_single_process() -> None:
    """Refuse a launch that starts several copies of the same run.

    Raises:
        UserError: torchrun or a SLURM step gave this process peers.
    """
    peers = int(os.environ.get("WORLD_SIZE", "1"))
    if "SLURM_STEP_ID" in os.environ:
        peers = max(peers, int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")))
    if peers > 1:
        raise UserError(
            f"started as one of {peers} processes, but this version trains on a single process: "
            f"start one task"
        )
