"""Probes of pretrained encoders, with their baselines and intervals."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mimsuite.evaluate.bootstrap import Interval, paired_interval
    from mimsuite.evaluate.feature_files import save_features
    from mimsuite.evaluate.features import FeatureSet, extract
    from mimsuite.evaluate.probe_recipe import compose
    from mimsuite.evaluate.probes.linear import LinearGrid
    from mimsuite.evaluate.probes.lowshot import low_shot
    from mimsuite.evaluate.probes.probe import ProbeData, knn, linear_probe, probe_data
    from mimsuite.evaluate.probes.robustness import robustness
    from mimsuite.evaluate.sources import open_labelled, open_splits
    from mimsuite.evaluate.tuning.finetune import finetune, trained_probe
    from mimsuite.evaluate.tuning.lowshot_tuning import low_shot_finetune

_MODULES = {
    "bootstrap": ("Interval", "paired_interval"),
    "feature_files": ("save_features",),
    "features": ("FeatureSet", "extract"),
    "probe_recipe": ("compose",),
    "probes.linear": ("LinearGrid",),
    "probes.lowshot": ("low_shot",),
    "probes.probe": ("ProbeData", "knn", "linear_probe", "probe_data"),
    "probes.robustness": ("robustness",),
    "sources": ("open_labelled", "open_splits"),
    "tuning.finetune": ("finetune", "trained_probe"),
    "tuning.lowshot_tuning": ("low_shot_finetune",),
}
__all__ = [
    "FeatureSet",
    "Interval",
    "LinearGrid",
    "ProbeData",
    "compose",
    "extract",
    "finetune",
    "knn",
    "linear_probe",
    "low_shot",
    "low_shot_finetune",
    "open_labelled",
    "open_splits",
    "paired_interval",
    "probe_data",
    "robustness",
    "save_features",
    "trained_probe",
]


def __getattr__(name: str) -> object:
    # Lazy: training imports a part of this package, and fine-tuning imports all methods.
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
