"""Distributed training: ranks, their communication, and how they are launched."""

from mimsuite.cluster.place import Place, find_place, require_single_process

__all__ = ["Place", "find_place", "require_single_process"]
