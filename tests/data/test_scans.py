"""Scans: orientation, spacing, series, the packed form, damage; files of nibabel and pydicom."""

from __future__ import annotations

import gzip
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mimsuite.data import open_source
from mimsuite.data.local_file import LocalFile, reader
from mimsuite.data.packing.inspection import contact_sheet, inspect
from mimsuite.data.packing.pack import PackOptions, pack
from mimsuite.data.scans import files
from mimsuite.data.scans.decode import ScanDecoder, WholeScan
from mimsuite.data.scans.packed import Packed, open_packed
from mimsuite.data.scans.packed import pack as packed_form
from mimsuite.data.scans.volume import Volume, resampled
from mimsuite.data.synthetic.phantoms import nifti, phantom
from mimsuite.errors import CorruptSample, DataError, UserError
from tests import needs

nibabel = needs.module("nibabel")
pydicom = needs.module("pydicom")
ndimage = needs.module("scipy.ndimage")
NIBABEL = Path(nibabel.__file__).parent / "tests/data"
SERIES = Path(pydicom.__file__).parent / "data/test_files/dicomdirtests"
STEP = (1.0, 2.0, 3.0)


def marked() -> np.ndarray:
    """Every voxel has a number of its own."""
    return np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


ORIENTATIONS = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_a_phantom_is_the_same_in_all_48_orientations(
    order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    values, affine = marked().transpose(order), np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (towards, sign) in enumerate(zip(order, signs, strict=True)):
        affine[towards, axis] = sign * STEP[towards]
        values = values if sign > 0 else np.flip(values, axis)
    found = files.read(nifti(values, affine))
    np.testing.assert_array_equal(found.values, marked())
    assert found.spacing == STEP


def test_resampled_values_equal_scipys() -> None:
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.normal(size=(20, 17, 9)), 1.0).astype(np.float32)
    found = resampled(Volume(smooth, (1.0, 1.5, 3.0)), (1.4, 1.1, 2.0)).values
    axes = [
        np.arange(n) * new / old
        for n, new, old in zip(found.shape, (1.4, 1.1, 2.0), (1.0, 1.5, 3.0), strict=True)
    ]
    places = np.stack(np.meshgrid(*axes, indexing="ij"))
    wanted = ndimage.map_coordinates(smooth.astype(np.float64), places, order=1, mode="nearest")
    assert found.shape == (15, 23, 13)
    assert np.abs(found - wanted).max() < 1e-4


def test_real_nifti_files() -> None:
    image = nibabel.load(NIBABEL / "anatomical.nii")
    wanted = nibabel.as_closest_canonical(image)
    found = files.read(LocalFile(str(NIBABEL / "anatomical.nii")))
    np.testing.assert_allclose(found.values, wanted.get_fdata())
    np.testing.assert_allclose(found.spacing, wanted.header.get_zooms()[:3], rtol=1e-6)
    with pytest.raises(CorruptSample, match="series of 2 volumes"):
        files.read((NIBABEL / "example4d.nii.gz").read_bytes())


def test_a_real_series_of_dicom_files() -> None:
    folder = next(SERIES.rglob("CT5N"))
    found = files.read(LocalFile(str(folder)))
    assert found.values.shape == (16, 16, 5)
    np.testing.assert_allclose(found.spacing, (0.488281, 0.488281, 2.5), rtol=1e-5)
    slices = sorted(map(pydicom.dcmread, folder.iterdir()), key=lambda s: s.ImagePositionPatient[2])
    first = slices[0].pixel_array * slices[0].RescaleSlope + slices[0].RescaleIntercept
    # Rows run to the back and columns to the left.
    np.testing.assert_array_equal(found.values[::-1, ::-1, 0].T, first)


@pytest.mark.parametrize(
    ("name", "said"),
    [("CT2", "missing slices"), ("MR1", "slices of 3 series"), ("CR1", "no spacing or position")],
)
def test_real_folders_that_are_no_series(name: str, said: str) -> None:
    folder = next(path for path in SERIES.rglob(name) if path.is_dir())
    with pytest.raises(CorruptSample, match=said):
        files.read(LocalFile(str(folder)))


def header_of(data: bytes, **changes: Any) -> bytes:
    """A ``.nii`` file whose header has other values."""
    raw = bytearray(gzip.decompress(data))
    header = nibabel.Nifti1Header(bytes(raw[:348]), check=False)
    for name, value in changes.items():
        header[name] = value
    raw[:348] = header.binaryblock
    return bytes(raw)


