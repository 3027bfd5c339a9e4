"""Hostile data, weights and recipes: nothing in them runs, leaves its place, or fills the memory.

Every payload would leave a mark if it ran, and one test shows that it does where it is let. What
an address may do (redirects, ``..`` in it, the place of a cached shard) is in ``test_stores.py``
and ``test_remote_shards.py``; damage that nobody meant is in ``test_fault_sweep.py``.
"""

from __future__ import annotations

import ctypes
import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mimsuite.cli.main import main
from mimsuite.config.keys.shared import Recipe
from mimsuite.data import eval_loader, open_source, train_loader, views_of
from mimsuite.data.shards.scan import scan
from mimsuite.errors import DataError, MimsuiteError, UserError
from mimsuite.train.memory import keep_freed_memory

RECIPE = "image/mae-tiny-fashion"
SMALL = ("--smoke", "schedule.epochs=1", "train.global_batch=4", "train.device=cpu")
TIB = 1 << 40
MEMORY_MB = 200  # more than any step here needs, and less than any bomb would take


class Runs:
    """Unpickling it runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, (self.command,)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """The file that appears when a payload runs."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists(), "a payload was executed"


@pytest.fixture
def payload(mark: Path) -> bytes:
    return pickle.dumps(Runs(f"touch {mark}"))


def test_the_payload_is_live(payload: bytes, mark: Path) -> None:
    pickle.loads(payload)
    assert mark.exists()
    mark.unlink()


# --- every way in ---


