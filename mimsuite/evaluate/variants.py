"""What a probe measures: the pretrained encoder and what it is compared with."""

from __future__ import annotations

TITLES = {
    "pretrained": "pretrained",
    "random_init": "random encoder",
    "raw_input": "raw input",
    "majority": "majority class",
    "mean": "mean of training",
    "prior": "prior",
    "from_scratch": "from scratch, equal steps",
    "from_scratch_equal_compute": "from scratch, equal compute",
}
# Those that a verdict counts. Always predicting the largest class is no rival.
RIVALS = ("random_init", "raw_input", "from_scratch", "from_scratch_equal_compute")


def title_of(variant: str) -> str:
    """The title of a variant; its name if it has none."""
    return TITLES.get(variant, variant)
