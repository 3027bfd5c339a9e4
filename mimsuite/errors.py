"""Errors for the user: what is wrong, where, and what to do next.

Each class carries the exit code of the command line (the documentation, exit codes).
"""

from __future__ import annotations


class MimsuiteError(Exception):
    """Base of every error that the command line prints as one line, without a traceback."""

    exit_code = 1


class UserError(MimsuiteError):
    """A wrong command, recipe, path or checkpoint, which the user can correct."""

    exit_code = 2


class DataError(MimsuiteError):
    """Data that cannot be read, or more damage than the limits allow."""

    exit_code = 3


class CorruptSample(DataError):
    """An unusable sample; the loader replaces it and reports a :class:`Damage`.

    Args:
        kind: ``missing``, ``truncated``, ``crc``, ``decode``, ``too-large``,
            ``not-finite`` or ``label``.
        message: what is wrong, without the sample's name.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class DivergedError(MimsuiteError):
    """Training stopped because the loss or the gradient norm was not finite."""

    exit_code = 4


class Preempted(MimsuiteError):
    """Training stopped by a signal, after saving; ``--resume auto`` continues it.

    Attributes:
        resume: the command that continues it, where known.
    """

    exit_code = 75
    resume = ""
