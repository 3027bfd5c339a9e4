"""The transformer of data2vec 2.0 (Baevski et al., arXiv:2212.07525), which norms behind each
residual sum, as the first transformers did.

``r = LN1(x + Attn(x)); t = MLP(r); x' = LN2(r + t)``. The class token has no position, and a norm
is in front of the first block. Parameter names are those of timm's ``VisionTransformer`` with
``pre_norm`` and ``no_embed_class``.

Letters: B batch, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal, overload

import numpy as np
from torch import Tensor, nn

from mimsuite.config.keys.encoders import PostNormViTSection
from mimsuite.models.attention import QKV, split_heads
from mimsuite.models.blocks import Block
from mimsuite.models.drop_path import Keep, branch
from mimsuite.models.vit import ViT
from mimsuite.weights.names import Names


class PostNormBlock(Block):
    """A block that norms behind each residual sum; parameter names as of the pre-norm block."""

    @overload  # type: ignore[override]
    def forward(self, x: Tensor, keep: Keep = None) -> Tensor: ...
    @overload
    def forward(
        self, x: Tensor, keep: Keep = None, *, inner: Literal[True]
    ) -> tuple[Tensor, Tensor]: ...

    def forward(
        self, x: Tensor, keep: Keep = None, *, inner: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """(B, N, D) -> (B, N, D), with ``inner`` also what the MLP adds; ``keep``: (B,) factors
        of the two branches (drop path)."""
        first, second = keep or (None, None)
        x = self.norm1(x + branch(self.attn(x), first))
        mixed: Tensor = self.mlp(x)
        x = self.norm2(x + branch(mixed, second))
        return (x, mixed) if inner else x

    def qkv(self, x: Tensor) -> QKV:
        return split_heads(self.attn, x)


class PostNormViT(ViT):
    """Encoder of visible patches."""

    section: PostNormViTSection
    class_positions = False
    embeddings = (*ViT.embeddings, "norm_pre.")
    published_mark: ClassVar[str] = "model.modality_encoders."  # prefix in classifiers

    def __init__(self, section: PostNormViTSection) -> None:
        super().__init__(section)
        self.norm_pre = nn.LayerNorm(section.width, eps=section.norm_eps)
        self.published = classifier_names(section.prenet, section.depth)
        self.apply(_init)
        nn.init.normal_(self.cls_token)  # standard deviation 1, as published

    def block(self) -> nn.Module:
        section = self.section
        return PostNormBlock(section.width, section.heads, section.mlp_ratio, section.norm_eps)

    def embed(
        self,
        patches: Tensor,
        ids: Tensor | None = None,
        grid: tuple[int, int] | None = None,
    ) -> Tensor:
        normed: Tensor = self.norm_pre(super().embed(patches, ids, grid))
        return normed

    def mlp_outputs(self, patches: Tensor, last: int) -> list[Tensor]:
        """What the MLPs of the ``last`` blocks make of all (B, N, P) patches, each (B, N, D),
        without the class token."""
        x, found = self.embed(patches), []
        for number, block in enumerate(self.blocks):
            if number < self.depth - last:
                x = block(x)
            else:
                x, mixed = block(x, inner=True)
                found.append(mixed[:, self.class_tokens :])
        return found

    def drop_path_rates(self) -> list[float]:
        """The blocks behind the stem grow to the last rate, from where the stem leaves off."""
        prenet, rate = self.section.prenet, self.section.drop_path
        main = self.depth - prenet
        steps = np.linspace(0, rate, main).tolist()  # numpy: exporters trace torch
        stem = steps[:prenet] + [rate] * (prenet - main)
        first = steps[min(prenet, main - 1)]
        rates: list[float] = stem + np.linspace(first, rate, main).tolist()
        return rates

    def rate_layer(self, name: str) -> int:
        """Rates decay from block to block; the embedding keeps the full one, as published."""
        return self.layer_id(name) if name.startswith("blocks.") else self.depth + 1

    @classmethod
    def published_in(cls, names: Iterable[str]) -> Names:
        return classifier_names(*stem_and_depth(names, "model."))


def published_names(lead: str, published: str, prenet: int, depth: int) -> list[tuple[str, str]]:
    """Names of an encoder below ``lead``, ours and the published code's below ``published``.

    Args:
        prenet: blocks of the stem, which have a list of their own there.
        depth: all blocks.
    """
    own = f"{published}modality_encoders.IMAGE."
    blocks = [f"{own}context_encoder.blocks.{number}." for number in range(prenet)]
    blocks += [f"{published}blocks.{number}." for number in range(depth - prenet)]
    return [
        (f"{lead}cls_token", f"{own}extra_tokens"),
        (f"{lead}pos_embed", f"{own}fixed_positional_encoder.positions"),
        (f"{lead}patch_embed.", f"{own}local_encoder."),
        (f"{lead}norm_pre.", f"{own}context_encoder.norm."),
        *((f"{lead}blocks.{number}.", name) for number, name in enumerate(blocks)),
    ]


def classifier_names(prenet: int, depth: int) -> Names:
    """Names of a classifier on the encoder, ours and the published code's."""
    heads = [(name, name) for name in ("head.", "fc_norm.")]
    return Names([*heads, *published_names("encoder.", "model.", prenet, depth)])


def stem_and_depth(names: Iterable[str], lead: str = "") -> tuple[int, int]:
    """How many blocks the stem has, and all of them, by published names below ``lead``."""
    stem, main = f"{lead}modality_encoders.IMAGE.context_encoder.blocks.", f"{lead}blocks."
    numbers: dict[str, set[str]] = {stem: set(), main: set()}
    for name in names:
        for start, found in numbers.items():
            if name.startswith(start):
                found.add(name.removeprefix(start).partition(".")[0])
    return len(numbers[stem]), len(numbers[stem]) + len(numbers[main])


def _init(module: nn.Module) -> None:
    """Linear weights normal with deviation 0.02, zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
