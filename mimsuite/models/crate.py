"""CRATE: a transformer whose blocks compress and sparsify (Yu et al., arXiv:2306.01129).

Each block alternates two steps of optimising sparse rate reduction, derived in the paper:

* multi-head subspace self-attention (MSSA, section 2.3): one matrix U per head serves as query, key
  and value; it compresses tokens towards the heads' subspaces;
* iterative shrinkage-thresholding (ISTA, section 2.4): a proximal gradient step of the non-negative
  LASSO ``min_z |x - A z|^2 / 2 + lambda |z|_1, z >= 0``, in place of the MLP.

The decoder of CRATE-MAE (Pai et al., arXiv:2404.02446) inverts them in the opposite order.

Letters: B batch, N patches, P = p*p*C numbers of a patch, D width, h heads of d = D/h numbers.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimsuite.config.keys.encoders import CrateSection
from mimsuite.masking import gather_tokens
from mimsuite.models.attend import attend
from mimsuite.models.blocks import init_linear, run_blocks
from mimsuite.models.encoder import ImageEncoder
from mimsuite.models.features import Features
from mimsuite.models.vit import PatchEmbed
from mimsuite.noise import Noise
from mimsuite.tokens import resize_positions, sincos_2d
from mimsuite.weights.names import Names


class MSSA(nn.Module):
    """Attention in which ``w = U x`` is query, key and value: ``softmax(w w^T / sqrt(d)) w``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, width, bias=False)
        self.proj = nn.Linear(width, width) if heads > 1 else nn.Identity()

    def forward(self, x: Tensor, queries: int | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D), or (B, q, D) where only the last q tokens are queries."""
        w = self.qkv(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, h, N, d)
        asking = w if queries is None else w[:, :, -queries:]
        out: Tensor = self.proj(attend(asking, w, w).transpose(1, 2).flatten(2))
        return out


class Dictionary(nn.Module):
    """A square matrix A, stored so that ``x A^T`` with row vectors x is A applied to each token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, width))
        nn.init.kaiming_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D): A applied to each token."""
        return F.linear(x, self.weight)


class ISTA(Dictionary):
    """One shrinkage step that starts from x: ``relu(x + eta A^T (x - A x) - eta lambda)``."""

    def __init__(self, width: int, step_size: float, sparsity: float) -> None:
        super().__init__(width)
        self.step_size, self.sparsity = step_size, sparsity

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D), non-negative."""
        residual = x - F.linear(x, self.weight)
        gradient = F.linear(residual, self.weight.T)  # descent direction of the fit
        return F.relu(x + self.step_size * (gradient - self.sparsity))


