"""``train.micro_batch: auto``: the largest micro-batch that a device's memory holds.

The estimate of memory gives a first size. On a GPU a step of that size is then tried, and smaller
ones where memory runs out. The size is recorded, so that a resumed run keeps it: another size
changes the order of sums, and with it the last bits.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import torch
from pydantic import ValidationError

from mimsuite.cluster.host import usable_memory
from mimsuite.config.keys.shared import Recipe
from mimsuite.errors import UserError
from mimsuite.methods.base import no_gather
from mimsuite.train.estimate import estimate
from mimsuite.train.memory import is_out_of_memory
from mimsuite.train.random_batches import random_batch, shapes_of
from mimsuite.train.trainer import Trainer

_ROOM = 0.8  # share of free memory to fill; the framework and fragmentation take the rest


def with_micro_batch(recipe: Recipe, size: int) -> Recipe:
    """The recipe with this micro-batch."""
    train = recipe.train.model_copy(update={"micro_batch": size})
    return recipe.model_copy(update={"train": train})


def sizes_of(recipe: Recipe, world: int) -> list[int]:
    """Micro-batches that share out the global batch evenly and that the recipe allows, ascending.

    Raises:
        UserError: there are none.
    """
    batch = recipe.train.global_batch
    share = batch // world
    found = [n for n in range(1, share + 1) if share % n == 0 and _allowed(recipe, n)]
    if batch % world or not found:
        raise UserError(
            f"train.micro_batch=auto: train.global_batch={batch} cannot be shared evenly by "
            f"{world} devices"
        )
    return found


def estimated(recipe: Recipe, device: torch.device, world: int, precision: str) -> int:
    """The largest of :func:`sizes_of` that fits by the estimate, or the smallest of all."""
    on_host = device.type != "cuda"
    # Processes of a run share the host's memory.
    free = usable_memory() / world if on_host else torch.cuda.mem_get_info(device)[0]
    shards = world if recipe.train.parallel == "fsdp" else 1
    counted = estimate(recipe, precision)
    largest = counted.largest_micro_batch(_ROOM * free, shards, on_host=on_host)
    sizes = sizes_of(recipe, world)
    return max((n for n in sizes if n <= largest), default=sizes[0])


def tried(trainer: Trainer, size: int) -> int:
    """``size``, or the next smaller one of at most half until a step fits into a GPU's memory.

    All ranks must call it; they agree on the size.
    """
    recipe, peers = trainer.recipe, trainer.peers
    if trainer.device.type != "cuda" or trainer.replica.sharded:
        return size
    counted = estimate(recipe, trainer.precision.name)

    def fits(size: int) -> bool:
        try:
            # Stands for what training keeps beside a step.
            kept = torch.empty(counted.memory(size).optimizer, dtype=torch.uint8, device="cuda")
            batch = random_batch(shapes_of(recipe), size, trainer.device)
            with trainer.replica.without_sync():
                trainer.rehearse(batch, no_gather)
            del kept
            full = False
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            full = True
        torch.cuda.empty_cache()
        return not peers.any_rank(full)

    return first_that_fits(sizes_of(recipe, peers.world), size, fits)


def first_that_fits(sizes: list[int], size: int, fits: Callable[[int], bool]) -> int:
    """``size``, or the first that fits of ever smaller ones, each at most half of the last.

    Raises:
        UserError: none fits.
    """
    while not fits(size):
        smaller = [n for n in sizes if n <= size // 2]
        if not smaller:
            raise UserError(
                f"train.micro_batch=auto: not even {size} fit into this GPU's memory: try "
                "train.checkpoint_activations=true, or train.parallel=fsdp on several devices"
            )
        size = smaller[-1]
    return size


def _allowed(recipe: Recipe, size: int) -> bool:
    """Whether the recipe's own checks accept the size: some contrast or pair samples."""
    document = recipe.model_dump(mode="json")
    document["train"]["micro_batch"] = size
    try:
        type(recipe).model_validate_json(json.dumps(document), strict=True)
    except ValidationError:
        return False
    return True
