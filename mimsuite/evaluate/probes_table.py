"""All probes of a run: their commands, the files with their results, how hard a test each is.

A new probe is a line here and the function that its command calls.
"""

from __future__ import annotations

from typing import NamedTuple


class Probe(NamedTuple):
    """A command that measures what a run has learnt.

    Attributes:
        name: of its results and of its function; with dashes its command's.
        title: in words.
        module: the function's, in :mod:`mimsuite.cli`.
        help: the command's line in the help.
        hardness: of the probes that were measured, the hardest decides whether pretraining helped.
        frozen: the encoder stays as it is.
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
        """Of the results, in the run directory."""
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