class CrateBlock(nn.Module):
    """``u = z + MSSA(LN z); z' = ISTA(LN u)``: no residual around the second half."""

    def __init__(self, section: CrateSection) -> None:
        super().__init__()
        width, eps = section.width, section.norm_eps
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = MSSA(width, section.heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.ista = ISTA(width, section.step_size, section.sparsity)

    def forward(self, z: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D), non-negative."""
        sparse: Tensor = self.ista(self.norm2(z + self.attn(self.norm1(z))))
        return sparse


class CrateDecoderBlock(nn.Module):
    """``u = A LN z; z' = u - MSSA(LN u)``: inverts the steps of a block in reverse order."""

    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.dictionary = Dictionary(width)
        self.attn = MSSA(width, heads)

    def forward(self, z: Tensor, queries: int | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D), or only the last ``queries`` of the N tokens."""
        u = self.dictionary(self.norm1(z))
        attended: Tensor = self.attn(self.norm2(u), queries)
        return (u if queries is None else u[:, -queries:]) - attended


class NormedEmbed(nn.Module):
    """Patch embedding of the CRATE classifier: layer norm, linear map, layer norm."""

    def __init__(self, in_width: int, width: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(in_width, eps=eps)
        self.proj = nn.Linear(in_width, width)
        self.norm2 = nn.LayerNorm(width, eps=eps)

    def forward(self, patches: Tensor) -> Tensor:
        """(B, N, P) -> (B, N, D)."""
        embedded: Tensor = self.norm2(self.proj(self.norm1(patches)))
        return embedded


class Crate(ImageEncoder):
    """CRATE encoder with one class token and absolute positions.

    ``embed: normed`` is the published classifier: layer norms around the patch embedding, and a
    class token and positions trained from N(0, 1). ``embed: linear`` is CRATE-MAE: a linear patch
    embedding and sin-cos positions.
    """

    published = Names(
        [
            ("encoder.cls_token", "cls_token"),
            ("encoder.pos_embed", "pos_embedding"),
            ("encoder.patch_embed.norm1.", "to_patch_embedding.1."),
            ("encoder.patch_embed.proj.", "to_patch_embedding.2."),
            ("encoder.patch_embed.norm2.", "to_patch_embedding.3."),
            ("encoder.blocks.{}.norm1.", "transformer.layers.{}.0.norm."),
            ("encoder.blocks.{}.attn.qkv.", "transformer.layers.{}.0.fn.qkv."),
            ("encoder.blocks.{}.attn.proj.", "transformer.layers.{}.0.fn.to_out.0."),
            ("encoder.blocks.{}.norm2.", "transformer.layers.{}.1.norm."),
            ("encoder.blocks.{}.ista.", "transformer.layers.{}.1.fn."),
            ("encoder.norm.", "mlp_head.0."),
            ("head.", "mlp_head.1."),
        ]
    )
    published_mark: ClassVar[str] = "to_patch_embedding."
    section: CrateSection

    def __init__(self, section: CrateSection) -> None:
        super().__init__(section)
        width = section.width
        numbers = section.patch_size**2 * section.in_channels
        positions = F.pad(sincos_2d(width, section.grid), (0, 0, 1, 0))[None]  # cls row 0
        self.pos_embed = nn.Parameter(positions, requires_grad=section.trained_positions)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(CrateBlock(section) for _ in range(section.depth))
        self.norm = nn.LayerNorm(width, eps=section.final_norm_eps)
        self.patch_embed: nn.Module
        if section.embed == "normed":  # linear layers keep torch's initialisation
            self.patch_embed = NormedEmbed(numbers, width, section.norm_eps)
            nn.init.normal_(self.pos_embed)
            nn.init.normal_(self.cls_token)
        else:
            self.patch_embed = PatchEmbed(section.in_channels, section.patch_size, width)
            nn.init.normal_(self.cls_token, std=0.02)
            self.apply(init_linear)

    def forward(
        self,
        patches: Tensor,
        ids: Tensor | None = None,
        *,
        fill: tuple[Tensor, Tensor] | None = None,
        noise: Noise | None = None,
        layers: Collection[int] = (),
        grid: tuple[int, int] | None = None,
    ) -> Features:
        """Encode patch vectors, optionally together with mask tokens.

        Args:
            patches: (B, V, P).
            ids: (B, V) ids of the patches; ``None`` = all of ``grid``, in raster order.
            fill: a mask token (1, 1, D) and the (B, M) ids of its positions; mask tokens follow
                the patches in the output.
            noise: unused, as CRATE has no drop path; part of the encoders' common signature.
            layers: numbers, from 1, of the blocks whose outputs are also returned; 0: the input of
                the first block.
            grid: rows and columns of patches; positions are resized to it. ``None``: as trained.
        """
        positions = resize_positions(self.pos_embed, self.grid, grid or self.grid)
        cls = self.cls_token + positions[:, :1]  # (1, 1, D)
        positions = positions[:, 1:]
        embedded: Tensor = self.patch_embed(patches)
        parts = [cls.expand(len(patches), -1, -1)]
        parts.append(embedded + (positions if ids is None else gather_tokens(positions, ids)))
        if fill is not None:
            parts.append(fill[0] + gather_tokens(positions, fill[1]))
        x = torch.cat(parts, dim=1)
        x, outputs = run_blocks(self.blocks, x, layers=layers)
        x = self.norm(x)
        return Features(cls=x[:, :1], tokens=x[:, 1:], layers=outputs)
