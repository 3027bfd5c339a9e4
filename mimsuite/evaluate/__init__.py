"""Probes of pretrained encoders, with their baselines and intervals."""

from mimsuite.evaluate.bootstrap import Interval, paired_interval
from mimsuite.evaluate.feature_files import save_features
from mimsuite.evaluate.features import FeatureSet, extract
from mimsuite.evaluate.finetune import compose, finetune, trained_probe
from mimsuite.evaluate.linear import LinearGrid
from mimsuite.evaluate.lowshot import low_shot
from mimsuite.evaluate.lowshot_tuning import low_shot_finetune
from mimsuite.evaluate.probe import ProbeData, knn, linear_probe, probe_data
from mimsuite.evaluate.robustness import robustness
from mimsuite.evaluate.score import classify
from mimsuite.evaluate.sources import open_labelled, open_splits

__all__ = [
    "FeatureSet",
    "Interval",
    "LinearGrid",
    "ProbeData",
    "classify",
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
