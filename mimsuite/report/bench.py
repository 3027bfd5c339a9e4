"""Figures of speed, for people."""

from __future__ import annotations

from typing import Any

from mimsuite.console import rows, say
from mimsuite.text import number

_UNITS = {
    "seconds_per_step": ("step", 1e3, "ms of the device or, over its threads, the CPU"),
    "seconds_without_prepare": ("trained", 1e3, "ms of it without teachers and other preparation"),
    "wall_seconds_per_step": ("wall", 1e3, "ms a step"),
    "samples_per_second": ("speed", 1, "samples/s"),
    "gflop_per_sample": ("work", 1, "GFLOP a sample, forward and backward"),
    "gflops": ("rate", 1, "GFLOP/s"),
    "gemm_gflops": ("limit", 1, "GFLOP/s of matrix products in the same run"),
    "share_of_gemm": ("share", 100, "% of that limit"),
    "gemm_gflops_median": ("products", 1, "GFLOP/s of matrix products, median"),
    "gemm_gflops_best": ("", 1, "GFLOP/s, best"),
    "memory_gb_per_second": ("memory", 1, "GB/s read and written by a copy"),
    "peak_memory_mb": ("peak", 1, "MiB of memory"),
    "one_process": ("one", 1, "samples/s of one process with all threads"),
    "scaling": ("ratio", 1, "of the speed of that one process"),
}


def bench_table(title: str, figures: dict[str, Any]) -> None:
    """A line a figure on stderr; what a figure depends on comes last, in one line."""
    say(title, "bold cyan")
    lines = []
    for name, value in figures.items():
        if name in _UNITS:
            label, factor, unit = _UNITS[name]
            lines.append((label, f"{number(factor * value)} {unit}"))
    names = ("batch", "rounds", "processes", "threads", "precision", "device")
    known = [f"{name} {figures[name]}" for name in names if name in figures]
    known.append(f"load {figures['load']:.1f}")
    rows([*lines, ("with", ", ".join(known))])
