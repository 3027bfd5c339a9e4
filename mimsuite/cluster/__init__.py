"""Distributed training: ranks, their communication, and how they are launched."""

from mimsuite.cluster.rank_info import RankInfo, find_rank_info, require_single_process

__all__ = ["RankInfo", "find_rank_info", "require_single_process"]
