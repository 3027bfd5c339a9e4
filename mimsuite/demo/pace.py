"""How long the demo takes on this machine: measured on a few real training steps before it starts.

Everything after a command's start is arithmetic on small batches, so its time is counted in steps
of pretraining; starting Python and torch is measured on the command that times the steps.
"""

from __future__ import annotations

import time

from mimsuite.demo.commands import answer_of

BATCH, ROUNDS = 128, 15
TIMED = ROUNDS + 3  # and three to warm up
COMMANDS = 6
PRETRAIN_STEPS = 130 * 39
# Fine-tuning, probes and pictures with their baselines, in steps of pretraining. Derived, not
# timed by themselves: the demo took eight and a half minutes, five of them pretraining, on two free
# cores, and a start is taken to be six seconds.
OTHER_STEPS = 3000
SMOKE_STEPS = 100


def measure(recipe: str, smoke: bool) -> float:
    """Seconds that the demo will take, what this takes included."""
    begun = time.monotonic()
    sizes = ("--batch", BATCH, "--threads", 1, "--rounds", ROUNDS)
    figures = answer_of("bench", "step", recipe, *sizes)
    return estimate(figures["wall_seconds_per_step"], time.monotonic() - begun, smoke)


def estimate(step: float, measured: float, smoke: bool) -> float:
    """Seconds of the whole demo.

    Args:
        step: seconds of a step of pretraining.
        measured: seconds of the command that timed the steps, its start included.
    """
    steps = SMOKE_STEPS if smoke else PRETRAIN_STEPS + OTHER_STEPS
    start = max(0.0, measured - 2 * TIMED * step)  # as long again for products beside the steps
    return measured + COMMANDS * start + steps * step
