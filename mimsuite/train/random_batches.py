"""Random batches in the shapes of a recipe's views, for benchmarks and estimates."""

from __future__ import annotations

import torch

from mimsuite.batch import Batch
from mimsuite.config.keys.shared import Recipe
from mimsuite.data import views_of

Shapes = dict[str, tuple[int, ...]]


def shapes_of(recipe: Recipe) -> Shapes:
    """View name -> shape of one sample, as the method sees it."""
    return views_of(recipe).shapes()


def random_batch(shapes: Shapes, size: int, device: torch.device) -> Batch:
    """A batch of normal noise; all labels, which classifiers need, are 0."""
    views = {name: torch.randn(size, *shape, device=device) for name, shape in shapes.items()}
    label = torch.zeros(size, dtype=torch.int64, device=device)
    index = torch.arange(size, device=device)
    return Batch(views, index, [str(number) for number in range(size)], label)
