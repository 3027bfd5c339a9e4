"""`target.tokenizer:` maps each patch to its code. Nothing here imports torch.

``weights: random`` replaces weights that are not available, for ``--smoke``, benchmarks and tests;
its codes teach nothing.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mimsuite.config.keys.dvae import Stride
from mimsuite.config.keys.section import Dimension, Key, PathText, Positive, Section

RANDOM = "random"


class KMeansTokenizerSection(Section):
    """K-means codebook of ``codes`` patches, fitted on training data at the start of a run."""

    kind: Literal["kmeans"]
    codes: Dimension  # number of clusters
    normalize: bool = True  # standardise each patch first, so codes are shapes, not colours
    samples: Positive = 50_000  # patches that k-means is fitted on
    iterations: Positive = 20  # iterations of Lloyd's algorithm


class DalleTokenizerSection(Section):
    """DALL-E's discrete autoencoder (Ramesh et al., arXiv:2102.12092), 8 x 8 pixels per code.

    It reads the view `tokenizer` (`augment.second_view`). Its grid of codes equals the encoder's
    grid of patches.
    """

    kind: Literal["dalle"]
    weights: Annotated[PathText, Key.SIZE] = (
        ""  # made by `mimsuite import --from dalle`; `random`: random weights
    )
    codes: Dimension = 8192
    width: Dimension = 256  # channels of the first layer
    depth: Dimension = 2  # blocks in each of the four groups
    stride: Literal[8] = 8  # pixels of the view per code


class DVAETokenizerSection(Section):
    """A discrete autoencoder that this suite trained (recipes `image/dvae-*`).

    It reads the view `tokenizer` if the recipe has one (`augment.second_view`), otherwise the image
    itself. Its grid of codes equals the encoder's grid of patches. Its shape is given here, so a
    recipe is checked without the weights.
    """

    kind: Literal["dvae"]
    weights: Annotated[PathText, Key.SIZE] = ""  # run, checkpoint or export; `random`: random ones
    codes: Dimension = 8192
    width: Dimension = 256  # channels
    depth: Dimension = 2  # residual blocks
    stride: Stride = 8  # pixels of the view per code


class RunTokenizerSection(Section):
    """Any model of this suite that gives an image codes (recipes `image/vqrae-*`, `image/dvae-*`).

    It reads the view `tokenizer` if the recipe has one (`augment.second_view`), otherwise the image
    itself. Its grid of codes equals the encoder's grid of patches.
    """

    kind: Literal["run"]
    weights: Annotated[PathText, Key.SIZE] = ""  # run, checkpoint or export; `random`: random ones
    codes: Dimension  # size of its vocabulary
    stride: Stride = 8  # pixels of the view per code


TokenizerSection = Annotated[
    KMeansTokenizerSection | DalleTokenizerSection | DVAETokenizerSection | RunTokenizerSection,
    Field(discriminator="kind"),
]


def check_codes(
    tokenizer: Section, view: tuple[int, int] | None, image: tuple[int, int], grid: tuple[int, int]
) -> None:
    """Check that a tokenizer's grid of codes equals the encoder's grid of patches.

    Args:
        view: (H, W) of the view `tokenizer` in pixels; ``None`` if the recipe has none.
        image: (H, W) of the view `image` in pixels.
        grid: the encoder's patches per column and row.

    Raises:
        ValueError: another grid; the message names the keys to change.
    """
    stride = getattr(tokenizer, "stride", None)
    if stride is None:  # the tokenizer reads the encoder's patches
        return
    height, width = view or image
    own = (height // stride, width // stride)
    if own == grid and height % stride == 0 and width % stride == 0:
        return
    key = "augment.second_view.image_size" if view else "the view of model.encoder.image_size"
    raise ValueError(
        f"{key} {height} x {width} makes {own[0]} x {own[1]} codes of {stride} pixels, "
        f"model.encoder.image_size and patch_size {grid[0]} x {grid[1]} patches: "
        f"set augment.second_view.image_size=[{grid[0] * stride}, {grid[1] * stride}]"
    )
