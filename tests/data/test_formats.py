"""Files of video, points and radiance grids: every format, every cut, hostile ones."""

from __future__ import annotations

import io
import struct
import textwrap
import zipfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mimsuite.data.damage import CorruptSample
from mimsuite.data.packing.isolated import Isolated
from mimsuite.data.points import files as points
from mimsuite.data.points import meshes
from mimsuite.data.synthetic.synth import makers
from mimsuite.data.video.containers import container_of
from mimsuite.data.volume import files as grids

# --- video ---
from tests import needs
from tests.data.stored_files import CLOUDS, HOUSE, array_of, npy, npz


def encoded(form: str, codec: str, frames: int = 12) -> bytes:
    """A clip in another container, as other tools write it."""
    av = needs.module("av")
    out = io.BytesIO()
    with av.open(out, "w", format=form) as file:
        stream = file.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        noise = np.random.default_rng(0).integers(0, 256, (frames, 48, 64, 3), dtype=np.uint8)
        for pixels in noise:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return out.getvalue()


@pytest.mark.parametrize(
    ("form", "codec", "extension"),
    [
        ("mp4", "libx264", "mp4"),
        ("mov", "libx264", "mov"),
        ("matroska", "libx264", "mkv"),
        ("webm", "libvpx-vp9", "webm"),
        ("avi", "mpeg4", "avi"),
    ],
)
def test_containers_are_told_apart_and_cuts_are_found(
    form: str, codec: str, extension: str
) -> None:
    from mimsuite.data.video import files as video

    data = encoded(form, codec)
    assert container_of(data).extension == extension
    assert video.facts(data)["frames"] == 12
    assert video.store(data) == (extension, data)
    for length in np.linspace(0, len(data) - 1, 40).astype(int):
        with pytest.raises(CorruptSample):
            video.facts(data[:length])


def test_a_turned_clip_is_stored_upright() -> None:
    from mimsuite.data.video import files as video

    av = needs.module("av")
    data = bytearray(encoded("mp4", "libx264"))
    at = data.index(b"tkhd") + 4 + 4 + 20 + 16  # the matrix of the track
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30)
    _, stored = video.store(bytes(data), gop=4)
    with av.open(io.BytesIO(stored)) as file:
        frame = next(file.decode(video=0))
    with av.open(io.BytesIO(bytes(data))) as file:
        lying = next(file.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    upright = frame.to_ndarray(format="rgb24").astype(int)
    assert upright.shape == (64, 48, 3)
    # A quarter clockwise: what was the left column is the top row.
    assert np.abs(np.rot90(lying, -1) - upright).mean() < np.abs(np.rot90(lying) - upright).mean()


def test_odd_and_huge_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    from mimsuite.data.video import files as video

    av = needs.module("av")
    assert video._size(321, 241, 120) == (160, 120)
    assert video._size(33, 35, None) == (32, 36)
    blank = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
    data = video.encode(iter([blank.reformat(format="yuv420p")] * 3), Fraction(5), 3)
    assert video.picture(data).shape == (64, 255, 3)
    monkeypatch.setattr(video, "MOST_PIXELS", 255)
    with pytest.raises(CorruptSample, match="16 x 16 pixels"):
        video.facts(data)


def test_made_clips_differ_in_the_order_of_frames_alone() -> None:
    """The two clips of a pair, drawn alike, are each other's reverse."""
    av = needs.module("av")
    maker = makers()["video"]

    def frames(name: str) -> np.ndarray:
        data = maker.make(name, "train", 64, np.random.default_rng(3))
        with av.open(io.BytesIO(data)) as file:
            return np.stack([f.to_ndarray(format="gray").astype(int) for f in file.decode(video=0)])

    for one, other in (
        ("pan-left", "pan-right"),
        ("pan-up", "pan-down"),
        ("zoom-in", "zoom-out"),
        ("rotate-left", "rotate-right"),
    ):
        forward, backward = frames(one), frames(other)
        assert np.abs(forward - backward[::-1]).mean() < 4  # what the encoder lost
        assert np.abs(forward - backward).mean() > 15


# --- points ---


@pytest.fixture(scope="module")
def furniture() -> dict[str, np.ndarray]:
    return dict(np.load(CLOUDS, allow_pickle=False))


def test_clouds_of_numbers(furniture: dict[str, np.ndarray]) -> None:
    cloud = furniture["points"][0]
    text = "\n".join(" ".join(map(str, row)) for row in cloud.tolist()).encode()
    for data in (npy(cloud), npz(points=cloud), npz(anything=cloud), text):
        stored = array_of(points.store(data))
        assert stored.dtype == np.float32
        assert np.array_equal(stored, cloud.astype(np.float32))
    six = np.concatenate([cloud, cloud], axis=1)
    assert array_of(points.store(npy(six))).shape == (2048, 6)
    few = [array_of(points.store(npy(six), points=100, seed=n)) for n in (1, 1, 2)]
    assert few[0].shape == (100, 6)
    assert np.array_equal(few[0], few[1])
    assert not np.array_equal(few[0], few[2])
    assert len(array_of(points.store(npy(cloud), points=9999))) == 2048


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\0" * 100,
        npy(np.zeros((4, 5))),
        npy(np.full((4, 4), 0.5)),
        npy(np.zeros((0, 3))),
        npy(np.full((4, 3), np.nan)),
        npy(np.array([["a", "b", "c"]])),
        npy(np.zeros((9, 3)))[:-1],
        npz(a=np.zeros((4, 3)), b=np.zeros((4, 3))),
        npz(points=np.zeros((4, 3)))[:-30],
        b"1 2 3\n4 5\n",
        b"v 0 0 0\nf 1 1\n",
        b"v 0 0 0\nv 1 0\nv 0 1 0\nf 1 2 3\n",
        b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 4\n",
        b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\n",
        b"v 0 0 0\nv 1 0 0\nv 0 1 nan\nf 1 2 3\n",
        b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n",
        b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n4 0 1 2\n",
        b"OFF\n999999999999 1 0\n0 0 0\n",
        b"ply\nformat ascii 1.0\nelement vertex 999999999999\nproperty float x\nend_header\n",
        b"ply\nformat binary_little_endian 1.0\nelement vertex 9\nproperty float x\nend_header\n1",
        b"ply\nformat ascii 1.0\nelement vertex -1\nend_header\n",
        b"# .PCD v0.7\nFIELDS x y z\nPOINTS 99999999999\nDATA ascii\n1 2 3\n",
        b"# .PCD v0.7\nFIELDS x y z\nPOINTS 5\nDATA ascii\n1 2 3\n",
        b"solid a\nfacet normal 0 0 1\nouter loop\n",
    ],
)
def test_damaged_clouds_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptSample):
        points.store(data)


