"""CAPI: Cluster and Predict Latent Patches for Improved Masked Image Modeling (Darcet et al.,
arXiv:2502.08769).

Of each image one block stays visible. A decoder of queries, which see the encoder's tokens and not
one another, tells from it to which cluster a few of the hidden patches belong. The clusters are
those of a momentum copy of the encoder, which sees the whole image. They are learnt on the way, by
a loss of their own from which nothing reaches the encoder: tokens are assigned to them so that all
are used alike, at each place of the grid over the whole batch.

``encoder`` is the momentum copy, as released weights have it; ``student`` is the one that is
trained. The momentum copy of the decoder gives the vector of a whole image, which its first block
makes of the tokens; the copy of the prototypes is never read, and is kept as published.

Letters: B batch, N patches, V visible, T predicted, D width, K clusters.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.encoders import QueryDecoderSection, RegisterViTSection
from mimsuite.config.keys.rolled_mask import RolledBlockMaskSection
from mimsuite.config.keys.section import Dimension, Fraction, Positive, Section
from mimsuite.config.keys.shared import GroupSection, MethodCard, MethodSection, Recipe
from mimsuite.masking import RolledBlockSampler, TokenMask
from mimsuite.methods.base import Context, Method, Output, Panel, Progress, no_gather
from mimsuite.models import Clusters, Features, Prototypes, QueryDecoder, RegisterViT
from mimsuite.models.momentum import follow_module, warm_cosine
from mimsuite.noise import Noise
from mimsuite.targets import (
    balanced_assignments,
    channel_deviation,
    entropy,
    feature_pictures,
    soft_cross_entropy,
)
from mimsuite.weights.names import Names

Temperature = Annotated[float, Field(gt=0.0)]


class CAPISection(MethodSection):
    """`method:` how the momentum copy follows, and rates of their own."""

    name: Literal["capi"]
    # Share of the copy that is kept in a step: at the first, at the end of the warm-up, and where
    # it goes from there along half a cosine, as `schedule.cosine_share` has it
    momentum: tuple[Fraction, Fraction, Fraction] = (1.0, 0.999, 1.0)
    # Of the momentum; null: as `schedule.warmup_epochs`
    momentum_warmup_epochs: Annotated[float, Field(ge=0.0)] | None = None
    patch_rate: Fraction = 0.2  # factor of the rate of the patch embedding
    norm_decay: Fraction = 0.1  # factor of the weight decay of norms
    # Rate and decay of the clusters. Published: their decay, of biases too, is torch's default.
    clusters: GroupSection = GroupSection(lr=5e-4, weight_decay=0.01, decay_all=True)


class QueryModelSection(Section):
    """`model:` an encoder and a decoder, and copies of both."""

    encoder: RegisterViTSection = RegisterViTSection()
    decoder: QueryDecoderSection = QueryDecoderSection()


class ClusterTargetSection(Section):
    """`target:` the cluster of a patch."""

    kind: Literal["clusters"] = "clusters"
    clusters: Dimension = 16384
    # place: all clusters are used alike at each place of the grid, by the samples of the batch;
    # batch: by all tokens of the batch together, which a batch much smaller than `clusters` needs
    balance: Literal["place", "batch"] = "place"
    iterations: Positive = 3  # Sinkhorn iterations
    assignment_temperature: Temperature = 0.06  # divides scores before they are balanced
    cluster_temperature: Temperature = 0.12  # divides scores that learn the assignments
    temperature: Temperature = 0.12  # divides the predictions


class CAPIRecipe(Recipe):
    """A recipe for CAPI pretraining."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2502.08769", "verified", ("step", "trajectory"))

    method: CAPISection
    model: QueryModelSection
    mask: RolledBlockMaskSection
    target: ClusterTargetSection

    @model_validator(mode="after")
    def _fits(self) -> CAPIRecipe:
        self.mask.require_grid(self.model.encoder.grid)
        warmup = self.method.momentum_warmup_epochs
        if warmup is not None and warmup > self.schedule.epochs:
            raise ValueError(
                f"method.momentum_warmup_epochs {warmup:g} exceeds schedule.epochs "
                f"{self.schedule.epochs:g}"
            )
        return self


