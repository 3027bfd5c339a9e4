"""`model:`, `target:`, `optim:` and `schedule:` of sparse dictionaries on frozen features.
Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mimsuite.config.keys.encoders import EncoderSection, ViTSection
from mimsuite.config.keys.section import Dimension, Fraction, Positive, Section
from mimsuite.config.keys.shared import OptimSection, ScheduleSection
from mimsuite.config.keys.teachers import TeacherSection

Projection = Literal["l2", "l1", "max_l2", "max_l1", "identity"]
CoderName = Literal["linear", "mlp_ln_1", "mlp_bn_1", "mlp_ln_3", "mlp_bn_3"]
Kernel = Literal[
    "rectangle",
    "gaussian",
    "triangular",
    "cosine",
    "epanechnikov",
    "quartic",
    "silverman",
    "cauchy",
]
Above0 = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]


class DictionaryModelSection(Section):
    """`model:` the frozen encoder: the run's, or a teacher instead."""

    encoder: EncoderSection = ViTSection()
    teacher: TeacherSection | None = None


class FreeAtomsSection(Section):
    """Unconstrained atoms, projected after each step."""

    kind: Literal["free"] = "free"
    # l2, l1: scale each atom to norm 1; max_l2, max_l1: divide all by the largest norm;
    # identity: no projection
    projection: Projection = "l2"
    multiplier: bool = False  # train a common scale of all atoms


class ArchetypalAtomsSection(Section):
    """Atoms that are mixtures of data points (arXiv:2502.12892)."""

    kind: Literal["archetypal"]
    points: Positive = 4096  # k-means centroids of training features
    delta: NotNegative = 1.0  # largest norm of an atom's offset from its mixture
    multiplier: bool = True  # train a common scale of all atoms


AtomsSection = Annotated[FreeAtomsSection | ArchetypalAtomsSection, Field(discriminator="kind")]


class PenaltySection(Section):
    """Penalty added to the mean squared error; formulas: mimsuite/dictionaries/losses.py."""

    kind: Literal[
        "none",
        "l1",
        "l0",
        "hoyer",
        "kappa",
        "elastic",
        "unchosen",
        "dead",
        "reanimate",
        "reanimate-mean",
        "revive",
    ] = "none"
    weight: NotNegative = 0.0
    dead_after: Positive = 50_000  # kind dead: rows after which an unused code is dead
    # Kind dead: dead codes that explain a row's residual; larger values overshoot at first
    dead_codes: Positive = 32


class DictionarySection(Section):
    """`target:` keys that all kinds of dictionary share."""

    codes: Dimension  # number of atoms, and of codes
    atoms: AtomsSection = FreeAtomsSection()
    penalty: PenaltySection = PenaltySection()


class SelectingSection(DictionarySection):
    """Keys of the kinds that have an encoder."""

    encoder: CoderName = "linear"
    encoder_start: Literal["tied", "random"] = "tied"  # initial weights: transposed atoms or random

    @model_validator(mode="after")
    def _penalty_applies(self) -> SelectingSection:
        if self.penalty.kind == "revive":
            raise ValueError("penalty.kind revive is for kinds pursuit and orthogonal")
        if self.penalty.kind == "l0" and self.__class__ is not JumpReLUSection:
            raise ValueError("penalty.kind l0 is for kind jumprelu")
        if self.encoder != "linear" and self.encoder_start == "tied":
            raise ValueError(f"encoder {self.encoder} has no tied start: set encoder_start=random")
        return self


class ReLUSection(SelectingSection):
    """Keep every positive pre-code."""

    kind: Literal["relu"]


class TopKSection(SelectingSection):
    """Keep the largest codes of each row."""

    kind: Literal["topk"]
    active: Positive  # codes kept per row

    @model_validator(mode="after")
    def _few(self) -> TopKSection:
        _require_few(self.active, self.codes)
        return self


class BatchTopKSection(SelectingSection):
    """Keep the largest codes of a batch."""

    kind: Literal["batchtopk"]
    active: Above0  # codes kept per row, on average
    momentum: Fraction = 0.9  # momentum of the threshold that is used at evaluation

    @model_validator(mode="after")
    def _few(self) -> BatchTopKSection:
        _require_few(self.active, self.codes)
        return self


class JumpReLUSection(SelectingSection):
    """Keep codes above a trained threshold."""

    kind: Literal["jumprelu"]
    kernel: Kernel = "silverman"  # kernel that gives thresholds their gradient
    bandwidth: Above0 = 1e-3  # bandwidth of the kernel


class PursuitSection(DictionarySection):
    """Matching pursuit."""

    kind: Literal["pursuit"]
    active: Positive  # pursuit steps: the largest number of codes per row
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0  # share of atoms dropped in training

    @model_validator(mode="after")
    def _few(self) -> PursuitSection:
        if self.penalty.kind not in ("none", "l1", "hoyer", "kappa", "elastic", "revive"):
            raise ValueError(f"penalty.kind {self.penalty.kind} needs a kind with an encoder")
        _require_few(self.active, self.codes)
        return self


class OrthogonalSection(PursuitSection):
    """Orthogonal matching pursuit."""

    kind: Literal["orthogonal"]  # type: ignore[assignment]
    fit_steps: Positive = 10  # gradient steps of each fit of the codes


TargetSection = Annotated[
    ReLUSection
    | TopKSection
    | BatchTopKSection
    | JumpReLUSection
    | PursuitSection
    | OrthogonalSection,
    Field(discriminator="kind"),
]


class DictionaryOptimSection(OptimSection):
    """`optim:` of the dictionary."""

    name: Literal["adam"] = "adam"  # type: ignore[assignment]
    weight_decay: Literal[0] = 0


class DictionaryScheduleSection(ScheduleSection):
    """`schedule:` a linear warm-up, then half a cosine, updated at every step."""

    # overcomplete: as in that library, the first step runs at the full rate even with a warm-up
    kind: Literal["cosine", "overcomplete"] = "cosine"  # type: ignore[assignment]


def _require_few(active: float, codes: int) -> None:
    if active > codes:
        raise ValueError(f"active {active:g} exceeds codes {codes}")