def test_polygons_become_fans() -> None:
    mesh = meshes.read_obj(HOUSE)
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 1, 5]]
    assert points.facts(HOUSE) == {"vertices": 6, "triangles": 4}
    for head in (b"OFF\n5 2 0\n", b"OFF5 2 0\n", b"OFF 5 2 0\n", b"OFF # old\n\n5 2 0\n"):
        rows = b"0 0 0\n1 0 0\n1 1 0\n0 1 0\n.5 1.5 0\n4 0 1 2 3\n3 2 3 4 255 0 0\n"
        assert meshes.read_off(head + rows).triangles.tolist() == [[0, 1, 2], [0, 2, 3], [2, 3, 4]]


def test_surfaces_are_sampled_by_area() -> None:
    needs.module("open3d")
    squares = b"v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 0 0 9\nv 3 0 9\nv 3 1 9\nv 0 1 9\n"
    stored = [
        array_of(points.store(squares + b"f 1 2 3 4\nf 5 6 7 8\n", points=4000, seed=k))
        for k in (1, 1, 2)
    ]
    assert stored[0].shape == (4000, 3)
    assert np.array_equal(stored[0], stored[1])
    assert not np.array_equal(stored[0], stored[2])
    assert abs((stored[0][:, 2] == 9).mean() - 3 / 4) < 0.03
    assert abs(stored[0][stored[0][:, 2] == 0][:, 0].mean() - 0.5) < 0.03
    with_normals = array_of(points.store(HOUSE, points=50, features="normals"))
    assert np.allclose(np.linalg.norm(with_normals[:, 3:], axis=1), 1, atol=1e-5)


