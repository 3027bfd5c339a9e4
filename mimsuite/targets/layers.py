"""Targets that average what several layers of a teacher make of a sample (data2vec 2.0, Baevski et
al., arXiv:2212.07525, section 3.1).

Letters: B batch, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

_EPS = 1e-5


def average_layers(layers: Sequence[Tensor]) -> Tensor:
    """(B, N, D) outputs of layers -> (B, N, D) float32.

    Each is normed per channel over the tokens of a sample (biased variance); the mean of them is
    normed over the width of each token. Neither norm has parameters.
    """
    normed = (F.instance_norm(x.float().transpose(1, 2), eps=_EPS) for x in layers)  # (B, D, N)
    mean = sum(normed) / len(layers)
    assert isinstance(mean, Tensor)
    return F.layer_norm(mean.transpose(1, 2), (mean.shape[1],), eps=_EPS)
