"""The sections that all recipes share, and their keys.

What methods choose from, models, masks and targets, is in :mod:`mimsuite.config.keys.encoders`,
:mod:`~mimsuite.config.keys.masks` and :mod:`~mimsuite.config.keys.targets`.

Values that come from a paper live in the recipe files; a default here is only what is right for
every recipe. Units are part of a key's name. Nothing here imports torch.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from mimsuite.config.keys.section import Fraction, Key, PathText, Positive, Range, Section, Size
from mimsuite.config.suggest import did_you_mean


class MethodCard(NamedTuple):
    """What is proven of a method; shown by `recipes list`.

    Attributes:
        version: goes up when the same recipe would train to other weights, so that evidence of
            learning is made anew.
    """

    paper: str
    status: Literal["verified", "faithful", "experimental"]
    proof: tuple[Literal["step", "trajectory", "weights", "reproduced"], ...] = ()
    version: int = 1


def _known_modality(name: str) -> str:
    from mimsuite.config.methods import modality_names

    known = modality_names()
    if name not in known:
        hint = did_you_mean(name, known) or f" There are: {', '.join(known)}."
        raise ValueError(f"no modality '{name}'.{hint}")
    return name


ModalityName = Annotated[str, AfterValidator(_known_modality)]


# --- what a recipe is ---------------------------------------------------------------------------


class About(Section):
    """`recipe:` what this file is; shown by `recipes list`."""

    title: str = ""
    task: Literal[
        "pretrain", "finetune", "linear-probe", "attentive-probe", "dense-probe", "dictionary"
    ] = "pretrain"
    modality: ModalityName = "image"
    paper: str = ""
    published: str = ""  # the figure the paper or its code reports, with its conditions
    gpu_hours: str = ""
    finetune: str = ""  # recipe by which `mimsuite finetune` tunes a run of this one
    linear_probe: str = ""  # likewise of the published linear-probe protocol
    attentive_probe: str = ""  # likewise of `mimsuite attentive-probe`


class MethodSection(Section):
    """`method:` the method's name, and in a subclass the keys that only this method has."""

    name: str


# --- data ---------------------------------------------------------------------------------------


class MixedSection(Section):
    """One of the sets that `data.mixture` lists."""

    source: PathText  # as data.source
    root: PathText | None = None  # as data.root
    split: str = "train"
    weight: Annotated[float, Field(gt=0.0)] = 1.0  # its share is weight / sum of weights


class DataSection(Section):
    """`data:` where samples come from and how they are streamed."""

    source: PathText = (
        ""  # folder, list, tar shards (local, s3:, https:), embedded:NAME; set by --data
    )
    root: PathText | None = None  # folder that the paths in a list are relative to; null: found
    mixture: tuple[MixedSection, ...] | None = None  # several sets at once, in place of source
    split: str = "train"
    folds: Annotated[int, Field(ge=2)] | None = None  # cut the split into so many, class by class
    fold: Annotated[int, Field(ge=0)] = 0  # the one left out of training, to be tested on instead
    # So many labelled samples of each class, drawn by train.seed; 0.1: a tenth of each class
    per_class: Positive | Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    # What labels are: one class a sample; a number, or several as 1.5;2; several classes as
    # cat;dog, where ; alone says that it has none of them
    targets: Literal["classes", "regression", "multilabel"] = "classes"
    channels: Literal["rgb", "gray", "rgba", "gray16", "native"] = "rgb"
    limit: Annotated[Positive | None, Key.SIZE] = None  # samples, spread over the set
    workers: Annotated[int, Field(ge=0), Key.SIZE] = 2
    lanes: Annotated[Positive | None, Key.SIZE] = None  # readers in a global batch; None: chosen
    block: Annotated[Positive, Key.SIZE] = 1024  # samples of a lane that are shuffled together
    tail: Literal["drop", "repeat"] = "drop"  # of an epoch: what fills no whole batch
    verify: Literal["crc", "size"] = "crc"  # crc: a flipped bit counts as a corrupt sample
    max_pixels: Positive = 64_000_000  # refuse larger images before decoding them
    max_bytes: Positive = 1 << 28  # refuse larger files; videos on disk are read in place, any size
    cache: PathText | None = None  # folder to which remote shards are downloaded; null: parts only
    cache_gib: Annotated[float, Field(gt=0.0)] = 50.0  # GiB of it; the oldest shards make room

    @model_validator(mode="after")
    def _fold_is_one(self) -> DataSection:
        if self.fold >= (self.folds or 1):
            raise ValueError(f"data.fold {self.fold} is none of {self.folds or 1}, from 0 on")
        return self

    @model_validator(mode="after")
    def _draws_by_class(self) -> DataSection:
        if self.per_class is not None and self.targets != "classes":
            raise ValueError(
                f"data.per_class draws by class, and data.targets={self.targets} has none: set "
                "data.per_class=null (data.limit takes so many samples)"
            )
        return self

    @property
    def shown(self) -> str:
        """The data in one line, for people."""
        if self.mixture is None:
            return self.source
        total = sum(one.weight for one in self.mixture)
        return " + ".join(f"{one.weight / total:.1%} {one.source}" for one in self.mixture)


