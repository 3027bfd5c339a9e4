"""Point clouds as surveys, depth cameras, scanners and published sets leave them."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from mimsuite.cli.main import main
from mimsuite.data import open_source
from mimsuite.data.damage import CorruptSample
from mimsuite.data.modalities import training_decoder
from mimsuite.data.packing.pack import PackOptions, pack
from mimsuite.data.points import files as points
from mimsuite.data.points.cloud_rows import MOVED, NOT_FINITE, ROUNDED
from mimsuite.data.sources.stored import modalities_in, open_stored, stored_splits
from mimsuite.data.unused import noticing
from mimsuite.errors import DataError, UserError
from tests import needs
from tests.data.stored_files import array_of, npy

CASES = Path(__file__).with_name("clouds")
RNG = np.random.default_rng(0)
CLOUD = RNG.normal(size=(60, 3)).round(4)
NORMALS = CLOUD / np.linalg.norm(CLOUD, axis=1, keepdims=True)
COLOURS = RNG.integers(0, 256, (60, 3))
FAR = np.array([512345.0, 5401234.0, 120.0])


def text(*columns: np.ndarray, between: str = " ", head: str = "") -> bytes:
    rows = np.concatenate([np.asarray(c).reshape(60, -1) for c in columns], axis=1)
    lines = (between.join(f"{value:.10g}" for value in row) for row in rows)
    return (head + "\n".join(lines) + "\n").encode()


def trained(data: bytes) -> tuple[np.ndarray, list[str]]:
    """What the training decoder makes of a file, and what it noticed."""
    with noticing() as noticed:
        decoded = training_decoder("points", "native", 1 << 20)(data)
    return decoded.numpy(), noticed


def packed(folder: Path, out: Path, split: str = "train", **options) -> dict[str, np.ndarray]:
    pack(str(folder), out, PackOptions(**options))
    source = open_stored(str(out), split, "points")
    samples = (source.read(*source.locate(i)) for i in range(len(source)))
    return {sample.key: np.load(io.BytesIO(sample.payload)) for sample in samples}


def write(folder: Path, **files: bytes) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


# --- far from the origin ---


def test_a_surveyed_tile_keeps_its_shape(tmp_path, capsys):
    needs.module("open3d")
    folder = CASES / "cloud-utm"
    expected = np.loadtxt(folder / "expected-centred.csv", delimiter=",")
    clouds = packed(folder, tmp_path / "out")
    assert len(clouds) == 3
    for cloud in clouds.values():
        assert np.abs(cloud - expected).max() < 1e-3
        assert len(np.unique(cloud[:, 1])) == 60
    assert main(["data", "inspect", str(folder), "--json"]) == 0
    (split,) = json.loads(capsys.readouterr().out)["splits"].values()
    assert split["samples"] == 3
    assert [(item["what"], item["count"]) for item in split["unused"]] == [
        (MOVED, 3),
        (".csv files", 1),
    ]
    assert split["moved"]["min"] == pytest.approx(np.hypot(512345.3, 5401233.8), rel=1e-6)


@pytest.mark.parametrize("form", ["text", "npy", "las", "csv"])
def test_other_far_clouds_keep_theirs(form):
    far = CLOUD * 5 + FAR * [1, -1, 1]
    far = far.round(3)
    if form == "las":
        data = las(far)
        found = array_of(points.store(data))
    else:
        data = {"text": text(far), "npy": npy(far), "csv": text(far, between=",")}[form]
        found, noticed = trained(data)
        assert noticed == [MOVED]
    assert np.abs(found - (far - far.mean(axis=0))).max() < 1e-3


def test_digits_that_were_lost_before_are_said():
    data = npy((CLOUD + FAR).astype(np.float32))
    assert sorted(trained(data)[1]) == sorted([MOVED, ROUNDED])
    near = npy(CLOUD.astype(np.float32) + 100)
    cloud, noticed = trained(near)
    assert noticed == []
    assert np.array_equal(cloud, CLOUD.astype(np.float32) + 100)


# --- points that are none ---


def test_an_organised_cloud_loses_its_empty_points_alone(tmp_path, capsys):
    needs.module("open3d")
    folder = CASES / "cloud-organized-nan"
    (cloud,) = packed(folder, tmp_path / "out").values()
    assert cloud.shape == (58, 3)
    assert np.isfinite(cloud).all()
    assert main(["data", "pack", str(folder), str(tmp_path / "again")]) == 0
    assert NOT_FINITE in capsys.readouterr().err
    assert main(["data", "inspect", str(folder)]) == 0
    assert "not_finite" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["npy", "text", "parts"])
def test_other_clouds_lose_theirs(form):
    holes = CLOUD.copy()
    holes[[3, 17], [0, 2]] = np.nan, np.inf
    table = np.concatenate([holes, np.arange(60)[:, None] % 4], axis=1)
    data = {"npy": npy(holes), "text": text(holes), "parts": npy(table)}[form]
    cloud, noticed = trained(data)
    assert len(cloud) == 58
    assert noticed == [NOT_FINITE]
    assert points.facts(data)["not_finite"] == 2
    with pytest.raises(CorruptSample, match="not finite"):
        trained(npy(np.full((9, 3), np.nan)))


# --- text ---


def test_headers_and_semicolons(tmp_path):
    folder = CASES / "cloud-xyz-headers"
    clouds = packed(folder, tmp_path / "out")
    table = np.loadtxt(folder / "header.xyz", skiprows=1)
    semi = np.loadtxt(folder / "semi.xyz", delimiter=";")
    assert np.allclose(clouds["header"], table[:, [0, 1, 2, 6, 7, 8]], atol=1e-6)
    assert np.allclose(clouds["semi"], semi, atol=1e-6)
    data = (folder / "header.xyz").read_bytes()
    colours = array_of(points.store(data, features="colors"))[:, 3:]
    assert np.allclose(colours, table[:, 3:6] / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("data", "width", "said"),
    [
        (text(CLOUD, head="//X Y Z\n"), 3, ""),
        (text(CLOUD, head="# exported\n60\n"), 3, ""),
        (text(CLOUD, between="\t", head='"x"\t"y"\t"z"\n'), 3, ""),
        (text(CLOUD, between=";").replace(b".", b","), 3, ""),
        (text(CLOUD).replace(b".", b","), 3, ""),
        (text(CLOUD, COLOURS / 255), 6, ""),
        (text(CLOUD, COLOURS, NORMALS), 6, "colors of clouds"),
        (text(CLOUD, COLOURS[:, 0]), 3, "columns of a text cloud"),
        (text(CLOUD, COLOURS[:, 0] - 9, COLOURS, head="60\n"), 6, "columns of a text cloud"),
        (text(CLOUD, COLOURS[:, 0], head="x,y,z,intensity\n"), 3, "text cloud: intensity"),
        (text(CLOUD, COLOURS[:, 0] % 4, head="x,y,z,part\n"), 4, ""),
        (text(CLOUD, NORMALS, COLOURS[:, 0] % 4), 7, ""),
        (text(CLOUD, COLOURS, COLOURS[:, 0]), 6, "columns of a text cloud"),
        (text(CLOUD, NORMALS, head="X[m] Y[m] Z[m] Nx Ny Nz\n"), 6, ""),
    ],
)
def test_other_texts(data: bytes, width: int, said: str):
    with noticing() as noticed:
        cloud = array_of(points.store(data))
    assert cloud.shape == (60, width)
    assert np.allclose(cloud[:, :3], CLOUD, atol=1e-6)
    assert len(noticed) == bool(said)
    assert said in "".join(noticed)
    assert np.array_equal(trained(data)[0][:, :3], cloud[:, :3])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (text(CLOUD, head="x y z intensity\n"), "names 4 columns, its rows have 3"),
        (text(CLOUD, head="61\n"), "60 of 61 points"),
        (b"airplane_0001\nairplane_0002\n", "known format"),
        (b"1 2\n3 4\n", "2 columns"),
        (b"# nothing\n", "without rows"),
    ],
)
def test_texts_that_are_refused(data: bytes, message: str):
    with pytest.raises(CorruptSample, match=message):
        points.store(data)


# --- binary scans, LAS, meshes ---


def las(cloud: np.ndarray, **dimensions: np.ndarray) -> bytes:
    laspy = needs.module("laspy")
    header = laspy.LasHeader(point_format=2, version="1.2")
    header.scales, header.offsets = [0.001] * 3, np.floor(cloud.mean(axis=0))
    record = laspy.LasData(header)
    record.xyz = cloud
    for name, values in dimensions.items():
        record[name] = values
    stream = io.BytesIO()
    record.write(stream)
    return stream.getvalue()


def test_las_has_colours_and_names_the_rest():
    red, green, blue = (COLOURS * 257).T
    data = las(CLOUD, red=red, green=green, blue=blue, intensity=COLOURS[:, 0])
    with noticing() as noticed:
        cloud = array_of(points.store(data, features="colors"))
    assert np.allclose(cloud[:, :3], CLOUD, atol=1e-3)
    assert np.allclose(cloud[:, 3:], COLOURS / 255, atol=1e-6)
    assert noticed == ["dimensions of LAS points: intensity"]
    for length in (10, 300, len(data) - 30):
        with pytest.raises(Exception):  # noqa: B017, PT011 - the child turns any into damage
            points.store(data[:length])


@pytest.mark.parametrize("width", [4, 5])
def test_scans_without_a_mark(width: int, tmp_path):
    rows = np.zeros((60, width), "<f4")
    rows[:, :3], rows[:, 3] = CLOUD * 20, RNG.random(60)
    if width == 5:
        rows[:, 4] = np.arange(60) % 32
    cloud, noticed = trained(rows.tobytes())
    assert np.array_equal(cloud, rows[:, :3])
    assert noticed[0].startswith("reflectance")
    write(tmp_path, **{"000000.bin": rows.tobytes(), "weights.bin": RNG.bytes(1600)})
    source = open_source(str(tmp_path), modality="points")
    assert len(source) == 1
    assert source.unused.lines() == [".bin files (1): weights.bin"]
    assert modalities_in(str(tmp_path)).keys() == {"points"}


def glb() -> bytes:
    """A triangle, moved by its node to x = 10."""
    body = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4").tobytes()
    body += np.array([0, 1, 2, 0], "<u2").tobytes()
    scene = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "translation": [10, 0, 0]}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "accessors": [
            {
                **{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"},
                **{"min": [0, 0, 0], "max": [1, 1, 0]},
            },
            {"bufferView": 1, "componentType": 5123, "count": 3, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteLength": 36},
            {"buffer": 0, "byteOffset": 36, "byteLength": 6},
        ],
        "buffers": [{"byteLength": 44}],
    }
    head = json.dumps(scene).encode()
    head += b" " * (-len(head) % 4)
    chunks = struct.pack("<I4s", len(head), b"JSON") + head
    chunks += struct.pack("<I4s", len(body), b"BIN\0") + body
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def test_glb_meshes_lie_where_their_scene_puts_them():
    needs.module("open3d")
    cloud = array_of(points.store(glb(), points=50))
    assert cloud.shape == (50, 3)
    assert cloud[:, 0].min() >= 10
    for length in (40, 400, len(glb()) - 4):
        with pytest.raises(CorruptSample):
            points.store(glb()[:length])


SQUARE = b"0 0 0\n1 0 0\n1 1 0\n0 1 0\n"


@pytest.mark.parametrize(
    "data",
    [
        b"# by a tool\nOFF\n4 1 0\n" + SQUARE + b"4 0 1 2 3\n",
        b"\n# one\n# two\nOFF 4 1 4\n" + SQUARE + b"4 0 1 2 3\n",
        b"OFF 4 1 4 " + SQUARE.replace(b"\n", b" ") + b"4 0 1 2 3",
        b"OFF\n4 2 0\n" + SQUARE.replace(b"\n", b" ") + b"\n3 0 1 2 3 0 2 3\n",
    ],
)
def test_off_files_of_every_shape(data: bytes):
    assert points.facts(data) == {"vertices": 4, "triangles": 2}


@pytest.mark.parametrize(
    "data",
    [
        b"OFF\n4 0 0\n" + SQUARE,
        b"v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n",
        b"v 0 0 0 1 0 0\nv 1 0 0 1 0 0\nv 1 1 0 1 0 0\nv 0 1 0 1 0 0\n",
    ],
)
def test_vertices_without_faces_are_a_cloud(data: bytes):
    assert points.facts(data) == {"points": 4, "columns": "3 x float32"}


def test_what_no_reader_knows_is_counted(tmp_path):
    write(tmp_path, **{"a.npy": npy(CLOUD), "b.gltf": b"{}", "c.fbx": b"x", "d.dat": b"x"})
    unused = open_stored(str(tmp_path), "train", "points").unused
    assert [item["what"] for item in unused.as_json()] == [
        ".gltf files",
        ".fbx files",
        ".dat files",
    ]


def test_columns_of_ply_and_pcd_that_are_not_used_are_named():
    needs.module("open3d")
    head = b"ply\nformat ascii 1.0\nelement vertex 60\n"
    head += b"".join(b"property float %s\n" % name for name in (b"x", b"y", b"z", b"time"))
    with noticing() as noticed:
        points.store(head + b"end_header\n" + text(CLOUD, COLOURS[:, 0]))
    assert noticed == ["properties of PLY points: time"]
    head = b"VERSION 0.7\nFIELDS x y z intensity\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\n"
    head += b"WIDTH 60\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS 60\nDATA ascii\n"
    with noticing() as noticed:
        points.store(head + text(CLOUD, COLOURS[:, 0]))
    assert noticed == ["fields of PCD points: intensity"]


# --- sets as they are published ---


def test_modelnet_as_published(tmp_path, capsys):
    folder = CASES / "cloud-modelnet-txt"
    assert modalities_in(str(folder)).keys() == {"points"}
    assert stored_splits(str(folder), "points") == ["test", "train"]
    source = open_source(str(folder), modality="points")
    assert source.classes == ["airplane"]
    keys = [source.key(i, 0) for i in range(len(source))]
    assert keys == ["airplane/airplane_0000.txt", "airplane/airplane_0001.txt"]
    assert source.decode(source.read(0, 0)).shape == (60, 3)
    clouds = packed(folder, tmp_path / "out")
    true = np.loadtxt(folder / "airplane" / "airplane_0000.txt", delimiter=",")
    assert np.allclose(clouds["airplane/airplane_0000"], true, atol=1e-6)
    assert main(["data", "inspect", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["modality"] == "points"
    assert sum(split["samples"] for split in found["splits"].values()) == 3
    assert all(split["classes"].keys() == {"airplane"} for split in found["splits"].values())
    assert all(split["unused"] == [] for split in found["splits"].values())


def shape(kind: int, rng: np.random.Generator, count: int = 160) -> np.ndarray:
    """(count, 6) points and normals of a ball or a rod."""
    cloud = rng.normal(size=(count, 3)) * ([1, 1, 1], [0.1, 2, 0.1])[kind]
    return np.concatenate([cloud, cloud / np.linalg.norm(cloud, axis=1, keepdims=True)], axis=1)


def lines(rows: np.ndarray, between: str) -> bytes:
    return "\n".join(between.join(f"{v:.6f}" for v in row) for row in rows).encode()


@pytest.fixture
def modelnet(tmp_path) -> Path:
    """``modelnet40_normal_resampled``, two classes, with the lists of ModelNet10 beside it."""
    root, rng = tmp_path / "ModelNet" / "modelnet40_normal_resampled", np.random.default_rng(1)
    names: dict[str, list[str]] = {"train": [], "test": []}
    for kind, word in enumerate(("airplane", "night_stand")):
        for number in range(1, 9):
            name = f"{word}_{number:04d}"
            write(root, **{f"{word}/{name}.txt": lines(shape(kind, rng), ",")})
            names["train" if number < 6 else "test"].append(name)
    for split, listed in names.items():
        write(root, **{f"modelnet40_{split}.txt": "\n".join(listed).encode()})
        write(root, **{f"modelnet10_{split}.txt": "\n".join(listed[-2:]).encode()})
    shapes = b"airplane\nbathtub\nnight_stand\n"
    lists = {"modelnet40_shape_names.txt": shapes, "modelnet10_shape_names.txt": b"night_stand\n"}
    return write(root, **lists, **{"modelnet40_train_8192pts_fps.dat": b"x"})


def test_modelnet_beside_other_lists(modelnet):
    for root in (modelnet, modelnet.parent):
        source = open_source(str(root), "test", modality="points")
        assert source.classes == ["airplane", "bathtub", "night_stand"]
        assert source.labels().tolist() == [0, 0, 0, 2, 2, 2]
    assert [item["what"] for item in source.unused.as_json()] == [".txt files", ".dat files"]
    (modelnet / "airplane" / "airplane_0001.txt").unlink()
    source = open_source(str(modelnet), modality="points")
    assert len(source) == 9
    assert source.unused.lines()[-1] == (
        "listed clouds without a file (1): airplane/airplane_0001.txt"
    )


SMALL = [
    *("model.encoder.points=128", "model.encoder.groups=16", "model.encoder.group_size=8"),
    *("model.encoder.width=48", "model.encoder.depth=2", "model.encoder.heads=2"),
]


def test_modelnet_through_training_and_a_probe(modelnet, tmp_path, capsys):
    run = tmp_path / "run"
    words = ["pretrain", "points/mae-tiny-furniture", "--smoke", "--data", str(modelnet.parent)]
    keys = ["data.folds=null", "train.global_batch=4", "data.lanes=1"]
    assert main([*words, "--out", str(run), *keys]) == 0
    assert ": 10 samples" in capsys.readouterr().err
    assert main(["linear-probe", str(run), "--json"]) == 0
    assert '"n_test": 6' in capsys.readouterr().out


def test_shapenet_part_as_published(tmp_path):
    root, rng = tmp_path / "shapenetcore", np.random.default_rng(2)
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for kind, synset in enumerate(("02691156", "02773838")):
        for number in range(6):
            name = f"{kind}a04e3eab45ca15dd86060f189eb13{number}"
            parts = rng.integers(0, (4, 2)[kind], (160, 1)) + (0, 4)[kind]
            rows = np.concatenate([shape(kind, rng), parts], axis=1)
            write(root, **{f"{synset}/{name}.txt": lines(rows, " ")})
            split = ("train", "train", "train", "val", "test", "test")[number]
            lists[split].append(f"shape_data/{synset}/{name}")
    for split, listed in lists.items():
        name = f"train_test_split/shuffled_{split}_file_list.json"
        write(root, **{name: json.dumps(listed).encode()})
    write(root, **{"synsetoffset2category.txt": b"Airplane\t02691156\nBag\t02773838\n"})
    assert stored_splits(str(root), "points") == ["test", "train", "val"]
    source = open_source(str(root), "test", modality="points")
    assert source.classes == ["Airplane", "Bag"]
    assert source.labels().tolist() == [0, 0, 1, 1]
    parts = source.decode(source.read(*source.locate(3)))[:, 3]
    assert set(parts.tolist()) == {4.0, 5.0}
    cloud = packed(root, tmp_path / "out")["02691156/0a04e3eab45ca15dd86060f189eb130"]
    assert cloud.shape == (160, 7)
    words = ["pretrain", "points/segment-shapenetpart", "--smoke", "--data", str(root)]
    small = [*SMALL, "target.parts=[4,2]", "model.taps=[1,2]", "train.global_batch=2"]
    assert main([*words, "--out", str(tmp_path / "run"), *small, "data.lanes=1"]) == 0


def test_shapenet55_as_published(tmp_path):
    names = ["02691156-1a04.npy", "02691156-1a6a.npy", "03001627-1a6f.npy"]
    for name in names:
        write(tmp_path, **{f"shapenet_pc/{name}": npy(CLOUD.astype(np.float32))})
    for folder, train in (("ShapeNet-55", names[:2]), ("ShapeNet-34", names[:1])):
        write(tmp_path, **{f"{folder}/train.txt": "\n".join(train).encode()})
        write(tmp_path, **{f"{folder}/test.txt": names[2].encode()})
    source = open_source(str(tmp_path), modality="points")
    assert [source.key(i, 0) for i in range(2)] == names[:2]
    assert source.classes == ["02691156", "03001627"]
    assert open_source(str(tmp_path), "test", modality="points").labels().tolist() == [1]
    assert modalities_in(str(tmp_path)).keys() == {"points"}


def h5(path: Path, count: int, **more: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with needs.module("h5py").File(path, "w") as file:
        file["data"] = np.random.default_rng(count).normal(size=(count, 64, 3)).astype("<f4")
        for name, values in more.items():
            file[name] = values


def test_scanobjectnn_as_published(tmp_path):
    main_split = tmp_path / "main_split"
    for variant in ("objectdataset", "objectdataset_augmentedrot_scale75"):
        for split, count in (("training", 6), ("test", 3)):
            labels = np.arange(count, dtype=np.uint8) % 3
            mask = np.zeros((count, 64), np.int32)
            h5(main_split / f"{split}_{variant}.h5", count, label=labels, mask=mask)
    with pytest.raises(UserError, match="name one file, which stands for its set"):
        open_source(str(main_split), modality="points")
    chosen = str(main_split / "training_objectdataset_augmentedrot_scale75.h5")
    assert modalities_in(chosen).keys() == {"points"}
    source = open_source(chosen, modality="points")
    assert source.labels().tolist() == [0, 1, 2, 0, 1, 2]
    assert source.decode(source.read(0, 5)).shape == (64, 3)
    assert source.unused.lines() == [
        "datasets of h5 files beside data, normal and label (1): "
        "training_objectdataset_augmentedrot_scale75.h5:mask"
    ]
    assert len(open_source(chosen, "test", modality="points")) == 3
    assert len(packed(chosen, tmp_path / "out")) == 6
    with pytest.raises(UserError, match="a source is a folder"):
        open_source(chosen)


def test_h5_in_several_files_with_names_of_classes(tmp_path):
    labels = np.array([[0], [1]], np.uint8)
    for number in range(2):
        h5(tmp_path / f"ply_data_train{number}.h5", 2, label=labels, normal=np.zeros((2, 64, 3)))
    write(tmp_path, **{"shape_names.txt": b"airplane\nbathtub\n"})
    source = open_source(str(tmp_path), modality="points")
    assert source.classes == ["airplane", "bathtub"]
    assert source.labels().tolist() == [0, 1, 0, 1]
    (tmp_path / "ply_data_train2.h5").write_bytes(b"no h5")
    with pytest.raises(DataError, match="cannot read"):
        open_source(str(tmp_path), modality="points")


def test_a_folder_of_texts_is_known_by_content(tmp_path):
    files = {
        "chair/a.txt": text(CLOUD),
        "chair/b.csv": text(CLOUD, between=","),
        "desk/c.txt": text(CLOUD, NORMALS),
        "README.txt": b"Made by hand, 2 classes.\n",
    }
    write(tmp_path, **files)
    assert modalities_in(str(tmp_path)).keys() == {"points"}
    source = open_source(str(tmp_path), modality="points")
    assert source.classes == ["chair", "desk"]
    assert source.unused.lines() == [".txt files (1): README.txt"]
    (tmp_path / "a.png").write_bytes(b"x")
    assert modalities_in(str(tmp_path)).keys() == {"image"}
