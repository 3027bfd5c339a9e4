"""Ranks on different kinds of machines; called by :class:`tests.cluster.ranks.Ranks`."""

from __future__ import annotations


def meet() -> int:
    """Rank 1 has another device."""
    import torch

    from mimsuite.cluster.meeting import join, met
    from mimsuite.cluster.place import find_place
    from mimsuite.errors import UserError

    place = find_place()
    try:
        facts = {"device": "tpu"} if place.rank == 1 else {}
        join(place, torch.device("cpu"), 60.0, facts=facts)
    except UserError as error:
        print(error, flush=True)
        assert not met()
        return error.exit_code
    return 0
