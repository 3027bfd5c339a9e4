"""`target.tokenizer:` what gives each patch its code. Nothing here imports torch.

``weights: random`` stands in for weights that are not at hand, for ``--smoke``, benchmarks and
tests; nothing is ever learnt from it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mimsuite.config.keys.dvae import Stride
from mimsuite.config.keys.section import Dimension, Key, PathText, Positive, Section

RANDOM = "random"


class KMeansTokenizerSection(Section):
    """The nearest of so many patches, found by k-means on the training data as a run starts."""

    kind: Literal["kmeans"]
    codes: Dimension  # clusters
    normalize: bool = True  # patches by their own mean and deviation first: shapes, not colours
    samples: Positive = 50_000  # patches to fit on
    iterations: Positive = 20  # of Lloyd's algorithm


class DalleTokenizerSection(Section):
    """DALL-E's discrete autoencoder (Ramesh et al., arXiv:2102.12092), 8 pixels a code.

    It reads the view `tokenizer` (`augment.second_view`), whose grid of codes is the encoder's.
    """

    kind: Literal["dalle"]
    weights: Annotated[PathText, Key.SIZE] = (
        ""  # made by `mimsuite import --from dalle`; `random` stands in
    )
    codes: Dimension = 8192
    width: Dimension = 256  # channels of its first layer
    depth: Dimension = 2  # blocks of each of its four groups
    stride: Literal[8] = 8  # pixels of the view per code


class DVAETokenizerSection(Section):
    """A discrete autoencoder that this suite trained (recipes `image/dvae-*`).

    It reads the view `tokenizer` where the recipe has one (`augment.second_view`), otherwise the
    image itself; its grid of codes is the encoder's. Its shape is written here so that recipes are
    checked without it.
    """

    kind: Literal["dvae"]
    weights: Annotated[PathText, Key.SIZE] = ""  # its run, checkpoint or export; `random` stands in
    codes: Dimension = 8192
    width: Dimension = 256  # channels
    depth: Dimension = 2  # residual blocks
    stride: Stride = 8  # pixels of the view per code


TokenizerSection = Annotated[
    KMeansTokenizerSection | DalleTokenizerSection | DVAETokenizerSection,
    Field(discriminator="kind"),
]


def check_codes(
    tokenizer: Section, view: tuple[int, int] | None, image: tuple[int, int], grid: tuple[int, int]
) -> None:
    """A tokenizer's codes lie where the encoder's patches do.

    Args:
        view: (H, W) in pixels of the view `tokenizer`, where the recipe asks for one.
        image: likewise of the view `image`.
        grid: the encoder's patches per column and row.

    Raises:
        ValueError: another grid, with the keys that decide.
    """
    stride = getattr(tokenizer, "stride", None)
    if stride is None:  # it takes the encoder's own patches
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
