"""mimsuite: masked modeling of images, video, point clouds and radiance fields.

The public Python surface is small: :func:`load`, the methods of what it returns
(``encode``, ``reconstruct``), and :func:`recipes`. Everything else is internal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mimsuite.api import load, recipes

__version__ = "0.2.0"
__all__ = ["__version__", "load", "recipes"]


def __getattr__(name: str) -> object:
    # Late, so that `import mimsuite` and the command line's --help do not import torch.
    if name in ("load", "recipes"):
        from mimsuite import api

        return getattr(api, name)
    raise AttributeError(f"module 'mimsuite' has no attribute '{name}'")
