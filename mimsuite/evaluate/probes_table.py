"""Table of all probes of a run: command, result file and hardness.

To add a probe, add a line here and write the function that its command calls.
"""

from __future__ import annotations

from typing import NamedTuple


class Probe(NamedTuple):
    """A command that measures what a run learnt.

    Attributes:
        name: name of its results and its function; the command's, with dashes.
        title: title in reports.
        module: module of the function in :mod:`mimsuite.cli`.
        help: help line of the command.
        hardness: the hardest of the measured probes decides whether pretraining helped.
        frozen: whether the encoder is frozen.
    """

    name: str
    title: str
    module: str
    help: str
    hardness: int
    frozen: bool = True

    @property
    def command(self) -> str:
        return self.name.replace("_", "-")

    @property
    def file(self) -> str:
        """Name of the result file in the run directory."""
        return f"{self.name}.json"


PROBES = (
    Probe("linear_probe", "linear probe", "probes", "Linear probe of frozen features.", 5),
    Probe(
        "attentive_probe", "attentive probe", "attentive", "Attentive probe of a frozen encoder.", 4
    ),
    Probe("dense_probe", "dense probe", "dense", "Segments and depth of frozen patches.", 3),
    Probe("knn", "nearest neighbours", "probes", "Nearest-neighbour probe of frozen features.", 2),
    Probe("low_shot", "low-shot", "lowshot", "Probes with few labels of each class.", 1),
    Probe(
        "finetune", "fine-tuning", "finetune", "Fine-tune a run or checkpoint on labels.", 0, False
    ),
)
