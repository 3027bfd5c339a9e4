"""Models that this suite trained, as parts of others: teachers and tokenizers.

Opening a model knows all methods, and methods know these parts; so the opener is found when it is
first called, and nothing here imports it.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

_OPENER = "mimsuite.checkpoints.opened"


def open_trained(path: str | Path) -> Any:
    """The :class:`~mimsuite.checkpoints.opened.Opened` model at ``path``.

    Raises:
        UserError: nothing usable there.
    """
    return import_module(_OPENER).open_model(path)
