"""Whether what was written computes the same: tokens and class scores of one random batch.

Letters: B batch, C class tokens, N other tokens, D width, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.errors import MimsuiteError
from mimsuite.methods import Method
from mimsuite.methods.classify import Classifier

TOLERANCE = 1e-4  # of the largest number, if that is above 1; float32 sums in another order


class Outputs(nn.Module):
    """A view (B, ...) -> what the method's probes read of it, as plain tensors.

    Returns class tokens (B, C, D), if the encoder has any, and the other tokens (B, N, D).
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method.eval()
        self.view, self.shape = method.encoder.sample()

    def forward(self, sample: Tensor) -> tuple[Tensor, ...]:
        # Without keys: a list of them would fix the batch size of a graph.
        batch = Batch({self.view: sample}, torch.arange(0), [])
        found = self.method.encode(batch)
        return (found.cls, found.tokens) if found.cls.shape[1] else (found.tokens,)

    def example(self, batch: int = 1) -> Tensor:
        """A random view, the same every time."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(batch, *self.shape, generator=generator)

    @torch.no_grad()
    def tokens(self, sample: Tensor) -> Tensor:
        """(B, C + N, D)."""
        return torch.cat(self(sample), dim=1)

    @torch.no_grad()
    def logits(self, sample: Tensor) -> Tensor:
        """(B, K) of a classifier."""
        assert isinstance(self.method, Classifier)
        return self.method.logits(sample)


def agree(library: str, *pairs: tuple[Tensor, Tensor]) -> str:
    """A line for people that says by how much pairs of what ``library`` computes and what it
    should compute differ.

    Raises:
        MimsuiteError: they differ by more than :data:`TOLERANCE`.
    """
    worst = 0.0
    for found, expected in pairs:
        if found.shape != expected.shape:
            sizes = f"{tuple(found.shape)} for {tuple(expected.shape)}"
            raise MimsuiteError(f"{library} computes other shapes ({sizes}); not written")
        difference = float((found - expected).abs().max())
        worst = max(worst, difference)
        if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise MimsuiteError(
                f"{library} computes other numbers (largest difference {difference:.1e}); "
                f"not written"
            )
    return f"{library} agrees: largest difference {worst:.1e}"
