"""Supervised classification on an encoder: fine-tuning and the published linear-probe protocol.

Both are training runs like pretraining, so both go through the same trainer. As in MAE (He et al.,
arXiv:2111.06377, appendix A.1):

* fine-tuning (table 9): the patch tokens are averaged and normalised by a fresh ``fc_norm``; the
  encoder's own last norm is dropped. Positions are trained, with ``trained_positions``.
* linear probe (table 10): the encoder is frozen; a batch norm without affine parameters
  standardises the class token before the linear head.

CAE (Chen et al., arXiv:2202.03026) initialises ``fc_norm`` from the encoder's last norm (``fc_norm:
encoder``). A frozen encoder is also probed by attentive pooling (``pool: attentive``), in the form
that ``model.pooler`` selects.

Letters: B batch, D width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.config.keys.encoders import EncoderSection, ViTSection
from mimsuite.config.keys.labels import ClassTargetSection, LabelRecipe
from mimsuite.config.keys.poolers import NormPoolerSection, PoolerSection, require_heads
from mimsuite.config.keys.section import EmptySection, FirstBlocks, Section
from mimsuite.config.keys.shared import MethodCard, MethodSection
from mimsuite.masking import TokenMask
from mimsuite.methods.base import Context, Method, Output, no_gather
from mimsuite.models import Features, build_encoder, build_pooler, encoder_named, released_head
from mimsuite.models.attentive import NormPooler
from mimsuite.models.teachers.classifier import LogitTeacher
from mimsuite.noise import Noise
from mimsuite.targets import PairMix, labels_of


class ClassifyMethodSection(MethodSection):
    """`method:` classification has no keys of its own."""

    name: Literal["classify"]


class ClassifierSection(Section):
    """`model:` an encoder and a linear head."""

    encoder: EncoderSection = ViTSection()
    # Input of the head. mean: mean patch token, then a norm; attentive: pooling by a trained query;
    # mean_all: mean of all tokens, then the encoder's last norm (CRATE)
    pool: Literal["mean", "mean_all", "cls", "attentive"]
    pooler: PoolerSection = NormPoolerSection()  # form of attentive pooling
    fc_norm: Literal["fresh", "encoder"] = "fresh"  # start of the norm after the mean
    # all or true: train only the head, as in a linear probe; 3: freeze the embeddings and the first
    # three blocks; false: train all
    freeze: Literal["all"] | bool | FirstBlocks = False
    head: Literal["linear", "bn-linear"] = "linear"  # bn: batch norm without affine first
    head_init_std: Annotated[float, Field(gt=0.0)]

    @model_validator(mode="after")
    def _pools_as_published(self) -> ClassifierSection:
        kind = self.encoder.kind
        if self.pool == "mean_all" and kind != "crate":
            raise ValueError(f"pool=mean_all is for encoders of kind crate, not {kind}: set mean")
        if self.pool != "attentive" and self.pooler.kind != "batch-norm":
            raise ValueError(f"pooler.kind={self.pooler.kind} needs pool=attentive")
        require_heads(self.pooler, self.encoder.width)
        return self


class ClassifyRecipe(LabelRecipe):
    """A recipe for fine-tuning or for the published linear-probe protocol."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2111.06377", "verified", ("step", "trajectory"))

    method: ClassifyMethodSection
    model: ClassifierSection
    mask: EmptySection = EmptySection()
    target: ClassTargetSection

    @model_validator(mode="after")
    def _mixing_finds_partners(self) -> ClassifyRecipe:
        mixes = self.target.mixup > 0 or self.target.cutmix > 0
        for key in ("global_batch", "micro_batch"):
            size = getattr(self.train, key)
            if mixes and isinstance(size, int) and size % 2:
                raise ValueError(
                    f"target.mixup and target.cutmix pair up samples: train.{key} {size} is odd"
                )
        return self