class SecondViewSection(Section):
    """The same part of the image, mirrored alike, at another size: for a tokenizer."""

    name: Literal["tokenizer"] = "tokenizer"  # of the view
    image_size: Annotated[Size, Key.SIZE]  # pixels, one number or [height, width]
    interpolation: Literal["lanczos", "bicubic", "bilinear"] = "lanczos"


class AugmentSection(Section):
    """`augment:` geometry and colour of the training views; random draws are keyed by sample."""

    crop: Literal["random-resized", "single-try", "resize", "none"] = "random-resized"
    crop_scale: Range = (0.2, 1.0)  # fraction of the image's area
    crop_ratio: Range = (3 / 4, 4 / 3)  # width / height
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    hflip: Fraction = 0.5
    jitter: Fraction = 0.0  # of brightness, contrast and saturation: factors 1 +- this
    randaugment: str | None = None  # a timm policy, e.g. rand-m9-mstd0.5-inc1
    erase: Fraction = 0.0  # probability of random erasing
    second_view: SecondViewSection | None = None  # of every sample, beside `image`
    # Short side before the centre crop; None: image_size
    eval_resize: Annotated[Positive | None, Key.SIZE] = None
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # of pixels in [0, 1], per channel
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


# --- optimisation -------------------------------------------------------------------------------


class OptimSection(Section):
    """`optim:` the optimizer. Exactly one of `lr` and `lr_per_256` is set."""

    name: Literal["adamw", "lars", "sgd"] = "adamw"
    lr: Annotated[float, Field(gt=0.0)] | None = None
    lr_per_256: Annotated[float, Field(gt=0.0)] | None = None  # lr = this * global_batch / 256
    scratch_lr: Annotated[float, Field(gt=0.0)] | None = None  # of finetune's baseline; None: lr
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    eps: Annotated[float, Field(gt=0.0)] = 1e-8
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.05
    # Where the decay ends, half a cosine from weight_decay; null: it stays. See schedule.stretch.
    weight_decay_end: Annotated[float, Field(ge=0.0)] | None = None
    decay_all: bool = False  # biases, norms and tokens decay too
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    clip_grad: Annotated[float, Field(gt=0.0)] | None = None  # largest global L2 norm
    clip_from_epoch: Annotated[int, Field(ge=0)] = 0  # clip only from this epoch on; 0 is the first
    # Of all gradients, or of each part that the method names, for itself
    clip_scope: Literal["all", "parts"] = "all"

    @model_validator(mode="after")
    def _one_rate(self) -> OptimSection:
        if (self.lr is None) == (self.lr_per_256 is None):
            raise ValueError("set exactly one of optim.lr and optim.lr_per_256; null clears one")
        return self


class GroupSection(Section):
    """Keys of a named parameter group that a method declares; null: as in `optim`, `schedule`."""

    lr: Annotated[float, Field(gt=0.0)] | None = None  # peak
    min_lr: Annotated[float, Field(ge=0.0)] | None = None
    warmup_epochs: Annotated[float, Field(ge=0.0)] | None = None
    weight_decay: Annotated[float, Field(ge=0.0)] | None = None
    weight_decay_end: Annotated[float, Field(ge=0.0)] | None = None  # null: it stays
    decay_all: bool = False  # biases and other vectors too


class ScheduleSection(Section):
    """`schedule:` learning rate over fractional epochs, read at every optimizer step."""

    # half-cosine: MAE's; cosine-per-step: CAE's, whose warm-up ends on the peak, used twice;
    # epoch-lagged: Point-MAE's, constant within an epoch and one epoch late
    # one-cycle: up and down by half a cosine each, with the first beta moving the other way
    # cosine-ahead: I-JEPA's, which counts the step that is about to be done
    # linear-ahead: likewise, a straight line down without warm-up (V-JEPA 2's cool-down)
    kind: Literal[
        "half-cosine",
        "cosine-per-step",
        "epoch-lagged",
        "one-cycle",
        "cosine-ahead",
        "linear-ahead",
    ] = "half-cosine"
    epochs: Annotated[float, Field(gt=0.0), Key.SIZE]
    warmup_epochs: Annotated[float, Field(ge=0.0), Key.SIZE] = 0.0
    min_lr: Annotated[float, Field(ge=0.0)] = 0.0
    # Where warm-up begins; of half-cosine, epoch-lagged and cosine-ahead only
    warmup_lr: Annotated[float, Field(ge=0.0)] = 0.0
    # The rate of cosine-ahead and linear-ahead, a decay that changes and a momentum end after this
    # many times the epochs: above 1, training stops before.
    stretch: Annotated[float, Field(ge=1.0)] = 1.0
    # Of cosine-per-step: the share of its half cosine that is walked; below 1 the last rate is
    # above min_lr
    cosine_share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0

    @model_validator(mode="after")
    def _fits(self) -> ScheduleSection:
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} exceeds epochs {self.epochs}")
        if self.warmup_epochs and self.kind == "linear-ahead":
            raise ValueError("linear-ahead has no warm-up: set warmup_epochs 0")
        if self.cosine_share < 1 and self.kind != "cosine-per-step":
            raise ValueError(f"cosine_share is of kind cosine-per-step, not of {self.kind}")
        return self