@pytest.fixture(scope="module")
def written(furniture: dict[str, np.ndarray], tmp_path_factory) -> dict[str, bytes]:
    """A cloud with normals, and a ball, in every format that Open3D writes."""
    o3d = needs.module("open3d")
    folder = tmp_path_factory.mktemp("o3d")
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(furniture["points"][1][:300]))
    cloud.normals = o3d.utility.Vector3dVector(np.tile([0.0, 0.6, 0.8], (300, 1)))
    ball = o3d.geometry.TriangleMesh.create_sphere(resolution=6).compute_triangle_normals()
    for name, how in (
        ("text.ply", {"write_ascii": True}),
        ("binary.ply", {}),
        ("text.pcd", {"write_ascii": True}),
        ("binary.pcd", {}),
        ("packed.pcd", {"compressed": True}),
    ):
        o3d.io.write_point_cloud(str(folder / name), cloud, **how)
    for name in ("ball.ply", "ball.stl", "ball.off", "ball.obj"):
        o3d.io.write_triangle_mesh(str(folder / name), ball)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_format_and_every_cut(
    written: dict[str, bytes], furniture: dict[str, np.ndarray]
) -> None:
    true = furniture["points"][1][:300].astype(np.float32)
    for name, data in written.items():
        if name.startswith("ball"):
            assert points.facts(data)["triangles"] == 120, name
            assert array_of(points.store(data, points=64)).shape == (64, 3)
        else:
            assert np.allclose(array_of(points.store(data)), true, atol=1e-5), name
            assert array_of(points.store(data, features="normals"))[0, 3:].tolist() == [
                0.0,
                pytest.approx(0.6),
                pytest.approx(0.8),
            ]
            with pytest.raises(CorruptSample, match="has no colors"):
                points.store(data, features="colors")
        if name == "ball.obj":  # its lines say nothing of their number
            continue
        for length in np.linspace(0, len(data) - 40, 8).astype(int):
            with pytest.raises(CorruptSample):
                points.store(data[:length], points=16)


# --- grids ---


def test_grids_of_either_layout() -> None:
    values = np.random.default_rng(0).random((2, 3, 4, 4)).astype(np.float32)
    flat = values.transpose(2, 1, 0, 3).reshape(-1, 4)  # x runs fastest
    for data in (
        npz(rgbsigma=values),
        npz(rgbsigma=values, resolution=np.array([2, 3, 4])),
        npz(rgbsigma=flat, resolution=np.array([2, 3, 4])),
        npz(rgbsigma=(values * 255).astype(np.uint8)),
        npz(rgbsigma=values.astype(np.float16), density_kind="alpha", delta=0.02),
    ):
        assert [grids.facts(data)[axis] for axis in "xyz"] == [2, 3, 4]
        assert grids.store(data) == ("npz", data)
        assert grids.picture(data).shape == (96, 192, 3)
    arrays = {"rgbsigma": flat, "resolution": np.array([2, 3, 4])}
    assert np.array_equal(grids._grid(arrays), values)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        npz(other=np.zeros(3)),
        npz(rgbsigma=np.zeros((2, 2, 2, 3), np.float32)),
        npz(rgbsigma=np.zeros((2, 2, 2, 4))),
        npz(rgbsigma=np.zeros((8, 4), np.float32)),
        npz(rgbsigma=np.zeros((8, 4), np.float32), resolution=np.array([2, 2, 3])),
        npz(rgbsigma=np.zeros((2, 2, 2, 4), np.float32), resolution=np.array([2, 2, 3])),
        npz(rgbsigma=np.full((2, 2, 2, 4), np.nan, np.float32)),
        npz(rgbsigma=np.zeros((600, 1, 1, 4), np.float32)),
        npz(rgbsigma=np.zeros((2, 2, 2, 4), np.float32), density_kind="guess"),
        npz(rgbsigma=np.zeros((2, 2, 2, 4), np.float32))[:-40],
        npz(rgbsigma=np.array([{}, []], dtype=object)),
    ],
)
def test_damaged_grids_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptSample):
        grids.store(data)


def test_archives_that_unpack_to_too_much_are_not_unpacked() -> None:
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rgbsigma.npy", bytes(1 << 20))
    lying = bomb.getvalue()
    claimed = struct.pack("<I", 1 << 20)
    assert lying.count(claimed) >= 1
    lying = lying.replace(claimed, struct.pack("<I", 3 << 30))
    with pytest.raises(CorruptSample, match="unpacks to more than"):
        grids.store(lying)


# --- processes ---


@pytest.fixture
def bad_decoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Isolated]:
    (tmp_path / "bad_decoders.py").write_text(
        textwrap.dedent(
            """
            import os, time
            def good(data): return {"bytes": len(data)}
            def spins(data):
                while True: pass
            def dies(data): os.abort()
            def swells(data): return {"bytes": len(bytearray(64 << 30))}
            def raises(data): raise IndexError("list index out of range")
            """
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    isolated = Isolated()
    yield isolated
    isolated.close()


def test_a_decoder_that_hangs_dies_or_swells_ends_alone(bad_decoders: Isolated) -> None:
    for name, said in (
        ("spins", "not decoded in 1 s of processor time|not decoded after 4 s"),  # a busy machine
        ("dies", r"the decoder died \(exit code -6\)"),
        ("swells", "MemoryError"),
        ("raises", "IndexError: list index"),
    ):
        with pytest.raises(CorruptSample, match=said):
            bad_decoders.call(f"bad_decoders:{name}", b"x", seconds=1)
    assert bad_decoders.call("bad_decoders:good", b"abc", seconds=1) == ({"bytes": 3}, b"")
