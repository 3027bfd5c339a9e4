"""How long the demo takes on this machine: measured on a few real training steps before it starts.

Everything after a command's start is arithmetic on small batches, so its time is counted in steps
of pretraining; starting Python and torch is measured on the command that times the steps.
"""

from __future__ import annotations

import time

from mimsuite.demo.commands import answer_of

BATCH, ROUNDS = 128, 15
COMMANDS = 6
PRETRAIN_STEPS = 130 * 39
# Fine-tuning, probes and pictures with their baselines, in steps of pretraining; measured once.
OTHER_STEPS = 3000
SMOKE_STEPS = 300


def measure(recipe: str, smoke: bool) -> float:
    """Seconds that the demo will take, what this takes included."""
    begun = time.monotonic()
    sizes = ("--batch", BATCH, "--threads", 1, "--rounds", ROUNDS)
    figures = answer_of("bench", "step", recipe, *sizes)
    return estimate(figures["wall_seconds_per_step"], time.monotonic() - begun, smoke)


def estimate(step: float, start: float, smoke: bool) -> float:
    """Seconds of the whole demo.

    Args:
        step: seconds of a step of pretraining.
        start: seconds in which a command has started, and measured a few steps.
    """
    steps = SMOKE_STEPS if smoke else PRETRAIN_STEPS + OTHER_STEPS
    return step * steps + start * (1 + COMMANDS)
