"""Tokenizers: k-means codes, DALL-E's encoder, and the views that they read."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.tokenizers import DalleTokenizerSection, KMeansTokenizerSection
from mimsuite.errors import DataError
from mimsuite.targets import build_tokenizer
from mimsuite.targets.kmeans import KMeansTokenizer, fit, nearest
from mimsuite.tokens import patchify

STATISTICS = ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


def kmeans(**keys: Any) -> KMeansTokenizer:
    section = KMeansTokenizerSection(
        **{"kind": "kmeans", "codes": 4, "normalize": False, "samples": 400, **keys}
    )
    return KMeansTokenizer(section, patch=4, channels=1)


def striped(samples: int, seed: int = 0) -> Batch:
    """Images of patches of four kinds, each with a little noise."""
    torch.manual_seed(seed)
    kinds = 3 * torch.randn(4, 16, generator=torch.Generator().manual_seed(9))
    chosen = kinds[torch.randint(4, (samples, 4, 4))]  # (B, 4, 4, 16)
    noisy = chosen + 0.05 * torch.randn_like(chosen)
    images = noisy.unflatten(-1, (4, 4)).permute(0, 1, 3, 2, 4).reshape(samples, 1, 16, 16)
    return Batch.of_images(images)


def batches() -> list[Batch]:
    return [striped(32, seed) for seed in range(20)]


def test_kmeans_finds_clusters() -> None:
    tokenizer = kmeans()
    (line,) = tokenizer.setup(batches, seed=0)
    assert "4 k-means codes of 400 patches" in line
    one = striped(8, seed=77)
    codes = tokenizer(one)
    assert codes.shape == (8, 16)
    drawn = tokenizer.draw(codes, patchify(one.image, 4))
    assert (drawn - patchify(one.image, 4)).abs().max() < 0.5


def test_the_same_data_and_seed_give_the_same_codes() -> None:
    first, second, other = (kmeans(codes=9) for _ in range(3))
    first.setup(batches, seed=0)
    second.setup(batches, seed=0)
    other.setup(batches, seed=1)
    assert torch.equal(first.centres, second.centres)
    assert not torch.equal(first.centres, other.centres)


def test_codes_are_fitted_once_and_kept_in_the_state() -> None:
    first, second = kmeans(), kmeans()
    first.setup(batches, seed=0)
    second.load_state_dict(first.state_dict())
    assert second.setup(batches, seed=1) == []
    assert torch.equal(first.centres, second.centres)
    assert kmeans().setup(None, seed=0) == []  # a checkpoint brings them


def test_too_little_data_is_named() -> None:
    with pytest.raises(DataError, match=r"target\.tokenizer\.codes is 300"):
        kmeans(codes=300).setup(lambda: [striped(2)], seed=0)


def test_a_lost_centre_starts_anew() -> None:
    patches = torch.cat([torch.zeros(50, 2), torch.ones(50, 2), torch.full((1, 2), 9.0)])
    centres = fit(patches, codes=3, iterations=10, seed=0)
    assert len(torch.unique(nearest(patches, centres))) == 3


def dalle(grid: tuple[int, int] = (2, 3)) -> Any:
    section = DalleTokenizerSection(kind="dalle", weights="random", codes=12, width=16, depth=1)
    torch.manual_seed(0)
    return build_tokenizer(section, patch=8, channels=3, statistics=STATISTICS, grid=grid)


def test_dalle_reads_pixels_of_its_own_view() -> None:
    tokenizer = dalle()
    pixels = torch.rand(2, 3, 16, 24)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in STATISTICS)
    seen: list[Tensor] = []
    network = tokenizer._opened(torch.device("cpu"))
    network.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    one = Batch.of_views({"image": torch.zeros(2, 3, 64, 96), "tokenizer": (pixels - mean) / std})
    codes = tokenizer(one)
    assert codes.shape == (2, 6)
    assert int(codes.max()) < 12
    torch.testing.assert_close(seen[0], pixels)
    tokenizer(Batch.of_images(torch.zeros(2, 3, 64, 96)))  # as in evaluation, without that view
    assert seen[1].shape == (2, 3, 16, 24)
    assert tokenizer.draw(codes, torch.zeros(2, 6, 192)) is None


def test_a_frozen_tokenizer_is_no_part_of_its_method() -> None:
    tokenizer = dalle()
    assert copy.deepcopy(tokenizer) is tokenizer
    assert not isinstance(tokenizer, torch.nn.Module)
    assert tokenizer(Batch.of_images(torch.zeros(1, 3, 16, 24))).requires_grad is False