class CAPI(Method):
    """Predicts clusters of hidden patches."""

    Recipe: ClassVar[type[CAPIRecipe]] = CAPIRecipe
    collapse_terms = ("usage_entropy", "target_deviation", "prediction_deviation", "rankme")
    recipe: CAPIRecipe
    encoder: RegisterViT
    student: RegisterViT

    def __init__(self, recipe: CAPIRecipe) -> None:
        super().__init__(recipe)
        section, clusters = recipe.model.encoder, recipe.target.clusters
        self.grid, self.patch_size = section.grid, section.patch_size
        self.sampler = RolledBlockSampler(recipe.mask)
        self.student = RegisterViT(section)
        self.decoder = QueryDecoder(recipe.model.decoder, self.student)
        self.prototypes = Prototypes(section.width, clusters)
        self.encoder = copy.deepcopy(self.student)
        self.slow_decoder = copy.deepcopy(self.decoder)
        self.slow_prototypes = copy.deepcopy(self.prototypes)
        self.clusters = Clusters(section.width, clusters)
        for _, slow in self._followed():
            self.keep_frozen(slow)

    def _followed(self) -> list[tuple[torch.nn.Module, torch.nn.Module]]:
        """What is trained, and its momentum copy."""
        return [
            (self.student, self.encoder),
            (self.decoder, self.slow_decoder),
            (self.prototypes, self.slow_prototypes),
        ]

    def prepare(
        self, batch: Batch, noise: Noise, gather: Callable[[Tensor], Tensor] = no_gather
    ) -> Context:
        """The momentum copy's features of the unmasked images, ``target`` (B, N, D)."""
        tokens = self.encoder(self.encoder.patches(batch.image)).tokens
        return Context(noise, gather, {"target": tokens})

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        return {"image": self.sampler.sample(noise, self.grid)}

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """The sum of both losses; ``prediction`` is (B, T, D), before the prototypes."""
        (mask,), section, target = masks.values(), self.recipe.target, ctx.prepared["target"]
        scores = self.clusters(target)  # (B, N, K)
        shares = self.assign(scores.detach(), ctx.gather)
        clustering = soft_cross_entropy(scores / section.cluster_temperature, shares)
        found, wanted = self.predict(batch, mask, ctx), mask.gather(shares, "decoded")
        logits = self.prototypes(found) / section.temperature  # (B, T, K)
        prediction = soft_cross_entropy(logits, wanted)
        with torch.no_grad():
            usage = ctx.gather(logits.float().softmax(dim=-1).mean(dim=(0, 1))[None]).mean(dim=0)
        terms = {
            "prediction": prediction.detach(),
            "clustering": clustering.detach(),
            "target_entropy": entropy(wanted).mean(),
            "usage_entropy": entropy(usage),
            "target_deviation": channel_deviation(target, ctx.gather),
            "prediction_deviation": channel_deviation(found, ctx.gather),
        }
        return Output(prediction + clustering, terms, found, masks)

    def assign(self, scores: Tensor, gather: Callable[[Tensor], Tensor] = no_gather) -> Tensor:
        """(B, N, K) scores of this rank's samples -> their shares in the clusters, float32."""
        section = self.recipe.target
        logits = scores.float() / section.assignment_temperature
        if section.balance == "batch":
            flat = logits.flatten(0, 1)[None]
            return balanced_assignments(flat, section.iterations, gather)[0].view_as(logits)
        by_place = logits.transpose(0, 1)
        return balanced_assignments(by_place, section.iterations, gather).transpose(0, 1)

    def predict(self, batch: Batch, mask: TokenMask, ctx: Context) -> Tensor:
        """(B, T, D) of the patches to predict, from the visible ones."""
        visible = self.student.patches(batch.image, mask.visible)
        latent = self.student(visible, mask.visible, noise=ctx.noise)
        memory = torch.cat([latent.cls, latent.tokens], dim=1)
        where = self.student.places(mask.visible)
        asked = self.student.places(mask.ids("decoded"))[:, self.student.class_tokens :]
        noise = ctx.noise.within("decoder")
        found: Tensor = self.decoder(self.student, (memory, where), asked, noise)
        return found

    def encode(self, batch: Batch, layers: Collection[int] = ()) -> Features:
        """Patch tokens and, as class token, the vector of the whole image: the mean over all places
        of what the first block of the decoder makes of them. Of ``layers``, the class token is the
        mean of the registers."""
        found = self.encoder.encode(batch, layers=layers)
        count, patch = self.encoder.class_tokens, self.patch_size
        grid = batch.image.shape[2] // patch, batch.image.shape[3] // patch
        places, memory = self.encoder.places(grid=grid), torch.cat([found.cls, found.tokens], dim=1)
        asked = places[:, count:]
        vectors = self.slow_decoder(self.encoder, (memory, places), asked, blocks=1)
        blocks = {number: _one_class_token(x, count) for number, x in found.layers.items()}
        pools = ("cls_mean", "cls", "mean", "max")
        return Features(vectors.mean(dim=1, keepdim=True), found.tokens, blocks, pools=pools)

    def scheduled(self, progress: Progress) -> dict[str, float]:
        """The momentum of a step."""
        start, peak, end = self.recipe.method.momentum
        warmup = self.recipe.method.momentum_warmup_epochs
        schedule = self.recipe.schedule
        epochs = schedule.warmup_epochs if warmup is None else warmup
        momentum = warm_cosine(
            progress.step,
            start=start,
            peak=peak,
            end=end,
            warmup=round(epochs * progress.epoch_steps),
            total=max(progress.total, progress.step + 1),
            share=schedule.cosine_share,
        )
        return {"momentum": momentum}

    def after_step(self, progress: Progress) -> None:
        momentum = self.scheduled(progress)["momentum"]
        for trained, slow in self._followed():
            follow_module(slow, trained, momentum, progress.skipped)

    # --- what the optimizer asks ---

    def parameter_groups(self) -> dict[str, GroupSection]:
        return {"clusters.": self.recipe.method.clusters}

    def rate_scale(self, name: str) -> float:
        """Angles of rotary positions have a gradient and, as published, rate 0."""
        if name.endswith(".freqs"):
            return 0.0
        return self.recipe.method.patch_rate if ".patch_embed." in name else 1.0

    def decay_share(self, name: str, parameter: Tensor) -> float:
        """As published: biases do not decay, norms a little, and registers, mask token and lengths
        of prototypes as all else."""
        if name.endswith(".bias"):
            return 0.0
        return self.recipe.method.norm_decay if ".norm" in name else 1.0

    def layer_id(self, name: str) -> int:
        prefix, _, rest = name.partition(".")
        return self.student.layer_id(rest) if prefix == "student" else super().layer_id(name)

    def init_aliases(self) -> dict[str, str]:
        """Of weights with momentum copies alone, as released ones, all begins as they are."""
        pairs = (
            ("student", "encoder"),
            ("decoder", "slow_decoder"),
            ("prototypes", "slow_prototypes"),
        )
        return {
            f"{trained}.{name}": f"{slow}.{name}"
            for trained, slow in pairs
            for name in getattr(self, slow).state_dict()
        }

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Original, visible block, and clusters of patches, true and predicted, as colours: of each
        patch the mean of the clusters' directions by its shares in them."""
        (mask,) = masks.values()
        whole = TokenMask(mask.grid, mask.visible, mask.masked)  # all that is hidden
        shares = self.assign(self.clusters(ctx.prepared["target"]), ctx.gather)
        logits = self.prototypes(self.predict(batch, whole, ctx)) / self.recipe.target.temperature
        directions = self.clusters.layer.weight.float()
        augment = self.recipe.augment
        pictures = feature_pictures(
            batch.image,
            whole,
            self.patch_size,
            shares @ directions,
            (logits.float().softmax(dim=-1) @ directions, whole.masked),
            (augment.mean, augment.std),
        )
        return [Panel(title, images) for title, images in pictures.items()]

    # --- published checkpoints (facebookresearch/capi) ---

    def export_reference(self) -> dict[str, Tensor]:
        return {_NAMES.published(name): tensor for name, tensor in self.state_dict().items()}

    @classmethod
    def import_reference(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {_NAMES.ours(name): tensor for name, tensor in state.items()}


def _one_class_token(x: Tensor, count: int) -> Tensor:
    """(B, R + N, D) -> (B, 1 + N, D): the mean of the registers in place of them."""
    return torch.cat([x[:, :count].mean(dim=1, keepdim=True), x[:, count:]], dim=1)


def _network(encoder: str, decoder: str, head: str, published: str) -> list[tuple[str, str]]:
    """Names of a backbone and its head."""
    backbone = f"{published}.backbone."
    pairs = []
    for ours, theirs in ((encoder, "encoder"), (decoder, "decoder")):
        block, other = f"{ours}.blocks.{{}}.", f"{backbone}{theirs}.blocks.{{}}."
        pairs += [
            (f"{block}norm1.", f"{other}residual1.norm."),
            (f"{block}attn.freqs", f"{other}residual1.fn.rope.freqs"),
            (f"{block}attn.", f"{other}residual1.fn."),
            (f"{block}norm2.", f"{other}residual2.norm."),
            (f"{block}mlp.", f"{other}residual2.fn."),
        ]
    return [
        *pairs,
        (f"{encoder}.registers", f"{backbone}registers"),
        (f"{encoder}.patch_embed.proj.", f"{backbone}patch_embed."),
        (f"{decoder}.mask_token", f"{backbone}mask_token"),
        (f"{head}.", f"{published}.head.last_layer."),
    ]


_NAMES = Names(
    [
        *_network("student", "decoder", "prototypes", "student"),
        *_network("encoder", "slow_decoder", "slow_prototypes", "student_ema"),
        ("clusters.layer.", "teacher.head.layer."),
    ]
)
