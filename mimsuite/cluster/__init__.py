"""The processes that train one model together: who they are, how they agree, how they start."""

from mimsuite.cluster.place import Place, find_place, require_single_process

__all__ = ["Place", "find_place", "require_single_process"]
