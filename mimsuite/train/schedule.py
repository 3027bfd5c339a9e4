"""Schedules of rate, decay and momentum: pure functions of the step, so nothing has to be saved."""

from __future__ import annotations

import math

from mimsuite.config.keys.shared import ScheduleSection
from mimsuite.models.momentum import warm_cosine


def half_cosine(
    epoch: float,
    *,
    lr: float,
    min_lr: float,
    warmup_epochs: float,
    epochs: float,
    warmup_lr: float = 0.0,
) -> float:
    """Linear warm-up, then half a cosine down to ``min_lr`` (MAE's schedule).

    Args:
        epoch: fractional epoch = optimizer step / steps per epoch; the first step runs at
            ``warmup_lr``.
        lr: peak rate, reached at ``warmup_epochs``.
    """
    if epoch < warmup_epochs:
        return warmup_lr + (lr - warmup_lr) * epoch / warmup_epochs
    progress = (epoch - warmup_epochs) / (epochs - warmup_epochs) if epochs > warmup_epochs else 1.0
    return min_lr + (lr - min_lr) * 0.5 * (1.0 + math.cos(math.pi * progress))


def cosine_per_step(
    step: int, *, lr: float, min_lr: float, warmup: int, total: int, share: float = 1.0
) -> float:
    """Linear warm-up that ends on the peak, then half a cosine from it (BEiT's, CAE's and
    VideoMAE's schedule).

    Args:
        step: optimizer steps done; the first runs at rate 0 where there is a warm-up.
        lr: peak rate, of the last step of the warm-up and of the next one.
        min_lr: where the cosine would end one step after the last.
        warmup: steps of it; of a single one the rate is 0.
        total: steps in all; behind them ``min_lr`` holds.
        share: of the cosine that is walked; below 1 the last steps are above ``min_lr``.
    """
    return warm_cosine(
        step, start=0.0, peak=lr, end=min_lr, warmup=warmup, total=total, share=share
    )


def epoch_lagged(
    epoch: int, *, lr: float, min_lr: float, warmup_lr: float, warmup_epochs: float, epochs: float
) -> float:
    """The rate of a whole epoch as Point-MAE's training loop has it.

    Its scheduler moves on behind each epoch to the rate that was due in it, so epochs 0 and 1 have
    the same rate. The cosine begins at epoch 0, below the warm-up, and ``min_lr`` holds from
    ``epochs`` on.

    Args:
        epoch: whole epochs done.
        warmup_lr: where the linear warm-up begins.
    """
    due = max(epoch - 1, 0)
    if due < warmup_epochs:
        return warmup_lr + due * (lr - warmup_lr) / warmup_epochs
    if due >= epochs:
        return min_lr
    return min_lr + 0.5 * (lr - min_lr) * (1.0 + math.cos(math.pi * due / epochs))


def cosine_ahead(
    step: int, *, lr: float, warmup_lr: float, min_lr: float, warmup: int, total: int
) -> float:
    """Linear warm-up, then half a cosine, both at the step that is about to be done (I-JEPA's).

    Args:
        step: optimizer steps done; the first runs one step above ``warmup_lr``.
        lr: peak rate, of step number ``warmup``, counted from 1.
        min_lr: of step number ``total`` and all behind it.
    """
    due = step + 1
    if due < warmup:
        return warmup_lr + due / warmup * (lr - warmup_lr)
    if due >= total:
        return min_lr
    progress = (due - warmup) / (total - warmup)
    return min_lr + (lr - min_lr) * 0.5 * (1.0 + math.cos(math.pi * progress))


def linear_ahead(step: int, *, lr: float, min_lr: float, total: int) -> float:
    """A straight line down from ``lr``, at the step that is about to be done (V-JEPA 2's
    cool-down).

    Args:
        step: optimizer steps done; the first runs one step below ``lr``.
        min_lr: of step number ``total`` and all behind it.
    """
    return lr + (min_lr - lr) * min((step + 1) / total, 1.0)


def half_cosine_to(step: int, *, start: float, end: float, total: int) -> float:
    """Half a cosine from ``start`` to ``end``, at the step that is about to be done; ``end`` holds
    from step number ``total`` on, counted from 1."""
    return _between(start, end, (step + 1) / total)