class Classifier(Method):
    """An encoder with a classification head.

    ``prepare`` puts the images and soft targets of a step into ``ctx.prepared`` as ``image`` and
    ``target``; the loss reads these in place of the batch's own.
    """

    Recipe = ClassifyRecipe
    view: ClassVar[str] = "image"  # name of the view that the encoder reads

    def __init__(self, recipe: ClassifyRecipe) -> None:
        super().__init__(recipe)
        model, target = recipe.model, recipe.target
        self.learnt = labels_of(recipe)
        self.classes = self.learnt.outputs
        self.mix = PairMix(target.mixup, target.cutmix, target.mixup_switch, target.mixup_prob)
        self.pool, self.frozen = model.pool, model.freeze == "all" or model.freeze is True
        width, eps = model.encoder.width, model.encoder.norm_eps
        self.encoder = build_encoder(model.encoder)
        self.teacher = self._teacher_of(recipe)
        linear = nn.Linear(width, self.classes)
        nn.init.trunc_normal_(linear.weight, std=model.head_init_std)
        nn.init.zeros_(linear.bias)
        self.head: nn.Module = linear
        if model.head == "bn-linear":
            self.head = nn.Sequential(nn.BatchNorm1d(width, affine=False, eps=1e-6), linear)
        if self.pool == "mean":
            self.encoder.add_module("norm", nn.Identity())
            self.fc_norm = nn.LayerNorm(width, eps=eps)
        if self.pool == "mean_all":
            last = self.encoder.get_submodule("norm")
            assert isinstance(last, nn.LayerNorm)
            self.encoder.add_module("norm", PooledNorm(width, eps=last.eps))
        if self.pool == "attentive":
            self.pooler = build_pooler(model.pooler, width, _heads(model.encoder), eps)
        if self.frozen:
            self.encoder.requires_grad_(False)
            self.train()

    def train(self, mode: bool = True) -> Classifier:
        """Set the mode; a frozen encoder stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def setup(self, batches: Callable[[], Iterable[Batch]] | None) -> list[str]:
        return [] if self.teacher is None else self.teacher.open()

    def check(self, batch: Batch) -> None:
        """Raise a ``DataError`` for a sample without a label, or one beyond ``target.classes``."""
        self.learnt.check(batch)

    def prepare(
        self, batch: Batch, noise: Noise, gather: Callable[[Tensor], Tensor] = no_gather
    ) -> Context:
        """Soft targets; in training also the mixed images and a teacher's scores for them.

        A label that :meth:`check` would refuse makes the loss NaN.

        Raises:
            DataError: a batch without labels.
        """
        image, target = batch.views[self.view], self.learnt.target(batch, self.training)
        if self.training and self.mix.active:
            image, target = self.mix(image, target, noise.rows("mixup", PairMix.NOISE))
        if self.training and self.teacher is not None:
            target = self.teacher.blend(image, target)
        return Context(noise, gather, {"image": image, "target": target})

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Loss of the labels, for classes the cross-entropy; ``prediction`` is (B, K)."""
        mixed = Batch.of_views({**batch.views, self.view: ctx.prepared["image"]})
        outputs = self.outputs(mixed, ctx.noise)
        loss, terms, weight = self.learnt.loss(outputs, ctx.prepared["target"], batch)
        return Output(loss, terms, self.learnt.answer(outputs), masks, weight)

    def answers(self, batch: Batch, noise: Noise | None = None) -> Tensor:
        """(B, K) for the samples of a batch: logits, or predicted numbers with
        ``data.targets=regression``."""
        return self.learnt.answer(self.outputs(batch, noise))

    def logits(self, images: Tensor, noise: Noise | None = None) -> Tensor:
        """(B, C, H, W) normalised images -> (B, K), as :meth:`answers`."""
        return self.answers(Batch.of_views({self.view: images}), noise)

    def outputs(self, batch: Batch, noise: Noise | None = None) -> Tensor:
        """(B, K) outputs of the head."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.encoder.encode(batch, noise=noise)
        return self.head(self.pooled(features))

    def pooled(self, features: Features) -> Tensor:
        """Input of the head, (B, D)."""
        if self.pool == "attentive":
            return self.pooler(features)
        pooled = features.pool(self.pool)
        if self.pool == "mean_all":
            norm = self.encoder.get_submodule("norm")
            assert isinstance(norm, PooledNorm)
            return norm.of_pooled(pooled)
        return self.fc_norm(pooled) if self.pool == "mean" else pooled

    def init_aliases(self) -> dict[str, str]:
        """With ``fc_norm: encoder``, the norm after the mean is initialised from the last norm."""
        if self.pool != "mean" or self.recipe.model.fc_norm != "encoder":
            return {}
        return {f"fc_norm.{name}": f"encoder.norm.{name}" for name in ("weight", "bias")}

    def adapt_state(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Add the released head that ``model.pooler.weights`` names."""
        path = getattr(self.recipe.model.pooler, "weights", None)
        if path is None or isinstance(self.pooler, NormPooler):
            return state, []
        head, lines = released_head.read(self.pooler, self.classes, path)
        return state | head, lines

    # --- for the optimizer ---

    def no_weight_decay(self) -> set[str]:
        return {"encoder.pos_embed", "encoder.cls_token"}

    # --- published checkpoints (facebookresearch/mae models_vit.py, with timm's keys) ---

    def export_reference(self) -> dict[str, Tensor]:
        names = self.encoder.published
        kind = type(self.encoder).__name__
        if self.pool == "attentive" and not any(ours == "pooler." for ours, _ in names.pairs):
            raise NotImplementedError(f"no published code has an attentive probe of a {kind}")
        if not self.encoder.classifier_published:
            raise NotImplementedError(f"no published code has a classifier on a {kind}")
        if self.recipe.data.targets == "regression":
            raise NotImplementedError("no published layout has a regression head")
        if getattr(self.recipe.model.encoder, "embed", "") == "linear":
            raise NotImplementedError("published CRATE classifiers norm their patch embedding")
        return {names.published(name): value for name, value in self.state_dict().items()}

    @classmethod
    def import_reference(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Decoder keys of a pretraining checkpoint are unknown here and unchanged.

        An attentive probe stores a norm that its code never uses, which is left out.
        """
        names = encoder_named(state).published_in(state)
        return {
            names.ours(name): value for name, value in state.items() if not name.startswith(UNUSED)
        }

    def _teacher_of(self, recipe: ClassifyRecipe) -> LogitTeacher | None:
        section, augment = recipe.target.teacher, recipe.augment
        if section is None:
            return None

        def fresh() -> Classifier:
            encoder = recipe.model.encoder.model_copy(update=section.shape)
            model = recipe.model.model_copy(update={"encoder": encoder})
            target = recipe.target.model_copy(update={"teacher": None})
            return type(self)(recipe.model_copy(update={"model": model, "target": target}))

        _, sample = self.encoder.sample()
        statistics = augment.mean, augment.std
        return LogitTeacher(section, self.classes, sample, statistics, fresh)


class PooledNorm(nn.LayerNorm):
    """An encoder's last norm, applied to the pooled features instead of the tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def of_pooled(self, pooled: Tensor) -> Tensor:
        """(B, D) pooled features -> (B, D), normalised."""
        return super().forward(pooled)


UNUSED = ("attentive_blocks.0.norm2_cross.",)  # tensors that published probes store but never read


def _heads(encoder: Section) -> int:
    """Attention heads of an encoder; those of the last stage if stages differ."""
    heads = getattr(encoder, "heads", 1)
    return heads if isinstance(heads, int) else heads[-1]
