"""Models trained by this suite, as parts of other models: teachers and tokenizers.

The opener of models imports all methods, and methods import these parts. So the opener is imported
when it is called, not at the top of this file.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

_OPENER = "mimsuite.checkpoints.opened"


def open_trained(path: str | Path) -> Any:
    """The :class:`~mimsuite.checkpoints.opened.Opened` model at ``path``.

    Raises:
        UserError: no usable model at ``path``.
    """
    return import_module(_OPENER).open_model(path)
