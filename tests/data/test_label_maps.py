"""Label maps beside scans: found, turned, resampled, packed and cropped with them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mimsuite import config
from mimsuite.config.keys.scan_tasks import LabelledScanAugmentSection
from mimsuite.config.keys.scans import CubeViTSection
from mimsuite.data import open_fold, open_source, open_split, open_training_set
from mimsuite.data.packing.inspection import inspect
from mimsuite.data.packing.pack import PackOptions, pack
from mimsuite.data.packing.verify import verify
from mimsuite.data.scans import label_maps
from mimsuite.data.scans.decode import ScanDecoder
from mimsuite.data.scans.packed import Packed
from mimsuite.data.scans.packed import pack as packed_form
from mimsuite.data.scans.views import ScanViews
from mimsuite.data.scans.volume import Volume
from mimsuite.data.synthetic.phantoms import nifti
from mimsuite.data.synthetic.synth import synthesise
from mimsuite.errors import CorruptSample
from tests import needs

nibabel = needs.module("nibabel")
needs.module("scipy.ndimage")


def write(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(nifti(values, np.eye(4) if affine is None else affine))


def scan(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 100, (6, 7, 8)).astype(np.int16)


LAYOUTS = {
    "beside": ("a.nii.gz", "a.label.nii.gz"),
    "by another ending": ("a.nii.gz", "a_seg.nii.gz"),
    "in a folder": ("train/a.nii.gz", "train/labels/a.nii.gz"),
    "in two folders": ("images/a.nii.gz", "labels/a.nii.gz"),
    "as nnU-Net": ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_label_maps_are_found(layout: str, tmp_path: Path) -> None:
    image, labels = LAYOUTS[layout]
    write(tmp_path / image, scan())
    write(tmp_path / labels, (scan() > 50).astype(np.uint8))
    source = open_source(str(tmp_path), modality="scans")
    assert len(source) == 1
    found = source.decode(source.read(0, 0)).labels_at((1.0, 1.0, 1.0))
    np.testing.assert_array_equal(found.volume.values, scan() > 50)
    assert not source.unused


def test_nnunets_splits(tmp_path: Path) -> None:
    for part in ("Tr", "Ts"):
        write(tmp_path / f"images{part}/{part}_0000.nii.gz", scan())
        write(tmp_path / f"labels{part}/{part}.nii.gz", scan() % 3)
    seen = inspect(str(tmp_path))
    assert {name: part["samples"] for name, part in seen["splits"].items()} == {
        "train": 1,
        "test": 1,
    }
    assert seen["splits"]["test"]["voxel classes"] == {"1, 2": 1}


def test_maps_of_no_scan_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a.nii.gz", scan())
    write(tmp_path / "b_seg.nii.gz", scan())
    source = open_source(str(tmp_path), modality="scans")
    assert source.unused.lines() == ["label maps of no scan (1): b_seg.nii.gz"]
    decoded = source.decode(source.read(0, 0))
    with pytest.raises(CorruptSample, match="without a label map"):
        decoded.labels_at((1.0, 1.0, 1.0))


def test_maps_are_turned_and_resampled_to_the_nearest_class() -> None:
    labels = np.zeros((8, 8, 8), np.float64)
    labels[4:], labels[:, 6:] = 3, 7
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    found = label_maps.read(nifti(labels[::-1], affine))
    np.testing.assert_array_equal(found.values, labels)
    assert found.values.dtype == np.uint8
    decoded = ScanDecoder().with_label_map(nifti(scan(), affine), nifti(labels[::-1], affine))
    coarse = decoded.labels_at((2.0, 2.0, 2.0)).volume.values
    np.testing.assert_array_equal(coarse[:4, :4, :4], labels[::2, ::2, ::2])
    fine = decoded.labels_at((0.4, 0.4, 0.4)).volume.values
    assert set(np.unique(fine)) == {0, 3, 7}  # nothing between two classes


@pytest.mark.parametrize("wrong", [-1.0, 256.0, 0.5])
def test_maps_of_other_numbers_are_refused(wrong: float) -> None:
    labels = np.zeros((4, 4, 4), np.float32)
    labels[0, 0, 0] = wrong
    with pytest.raises(CorruptSample, match="whole numbers from 0 to 254"):
        label_maps.read(nifti(labels, np.eye(4)))


def test_a_packed_set_has_the_maps(tmp_path: Path) -> None:
    synthesise("scans", tmp_path / "made", count=4, size=24, parts=True)
    assert len(list((tmp_path / "made").rglob("*.label.nii.gz"))) == 4
    spacing = (10.0, 10.0, 10.0)
    result = pack(str(tmp_path / "made"), tmp_path / "out", PackOptions(spacing=spacing))
    assert not result.damaged
    assert not any(report.problems for report in verify(str(tmp_path / "out")))
    packed = open_source(str(tmp_path / "out"), modality="scans")
    raw = open_source(str(tmp_path / "made"), modality="scans")
    assert not packed.unused
    assert len(packed) == len(raw) == 2
    theirs = {raw.key(n, 0).partition(".")[0]: raw.decode(raw.read(n, 0)) for n in range(2)}
    for number in range(2):
        ours = packed.decode(packed.read(0, number)).labels_at(spacing)
        assert isinstance(ours, Packed)
        wanted = theirs[packed.key(0, number).removesuffix("_nii")].labels_at(spacing)
        np.testing.assert_array_equal(ours.crop((0, 0, 0), ours.shape), wanted.volume.values)
    again = pack(str(tmp_path / "out"), tmp_path / "again", PackOptions(spacing=(0, 0, 0)))
    assert not again.damaged
    repacked = open_source(str(tmp_path / "again"), modality="scans")
    assert repacked.read(0, 0).label_map is not None


@pytest.mark.parametrize("packed", [False, True])
def test_samples_without_a_map_are_left_out_where_maps_are_learnt(
    tmp_path: Path, packed: bool
) -> None:
    for number in range(5):
        write(tmp_path / "scans" / "train" / f"{number}.nii.gz", scan(number))
    for number in (1, 4):
        write(tmp_path / "scans" / "train" / f"{number}.label.nii.gz", scan() % 3)
    spec = str(tmp_path / "scans")
    if packed:
        pack(spec, tmp_path / "out", PackOptions(spacing=(1.0, 1.0, 1.0)))
        spec = str(tmp_path / "out")
    keys = [f"data.source={spec}", "data.limit=null"]
    recipe = config.load("volume/segment-tiny-phantoms", keys).recipe
    learnt = open_training_set(recipe)
    assert len(learnt) == 2
    assert all(learnt.read(n, 0).label_map is not None for n in range(2))
    (line,) = learnt.unused.lines()
    assert line.startswith("samples without a label map (3): ")
    assert len(open_split(recipe, "train")) == 5  # features are of all
    folded = config.load("volume/segment-tiny-phantoms", [*keys, "data.folds=2"]).recipe
    held = open_fold(folded)
    assert held is not None
    assert (len(open_training_set(folded)), len(held)) == (1, 1)
    plain = config.load("volume/mae3d-tiny-phantoms", keys).recipe
    assert len(open_training_set(plain)) == 5


def test_maps_that_do_not_fit_are_damage(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / f"{name}.nii.gz", scan())
        write(tmp_path / f"{name}.label.nii.gz", scan() % 2)
    write(tmp_path / "c.nii.gz", scan())
    write(tmp_path / "c.label.nii.gz", scan()[:5] % 2)
    result = pack(str(tmp_path), tmp_path / "out", PackOptions(spacing=(0, 0, 0)))
    assert [damage.kind for damage in result.damaged] == ["label"]
    assert "5 x 7 x 8 voxels and the scan 6 x 7 x 8" in str(result.damaged[0])


def views(crop: int = 8, **augment: Any) -> ScanViews:
    encoder = CubeViTSection(crop=crop, patch_size=8, width=24, depth=1, heads=4)
    given = {"spacing": 1.0, "intensity": {"kind": "none"}, "foreground": False} | augment
    recipe: Any = SimpleNamespace(
        augment=LabelledScanAugmentSection(**given),
        model=SimpleNamespace(encoder=encoder),
        target=SimpleNamespace(kind="scan-labels"),
    )
    return ScanViews(recipe)


def labelled(values: np.ndarray, labels: np.ndarray) -> Any:
    packed = [packed_form(Volume(one, (1.0,) * 3), "uint8") for one in (values, labels)]
    return ScanDecoder().with_label_map(*packed)


def test_crops_and_their_labels_are_turned_together() -> None:
    values = np.random.default_rng(0).integers(0, 200, (20, 20, 20)).astype(np.uint8)
    sample = labelled(values, values)
    chosen = views(labelled=0.0, repeats=4, flip=0.5, rotate=0.5)
    for seed in range(4):
        found = chosen.train(sample, np.random.default_rng(seed))
        assert found["labels"].shape == (4, 8, 8, 8)
        assert torch.equal(found["scan"][:, 0], found["labels"].float())


def test_crops_lie_around_labelled_voxels() -> None:
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[30, 30, 30], labels[5:8, 5:8, 5:8] = 2, 1
    sample = labelled(labels, labels)
    seen = {1: 0, 2: 0}
    for seed in range(40):
        crop = views(labelled=1.0).train(sample, np.random.default_rng(seed))["labels"][0]
        seen[int(crop[4, 4, 4])] += 1
    assert min(seen.values()) > 10  # the class of a single voxel as often as the other


def test_padding_is_unknown_and_whole_scans_are_tested() -> None:
    values = np.full((6, 12, 20), 9, np.uint8)
    found = views().test().evaluate(labelled(values, values))
    assert found["scan"].shape == (1, 1, 8, 12, 20)
    labels = found["labels"][0]
    assert torch.all(labels[[0, -1]] == 255)
    assert torch.all(labels[1:7] == 9)
    batch = views().normalizer("cpu")(_batch({name: v[None] for name, v in found.items()}))
    assert batch.views["labels"].dtype == torch.uint8
    assert torch.equal(batch.views["labels"][0], labels)


def _batch(given: dict[str, torch.Tensor]) -> Any:
    from mimsuite.batch import Batch

    return Batch.of_views(given)
