"""Images with per-pixel labels: a class, a depth, or both."""

from mimsuite.data.dense.layouts import LAYOUTS, layout_of
from mimsuite.data.dense.listing import DenseListing
from mimsuite.data.dense.source import DenseSource, open_dense
from mimsuite.data.dense.truth import IGNORE
from mimsuite.data.dense.views import DenseSample, DenseViews

__all__ = [
    "IGNORE",
    "LAYOUTS",
    "DenseListing",
    "DenseSample",
    "DenseSource",
    "DenseViews",
    "layout_of",
    "open_dense",
]
