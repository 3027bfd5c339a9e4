"""Textbook versions of the models, written from the papers and sharing no code with the suite.

Nothing is gathered, shuffled or skipped: the encoder computes every patch and hides the masked
ones from attention, the decoder sees raster order and predicts everything. Weights are a flat
dictionary under the published names.

Letters: B batch, N patches, D width, P pixels of a patch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

State = dict[str, Tensor]


@dataclass(frozen=True)
class Sizes:
    """Sizes of a masked autoencoder; ``grid`` in patches, (rows, columns)."""

    grid: tuple[int, int] = (4, 4)
    patch: int = 4
    channels: int = 3
    width: int = 16
    depth: int = 2
    heads: int = 2
    decoder_width: int = 8
    decoder_depth: int = 2
    decoder_heads: int = 2
    mlp_ratio: float = 2.0
    eps: float = 1e-6
    ratio: float = 0.75
    normalize: bool = True

    @property
    def patches(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def visible(self) -> int:
        return int(self.patches * (1 - self.ratio))

    @property
    def image_size(self) -> tuple[int, int]:
        return self.grid[0] * self.patch, self.grid[1] * self.patch


# --- parts ----------------------------------------------------------------------------------------


def layer_norm(x: Tensor, state: State, name: str, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred**2).mean(-1, keepdim=True)
    return centred / (variance + eps).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x: Tensor, state: State, name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def attention(x: Tensor, state: State, name: str, heads: int, hidden: Tensor | None) -> Tensor:
    """Softmax attention over (B, N, D); ``hidden`` (B, N) marks tokens that nobody may attend."""
    batch, tokens, width = x.shape
    size = width // heads
    query, key, value = (
        part.reshape(batch, tokens, heads, size)
        for part in linear(x, state, f"{name}.qkv").split(width, dim=-1)
    )
    scores = torch.einsum("bihd,bjhd->bhij", query, key) / math.sqrt(size)
    if hidden is not None:
        scores = scores.masked_fill(hidden[:, None, None, :], -math.inf)
    weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
    mixed = torch.einsum("bhij,bjhd->bihd", weights, value).reshape(batch, tokens, width)
    return linear(mixed, state, f"{name}.proj")


def mlp(x: Tensor, state: State, name: str) -> Tensor:
    x = linear(x, state, f"{name}.fc1")
    x = 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
    return linear(x, state, f"{name}.fc2")


def blocks(
    x: Tensor, state: State, name: str, depth: int, heads: int, eps: float, hidden: Tensor | None
) -> Tensor:
    for i in range(depth):
        block = f"{name}.{i}"
        normed = layer_norm(x, state, f"{block}.norm1", eps)
        x = x + attention(normed, state, f"{block}.attn", heads, hidden)
        x = x + mlp(layer_norm(x, state, f"{block}.norm2", eps), state, f"{block}.mlp")
    return x


def patch_vectors(images: Tensor, sizes: Sizes) -> Tensor:
    """(B, N, P), cut out one by one; channel fastest."""
    rows, columns = sizes.grid
    p = sizes.patch
    cut = [
        images[:, :, p * i : p * i + p, p * j : p * j + p].permute(0, 2, 3, 1).flatten(1)
        for i in range(rows)
        for j in range(columns)
    ]
    return torch.stack(cut, dim=1)


def embed(images: Tensor, state: State, patch: int) -> Tensor:
    """[class tokens, patches] with positions, (B, C + N, D)."""
    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    tokens = torch.nn.functional.conv2d(images, weight, bias, stride=patch)
    tokens = tokens.flatten(2).transpose(1, 2)
    cls = state["cls_token"].expand(len(images), -1, -1)
    return torch.cat([cls, tokens], dim=1) + state["pos_embed"]


# --- models ---------------------------------------------------------------------------------------


@dataclass
class Answers:
    """Loss (), prediction (B, N, P) and mask (B, N) bool, True = masked."""

    loss: Tensor
    prediction: Tensor
    mask: Tensor


def masked_autoencoder(state: State, images: Tensor, noise: Tensor, sizes: Sizes) -> Answers:
    """MAE (arXiv:2111.06377): the patches with the least noise are visible."""
    return _rebuilt(state, images, _ranks(noise) >= sizes.visible, sizes)


def squares_autoencoder(
    state: State, images: Tensor, noise: Tensor, sizes: Sizes, side: int
) -> Answers:
    """Pixio (arXiv:2512.15715): the squares of side x side patches with the least noise are
    visible; class tokens have positions."""
    rows, columns = sizes.grid
    kept = int(noise.shape[1] * (1 - sizes.ratio))
    masked = _ranks(noise) >= kept
    across = columns // side
    square = [(i // side) * across + j // side for i in range(rows) for j in range(columns)]
    return _rebuilt(state, images, masked[:, square], sizes)


def _ranks(noise: Tensor) -> Tensor:
    """How many numbers of its row are smaller."""
    return torch.tensor([[sum(other < x for other in row) for x in row] for row in noise.tolist()])


def _rebuilt(state: State, images: Tensor, mask: Tensor, sizes: Sizes) -> Answers:
    """A masked autoencoder of any number of class tokens under a mask (B, N)."""
    classes = state["cls_token"].shape[1]
    seen = torch.zeros(len(mask), classes, dtype=torch.bool)
    hidden = torch.cat([seen, mask], dim=1)

    x = embed(images, state, sizes.patch)
    x = blocks(x, state, "blocks", sizes.depth, sizes.heads, sizes.eps, hidden)
    x = layer_norm(x, state, "norm", sizes.eps)

    x = linear(x, state, "decoder_embed")
    x = torch.where(hidden[:, :, None], state["mask_token"], x) + state["decoder_pos_embed"]
    depth, heads = sizes.decoder_depth, sizes.decoder_heads
    x = blocks(x, state, "decoder_blocks", depth, heads, sizes.eps, None)
    x = layer_norm(x, state, "decoder_norm", sizes.eps)
    prediction = linear(x, state, "decoder_pred")[:, classes:]

    target = patch_vectors(images, sizes)
    if sizes.normalize:
        centred = target - target.mean(-1, keepdim=True)
        variance = (centred**2).sum(-1, keepdim=True) / (target.shape[-1] - 1)
        target = centred / (variance + 1e-6).sqrt()
    per_token = ((prediction - target) ** 2).mean(-1)
    loss = (per_token * mask).sum() / mask.sum()
    return Answers(loss, prediction, mask)


def cross_attention(x: Tensor, memory: Tensor, state: State, name: str, heads: int) -> Tensor:
    """Softmax attention of (B, N, D) tokens to a memory (B, T, E)."""
    batch, tokens, width = x.shape
    query = linear(x, state, f"{name}.q").reshape(batch, tokens, heads, -1)
    key, value = (
        part.reshape(batch, memory.shape[1], heads, -1)
        for part in linear(memory, state, f"{name}.kv").split(width, dim=-1)
    )
    scores = torch.einsum("bihd,bjhd->bhij", query, key) / math.sqrt(width // heads)
    weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
    mixed = torch.einsum("bhij,bjhd->bihd", weights, value).reshape(batch, tokens, width)
    return linear(mixed, state, f"{name}.proj")


def cross_decoder(
    state: State, layers: list[Tensor], decoded: Tensor, heads: int, eps: float
) -> Tensor:
    """CrossMAE's decoder (arXiv:2401.14391): (B, Nd, P) for the ids ``decoded`` (B, Nd).

    ``layers`` are the encoder layers that are mixed, (B, T, D) each.
    """
    places = state["decoder_pos_embed"][0, 1:]  # the class token's row comes first
    x = torch.stack([state["mask_token"][0, 0] + places[ids] for ids in decoded])
    weights = state["wfm.linear.weight"]
    for i in range(len(weights)):
        block = f"decoder_blocks.{i}"
        mixed = sum(weight * layer for weight, layer in zip(weights[i], layers, strict=True))
        memory = layer_norm(mixed, state, f"dec_norms.{i}", eps)
        if f"{block}.norm0.weight" in state:
            normed = layer_norm(x, state, f"{block}.norm0", eps)
            x = x + attention(normed, state, f"{block}.self_attn", heads, None)
        normed = layer_norm(x, state, f"{block}.norm1", eps)
        x = x + cross_attention(normed, memory, state, f"{block}.cross_attn", heads)
        x = x + mlp(layer_norm(x, state, f"{block}.norm2", eps), state, f"{block}.mlp")
    return linear(layer_norm(x, state, "decoder_norm", eps), state, "decoder_pred")


def classifier_logits(state: State, images: Tensor, sizes: Sizes, mean_pool: bool) -> Tensor:
    """A ViT with a linear head on the class token, or on the normalised mean of the patches."""
    x = embed(images, state, sizes.patch)
    x = blocks(x, state, "blocks", sizes.depth, sizes.heads, sizes.eps, None)
    if mean_pool:
        pooled = layer_norm(x[:, 1:].mean(1), state, "fc_norm", sizes.eps)
    else:
        pooled = layer_norm(x, state, "norm", sizes.eps)[:, 0]
    return linear(pooled, state, "head")


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """(1 - s) of the weight on the label, s spread over all classes (arXiv:1512.00567)."""
    log_probability = logits - logits.exp().sum(-1, keepdim=True).log()
    true = log_probability[torch.arange(len(labels)), labels]
    return -((1 - smoothing) * true + smoothing * log_probability.mean(-1)).mean()


# --- training -------------------------------------------------------------------------------------


def half_cosine(epoch: float, lr: float, min_lr: float, warmup: float, epochs: float) -> float:
    if epoch < warmup:
        return lr * epoch / warmup
    progress = (epoch - warmup) / (epochs - warmup)
    return min_lr + (lr - min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


class PlainAdamW:
    """AdamW (arXiv:1711.05101), one parameter at a time."""

    def __init__(self, betas: tuple[float, float], eps: float) -> None:
        self.betas, self.eps, self.steps = betas, eps, 0
        self.mean: State = {}
        self.square: State = {}

    def step(self, state: State, rates: dict[str, float], decays: dict[str, float]) -> None:
        """Update the parameters that ``rates`` names, in place."""
        self.steps += 1
        first, second = self.betas
        for name, rate in rates.items():
            parameter, gradient = state[name].data, state[name].grad
            assert gradient is not None
            zero = torch.zeros_like(parameter)
            self.mean[name] = first * self.mean.get(name, zero) + (1 - first) * gradient
            square = self.square.get(name, zero)
            self.square[name] = second * square + (1 - second) * gradient**2
            mean = self.mean[name] / (1 - first**self.steps)
            root = (self.square[name] / (1 - second**self.steps)).sqrt()
            parameter *= 1 - rate * decays[name]
            parameter -= rate * mean / (root + self.eps)
