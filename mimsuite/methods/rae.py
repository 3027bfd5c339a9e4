"""RAE: Diffusion Transformers with Representation Autoencoders, stage 1 (Zheng et al.,
arXiv:2510.11690).

A frozen encoder turns an image into tokens, and a ViT learns to turn them back into pixels. Noise
on the tokens prepares the decoder for the imperfect tokens of a generative model. The loss is the
absolute error of pixels; a perceptual and an adversarial term can be added from weights files.
Nothing is masked.

The discriminator's heads are trained in :meth:`RAE.after_step`, on reconstructions by the decoder
that was just updated.

Letters: B batch, N tokens, C their width, h x w their grid, P pixels per patch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import model_validator
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.rae import RAEModelSection, ReconstructionSection
from mimsuite.config.keys.section import Section
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.config.keys.teachers import check_teacher
from mimsuite.masking import TokenMask
from mimsuite.methods.base import Context, Method, Output, Panel, Progress, no_gather
from mimsuite.models import perceptual
from mimsuite.models.discriminator import Discriminator
from mimsuite.models.frozen import Frozen
from mimsuite.models.frozen_encoder import FrozenEncoder
from mimsuite.models.perceptual import centred
from mimsuite.models.token_decoder import TokenDecoder
from mimsuite.noise import Noise
from mimsuite.schedule import rate_at
from mimsuite.targets.adversarial import (
    adaptive_weight,
    augmented,
    eight_bit,
    generator_loss,
    judge_loss,
)
from mimsuite.targets.latents import LatentStatistics, read_statistics
from mimsuite.tokens import unnormalized, unpatchify
from mimsuite.weights.names import Names


class RAESection(MethodSection):
    """`method:` a representation autoencoder has no keys of its own."""

    name: Literal["rae"]


class RAEMaskSection(Section):
    """`mask:` nothing is masked."""

    kind: Literal["none"] = "none"


class RAERecipe(Recipe):
    """A recipe for a representation autoencoder."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2510.11690", "verified", ("step", "trajectory"))

    method: RAESection
    model: RAEModelSection
    mask: RAEMaskSection = RAEMaskSection()
    target: ReconstructionSection = ReconstructionSection()

    @model_validator(mode="after")
    def _fits(self) -> RAERecipe:
        encoder = self.model.encoder
        key = "model.encoder.network"
        check_teacher(encoder.network, encoder.grid, encoder.in_channels, key, self.augment)
        if self.target.adversarial is not None and self.train.parallel == "fsdp":
            raise ValueError(
                "target.adversarial needs the whole decoder on each device: set train.parallel=ddp"
            )
        return self


class Read(NamedTuple):
    """What the decoder reads of tokens: ``tokens`` (B, N, C), a loss for them, and its terms."""

    tokens: Tensor
    loss: Tensor
    terms: dict[str, Tensor]


class _Judged(NamedTuple):
    """What the discriminator will judge of a micro-batch after the step."""

    tokens: Tensor
    images: Tensor  # in [0, 1]
    noise: Noise


