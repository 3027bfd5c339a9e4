"""Ranks on different kinds of machines; called by :class:`tests.cluster.ranks.Ranks`."""

from __future__ import annotations


def meet() -> int:
    """Rank 1 has another device."""
    import torch

    from mimsuite.cluster.meeting import join, met
    from mimsuite.cluster.rank_info import find_rank_info
    from mimsuite.errors import UserError

    info = find_rank_info()
    try:
        facts = {"device": "tpu"} if info.rank == 1 else {}
        join(info, torch.device("cpu"), 60.0, facts=facts)
    except UserError as error:
        print(error, flush=True)
        assert not met()
        return error.exit_code
    return 0