@pytest.fixture
def enter(
    make_recipe: Callable[..., Recipe], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """``enter(source)``: give a source to every function and command that reads data.

    Returns the messages of those that refused it. Anything but a refusal by one plain line, such
    as a traceback, an ``internal`` error, or memory that runs away, fails the test.
    """

    def guarded(work: Callable[[], object]) -> list[str]:
        try:
            work()
        except MimsuiteError as refusal:
            lines = str(refusal).split("\n")
            return lines if len(lines) == 1 else pytest.fail(f"not one line: {refusal}")
        return []

    def read_all(source: str, channels: str) -> None:
        opened = open_source(source, channels=channels)  # type: ignore[arg-type]
        opened.labels()
        for position in range(len(opened)):
            address = opened.locate(position)
            guarded(lambda address=address: opened.decode(opened.read(*address)))  # type: ignore[misc]

    def train(source: str) -> None:
        recipe = make_recipe(data={"lanes": 1}, train={"global_batch": 2})
        with train_loader(open_source(source), recipe) as loader:
            list(islice(loader, 3))

    def evaluate(source: str) -> None:
        list(eval_loader(open_source(source), views_of(make_recipe()), 4))

    def command(*words: str) -> list[str]:
        capfd.readouterr()
        code = main(list(words))
        err = capfd.readouterr().err
        assert code in (0, 2, 3), err
        assert "Traceback" not in err
        assert "\x1b" not in err
        return [err] if code else []

    def run(source: Path | str) -> list[str]:
        spec, out = str(source), tmp_path / f"out-{time.monotonic_ns()}"
        with memory_bounded():
            refused = guarded(lambda: read_all(spec, "rgb"))
            refused += guarded(lambda: read_all(spec, "native"))
            refused += guarded(lambda: train(spec)) + guarded(lambda: evaluate(spec))
            for words in (
                ("inspect", spec),
                ("verify", spec),
                ("pack", spec, str(out)),
                ("index", spec),
            ):
                refused += command("data", *words)
        return refused

    return run


class memory_bounded:  # noqa: N801
    """Fails where the process's peak grows by more than :data:`MEMORY_MB`."""

    def __enter__(self) -> None:
        self.before = self._reset()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None and self.before is not None:
            grown = _peak_mb() - self.before
            assert grown < MEMORY_MB, f"{grown:.0f} MB more in memory"

    def _reset(self) -> float | None:
        try:
            # Freed memory that training has told malloc to keep would hide what is taken again.
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # the peak counts anew
        except (OSError, AttributeError):
            return None
        return _peak_mb()


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc")
def test_memory_that_runs_away_is_seen() -> None:
    with keep_freed_memory():  # as training does
        np.ones(2 * MEMORY_MB << 17)
        with pytest.raises(AssertionError, match="more in memory"), memory_bounded():
            np.ones(2 * MEMORY_MB << 17)  # 8 bytes each


# --- code beside images ---


@pytest.mark.parametrize("extension", ["pkl", "pickle", "pyd", "pth", "pt", "py", "json", "ten"])
def test_members_that_are_code(extension, payload, mark, picture, write_tar, enter, tmp_path):
    members = {"a.png": picture(0), "b.png": picture(1), "c.png": picture(2)}
    members |= {f"{key}.{extension}": payload for key in "abc"}
    assert enter(write_tar(tmp_path / "set" / "s.tar", members)) == []


@pytest.mark.parametrize("extension", ["png", "jpg", "npy", "npz", "cls"])
def test_code_under_the_name_of_data(extension, payload, mark, picture, write_tar, enter, tmp_path):
    members = {f"{i}.png": picture(i) for i in range(4)}
    members[f"{'x' if extension != 'cls' else '0'}.{extension}"] = payload
    enter(write_tar(tmp_path / "s.tar", members))
    folder = tmp_path / "files"
    folder.mkdir()
    for name, data in members.items():
        (folder / name).write_bytes(data)
    enter(folder)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def npz(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["npy", "npz"])
def test_arrays_of_objects(form, mark, picture, write_tar, enter, tmp_path):
    array = npy(np.array([Runs(f"touch {mark}")] * 3, dtype=object))
    content = array if form == "npy" else npz(points=array, rgbsigma=array, resolution=array)
    members = {f"{i}.png": picture(i) for i in range(3)} | {f"x.{form}": content}
    enter(write_tar(tmp_path / "s.tar", members))
    folder = tmp_path / "arrays"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.{form}").write_bytes(content)
    assert enter(folder)


def lying_array(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    """An array file whose header claims more than is there."""
    stream = io.BytesIO()
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + bytes(96)


@pytest.mark.parametrize("shape", [(1 << 38,), (1 << 20, 1 << 20), (7000, 7000, 1 << 12)])
def test_arrays_that_claim_terabytes(shape, enter, tmp_path):
    folder = tmp_path / "arrays"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.npy").write_bytes(lying_array(shape))
    assert enter(folder)
    for path in folder.iterdir():
        path.unlink()
    for number in range(3):
        content = npz(points=lying_array(shape), rgbsigma=lying_array(shape))
        (folder / f"{number}.npz").write_bytes(content)
    assert enter(folder)


def test_webdataset_may_not_run_anything_either(tmp_path, write_tar, picture):
    """The library that writes our shards is loaded in its secure mode."""
    from mimsuite.data.packing.pack import pack

    pack(str(write_tar(tmp_path / "s.tar", {"a.png": picture(0)})), tmp_path / "out")
    assert os.environ["WDS_SECURE"] == "1"


# --- addresses that are commands ---


@pytest.mark.parametrize(
    "address",
    [
        "pipe:touch {mark}",
        "PIPE:touch {mark}",
        "{{pipe,x}}:touch {mark}",
        "{{a,pipe:touch {mark}}}",
        "pi{{pe:touch {mark},x}}",
        "s{{3,x}}://{{a,b}}/x.tar",
        "gs://bucket/x.tar",
        "ssh://host/x.tar",
        "file://other-host/etc/passwd",
        "|touch {mark}",
        "$(touch {mark}).tar",
        "`touch {mark}`.tar",
        "data.tar; touch {mark}",
    ],
)
def test_addresses_that_would_run(address, mark, enter):
    assert enter(address.format(mark=mark))


def test_rewriting_of_addresses_by_the_environment(mark, make_shards, enter, monkeypatch):
    folder = make_shards([6])
    monkeypatch.setenv("GOPEN_REWRITE", f"{folder}=pipe:touch {mark}; cat {folder}")
    assert enter(folder / "part-000.tar") == []
    assert "GOPEN_REWRITE" not in os.environ


def test_a_list_of_commands(mark, make_folder, enter, tmp_path):
    make_folder(3)
    (tmp_path / "list.txt").write_text(f"pipe:touch {mark}\n|touch {mark}\n")
    assert any("do not exist" in line for line in enter(tmp_path / "list.txt"))
    listed = "photos/000.png\nphotos/001.png\nphotos/002.png\n"
    (tmp_path / "list.txt").write_text(listed + "/dev/zero\n")
    assert enter(tmp_path / "list.txt")


# --- archives that reach out ---


def archive(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            info.size = len(data) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(data))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("name", ["../../{id}.png", "{root}/{id}.png", "a/../../../{id}.png"])
def test_members_that_name_places_outside(name, tmp_path, picture, enter):
    """Nothing is ever unpacked; and names that `pack` gives to members stay below it."""
    inner = tmp_path / "deep" / "er"
    inner.mkdir(parents=True)
    root = tmp_path / "outside"
    root.mkdir()
    names = [name.format(root=root, id=f"escaped{i}") for i in range(3)]
    path = archive(inner / "s.tar", *((member(n), picture(i)) for i, n in enumerate(names)))
    enter(path)
    assert list(root.iterdir()) == []
    assert [found for found in tmp_path.rglob("escaped*")] == []
    for packed in tmp_path.glob("out-*/*.tar"):
        with tarfile.open(packed) as tar:
            for found in tar.getnames():
                assert not found.startswith(("/", "..")), found
                assert "/../" not in found


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
    ids=["symlink", "hard link", "character device", "block device", "fifo"],
)
def test_members_that_are_no_files(kind, tmp_path, picture, enter):
    odd = member("b.png", kind, "/etc/passwd")
    odd.devmajor, odd.devminor = 1, 5  # /dev/zero
    path = archive(tmp_path / "s.tar", (member("a.png"), picture(0)), (odd, b""))
    enter(path)
    assert scan(path).keys == ["a"]
    assert scan(path).unused[0]["first"] == ["b.png"]


def test_links_in_a_folder(make_folder, enter, tmp_path):
    folder = make_folder(4)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "none.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "pipe.png")
    enter(folder)


# --- sizes that lie, and bombs ---


def header_claiming(size: int, name: str = "b.png", kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("size", [1 << 29, TIB, (1 << 62) - 1])
@pytest.mark.parametrize(
    "kind",
    [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME],
    ids=["file", "extended header", "global header", "long name"],
)
def test_a_header_that_claims_terabytes(kind, size, tmp_path, picture, enter):
    path = archive(tmp_path / "s.tar", (member("a.png"), picture(0)))
    with tarfile.open(path) as tar:
        end = tar.getmembers()[-1].offset_data + 512 * -(-len(picture(0)) // 512)
    path.write_bytes(path.read_bytes()[:end] + header_claiming(size, kind=kind) + bytes(10240))
    assert len(enter(path)) >= 6


def test_compressed_members(tmp_path, picture, write_tar, enter):
    bomb = gzip.compress(bytes(200 << 20))
    assert len(bomb) < 1 << 18
    for name in ("b.png.gz", "b.gz", "b.cls.gz"):
        members = {"a.png": picture(0), name: bomb}
        enter(write_tar(tmp_path / "s.tar", members))
        (left_out,) = scan(tmp_path / "s.tar").unused
        assert "compressed" in left_out["what"]
        (tmp_path / "s.tar.idx").unlink(missing_ok=True)
    (tmp_path / "s.tar.gz").write_bytes(gzip.compress((tmp_path / "s.tar").read_bytes()))
    assert all("compressed" in line for line in enter(tmp_path / "s.tar.gz"))


def png(width: int, height: int, *, extra: bytes = b"") -> bytes:
    """A gray image of one value: a few kilobytes for a hundred million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    squeezed, rows = zlib.compressobj(1), bytes((width + 1) * 100)
    body = b"".join(squeezed.compress(rows) for _ in range(height // 100)) + squeezed.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("side", [12000, 20000])
def test_png_bombs(side, tmp_path, picture, write_tar, enter):
    bomb = png(side, side)
    assert len(bomb) < side * side // 200
    members = {"a.png": picture(0), "b.png": picture(1), "c.png": picture(2), "d.png": bomb}
    refused = enter(write_tar(tmp_path / "s.tar", members))
    assert any("too-large" in line or "more than data.max_pixels" in line for line in refused)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_bombs_in_metadata(kind, tmp_path, write_tar, enter):
    bomb = zlib.compress(bytes(300 << 20), 1)
    before = {b"zTXt": b"k\0\0", b"iTXt": b"k\0\1\0\0\0", b"iCCP": b"k\0\0"}[kind]
    data = kind + before + bomb
    extra = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    enter(write_tar(tmp_path / "s.tar", {f"{i}.png": png(9, 100, extra=extra) for i in range(3)}))


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "TIFF", "GIF", "BMP"])
def test_headers_of_other_formats_that_claim_too_much(form, tmp_path, write_tar, enter):
    stream = io.BytesIO()
    Image.new("RGB", (13, 11)).save(stream, form)
    data = bytearray(stream.getvalue())
    order = ">" if form == "JPEG" else "<"
    for width, value in ((13, 65000 if form != "WEBP" else 16000), (11, 65000)):
        for size in ("H", "I"):
            old, new = struct.pack(order + size, width), struct.pack(order + size, value)
            data = bytearray(bytes(data).replace(old, new))
    enter(write_tar(tmp_path / "s.tar", {f"{i}.{form.lower()}": bytes(data) for i in range(3)}))


def test_members_that_are_there_twice(tmp_path, picture, enter):
    twice = [(member("a.png"), picture(0)), (member("a.png"), picture(1))]
    refused = enter(archive(tmp_path / "s.tar", *twice))
    assert len(refused) >= 6
    assert all("there twice" in line for line in refused)


# --- labels, names, JSON ---


@pytest.mark.parametrize("label", [b"9" * 200, b"-" + b"9" * 200, b"9999999999", "٣".encode()])
def test_labels_that_are_no_class_ids(label, tmp_path, picture, write_tar, enter):
    members = {}
    for number in range(4):
        members |= {f"{number}.png": picture(number), f"{number}.cls": label}
    enter(write_tar(tmp_path / "s.tar", members))


@pytest.mark.parametrize(
    "name",
    [
        "\x1b[2J\x1b[31mred",
        "two\nlines",
        "[bold red]x[/]",
        "[/]",
        "[link=file:///etc]x",
        "\u202eabc",
    ],
)
def test_names_in_messages_are_text(name, tmp_path, picture, write_tar, enter, capfd):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / f"{name.replace('/', '')}.png").write_bytes(b"no image")
    for number in range(3):
        (folder / f"{number}.png").write_bytes(picture(number))
    enter(folder)
    for extra in ({f"{name}.png": b"no image"}, {f"{name}.png.gz": b"x"}, {f"{name}.cls": b"1"}):
        members = {f"{i}.png": picture(i) for i in range(3)} | extra
        path = write_tar(tmp_path / "s.tar", members)
        for line in enter(path):
            assert "\x1b" not in line
            assert "\u202e" not in line
        path.with_name("s.tar.idx").unlink(missing_ok=True)
    assert main(["data", "verify", str(folder)]) == 3
    shown = capfd.readouterr()
    assert "\x1b" not in shown.out + shown.err
    plain = name.replace("/", "").partition("\n")[0].replace("\x1b", "\\x1b")
    assert plain.replace("\u202e", "\\u202e") in shown.out + shown.err


DEEP = b"[" * 200_000 + b"]" * 200_000
OUTSIDE = {"bytes": 1, "samples": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    "document",
    [
        DEEP,
        b'{"shards":' + DEEP + b"}",
        b"9" * 5000,
        json.dumps({"extensions": [], "shards": [{"name": "../../x.tar", **OUTSIDE}]}).encode(),
        json.dumps({"extensions": [], "shards": [{"name": "/etc/passwd", **OUTSIDE}]}).encode(),
        json.dumps({"extensions": [], "shards": [{"name": "a\\..\\b.tar", **OUTSIDE}]}).encode(),
        json.dumps({"extensions": [], "shards": [{"name": "pipe:id", **OUTSIDE}]}).encode(),
        json.dumps({"extensions": [], "shards": [], "__class__": "x"}).encode(),
        b'{"extensions":[],"shards":[],"classes":' + DEEP + b"}",
    ],
    ids=["deep", "deep inside", "digits", "..", "absolute", "backslash", "pipe", "more", "classes"],
)
def test_index_files_that_lie(document, make_shards, enter):
    folder = make_shards([4])
    (folder / "index.json").write_bytes(document)
    refused = enter(folder)
    assert len(refused) >= 6
    assert all("index.json" in line for line in refused)


@pytest.mark.parametrize("content", [DEEP, b"[" + b"[]," * 10_000_000 + b"[]]", b"1" * 5000, b"{}"])
def test_class_lists_that_lie(content, tmp_path, picture, write_tar, enter):
    members = {f"{i}.png": picture(i) for i in range(3)} | {"classes.json": content}
    refused = enter(write_tar(tmp_path / "s.tar", members))
    assert all("classes.json" in line for line in refused)
    assert len(refused) >= 6


def index_file(header: bytes, body: bytes) -> bytes:
    """An index whose checksums are right, whatever it says."""
    header += b" " * (-(len(header) + 32) % 8)
    sums = zlib.crc32(header), len(body), zlib.crc32(body)
    return struct.pack("<8sIIQII", b"MIMSIDX\0", len(header), sums[0], *sums[1:], 0) + header + body


def test_binary_indexes_that_lie(make_shards, enter):
    """A shard's ``.idx`` comes from where the shard came from: its claims are claims."""
    path = make_shards([4]) / "part-000.tar"
    open_source(str(path))
    place = path.with_name(path.name + ".idx")
    sound = place.read_bytes()
    length = struct.unpack_from("<I", sound, 8)[0]
    header, body = json.loads(sound[32 : 32 + length]), sound[32 + length :]
    row = "<QQIIII"
    first = struct.unpack_from(row, body)

    def with_member(**changes: int) -> bytes:
        names = ("offset", "size", "crc", "sample", "extension", "reserved")
        values = [changes.get(name, value) for name, value in zip(names, first, strict=True)]
        return struct.pack(row, *values) + body[32:]

    def with_header(**changes: object) -> bytes:
        return json.dumps({**header, **changes}).encode()

    plain = with_header()
    lies = [
        (DEEP, body),
        (b"[]", body),
        (b"{}", body),
        (b'{"version": 2}', body),
        (with_header(samples=1 << 40), body),
        (with_header(samples=-1), body),
        (with_header(samples="four"), body),
        (with_header(members=1 << 40), body),
        (with_header(members=0), body),
        (with_header(extensions=[]), body),
        (with_header(extensions=["cls", "pkl"]), body),
        (with_header(extensions=[["cls"], None]), body),
        (with_header(splits={"train": 1 << 40}), body),
        (with_header(splits=[1]), body),
        (with_header(classes={"a": 1}), body),
        (plain, b""),
        (plain, body[:40]),
        (plain, with_member(size=TIB)),
        (plain, with_member(size=(1 << 63) + 5)),
        (plain, with_member(offset=TIB)),
        (plain, with_member(offset=(1 << 64) - 1)),
        (plain, with_member(sample=1 << 31)),
        (plain, with_member(extension=1 << 31)),
        (plain, body[: 8 * 32] + struct.pack("<4q", -5, 1 << 40, 3, 2) + body[8 * 32 + 32 :]),
    ]
    for number, (claims, tables) in enumerate(lies):
        place.write_bytes(index_file(claims, tables))
        assert enter(path), f"lie {number}"
    place.write_bytes(sound)
    assert enter(path) == []


# --- weights and checkpoints ---


def test_weights_that_are_code(mark, payload, tmp_path, capfd):
    torch.save({"model": Runs(f"touch {mark}")}, tmp_path / "zip.pth")
    old = {"model": {"a": torch.zeros(2), "b": Runs(f"touch {mark}")}}
    torch.save(old, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pth").write_bytes(payload)
    (tmp_path / "named.safetensors").write_bytes(payload)
    folder = tmp_path / "distributed"
    folder.mkdir()
    (folder / ".metadata").write_bytes(payload)
    (folder / "__0_0.distcp").write_bytes(payload)
    for name in ("zip.pth", "old.pth", "plain.pth", "named.safetensors", "distributed"):
        path, out = str(tmp_path / name), tmp_path / "run"
        for words in (
            ["import", path, "--out", str(tmp_path / "w.safetensors")],
            ["export", path, "--format", "timm", "--out", str(tmp_path / "t.safetensors")],
            ["pretrain", RECIPE, "--init-from", path, "--out", str(out), *SMALL],
            ["pretrain", RECIPE, "--resume", path, "--out", str(out), *SMALL],
            ["linear-probe", path],
            ["reconstruct", path, "--input", path, "--out", str(tmp_path / "pictures")],
        ):
            capfd.readouterr()
            with memory_bounded():
                assert main(words) in (2, 3), words
            err = capfd.readouterr().err
            assert "Traceback" not in err
            assert not out.exists()


def lying_safetensors(header: object, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(64)


@pytest.mark.parametrize(
    "content",
    [
        lying_safetensors({"a": {"dtype": "F32", "shape": [1 << 38], "data_offsets": [0, TIB]}}),
        lying_safetensors({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, TIB]}}),
        lying_safetensors({"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}),
        lying_safetensors({"a": {"dtype": "F32", "shape": [1 << 62], "data_offsets": [0, 16]}}),
        lying_safetensors(b"{}", TIB),
        lying_safetensors(b"{}", (1 << 64) - 1),
        lying_safetensors(DEEP),
    ],
    ids=["shape", "offsets", "negative", "overflow", "length", "longest", "deep"],
)
def test_safetensors_that_lie(content, tmp_path, capfd):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with memory_bounded():
        assert main(["import", str(path), "--out", str(tmp_path / "o.safetensors")]) == 2
        words = ["pretrain", RECIPE, "--init-from", str(path), "--out", str(tmp_path / "r"), *SMALL]
        assert main(words) == 2
    assert not (tmp_path / "r").exists()
    assert "internal" not in capfd.readouterr().err


# --- recipes ---


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {mark}']",
        "!!python/object/new:os.system ['touch {mark}']",
        "!!python/name:os.system",
        "!!python/module:os",
        "base: !!python/object/apply:os.system ['touch {mark}']",
        "data: {{source: !!python/object/apply:os.system ['touch {mark}']}}",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
        "{deep}",
        "base: ../../../../etc/passwd",
        "base: pipe:touch {mark}",
        "data: {{source: 'pipe:touch {mark}'}}\nbase: image/mae-tiny-fashion",
    ],
    ids=["apply", "new", "name", "module", "base", "key", "laughs", "deep", "..", "pipe", "source"],
)
def test_recipes_that_are_code(text, mark, tmp_path, capfd):
    recipe, out = tmp_path / "r.yaml", tmp_path / "run"
    recipe.write_text(text.format(mark=mark, deep="[" * 50_000))
    with memory_bounded():
        for words in (
            ["pretrain", str(recipe), "--out", str(out), *SMALL],
            ["recipes", "show", str(recipe), "--resolved"],
            ["bench", "data", str(recipe)],
        ):
            code = main(words)
            assert code == 2 or (words[0] == "recipes" and "source" in text)
        for value in ("!!python/object/apply:os.system [id]", "'pipe:touch x'"):
            assert (
                main(["pretrain", RECIPE, f"data.source={value}", "--out", str(out), *SMALL]) == 2
            )
    assert "internal" not in capfd.readouterr().err
    assert not out.exists()


def test_the_loader_refuses_with_workers_too(mark, make_shards, make_recipe, enter):
    """A worker's refusal reaches the main process as a plain line."""
    path = make_shards([6]) / "part-000.tar"
    source = open_source(str(path))
    path.write_bytes(bytes(path.stat().st_size))
    recipe = make_recipe(data={"workers": 1, "lanes": 1}, train={"global_batch": 2})
    with train_loader(source, recipe) as loader, pytest.raises((DataError, UserError)) as fault:
        next(iter(loader))
    assert "\n" not in str(fault.value)