class RAE(Method):
    """A frozen encoder and a trained decoder."""

    Recipe: ClassVar[type[RAERecipe]] = RAERecipe
    source: ClassVar[str] = "frozen tokens"  # what pictures are decoded from
    encoder: FrozenEncoder

    def __init__(self, recipe: RAERecipe) -> None:
        super().__init__(recipe)
        section, self.target = recipe.model.encoder, recipe.target
        self.patch_size, self.latent = section.patch_size, recipe.model.latent
        self.encoder = FrozenEncoder(section, recipe.augment)
        pixels = section.patch_size**2 * section.in_channels
        decoder = recipe.model.decoder
        self.decoder = TokenDecoder(decoder, section.width, section.grid, pixels)
        added, self.perceptual = self.target.perceptual, None
        if added is not None:
            key = "target.perceptual"
            self.perceptual = Frozen(lambda weights: perceptual.load(added, key, weights))
        self.discriminator: Discriminator | None = None
        if self.target.adversarial is not None:
            self.discriminator = Discriminator(self.target.adversarial, "target.adversarial")
            self.keep_frozen(self.discriminator)
        self.judged: dict[str, Tensor] = {}  # figures of the discriminator's last update
        self._to_judge: dict[bytes, _Judged] = {}
        self._gather: Callable[[Tensor], Tensor] = no_gather
        self._statistics: LatentStatistics | None = None

    # --- tokens, latents, images ---

    def setup(self, batches: Callable[[], Iterable[Batch]] | None) -> list[str]:
        lines = self.encoder.network.open()
        if self.perceptual is not None:
            self.perceptual.open()
        if self.discriminator is not None:
            self.discriminator.network.open()
        if self.target.perceptual is None and self.target.adversarial is None:
            lines.append("pixel loss alone: reconstructions are smoother than published ones")
        return lines

    @property
    def statistics(self) -> LatentStatistics:
        """Mean and variance of the latents by the recipe's file; none without a file."""
        if self._statistics is None:
            path, shape = self.latent.statistics, (self.encoder.width, *self.encoder.grid)
            key = "model.latent.statistics"
            self._statistics = read_statistics(path, key, shape) if path else LatentStatistics()
        return self._statistics

    def latents(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, C) -> latents (B, C, h, w) of a generative model, normalised."""
        maps = tokens.transpose(1, 2).unflatten(2, self.encoder.grid)
        return self.statistics.normalize(maps)

    def tokens_of(self, latents: Tensor) -> Tensor:
        """The inverse of :meth:`latents`."""
        return self.statistics.denormalize(latents).flatten(2).transpose(1, 2)

    def noised(self, tokens: Tensor, noise: Noise) -> Tensor:
        """Tokens with noise whose deviation is drawn uniformly, once per image."""
        scale = noise.rows("latent scale", 1).view(-1, 1, 1)
        drawn = noise.normal("latent", tokens[0].numel()).view_as(tokens)
        return tokens + self.latent.noise * scale * drawn

    def read(self, tokens: Tensor) -> Read:
        """What the decoder reads of the encoder's tokens (B, N, C): all of them, unchanged."""
        return Read(tokens, tokens.new_zeros(()), {})

    def decode(self, tokens: Tensor) -> Tensor:
        """What :meth:`read` gives, (B, N, C) -> images (B, C, H, W), normalised by ``augment``;
        float32."""
        return unpatchify(self.decoder(tokens), self.patch_size, self.encoder.grid).float()

    def rebuilt(self, batch: Batch) -> Tensor:
        """Reconstructions (B, C, H, W) of a normalised batch, clamped to [0, 1]."""
        tokens = self.read(self.encoder.tokens(batch.image)).tokens
        return self.pixels(self.decode(tokens)).clamp(0, 1)

    def pixels(self, images: Tensor) -> Tensor:
        """Normalised images -> pixels in [0, 1]; reconstructions may exceed it."""
        augment = self.recipe.augment
        return unnormalized(images, augment.mean, augment.std)

    # --- the step ---

    def prepare(
        self, batch: Batch, noise: Noise, gather: Callable[[Tensor], Tensor] = no_gather
    ) -> Context:
        """The frozen encoder's ``tokens``."""
        tokens = self.encoder.tokens(batch.image, batch.keys if self.training else None)
        return Context(noise, gather, {"tokens": tokens})

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        """Nothing is masked."""
        return {}

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Weighted sum of the losses; ``prediction`` is the normalised image (B, C, H, W)."""
        tokens, images = ctx.prepared["tokens"], self.pixels(batch.image.float())
        noisy = self.training and self.latent.noise > 0
        read = self.read(self.noised(tokens, ctx.noise) if noisy else tokens)
        prediction = self.decode(read.tokens)
        rebuilt = self.pixels(prediction)
        error = rebuilt - images
        loss = error.abs().mean() if self.target.loss == "l1" else error.square().mean()
        terms: dict[str, Tensor] = {self.target.loss: loss.detach(), **read.terms}
        loss = loss + read.loss
        epoch = ctx.progress.step // ctx.progress.epoch_steps
        if self.perceptual is not None and self.target.perceptual is not None:
            distance = loss.new_zeros(())
            if epoch >= self.target.perceptual.from_epoch:
                network = self.perceptual.on(images)
                distance = network(centred(images), centred(rebuilt)).mean()
            loss = loss + self.target.perceptual.weight * distance
            terms["perceptual"] = distance.detach()
        if self.discriminator is not None:
            loss, added = self._deceive(loss, rebuilt, ctx, epoch)
            terms |= added
            self._keep(batch, tokens, images, ctx)
        return Output(loss, terms, prediction, masks)

    def _deceive(
        self, loss: Tensor, rebuilt: Tensor, ctx: Context, epoch: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss with the adversarial term, whose gradient at the last layer has the same norm
        as that of all other terms."""
        section = self.target.adversarial
        assert self.discriminator is not None
        assert section is not None
        generator, weight = loss.new_zeros(()), loss.new_zeros(())
        if epoch >= section.from_epoch and self.training:
            draws = ctx.noise.rows("deceive", 7)
            seen = augmented(centred(rebuilt), draws, section.cutout)
            generator = generator_loss(self.discriminator(seen))
            last = self.decoder.pred.weight
            weight = adaptive_weight(loss, generator, last, section.largest_weight)
            loss = loss + section.weight * weight * generator
        zero = loss.new_zeros(())
        before = {f"discriminator_{n}": zero + v for n, v in self.judged.items()} or dict.fromkeys(
            (f"discriminator_{n}" for n in _JUDGED), zero
        )
        return loss, {"generator": generator.detach(), "adaptive_weight": weight, **before}

    def _keep(self, batch: Batch, tokens: Tensor, images: Tensor, ctx: Context) -> None:
        """Keep a training batch for the discriminator; the same batch again replaces itself."""
        section = self.target.adversarial
        assert section is not None
        epoch = ctx.progress.step // ctx.progress.epoch_steps
        if not self.training or epoch < section.heads_from_epoch or tokens.is_meta:
            return
        self._gather = ctx.gather
        rows = batch.index if batch.host_index is None else batch.host_index
        self._to_judge[rows.cpu().numpy().tobytes()] = _Judged(tokens, images.detach(), ctx.noise)

    def after_step(self, progress: Progress) -> None:
        """Train the discriminator's heads on this step's images and reconstructions."""
        judged, self._to_judge = list(self._to_judge.values()), {}
        section = self.target.adversarial
        if not judged or section is None:
            return
        # What a skipped step must not change, so that the host need not wait to know of it.
        kept = [(tensor, tensor.clone()) for tensor in self._judge_state()]
        figures = self.judged
        started = section.heads_from_epoch * progress.epoch_steps
        for number in range(section.updates):
            self._judge(judged, number, (progress.step - started) * section.updates, progress)
        skipped = progress.skipped > 0
        for tensor, before in kept:
            tensor.copy_(torch.where(skipped, before, tensor))
        self.judged = {
            name: torch.where(skipped, figures.get(name, torch.zeros_like(value)), value)
            for name, value in self.judged.items()
        }

    def _judge_state(self) -> list[Tensor]:
        """Weights, buffers and moments of the discriminator's heads."""
        found = self.discriminator
        assert found is not None
        heads = found.heads.state_dict(keep_vars=False).values()
        return [*heads, *found.moments("first"), *found.moments("second")]

    def _judge(self, judged: list[_Judged], number: int, before: int, progress: Progress) -> None:
        """One update of the heads, the ``number``-th of this step; ``before`` it, those of earlier
        steps."""
        section, discriminator = self.target.adversarial, self.discriminator
        assert section is not None
        assert discriminator is not None
        with torch.no_grad():
            rebuilt = [self.decode(self.read(one.tokens).tokens) for one in judged]
            fake = torch.cat([centred(self.pixels(images)) for images in rebuilt])
        real = torch.cat([centred(one.images) for one in judged])
        seen = [
            augmented(
                images,
                torch.cat([one.noise.rows(f"{name} {number}", 7) for one in judged]),
                section.cutout,
            )
            for name, images in (("fake", eight_bit(fake)), ("real", real))
        ]
        parameters = list(discriminator.heads.parameters())
        with _learning(discriminator), torch.enable_grad():
            logits_fake, logits_real = (discriminator(images) for images in seen)
            loss = judge_loss(logits_real, logits_fake, section.loss)
            gradients = torch.autograd.grad(loss, parameters)
        mean = [self._gather(gradient[None].contiguous()).mean(0) for gradient in gradients]
        optim, done = self.recipe.optim, before + number
        lr = rate_at(self.recipe.schedule, self.recipe.lr, done, progress.epoch_steps)
        discriminator.update(
            mean,
            done,
            lr=lr,
            betas=optim.betas,
            eps=optim.eps,
            weight_decay=optim.weight_decay,
        )
        figures = [loss, logits_real.mean(), logits_fake.mean(), torch.full_like(loss, lr)]
        self.judged = {n: f.detach().float() for n, f in zip(_JUDGED, figures, strict=True)}

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Original, and the reconstruction from what the decoder reads."""
        decoded = self.decode(self.read(ctx.prepared["tokens"]).tokens)
        return [
            Panel("original", batch.image.float()),
            Panel(f"decoded from {self.source}", decoded),
        ]

    # --- published checkpoints (bytetriper/RAE): the decoder alone ---

    def export_reference(self) -> dict[str, Tensor]:
        raise NotImplementedError("released files hold a decoder without the name of its encoder")

    @classmethod
    def import_reference(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A published decoder under our names, with queries, keys and values joined."""
        state = {name.removeprefix("decoder."): tensor for name, tensor in state.items()}
        joined: dict[str, Tensor] = {}
        for name, tensor in state.items():
            if _QUERY not in name:
                if not any(part in name for part in (_KEY, _VALUE)):
                    joined[_NAMES.ours(name)] = tensor
                continue
            parts = [state[name.replace(_QUERY, part)] for part in (_QUERY, _KEY, _VALUE)]
            joined[_NAMES.ours(name.replace(_QUERY, _JOINED))] = torch.cat(parts)
        return joined


