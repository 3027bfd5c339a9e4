"""The sections that all recipes share, and their keys.

The models, masks and targets that methods choose from are in :mod:`mimsuite.config.keys.encoders`,
:mod:`~mimsuite.config.keys.masks` and :mod:`~mimsuite.config.keys.targets`.

Values from a paper are set in the recipe files; a default here is right for every recipe. Units
are part of a key's name. Nothing here imports torch.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from mimsuite.config.keys.section import Fraction, Key, PathText, Positive, Range, Section, Size
from mimsuite.config.suggest import did_you_mean


class MethodCard(NamedTuple):
    """Status of a method and the tests that prove it; shown by `recipes list`.

    Attributes:
        version: raised when the same recipe would train to different weights; evidence of
            learning is then measured again.
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


class RecipeInfo(Section):
    """`recipe:` title, task and source of the recipe; shown by `recipes list`."""

    title: str = ""
    task: Literal[
        "pretrain", "finetune", "linear-probe", "attentive-probe", "dense-probe", "dictionary"
    ] = "pretrain"
    modality: ModalityName = "image"
    paper: str = ""
    published: str = ""  # result that the paper or its code reports, with its conditions
    gpu_hours: str = ""
    finetune: str = ""  # recipe that `mimsuite finetune` applies to runs of this one
    linear_probe: str = ""  # recipe of the published linear-probe protocol
    attentive_probe: str = ""  # recipe that `mimsuite attentive-probe` applies


class MethodSection(Section):
    """`method:` the method's name; a subclass adds the keys that only this method has."""

    name: str


# --- data ---------------------------------------------------------------------------------------


class MixedSection(Section):
    """One of the sets that `data.mixture` lists."""

    source: PathText  # as data.source
    root: PathText | None = None  # as data.root
    split: str = "train"
    weight: Annotated[float, Field(gt=0.0)] = 1.0  # its share is weight / sum of weights


