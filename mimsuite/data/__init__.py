"""Data: sources, the order of training, decoding, augmentation and batches."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mimsuite.data.damage import CorruptSample, Damage
    from mimsuite.data.image.normalize import Normalize
    from mimsuite.data.loading.eval_loader import EvalLoader, eval_loader
    from mimsuite.data.loading.train_loader import Loaded, TrainLoader, train_loader
    from mimsuite.data.source import Sample, Source
    from mimsuite.data.sources.opening import open_source, source_splits
    from mimsuite.data.sources.training_set import open_fold, open_split, open_training_set
    from mimsuite.data.views import Views, views_of

_MODULES = {
    "damage": ("CorruptSample", "Damage"),
    "image.normalize": ("Normalize",),
    "loading.eval_loader": ("EvalLoader", "eval_loader"),
    "loading.train_loader": ("Loaded", "TrainLoader", "train_loader"),
    "source": ("Sample", "Source"),
    "sources.opening": ("open_source", "source_splits"),
    "sources.training_set": ("open_fold", "open_split", "open_training_set"),
    "views": ("Views", "views_of"),
}
__all__ = [
    "CorruptSample",
    "Damage",
    "EvalLoader",
    "Loaded",
    "Normalize",
    "Sample",
    "Source",
    "TrainLoader",
    "Views",
    "eval_loader",
    "open_fold",
    "open_source",
    "open_split",
    "open_training_set",
    "source_splits",
    "train_loader",
    "views_of",
]


def __getattr__(name: str) -> object:
    # Lazy: a process that decodes files one by one starts without torch.
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
