"""VQRAE: Representation Quantization Autoencoders (arXiv:2511.23386), first stage.

A representation autoencoder whose decoder reads codes: each token of the frozen encoder is replaced
by the nearest of K vectors, which are as wide as the token. The codes are a tokenizer: for a
generative model, or as a prediction target.

No code of the paper was at hand. What it leaves open is decided in the documentation (dictionary);
the codebook is SimVQ's. The second stage, in which the encoder is trained too, is not built.

Letters: B batch, N tokens, C their width, D width of a code, h x w the grid, K codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.config.keys.rae import CodedModelSection, CodedReconstructionSection
from mimsuite.config.keys.shared import MethodCard, MethodSection
from mimsuite.errors import DataError
from mimsuite.methods.rae import RAE, RAERecipe, Read
from mimsuite.targets.codebook import Codebook, Quantized, use_of


class VQRAESection(MethodSection):
    """`method:` VQRAE has no keys of its own."""

    name: Literal["vqrae"]


class VQRAERecipe(RAERecipe):
    """A recipe for a representation autoencoder with codes."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2511.23386", "experimental")

    method: VQRAESection  # type: ignore[assignment]
    model: CodedModelSection
    target: CodedReconstructionSection = CodedReconstructionSection()


class VQRAE(RAE):
    """A frozen encoder, a codebook and a trained decoder."""

    Recipe: ClassVar[type[RAERecipe]] = VQRAERecipe
    source: ClassVar[str] = "its codes"

    def __init__(self, recipe: VQRAERecipe) -> None:
        super().__init__(recipe)
        section, tokens = recipe.model.codebook, self.encoder.width
        width = section.width or tokens
        self.codebook_weight = recipe.target.codebook_weight
        self.codebook = Codebook(section, width)
        self.down = nn.Identity() if width == tokens else nn.Linear(tokens, width)
        self.up = nn.Identity() if width == tokens else nn.Linear(width, tokens)

    def setup(self, batches: Callable[[], Iterable[Batch]] | None) -> list[str]:
        lines = super().setup(batches)
        section = self.codebook.section
        if section.start == "random" or batches is None or bool(self.codebook.fitted):
            return lines
        tokens = self._first_tokens(batches(), section.samples)
        if len(tokens) < section.codes:
            raise DataError(
                f"model.codebook.codes is {section.codes}, the data gave only {len(tokens)} tokens"
            )
        self.codebook.start(tokens, self.recipe.train.seed)
        return [*lines, f"codebook: {section.codes} k-means centres of {len(tokens)} tokens"]

    @torch.no_grad()
    def _first_tokens(self, batches: Iterable[Batch], samples: int) -> Tensor:
        """(S, D) of the start of the training stream, on the host."""
        parts: list[Tensor] = []
        for batch in batches:
            tokens = self.down(self.encoder.tokens(batch.image))
            parts.append(tokens.flatten(0, 1).float().cpu())
            if sum(map(len, parts)) >= samples:
                break
        return torch.cat(parts)[:samples] if parts else torch.empty(0, 0)

    def quantized(self, tokens: Tensor) -> Quantized:
        """Tokens (B, N, C) -> vectors (B, N, D) of their codes (B, N)."""
        found: Quantized = self.codebook(self.down(tokens))
        return found

    def read(self, tokens: Tensor) -> Read:
        """Tokens (B, N, C) of codes; the loss draws codes and tokens together."""
        found = self.quantized(tokens)
        used, perplexity = use_of(found.codes, self.codebook.section.codes)
        terms = {"codebook": found.loss.detach(), "used": used, "perplexity": perplexity}
        return Read(self.up(found.vectors), self.codebook_weight * found.loss, terms)

    # --- as a tokenizer ---

    @property
    def vocabulary(self) -> int:
        """Number of codes."""
        return self.codebook.section.codes

    def codes(self, images: Tensor) -> Tensor:
        """(B, C, H, W) normalised images -> (B, h, w) int64."""
        return self.quantized(self.encoder.tokens(images)).codes.unflatten(1, self.encoder.grid)

    def drawn(self, codes: Tensor) -> Tensor:
        """(B, h, w) codes -> (B, C, H, W) pixels in [0, 1]."""
        vectors = self.codebook.table()[codes.flatten(1)]
        return self.pixels(self.decode(self.up(vectors))).clamp(0, 1)
