"""Check of an exported model: it must compute the same tokens and class scores on a random batch.

Letters: B batch, C class tokens, N other tokens, D width, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.errors import MimsuiteError
from mimsuite.methods import Method
from mimsuite.methods.classify import Classifier

TOLERANCE = 1e-4  # absolute, or relative to the largest number above 1; order of float32 sums


class Outputs(nn.Module):
    """Features of a view (B, ...) as plain tensors, as probes read them.

    Returns class tokens (B, C, D), if the encoder has any, and the other tokens (B, N, D).
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method.eval()
        self.view, self.shape = method.encoder.sample()

    def forward(self, sample: Tensor) -> tuple[Tensor, ...]:
        # Without keys: their list would fix the batch size of an exported graph.
        batch = Batch({self.view: sample}, torch.arange(0), [])
        features = self.method.encode(batch)
        return (features.cls, features.tokens) if features.cls.shape[1] else (features.tokens,)

    def example(self, batch: int = 1) -> Tensor:
        """A random view, the same in every call."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(batch, *self.shape, generator=generator)

    @torch.no_grad()
    def tokens(self, sample: Tensor) -> Tensor:
        """(B, C + N, D) class tokens and other tokens."""
        return torch.cat(self(sample), dim=1)

    @torch.no_grad()
    def logits(self, sample: Tensor) -> Tensor:
        """(B, K) class scores; the method must be a classifier."""
        assert isinstance(self.method, Classifier)
        return self.method.logits(sample)


def agree(library: str, *pairs: tuple[Tensor, Tensor]) -> str:
    """Compare pairs (output of ``library``, expected output).

    Returns:
        a line to print with the largest difference.

    Raises:
        MimsuiteError: a pair differs by more than :data:`TOLERANCE`.
    """
    worst = 0.0
    for computed, expected in pairs:
        if computed.shape != expected.shape:
            sizes = f"{tuple(computed.shape)} for {tuple(expected.shape)}"
            raise MimsuiteError(f"{library} computes other shapes ({sizes}); not written")
        difference = float((computed - expected).abs().max())
        worst = max(worst, difference)
        if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise MimsuiteError(
                f"{library} computes other numbers (largest difference {difference:.1e}); "
                f"not written"
            )
    return f"{library} agrees: largest difference {worst:.1e}"