def one_cycle(step: int, *, lr: float, warmup: float, total: int) -> float:
    """Up from ``lr / 25`` and down to ``lr / 250000``, half a cosine each (Smith & Topin,
    arXiv:1708.07120, with PyTorch's factors, as NeRF-MAE trains).

    Args:
        step: optimizer steps done.
        lr: peak rate.
        warmup: steps of the way up; the peak is one step before its end, and may lie between steps.
        total: steps in all; the last one has the lowest rate.
    """
    low, top, end = lr / 25, warmup - 1, total - 1
    if step <= top:
        return _between(low, lr, step / top if top else 1.0)
    return _between(lr, low / 1e4, (step - top) / (end - top) if end > top else 1.0)


def one_cycle_beta(step: int, *, warmup: float, total: int) -> float:
    """The first beta that goes with :func:`one_cycle`: 0.95, down to 0.85 at the peak, and back."""
    top, end = warmup - 1, total - 1
    if step <= top:
        return _between(0.95, 0.85, step / top if top else 1.0)
    return _between(0.85, 0.95, (step - top) / (end - top) if end > top else 1.0)


def _between(start: float, end: float, progress: float) -> float:
    """Half a cosine from one value to another."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * min(progress, 1.0)))


def beta_at(section: ScheduleSection, step: int, steps_per_epoch: int) -> float | None:
    """The first beta of the step that follows ``step`` finished ones, where it is scheduled."""
    if section.kind != "one-cycle":
        return None
    total = max(round(section.epochs * steps_per_epoch), step + 1)
    return one_cycle_beta(step, warmup=section.warmup_epochs * steps_per_epoch, total=total)


def stretched(section: ScheduleSection, steps_per_epoch: int) -> float:
    """Steps after which what ``schedule.stretch`` stretches ends."""
    return section.stretch * section.epochs * steps_per_epoch


def decay_at(
    section: ScheduleSection, start: float, end: float | None, step: int, steps_per_epoch: int
) -> float:
    """Weight decay of the step that follows ``step`` finished ones."""
    if end is None:
        return start
    total = max(int(stretched(section, steps_per_epoch)), 1)
    return half_cosine_to(step, start=start, end=end, total=total)


def rate_at(section: ScheduleSection, lr: float, step: int, steps_per_epoch: int) -> float:
    """Rate of the step that follows ``step`` finished ones; ``lr`` is the peak."""
    if section.kind == "cosine-per-step":
        return cosine_per_step(
            step,
            lr=lr,
            min_lr=section.min_lr,
            warmup=round(section.warmup_epochs * steps_per_epoch),
            total=max(round(section.epochs * steps_per_epoch), step + 1),
            share=section.cosine_share,
        )
    if section.kind == "cosine-ahead":
        return cosine_ahead(
            step,
            lr=lr,
            warmup_lr=section.warmup_lr,
            min_lr=section.min_lr,
            warmup=int(section.warmup_epochs * steps_per_epoch),
            total=int(stretched(section, steps_per_epoch)),
        )
    if section.kind == "linear-ahead":
        total = int(stretched(section, steps_per_epoch))
        return linear_ahead(step, lr=lr, min_lr=section.min_lr, total=max(total, 1))
    if section.kind == "one-cycle":
        return one_cycle(
            step,
            lr=lr,
            warmup=section.warmup_epochs * steps_per_epoch,
            total=max(round(section.epochs * steps_per_epoch), step + 1),
        )
    if section.kind == "epoch-lagged":
        return epoch_lagged(
            step // steps_per_epoch,
            lr=lr,
            min_lr=section.min_lr,
            warmup_lr=section.warmup_lr,
            warmup_epochs=section.warmup_epochs,
            epochs=section.epochs,
        )
    return half_cosine(
        step / steps_per_epoch,
        lr=lr,
        min_lr=section.min_lr,
        warmup_lr=section.warmup_lr,
        warmup_epochs=section.warmup_epochs,
        epochs=section.epochs,
    )
