"""What masked autoencoders of tubelets share: clips of VideoMAE, cubes of scans.

Letters: B batch, N tubelets, V visible, M masked, Nd decoded, P pixels or voxels per tubelet.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.shared import Recipe
from mimsuite.masking import TokenMask, build_sampler, gather_tokens
from mimsuite.methods.base import Context, Method, Output, Panel
from mimsuite.models import ClipDecoder, Features
from mimsuite.models.clip_encoder import ClipEncoder
from mimsuite.noise import Noise
from mimsuite.targets import TubeletTarget
from mimsuite.tokens import from_tubelets


class TubeletMAE(Method):
    """Encodes visible tubelets; a small decoder reconstructs hidden ones.

    Attributes:
        what: name of the loss among the terms.
        unit: a tubelet in words, for titles.
    """

    what: ClassVar[str] = "pixels"
    unit: ClassVar[str] = "tubelet"
    encoder: ClipEncoder

    def __init__(self, recipe: Recipe, encoder: ClipEncoder, **decoder: Any) -> None:
        """
        Args:
            decoder: further arguments of the decoder.
        """
        super().__init__(recipe)
        known: Any = recipe
        section = encoder.section
        self.grid, self.channels = section.grid, section.in_channels
        self.sampler = build_sampler(known.mask)
        self.target = TubeletTarget(known.target, known.augment.mean, known.augment.std)
        self.encoder = encoder
        self.decoder = ClipDecoder(
            known.model.decoder,
            in_width=section.width,
            out_width=section.tubelet * section.patch_size**2 * section.in_channels,
            grid=section.grid,
            eps=section.norm_eps,
            layer_scale=section.layer_scale,
            cosine=section.cosine_attention,
            **decoder,
        )

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        return {self.encoder.view: self.sampler.sample(noise, self.grid)}

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Mean squared error over decoded hidden tubelets; ``prediction`` is (B, Nd, P).

        If only a part of the hidden tubelets is decoded, their number differs between samples, so
        the loss is a ratio of sums over the batch.
        """
        mask, inputs = self._of(masks), self._of(batch.views)
        latent = self._latent(inputs, mask, ctx)
        prediction = self.decoder(latent, mask)  # (B, Nd, P)
        target = self.target(self.encoder.tubelets(inputs, mask.ids("decoded")), self.channels)
        loss, weight = self.target.loss(prediction, target, mask.decoded_masked)
        return Output(loss, {self.what: loss.detach()}, prediction, masks, weight)

    def reconstruct(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Tensor:
        """Predictions of all hidden tubelets, even if training decodes only a part: (B, M, P)."""
        mask = self._of(masks)
        latent = self._latent(self._of(batch.views), mask, ctx)
        prediction: Tensor = self.decoder(latent, mask, "masked")
        return prediction

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Original, masked, and the reconstruction of the hidden part."""
        mask, inputs = self._of(masks), self._of(batch.views)
        vectors = self.encoder.tubelets(inputs).float()  # (B, N, P)
        hidden = mask.gather(vectors, "masked")
        rebuilt = self.target.denormalize(
            self.reconstruct(batch, masks, ctx), hidden, self.channels
        )
        seen = mask.gather(vectors, "visible")
        whole = gather_tokens(torch.cat([seen, rebuilt], dim=1), mask.restore())
        note = f" (true {self.unit} mean and contrast)" if self.target.normalize else ""
        masked = vectors.masked_fill(mask.dense().unsqueeze(-1), 0.0)
        return [
            Panel("original", self.drawn(inputs.float())),
            Panel("masked", self.drawn(self._untubed(masked))),
            Panel("reconstruction" + note, self.drawn(self._untubed(whole))),
        ]

    def drawn(self, inputs: Tensor) -> Tensor:
        """The pictures of (B, C, T, H, W) inputs."""
        return inputs

    def no_weight_decay(self) -> set[str]:
        scales = {name for name, _ in self.named_parameters() if name.endswith(".attn.scale")}
        return scales | {"decoder.mask_token"}

    def _of(self, views: dict[str, Any]) -> Any:
        return views[self.encoder.view]

    def _latent(self, inputs: Tensor, mask: TokenMask, ctx: Context) -> Features:
        visible = self.encoder.tubelets(inputs, mask.visible)  # (B, V, P)
        features: Features = self.encoder(visible, mask.visible, noise=ctx.noise)
        return features

    def _untubed(self, vectors: Tensor) -> Tensor:
        section = self.encoder.section
        return from_tubelets(vectors, section.tubelet, section.patch_size, self.grid)
