"""Experiment trackers that a run may write to, beside its own files: ``log.writers``.

Each is one small file, imported only where a recipe names it. What they get is what
``metrics.jsonl`` gets, and the pictures that training draws.
"""

from mimsuite.report.writers.base import RunIdentity, Writer
from mimsuite.report.writers.writers import Writers, require_packages

__all__ = ["RunIdentity", "Writer", "Writers", "require_packages"]
