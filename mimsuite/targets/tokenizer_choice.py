"""Which tokenizer a recipe's ``target.tokenizer`` section describes."""

from __future__ import annotations

from functools import partial

from mimsuite.config.keys.section import Section
from mimsuite.config.keys.tokenizers import (
    DalleTokenizerSection,
    DVAETokenizerSection,
    KMeansTokenizerSection,
    RunTokenizerSection,
)
from mimsuite.models import dalle
from mimsuite.targets import dvae, run_tokenizer
from mimsuite.targets.kmeans import KMeansTokenizer
from mimsuite.targets.run_tokenizer import RunTokenizer
from mimsuite.targets.tokenizers import (
    DrawingTokenizer,
    FrozenTokenizer,
    Statistics,
    Tokenizer,
)


def build_tokenizer(
    section: Section,
    *,
    patch: int,
    channels: int,
    statistics: Statistics,
    grid: tuple[int, int],
    key: str = "target.tokenizer",
) -> Tokenizer:
    """The tokenizer that a recipe's ``target.tokenizer`` section describes.

    Args:
        patch: patch size of the encoder in pixels.
        channels: channels of the images.
        statistics: mean and standard deviation by which images are normalised.
        grid: rows and columns of the encoder's patches.
        key: dotted key of the section in the recipe, for messages.
    """
    if isinstance(section, KMeansTokenizerSection):
        return KMeansTokenizer(section, patch, channels)
    if isinstance(section, DVAETokenizerSection):
        load = partial(dvae.load, section, channels, grid, key)
        return DrawingTokenizer(section, grid, statistics, load, patch)
    if isinstance(section, RunTokenizerSection):
        read = partial(run_tokenizer.load, section, channels, grid, key)
        return RunTokenizer(section, grid, statistics, read, patch)
    assert isinstance(section, DalleTokenizerSection)
    return FrozenTokenizer(section, grid, statistics, partial(dalle.load, section, key))