class DataSection(Section):
    """`data:` where samples come from and how they are read."""

    source: PathText = (
        ""  # folder, list, tar shards (local, s3:, https:), embedded:NAME; set by --data
    )
    root: PathText | None = None  # folder that paths in a list are relative to; null: detected
    mixture: tuple[MixedSection, ...] | None = None  # several sets at once, in place of source
    split: str = "train"
    folds: Annotated[int, Field(ge=2)] | None = None  # number of stratified folds of the split
    fold: Annotated[int, Field(ge=0)] = 0  # fold that is left out of training, for testing
    # Labelled samples to use per class, drawn by train.seed; 0.1: a tenth of each class
    per_class: Positive | Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    # Kind of labels. classes: one class per sample; regression: one number, or several as 1.5;2;
    # multilabel: several classes as cat;dog, where a lone ; means none of them.
    targets: Literal["classes", "regression", "multilabel"] = "classes"
    channels: Literal["rgb", "gray", "rgba", "gray16", "native"] = "rgb"
    limit: Annotated[Positive | None, Key.SIZE] = None  # use only this many, spread over the set
    workers: Annotated[int, Field(ge=0), Key.SIZE] = 2
    # Readers per global batch; null: the largest divisor of it up to 512. Resumed runs keep theirs.
    lanes: Annotated[Positive | None, Key.SIZE] = None
    # Samples of a lane that are shuffled together; above 64 lanes that were not set, in proportion
    # fewer, so that as many are read at the same time.
    block: Annotated[Positive, Key.SIZE] = 1024
    tail: Literal["drop", "repeat"] = "drop"  # handling of an epoch's last, incomplete batch
    verify: Literal["crc", "size"] = "crc"  # crc: detect flipped bits too, not only truncation
    max_pixels: Positive = 64_000_000  # refuse larger images before decoding
    max_bytes: Positive = 1 << 28  # refuse larger files; no limit for videos on local disk
    cache: PathText | None = None  # folder for whole remote shards; null: read parts only
    cache_gib: Annotated[float, Field(gt=0.0)] = 50.0  # cache size, GiB; oldest shards go first

    @model_validator(mode="after")
    def _fold_is_one(self) -> DataSection:
        if self.fold >= (self.folds or 1):
            raise ValueError(f"data.fold {self.fold} must be below {self.folds or 1} (from 0)")
        return self

    @model_validator(mode="after")
    def _draws_by_class(self) -> DataSection:
        if self.per_class is not None and self.targets != "classes":
            raise ValueError(
                f"data.per_class draws by class, and data.targets={self.targets} has none: set "
                "data.per_class=null (data.limit limits the number of samples)"
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
    """The same crop and flip of the image at another size, for a tokenizer."""

    name: Literal["tokenizer"] = "tokenizer"  # name of the view
    image_size: Annotated[Size, Key.SIZE]  # pixels, one number or [height, width]
    interpolation: Literal["lanczos", "bicubic", "bilinear"] = "lanczos"


class AugmentSection(Section):
    """`augment:` crop, flip and colour of training views; random draws are keyed by sample."""

    crop: Literal["random-resized", "single-try", "resize", "none"] = "random-resized"
    crop_scale: Range = (0.2, 1.0)  # fraction of the image's area
    crop_ratio: Range = (3 / 4, 4 / 3)  # width / height
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    hflip: Fraction = 0.5
    jitter: Fraction = 0.0  # brightness, contrast and saturation factors: 1 +- this
    randaugment: str | None = None  # a timm policy, e.g. rand-m9-mstd0.5-inc1
    erase: Fraction = 0.0  # probability of random erasing
    second_view: SecondViewSection | None = None  # a second view of each sample, beside `image`
    # Evaluation: short side in pixels before the centre crop; None: image_size
    eval_resize: Annotated[Positive | None, Key.SIZE] = None
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # per channel, pixels in [0, 1]
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


# --- optimisation -------------------------------------------------------------------------------


class OptimSection(Section):
    """`optim:` the optimizer. Exactly one of `lr` and `lr_per_256` is set."""

    name: Literal["adamw", "lars", "sgd"] = "adamw"
    lr: Annotated[float, Field(gt=0.0)] | None = None
    lr_per_256: Annotated[float, Field(gt=0.0)] | None = None  # lr = this * global_batch / 256
    # Learning rate of the from-scratch baseline of fine-tuning; None: lr
    scratch_lr: Annotated[float, Field(gt=0.0)] | None = None
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    eps: Annotated[float, Field(gt=0.0)] = 1e-8
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.05
    # Final weight decay, reached on a half cosine; null: constant. See schedule.stretch.
    weight_decay_end: Annotated[float, Field(ge=0.0)] | None = None
    decay_all: bool = False  # decay biases, norms and tokens too
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    clip_grad: Annotated[float, Field(gt=0.0)] | None = None  # largest L2 norm; None: no clipping
    clip_from_epoch: Annotated[int, Field(ge=0)] = 0  # first epoch with clipping, counted from 0
    # Clip the norm of all gradients together, or of each part that the method names separately
    clip_scope: Literal["all", "parts"] = "all"

    @model_validator(mode="after")
    def _one_rate(self) -> OptimSection:
        if (self.lr is None) == (self.lr_per_256 is None):
            raise ValueError("set exactly one of optim.lr and optim.lr_per_256; null clears one")
        return self


class GroupSection(Section):
    """Keys of a parameter group that a method declares; null: as in `optim` and `schedule`."""

    lr: Annotated[float, Field(gt=0.0)] | None = None  # peak learning rate
    min_lr: Annotated[float, Field(ge=0.0)] | None = None
    warmup_epochs: Annotated[float, Field(ge=0.0)] | None = None
    weight_decay: Annotated[float, Field(ge=0.0)] | None = None
    weight_decay_end: Annotated[float, Field(ge=0.0)] | None = None  # null: constant
    decay_all: bool = False  # decay biases and other vectors too


class ScheduleSection(Section):
    """`schedule:` learning rate over fractional epochs, updated at every optimizer step."""

    # half-cosine: MAE's. cosine-per-step: CAE's; the last warm-up step and the next one both run
    # at the peak. epoch-lagged: Point-MAE's; constant within an epoch and one epoch late.
    # one-cycle: half a cosine up and half a cosine down; the first beta moves the other way.
    # cosine-ahead: I-JEPA's; the step number counts the coming step. linear-ahead: the same step
    # number, linear decay without warm-up (V-JEPA 2's cool-down). cosine-counted: RAE's; the
    # warm-up counts the coming step, and the last of its steps and the next one run at the peak.
    kind: Literal[
        "half-cosine",
        "cosine-per-step",
        "epoch-lagged",
        "one-cycle",
        "cosine-ahead",
        "cosine-counted",
        "linear-ahead",
    ] = "half-cosine"
    epochs: Annotated[float, Field(gt=0.0), Key.SIZE]
    warmup_epochs: Annotated[float, Field(ge=0.0), Key.SIZE] = 0.0
    min_lr: Annotated[float, Field(ge=0.0)] = 0.0
    # Learning rate at the start of the warm-up; half-cosine, epoch-lagged and cosine-ahead only
    warmup_lr: Annotated[float, Field(ge=0.0)] = 0.0
    # In multiples of `epochs`: when the rate of cosine-ahead and linear-ahead, weight_decay_end and
    # the teacher momentum reach their final values. Above 1, training stops before that.
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
    # Samples per device and forward pass; None: global_batch / devices; auto: as many as fit
    micro_batch: Annotated[Positive | Literal["auto"] | None, Key.SIZE] = None
    # auto: bf16 where it is fast, on a CPU by a measurement, else fp32. tf32: on GPUs, float32
    # products of factors rounded to 10 bits; under the others they are exact
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    # Only operations that give the same bits each time; a step that has none is refused
    deterministic: bool = False
    device: str = "auto"
    threads: Positive | None = None  # CPU threads of a step; None: all cores
    seed: Annotated[int, Field(ge=0)] = 0
    ema: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None  # decay per step; None: no average
    parallel: Literal["ddp", "fsdp"] = "ddp"  # several devices: replicate or shard the state
    checkpoint_activations: bool = False  # recompute each block in backward: less memory
    compile: bool = False  # compile each block; takes minutes at the start of a run
    sync_batchnorm: bool = False  # batch norm statistics over all devices
    # A loss that is a ratio of sums (`Output.weight`). global: one ratio over the global batch;
    # rank: mean of the ratios of the micro-batches, as in published code.
    loss_scope: Literal["global", "rank"] = "global"
    timeout_seconds: Annotated[float, Field(gt=0.0)] = 300.0  # a rank waits this long for others
    max_bad_steps: Positive = 20  # stop after this many non-finite losses in a row

    @property
    def most_at_once(self) -> int:
        """Largest number of samples in a forward pass, as far as the recipe says it."""
        return self.micro_batch if isinstance(self.micro_batch, int) else self.global_batch


class EvalSection(Section):
    """`eval:` probes of frozen features."""

    split: str = "test"
    # Pooling of a sample's tokens. cls: the class token, or the mean of several; cls_mean, cls_max
    # and mean_max: two poolings concatenated; auto: chosen by validation.
    pool: Literal["auto", "cls", "mean", "max", "cls_mean", "cls_max", "mean_max"] = "auto"
    layers: tuple[Positive, ...] | None = None  # blocks to probe; None: 1/2, 3/4 and the last
    neighbours: Positive = 5
    validation: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2  # share of train, stratified
    batch: Annotated[Positive, Key.SIZE] = 256
    # Pairs of classes that are each other's reverse. `direction_accuracy` of a trained classifier:
    # the share of their samples in which the right class of the pair scores higher.
    opposites: tuple[tuple[str, str], ...] = ()


class LogSection(Section):
    """`log:` metrics, pictures and probes during training."""

    every_steps: Annotated[Positive, Key.SIZE] = 20
    pictures_every_epochs: Annotated[float, Field(gt=0.0)] | None = None
    # RankMe and LiDAR of the encoder; None: off. Each measurement encodes 9 views of each sample.
    signals_every_epochs: Annotated[float, Field(gt=0.0)] | None = None
    # Features collapse when they become the same for every sample. Collapse is reported when their
    # logged spread falls below `collapse_share` of its maximum in the first tenth of training.
    collapse: Literal["warn", "stop", "off"] = "warn"
    collapse_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    signals_samples: Annotated[int, Field(ge=2)] = 256  # training samples, the same each time
    # kNN and a linear head on frozen features of a small labelled set; None: off
    probe_every_epochs: Annotated[float, Field(gt=0.0)] | None = None
    probe_source: str = ""  # the labelled set; "": the training data
    probe_samples: Annotated[int, Field(ge=2)] = 1000  # at most, for training and for scoring each
    # Experiment trackers that receive the metrics of metrics.jsonl, and the pictures
    writers: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ()
    project: str = "mimsuite"  # project name in the trackers


class CheckpointSection(Section):
    """`checkpoint:` when checkpoints are saved and which are kept."""

    every_steps: Annotated[Positive | None, Key.SIZE] = None
    every_minutes: Annotated[float, Field(gt=0.0)] | None = 15.0
    keep: Positive = 3  # number of newest checkpoints kept
    # Also keep the one with the lowest mean training loss since the previous save
    keep_best: bool = False
    keep_every_steps: Positive | None = None  # also keep those at multiples of this step
    gather_gib: Annotated[float, Field(gt=0.0)] = 16.0  # fsdp state above this: one file per device


class Recipe(Section):
    """A whole, validated recipe. A method's subclass types the method, model, mask and target."""

    card: ClassVar[MethodCard] = MethodCard(paper="", status="experimental")

    recipe: RecipeInfo = RecipeInfo()
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
        """Factor of `optim.lr_per_256` besides the batch size."""
        return 1.0

    @property
    def lr(self) -> float:
        """Peak learning rate after scaling by the global batch."""
        if self.optim.lr is not None:
            return self.optim.lr
        assert self.optim.lr_per_256 is not None
        return self.optim.lr_per_256 * self.train.global_batch / 256 * self.rate_factor
