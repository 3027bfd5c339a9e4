"""Schedules of rate, decay and momentum: pure functions of the step, without state to save."""

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
    """Linear warm-up to the peak, then half a cosine (BEiT's, CAE's and VideoMAE's schedule).

    Args:
        step: optimizer steps done; with a warm-up the first step runs at rate 0.
        lr: peak rate, used by the last warm-up step and the step after it.
        min_lr: the value that the cosine would reach one step after the last.
        warmup: number of warm-up steps; with a single one, its rate is 0.
        total: number of steps; afterwards ``min_lr`` holds.
        share: part of the cosine that is used; below 1 the last steps are above ``min_lr``.
    """
    return warm_cosine(
        step, start=0.0, peak=lr, end=min_lr, warmup=warmup, total=total, share=share
    )


def epoch_lagged(
    epoch: int, *, lr: float, min_lr: float, warmup_lr: float, warmup_epochs: float, epochs: float
) -> float:
    """The rate of a whole epoch in Point-MAE's training loop.

    Its scheduler lags one epoch: after each epoch it sets the rate that was due in that epoch, so
    epochs 0 and 1 have the same rate. The cosine starts at epoch 0, during the warm-up, and the
    rate is ``min_lr`` from ``epochs`` on.

    Args:
        epoch: whole epochs done.
        warmup_lr: rate at the start of the linear warm-up.
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
    """Linear warm-up, then half a cosine, evaluated at the coming step (I-JEPA's schedule).

    Args:
        step: optimizer steps done; the first step runs one increment above ``warmup_lr``.
        lr: peak rate, used by step number ``warmup``, counted from 1.
        min_lr: rate from step number ``total`` on.
    """
    due = step + 1
    if due < warmup:
        return warmup_lr + due / warmup * (lr - warmup_lr)
    if due >= total:
        return min_lr
    progress = (due - warmup) / (total - warmup)
    return min_lr + (lr - min_lr) * 0.5 * (1.0 + math.cos(math.pi * progress))


def counted_warmup(
    step: int,
    *,
    lr: float,
    min_lr: float,
    warmup: int,
    total: int,
    shape: str = "cosine",
    from_zero: bool = True,
) -> float:
    """Warm-up that counts the coming step, then half a cosine that counts the finished ones, so
    that the last step of the warm-up and the next one both run at the peak (RAE's schedule).

    Args:
        step: optimizer steps done.
        min_lr: rate from step number ``total`` on, counted from 0.
        shape: ``cosine`` or ``linear``.
        from_zero: whether the rate rises in the warm-up, or is at the peak.
    """
    if step < warmup:
        return lr * (step + 1) / warmup if from_zero else lr
    if step >= total:
        return min_lr
    progress = (step - warmup) / (total - warmup)
    if shape == "linear":
        return min_lr + (lr - min_lr) * (1 - progress)
    return _between(lr, min_lr, progress)


def linear_ahead(step: int, *, lr: float, min_lr: float, total: int) -> float:
    """A straight line down from ``lr``, evaluated at the coming step (V-JEPA 2's
    cool-down).

    Args:
        step: optimizer steps done; the first step runs one decrement below ``lr``.
        min_lr: rate from step number ``total`` on.
    """
    return lr + (min_lr - lr) * min((step + 1) / total, 1.0)


def half_cosine_to(step: int, *, start: float, end: float, total: int) -> float:
    """Half a cosine from ``start`` to ``end``, evaluated at the coming step; the value is ``end``
    from step number ``total`` on, counted from 1."""
    return _between(start, end, (step + 1) / total)


def one_cycle(step: int, *, lr: float, warmup: float, total: int) -> float:
    """One cycle: half a cosine up from ``lr / 25``, then half a cosine down to ``lr / 250000``
    (Smith & Topin, arXiv:1708.07120, with PyTorch's factors, as in NeRF-MAE).

    Args:
        step: optimizer steps done.
        lr: peak rate.
        warmup: length of the rise in steps; the peak is one step before its end and may lie
            between steps.
        total: number of steps; the last one has the lowest rate.
    """
    low, top, end = lr / 25, warmup - 1, total - 1
    if step <= top:
        return _between(low, lr, step / top if top else 1.0)
    return _between(lr, low / 1e4, (step - top) / (end - top) if end > top else 1.0)


def one_cycle_beta(step: int, *, warmup: float, total: int) -> float:
    """The first beta for :func:`one_cycle`: 0.95, falling to 0.85 at the peak, then back."""
    top, end = warmup - 1, total - 1
    if step <= top:
        return _between(0.95, 0.85, step / top if top else 1.0)
    return _between(0.85, 0.95, (step - top) / (end - top) if end > top else 1.0)


def _between(start: float, end: float, progress: float) -> float:
    """Half a cosine from one value to another."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * min(progress, 1.0)))


def beta_at(section: ScheduleSection, step: int, steps_per_epoch: int) -> float | None:
    """The first beta for the step after ``step`` finished ones; None if it is not scheduled."""
    if section.kind != "one-cycle":
        return None
    total = max(round(section.epochs * steps_per_epoch), step + 1)
    return one_cycle_beta(step, warmup=section.warmup_epochs * steps_per_epoch, total=total)


def stretched(section: ScheduleSection, steps_per_epoch: int) -> float:
    """Length in steps of the schedules that ``schedule.stretch`` stretches."""
    return section.stretch * section.epochs * steps_per_epoch


def decay_at(
    section: ScheduleSection, start: float, end: float | None, step: int, steps_per_epoch: int
) -> float:
    """Weight decay for the step after ``step`` finished ones."""
    if end is None:
        return start
    total = max(int(stretched(section, steps_per_epoch)), 1)
    return half_cosine_to(step, start=start, end=end, total=total)


def rate_at(section: ScheduleSection, lr: float, step: int, steps_per_epoch: int) -> float:
    """Rate for the step after ``step`` finished ones; ``lr`` is the peak."""
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
    if section.kind == "cosine-counted":
        return counted_warmup(
            step,
            lr=lr,
            min_lr=section.min_lr,
            warmup=int(section.warmup_epochs * steps_per_epoch),
            total=int(section.epochs * steps_per_epoch),
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