def split_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of our state under published names, with queries, keys and values apart."""
    split: dict[str, Tensor] = {}
    for name, tensor in state.items():
        published = _NAMES.published(name)
        if _JOINED not in published:
            split[published] = tensor
            continue
        for part, rows in zip((_QUERY, _KEY, _VALUE), tensor.chunk(3), strict=True):
            split[published.replace(_JOINED, part)] = rows
    return split


@contextmanager
def _learning(discriminator: Discriminator) -> Iterator[None]:
    """Heads in train mode and with gradients."""
    discriminator.heads.train().requires_grad_(True)
    try:
        yield
    finally:
        discriminator.heads.eval().requires_grad_(False)


_JUDGED = ("loss", "real", "fake", "lr")
_QUERY, _KEY, _VALUE = (f".attention.attention.{part}." for part in ("query", "key", "value"))
_JOINED = ".attention.attention.joined."
_BLOCK = "decoder_layers.{}"
_NAMES = Names(
    [
        ("decoder.cls_token", "trainable_cls_token"),
        ("decoder.pos_embed", "decoder_pos_embed"),
        ("decoder.blocks.{}.attn.qkv.", f"{_BLOCK}{_JOINED}"),
        ("decoder.blocks.{}.attn.proj.", f"{_BLOCK}.attention.output.dense."),
        ("decoder.blocks.{}.mlp.fc1.", f"{_BLOCK}.intermediate.dense."),
        ("decoder.blocks.{}.mlp.fc2.", f"{_BLOCK}.output.dense."),
        ("decoder.blocks.{}.norm1.", f"{_BLOCK}.layernorm_before."),
        ("decoder.blocks.{}.norm2.", f"{_BLOCK}.layernorm_after."),
        ("decoder.", "decoder_"),
    ]
)
