"""Where a process stands among its peers."""

from mimsuite.cluster.rank import require_single_process

__all__ = ["require_single_process"]