class TrainSection(Section):
    """`train:` batch, precision and device."""

    global_batch: Annotated[Positive, Key.SIZE]
    # Samples per device at once; None: global / devices
    micro_batch: Annotated[Positive | None, Key.SIZE] = None
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: str = "auto"
    threads: Positive | None = None  # of the CPU in a step; None: all cores
    seed: Annotated[int, Field(ge=0)] = 0
    ema: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None  # decay per step
    parallel: Literal["ddp", "fsdp"] = "ddp"  # of several devices: whole copies, or sharded state
    checkpoint_activations: bool = False  # compute each block again in backward: less memory
    compile: bool = False  # of each block; takes minutes at the start of a run
    sync_batchnorm: bool = False  # statistics of the micro-batches of all devices together
    # A loss that is a ratio of sums (`Output.weight`): of the global batch, or a mean of each
    # micro-batch's own ratio, as published code has it.
    loss_scope: Literal["global", "rank"] = "global"
    timeout_seconds: Annotated[float, Field(gt=0.0)] = 300.0  # a rank waits for the others
    max_bad_steps: Positive = 20  # consecutive steps without a finite loss before giving up


class EvalSection(Section):
    """`eval:` probes of frozen features."""

    split: str = "test"
    # Of the tokens of a sample; cls: the class token, of several their mean; cls_mean: class token
    # and mean side by side, cls_max and mean_max likewise; auto: by validation
    pool: Literal["auto", "cls", "mean", "max", "cls_mean", "cls_max", "mean_max"] = "auto"
    layers: tuple[Positive, ...] | None = None  # blocks to probe; None: half, 3/4 and the last
    neighbours: Positive = 5
    validation: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2  # of the training split, by class
    batch: Annotated[Positive, Key.SIZE] = 256
    # Classes that are each other's reverse: of those, how often the right one of the two scores
    # higher is a figure of its own (a trained classifier's `direction_accuracy`).
    opposites: tuple[tuple[str, str], ...] = ()


class LogSection(Section):
    """`log:` what is written while training."""

    every_steps: Annotated[Positive, Key.SIZE] = 20
    pictures_every_epochs: Annotated[float, Field(gt=0.0)] | None = None
    # RankMe and LiDAR of the encoder; None: not measured. Each time 9 views a sample are encoded.
    signals_every_epochs: Annotated[float, Field(gt=0.0)] | None = None
    # Features collapse when they become the same for every sample: a term of the log that says how
    # much they differ falls below `collapse_share` of its maximum in the first tenth of training.
    collapse: Literal["warn", "stop", "off"] = "warn"
    collapse_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    signals_samples: Annotated[int, Field(ge=2)] = 256  # of the training set, the same each time
    # kNN and a linear head on frozen features of a small labelled set; None: not measured
    probe_every_epochs: Annotated[float, Field(gt=0.0)] | None = None
    probe_source: str = ""  # the labelled set; "": the data trained on
    probe_samples: Annotated[int, Field(ge=2)] = 1000  # to learn from at most, and to score on
    # Experiment trackers that get what metrics.jsonl gets, and the pictures
    writers: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ()
    project: str = "mimsuite"  # there


class CheckpointSection(Section):
    """`checkpoint:` when state is saved and how much of it is kept."""

    every_steps: Annotated[Positive | None, Key.SIZE] = None
    every_minutes: Annotated[float, Field(gt=0.0)] | None = 15.0
    keep: Positive = 3  # the newest ones
    keep_best: bool = False  # also that with the lowest mean training loss since the save before
    keep_every_steps: Positive | None = None  # also those at multiples of so many steps
    gather_gib: Annotated[float, Field(gt=0.0)] = 16.0  # larger fsdp state: one file per device


class Recipe(Section):
    """A whole, validated recipe. A method subclasses it to type the four sections it owns."""

    card: ClassVar[MethodCard] = MethodCard(paper="", status="experimental")

    recipe: About = About()
    base: str | None = None
    method: MethodSection
    model: Any
    mask: Any
    target: Any
    data: DataSection = DataSection()
    augment: AugmentSection = AugmentSection()
    optim: OptimSection
    schedule: ScheduleSection
    train: TrainSection
    eval: EvalSection = EvalSection()
    log: LogSection = LogSection()
    checkpoint: CheckpointSection = CheckpointSection()
    # Size keys that `--smoke` shrinks, as dotted keys: {"model.encoder.width": 32, ...}
    smoke: dict[str, Any] = Field(default_factory=dict)

    @property
    def rate_factor(self) -> float:
        """What `optim.lr_per_256` is multiplied by, beside the batch."""
        return 1.0

    @property
    def lr(self) -> float:
        """Peak learning rate after scaling by the global batch."""
        if self.optim.lr is not None:
            return self.optim.lr
        assert self.optim.lr_per_256 is not None
        return self.optim.lr_per_256 * self.train.global_batch / 256 * self.rate_factor