def test_damaged_files_say_what_is_wrong() -> None:
    good = nifti(marked(), np.diag([*STEP, 1]))
    holes = marked().astype(np.float32)
    holes[1, 2, 3] = np.nan
    cases = [
        (good[: len(good) // 2], "truncated", "ends too early"),
        (gzip.decompress(good)[:-1], "truncated", "ends before"),
        (nifti(holes, np.eye(4)), "not-finite", "1 of 120 voxels"),
        (header_of(good, pixdim=[1, 0, 2, 3, 0, 0, 0, 0]), "decode", "no spacing"),
        (header_of(good, dim=[3, 4000, 4000, 4000, 1, 1, 1, 1]), "too-large", "more than"),
        (header_of(good, datatype=1792), "decode", "complex128"),
        (header_of(good, magic=b"ni1"), "decode", "another file"),
        (b"nothing" * 100, "decode", "no NIfTI header"),
    ]
    for data, kind, said in cases:
        with pytest.raises(CorruptSample, match=said) as caught:
            files.read(data)
        assert caught.value.kind == kind


def test_packed_crops_equal_the_whole_and_notice_a_flipped_bit() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(-1000, 1000, (70, 33, 40)).astype(np.int16)
    data = packed_form(Volume(values, STEP), "int16")
    packed = open_packed(reader(data))
    for _ in range(20):
        low = [int(rng.integers(0, side)) for side in values.shape]
        size = [int(rng.integers(1, n - a + 1)) for a, n in zip(low, values.shape, strict=True)]
        spot = tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))
        np.testing.assert_array_equal(packed.crop(low, size), values[spot])
    flipped = bytearray(data)
    flipped[-1] ^= 1
    broken = open_packed(reader(bytes(flipped)))
    broken.crop((0, 0, 0), (32, 32, 32))
    with pytest.raises(CorruptSample, match="changed since"):
        broken.crop((0, 0, 0), broken.shape)
    with pytest.raises(CorruptSample, match="too early"):
        open_packed(reader(data[:-10])).crop((0, 0, 0), broken.shape)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scans, one of them damaged, a segmentation, and a folder of slices."""
    root = tmp_path_factory.mktemp("scans")
    for number in range(2):
        units, labels, step = phantom("lung", 40, np.random.default_rng(number))
        (root / f"case{number}.nii.gz").write_bytes(nifti(units, np.diag([*step, 1])))
        if not number:
            (root / "case0_seg.nii.gz").write_bytes(nifti(labels, np.diag([*step, 1])))
    (root / "case2.nii.gz").write_bytes((root / "case1.nii.gz").read_bytes()[:1000])
    (root / "ct").mkdir()
    for path in next(SERIES.rglob("CT5N")).iterdir():
        (root / "ct" / path.name).write_bytes(path.read_bytes())
    return root


def test_a_folder_is_inspected_and_packed(folder: Path, tmp_path: Path) -> None:
    seen = inspect(str(folder))
    train = seen["splits"]["train"]
    assert (seen["modality"], train["samples"]) == ("scans", 4)
    assert train["mm x"]["max"] == 7.5
    assert "case2.nii.gz" in train["corrupt"][0]
    assert not train["unused"]  # the segmentation is the label map of case0
    sheet = contact_sheet(open_source(str(folder), modality="scans"), tmp_path / "s.png", "scans")
    assert sheet.stat().st_size > 1000
    with pytest.raises(UserError, match="--spacing says"):
        pack(str(folder), tmp_path / "none")
    packed = pack(str(folder), tmp_path / "out", PackOptions(spacing=(8.0, 8.0, 8.0)))
    assert sum(entry.samples for entry in packed.shards) == 3
    assert [damage.kind for damage in packed.damaged] == ["truncated"]
    source = open_source(str(tmp_path / "out"), modality="scans")
    scans = [source.decode(source.read(0, n)).at((8.0, 8.0, 8.0)) for n in range(3)]
    assert all(isinstance(scan, Packed) for scan in scans)
    other = source.decode(source.read(0, 0)).at((16.0, 16.0, 16.0))
    assert isinstance(other, WholeScan)
    for n, scan in enumerate(scans):
        key = source.key(0, n)
        name = key if key == "ct" else key.removesuffix("_nii") + ".nii.gz"
        raw = ScanDecoder()(LocalFile(str(folder / name))).at((8.0, 8.0, 8.0))
        assert np.abs(scan.crop((0, 0, 0), scan.shape) - raw.volume.values).max() <= 0.5


def test_a_folder_of_nothing_but_damage_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match=r"a\.nii\.gz"):
        pack(str(tmp_path), tmp_path / "out", PackOptions(spacing=(1.0, 1.0, 1.0)))


def test_packed_crops_are_read_five_times_as_fast(tmp_path: Path) -> None:
    units, _, step = phantom("liver", 128, np.random.default_rng(0))
    spacing = (3.0, 3.0, 3.0)
    path, packed = tmp_path / "a.nii.gz", tmp_path / "a.scan"
    path.write_bytes(nifti(units, np.diag([*step, 1])))
    packed.write_bytes(files.store(LocalFile(str(path)), spacing)[1])

    def seconds(file: Path, times: int) -> float:
        begun = time.perf_counter()
        for number in range(times):
            scan = ScanDecoder()(LocalFile(str(file))).at(spacing)
            scan.crop((number, 20, 20), (32, 32, 32))
        return (time.perf_counter() - begun) / times

    slow, fast = seconds(path, 3), seconds(packed, 10)
    print(f"crops a second: .nii.gz {1 / slow:.1f}, packed {1 / fast:.1f}: {slow / fast:.0f} times")
    assert slow > 5 * fast
