"""Features of a teacher as targets.

Letters: B batch, K tokens, D width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mimsuite.config.keys.targets import FeatureLossSection


class FeatureTarget:
    """Normalisation of a teacher's tokens, and the loss against a prediction of them."""

    def __init__(self, section: FeatureLossSection) -> None:
        self.section = section

    def __call__(self, features: Tensor) -> Tensor:
        """(B, K, D) features -> targets of the same shape, float32.

        ``layer-norm``: to zero mean and unit variance of each token (eps 1e-5), without affine
        parameters; ``unit``: to unit length.
        """
        features = features.float()
        if self.section.normalize == "layer-norm":
            return F.layer_norm(features, features.shape[-1:], eps=1e-5)
        if self.section.normalize == "unit":
            return F.normalize(features, dim=-1)
        return features

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The weighted mean over batch, tokens and width; of ``cosine`` the mean of 1 - cos."""
        prediction = prediction.float()
        if self.section.loss == "mse":
            return self.section.weight * F.mse_loss(prediction, target)
        if self.section.loss == "l1":
            return self.section.weight * F.l1_loss(prediction, target)
        if self.section.loss == "smooth-l1":
            return self.section.weight * F.smooth_l1_loss(prediction, target)
        return self.section.weight * (1 - F.cosine_similarity(prediction, target, dim=-1)).mean()
