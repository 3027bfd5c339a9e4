"""The discriminator of a representation autoencoder: heads on features of a frozen DINO (Sauer et
al., arXiv:2301.09515; RAE, arXiv:2510.11690).

The heads are trained beside the decoder by an optimizer of their own, whose moments are buffers, so
that a checkpoint holds them. Names of the heads' parameters are the published ones.

Letters: B batch, D width of DINO, T tokens of its input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.adamw import adamw

from mimsuite.config.keys.rae import AdversarialSection
from mimsuite.models.frozen import Frozen
from mimsuite.models.teachers import dino
from mimsuite.models.teachers.base import Wanted
from mimsuite.models.teachers.transformer import FrozenViT
from mimsuite.tokens.constants import constant

_NORM_EPS, _SPECTRAL_EPS = 1e-6, 1e-12
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class SpectralConv1d(nn.Module):
    """A convolution over tokens, padded in a circle, whose weight has a spectral norm of 1.

    The norm is estimated by one power iteration per forward pass in train mode, and by the stored
    vectors in eval mode.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        conv = nn.Conv1d(inputs, outputs, kernel)
        assert conv.bias is not None
        self.weight_orig, self.bias, self.pad = conv.weight, conv.bias, kernel // 2
        self.register_buffer("weight_u", _unit(torch.randn(outputs)))
        self.register_buffer("weight_v", _unit(torch.randn(inputs * kernel)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, T) -> (B, outputs, T)."""
        matrix = self.weight_orig.flatten(1)
        if self.training:
            with torch.no_grad():
                v = _unit(matrix.T @ self.get_buffer("weight_u"))
                self.get_buffer("weight_v").copy_(v)
                self.get_buffer("weight_u").copy_(_unit(matrix @ v))
        # Copies: a second forward pass moves the vectors before this one's backward pass.
        u, v = (self.get_buffer(name).clone() for name in ("weight_u", "weight_v"))
        weight = self.weight_orig / torch.dot(u, matrix @ v)
        return F.conv1d(F.pad(x, (self.pad, self.pad), mode="circular"), weight, self.bias)


class TokenNorm(nn.Module):
    """Normalises each channel of each image over its tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, T) -> (B, D, T)."""
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=_NORM_EPS)


class Residual(nn.Module):
    """``(fn(x) + x) / sqrt(2)``."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = (self.fn(x) + x) / 2**0.5
        return mixed


def _block(width: int, kernel: int) -> nn.Sequential:
    conv = SpectralConv1d(width, width, kernel)
    return nn.Sequential(conv, TokenNorm(width), nn.LeakyReLU(0.2))


def head(width: int, kernel: int) -> nn.Sequential:
    """(B, D, T) features -> (B, 1, T) logits."""
    return nn.Sequential(
        _block(width, 1), Residual(_block(width, kernel)), SpectralConv1d(width, 1, 1)
    )


class Discriminator(nn.Module):
    """Logits that are high for real images.

    Attributes:
        heads: one per level of features, in eval mode and without gradient but inside
            :meth:`update`; the first reads the last block.
    """

    def __init__(self, section: AdversarialSection, key: str) -> None:
        super().__init__()
        self.section = section
        self.network = Frozen(lambda weights: load_features(section, key, weights))
        width, levels = section.network.width, 1 + len(section.layers)
        self.heads = nn.ModuleList(head(width, section.kernel) for _ in range(levels))
        for number, (_, parameter) in enumerate(self.heads.named_parameters()):
            for moment in ("first", "second"):
                self.register_buffer(f"{moment}_{number}", torch.zeros_like(parameter))

    def features(self, images: Tensor) -> list[Tensor]:
        """Features (B, D, T) of (B, 3, H, W) images in [-1, 1], per level."""
        size = self.section.image_size
        x = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
        mean, std = (constant(values, x).view(1, 3, 1, 1) for values in (_MEAN, _STD))
        x = ((x + 1) / 2 - mean) / std
        numbers = (self.section.network.blocks, *self.section.layers)
        hidden = self.network.on(images)(x, Wanted(hidden=numbers)).hidden
        return [hidden[number][:, 1:].transpose(1, 2) for number in numbers]

    def forward(self, images: Tensor) -> Tensor:
        """(B, levels * T) logits of (B, 3, H, W) images in [-1, 1]."""
        levels = zip(self.heads, self.features(images), strict=True)
        return torch.cat([own(level).flatten(1) for own, level in levels], dim=1)

    def moments(self, name: str) -> list[Tensor]:
        """``first`` or ``second`` moments of the heads' parameters."""
        count = sum(1 for _ in self.heads.parameters())
        return [self.get_buffer(f"{name}_{number}") for number in range(count)]

    @torch.no_grad()
    def update(
        self,
        gradients: Sequence[Tensor],
        done: int,
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        """One step of AdamW on the heads.

        Args:
            gradients: one per parameter of the heads.
            done: updates before this one.
        """
        parameters = [parameter.detach() for parameter in self.heads.parameters()]
        adamw(
            parameters,
            list(gradients),
            self.moments("first"),
            self.moments("second"),
            [],
            [torch.tensor(float(done)) for _ in parameters],
            amsgrad=False,
            beta1=betas[0],
            beta2=betas[1],
            lr=lr,
            weight_decay=weight_decay,
            eps=eps,
            maximize=False,
        )


def load_features(section: AdversarialSection, key: str, weights: bool) -> FrozenViT:
    """The frozen DINO, with the tanh form of GELU, as the published discriminator runs it."""
    side = section.image_size // section.network.patch_size
    own = weights and not section.network.stands_in
    vit = dino.load(section.network, (side, side), f"{key}.network", own)
    block: Any
    for block in vit.blocks:
        block.mlp.act = nn.GELU(approximate="tanh")
    return vit


def _unit(vector: Tensor) -> Tensor:
    return F.normalize(vector, dim=0, eps=_SPECTRAL_EPS)
