"""`model:`, `target:` and `augment:` of methods on scans whose voxels have classes. Torch-free."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mimsuite.config.keys.scans import CubeViTSection, ScanAugmentSection
from mimsuite.config.keys.section import Dimension, FirstBlocks, Fraction, Name, Positive, Section


class CubeUNetSection(Section):
    """Convolutions from hidden states of the encoder's blocks to every voxel (UNETR)."""

    width: Dimension = 16  # channels at full resolution; they double with each halving of it
    # blocks whose outputs are read beside the last, one for each halving of the resolution but the
    # last; null: evenly spaced
    blocks: tuple[Positive, ...] | None = None


class ScanSegmentSection(Section):
    """`model:` an encoder of all cubes and a U-Net."""

    encoder: CubeViTSection = CubeViTSection()
    decoder: CubeUNetSection = CubeUNetSection()
    freeze: FirstBlocks = 0  # freeze the embeddings and this many first blocks; 0: train all

    @property
    def halvings(self) -> int:
        """How often the resolution is halved from voxels to cubes."""
        return self.encoder.patch_size.bit_length() - 1

    @property
    def read(self) -> tuple[int, ...]:
        """Blocks whose outputs the U-Net reads beside the last."""
        if self.decoder.blocks is not None:
            return self.decoder.blocks
        depth, count = self.encoder.depth, self.halvings
        return tuple(max(1, round(depth * step / count)) for step in range(1, count))

    @model_validator(mode="after")
    def _fits(self) -> ScanSegmentSection:
        patch, depth, count = self.encoder.patch_size, self.encoder.depth, self.halvings
        if patch < 2 or patch & (patch - 1):
            raise ValueError(f"encoder.patch_size {patch} must be a power of 2, as 8 or 16")
        if len(self.read) != count - 1 or any(block > depth for block in self.read):
            raise ValueError(
                f"decoder.blocks must be {count - 1} blocks of 1 to {depth}: one less than "
                f"encoder.patch_size {patch} is halved"
            )
        return self


class ScanLabelTargetSection(Section):
    """`target:` the class of each voxel; 0 is the background, 255 in a label map is unknown."""

    kind: Literal["scan-labels"] = "scan-labels"
    labels: Annotated[int, Field(ge=2, le=255)]  # classes with the background
    names: tuple[Name, ...] | None = None  # class names from 1 on, for reports

    @model_validator(mode="after")
    def _one_each(self) -> ScanLabelTargetSection:
        if self.names is not None and len(self.names) != self.labels - 1:
            raise ValueError(
                f"names has {len(self.names)} names for {self.labels - 1} classes beside the "
                "background"
            )
        return self

    @property
    def shown(self) -> tuple[str, ...]:
        """Names of the classes from 1 on: their numbers, if they have none."""
        return self.names or tuple(str(label) for label in range(1, self.labels))


class LabelledScanAugmentSection(ScanAugmentSection):
    """`augment:` of scans with label maps."""

    # probability that the crops of a reading lie around voxels of one class, drawn evenly from all
    # that occur in the scan but the background; the others lie anywhere in the foreground
    labelled: Fraction = 0.5
    test_overlap: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5  # share that windows have in common
