"""Transfers one by one: what is retried, what is refused, what is kept."""

from __future__ import annotations

import os
import pickle
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from mimsuite.data import open_source
from mimsuite.data.stores import RemoteShard, Url, connections, retry, windows
from mimsuite.data.stores.retry import Denied, NotThere
from mimsuite.data.stores.transfer import Transfer, Version, look, whole
from mimsuite.data.stores.windows import Windows
from mimsuite.errors import DataError, UserError
from tests import needs
from tests.data.remote_servers import Rclone, Server, files, need_rclone, serving

CONTENT = bytes(range(256)) * 400


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(retry, "STALL_SECONDS", 0.5)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "a.tar").write_bytes(CONTENT)
    (tmp_path / "empty.tar").write_bytes(b"")
    return tmp_path


@pytest.fixture
def web(root: Path) -> Iterator[Server]:
    with serving(files(root)) as server:
        yield server


def url(server: Server, name: str = "a.tar") -> Url:
    return Url.parse(f"{server.address}/{name}")


# --- addresses ---


def test_parts_of_an_address() -> None:
    one = Url.parse("https://me:secret@host:8000/set/a%20b/x.tar?token=t")
    assert (one.scheme, one.name) == ("https", "x.tar")
    assert str(one) == "https://host:8000/set/a%20b/x.tar"
    assert (
        one.parent.child("y z.tar").text
        == "https://me:secret@host:8000/set/a%20b/y%20z.tar?token=t"
    )
    link, headers = one.link()
    assert link == "https://host:8000/set/a%20b/x.tar?token=t"
    assert headers == {"Authorization": "Basic bWU6c2VjcmV0"}
    assert Url.parse("s3://bucket/set/").child("a.tar").bucket_path == "bucket/set/a.tar"
    assert Url.parse("s3://bucket").child("a.tar").text == "s3://bucket/a.tar"


# --- transfers ---


def test_size_and_version(web: Server) -> None:
    version = look(url(web))
    assert version.size == len(CONTENT)
    assert version.tag
    assert look(url(web, "empty.tar")).size == 0
    assert whole(url(web, "empty.tar"), 10) == b""
    assert whole(url(web), 1 << 20) == CONTENT
    with pytest.raises(DataError, match=r"a\.tar has 102400 bytes, more than the 100 it may have"):
        whole(url(web), 100)


def test_a_cut_transfer_goes_on_from_the_byte_reached(web: Server) -> None:
    web.faults.plan = ["cut", "reset", "short", "503"]
    assert (
        b"".join(Transfer(url(web), Version(len(CONTENT))).chunks(1000, 90_000))
        == CONTENT[1000:90_000]
    )
    starts = [int(wanted.removeprefix("bytes=").split("-")[0]) for _, wanted in web.faults.asked]
    assert starts[0] == 1000
    assert starts == sorted(starts)
    assert len(set(starts)) == 3  # after the cut and after the short answer
    assert {wanted.split("-")[1] for _, wanted in web.faults.asked} == {"89999"}


def test_what_is_not_tried_again(web: Server) -> None:
    web.faults.plan = ["404", "403"]
    with pytest.raises(NotThere, match=r"a\.tar is not there \(the server answers 404\)"):
        look(url(web))
    with pytest.raises(Denied, match="access denied"):
        look(url(web))
    assert len(web.faults.asked) == 2
    with pytest.raises(UserError, match=r"there is no host 'no-such-host\.invalid'"):
        look(Url.parse("http://no-such-host.invalid/a.tar"))


def test_no_server_and_a_trickle(web: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(retry, "TRIES", 3)
    with pytest.raises(DataError, match=r"connection refused, after 3 tries"):
        look(Url.parse("http://127.0.0.1:1/a.tar"))

    def trickle(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        request.send_response_only(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        for _ in range(100):
            request.wfile.write(b"x")
            time.sleep(0.05)
        raise OSError

    with serving(trickle) as slow:
        began = time.monotonic()
        transfer = Transfer(url(slow), Version(1000))
        with pytest.raises(DataError, match="hardly a byte came, after 3 tries"):
            b"".join(transfer.chunks(0, 1000))
        assert time.monotonic() - began < 4


def test_a_server_that_asks_to_wait() -> None:
    answers = [("Retry-After", "1")]

    def content(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        if answers:
            return 503, dict([answers.pop(), ("Content-Length", "0")]), b""
        return 200, {"Content-Length": "3"}, b"abc"

    with serving(content) as server:
        began = time.monotonic()
        assert look(url(server)).size == 3
        assert time.monotonic() - began > 0.9


def test_requests_share_a_connection(root: Path) -> None:
    peers = set()
    plain = files(root)

    def content(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        peers.add(request.client_address)
        return plain(request)

    with serving(content) as server:
        transfer = Transfer(url(server), look(url(server)))
        for start in range(0, 50_000, 10_000):
            b"".join(transfer.chunks(start, start + 10_000))
    assert len(peers) == 1


def test_through_the_proxy_of_the_environment(web: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", web.address)
    monkeypatch.setenv("no_proxy", "")
    assert whole(Url.parse("http://far.invalid/a.tar"), 1 << 20) == CONTENT
    assert web.faults.asked[0][0] == "http://far.invalid/a.tar"


# --- redirects ---


def redirecting(target: Callable[[], str]) -> Callable:
    def content(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        return 302, {"Location": target(), "Content-Length": "0"}, b""

    return content


def test_redirects_are_followed_and_take_no_password_along(root: Path) -> None:
    seen = []
    plain = files(root)

    def content(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        seen.append(request.headers.get("Authorization"))
        return plain(request)

    with (
        serving(content) as server,
        serving(redirecting(lambda: f"{server.address}/a.tar")) as first,
    ):
        there = Url.parse(first.address.replace("//", "//me:secret@") + "/x.tar")
        assert whole(there, 1 << 20) == CONTENT
    assert seen == [None, None]


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/a", "pipe:ls", "http://:80/x", "http://h:x/"]
)
def test_redirects_to_elsewhere_are_not(target: str) -> None:
    with (
        serving(redirecting(lambda: target)) as server,
        pytest.raises(DataError, match="redirected to"),
    ):
        look(url(server))


def test_redirects_without_end() -> None:
    with (
        serving(redirecting(lambda: "/again")) as server,
        pytest.raises(DataError, match="more than 5 redirects"),
    ):
        look(url(server))


def test_https_certificates_and_no_way_back_to_http(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs.program("openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files_ = ["-keyout", str(key), "-out", str(certificate)]
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subprocess.run([*new, *subject, *files_], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    plain = files(root)
    with serving(plain) as open_server:

        def content(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
            if "back" in request.path:
                return redirecting(lambda: f"{open_server.address}/a.tar")(request)
            return plain(request)

        with serving(content) as server:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            address = server.address.replace("http:", "https:")
            with pytest.raises(UserError, match="certificate is not valid"):
                look(Url.parse(f"{address}/a.tar"))
            trusting = ssl.create_default_context(cafile=str(certificate))
            monkeypatch.setattr(connections, "_tls", lambda: trusting)
            assert whole(Url.parse(f"{address}/a.tar"), 1 << 20) == CONTENT
            with pytest.raises(DataError, match="redirected to http:, which is not followed"):
                look(Url.parse(f"{address}/back"))
            with serving(redirecting(lambda: f"{address}/a.tar")) as first:
                assert whole(url(first), 1 << 20) == CONTENT  # up to https is


# --- windows ---


def test_windows_are_bounded_and_waste_is_said(caplog: pytest.LogCaptureFixture) -> None:
    held = Windows(4 * 100, 100)
    for number in range(4):
        held.keep((0, number), bytes([number]) * 100)
    assert held.read((0, 0), 3, 97) == b"\0\0\0"
    held.keep((1, 0), b"x" * 100)
    assert held.read((0, 1), 1, 0) is None  # used longest ago
    assert held.read((0, 0), 100, 0) == bytes(100)
    assert held.read((1, 0), 2, 50) == b"xx"
    held.forget(0)
    assert held.read((0, 0), 1, 0) is None
    assert os.fstat(held._file.fileno()).st_size == 400
    for round_ in range(10):
        for number in range(6):
            held.keep((round_ // 99, number), bytes(100))
    assert os.fstat(held._file.fileno()).st_size == 400
    (record,) = caplog.records
    assert "data.cache" in record.getMessage()


def test_reads_over_the_borders_of_windows(web: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "WINDOW", 1000)
    windows._of_process.cache_clear()
    shard = RemoteShard(url(web), Version(len(CONTENT)))
    opened = pickle.loads(pickle.dumps(shard)).open()
    assert opened.size == len(CONTENT)
    for start, size in ((0, 10), (990, 20), (500, 3000), (102_390, 100), (102_400, 5), (0, 0)):
        assert opened.pread(size, start) == CONTENT[start : start + size]
    assert len(web.faults.asked) in (5, 6)  # one may have been fetched ahead
    opened.close()
    windows._of_process.cache_clear()


def test_what_follows_is_fetched_ahead_where_reading_goes_on(
    web: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "WINDOW", 1000)
    windows._of_process.cache_clear()
    opened = RemoteShard(url(web), Version(len(CONTENT))).open()

    def read(start: int) -> None:
        assert opened.pread(100, start) == CONTENT[start : start + 100]

    def asked(count: int) -> set[str]:
        for _ in range(500):
            if len(web.faults.asked) >= count:
                break
            time.sleep(0.01)
        return {wanted for _, wanted in web.faults.asked}

    read(0)
    read(1000)
    assert "bytes=2000-2999" in asked(3)
    read(2000)
    assert "bytes=3000-3999" in asked(4)
    assert len(web.faults.asked) == 4
    web.faults.plan = ["cut"]
    read(3000)  # the next one fails ahead of its time
    assert "bytes=4000-4999" in asked(5)
    read(4000)
    assert web.faults.met == ["cut"]
    starts = range(10_000, 100_000, 5000)  # beyond what may still be on its way
    for start in starts:
        read(start)
    opened.close()
    far = [wanted for _, wanted in web.faults.asked if len(wanted) > len("bytes=5000-5999")]
    assert far == [f"bytes={start}-{start + 999}" for start in starts]  # nothing more than was read
    windows._of_process.cache_clear()


# --- S3 without keys ---


def test_a_public_bucket_needs_no_credentials(
    tmp_path: Path, make_shards: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    need_rclone()

    make_shards([4], name="root/bucket")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    rclone = Rclone(tmp_path / "root", keys=False)
    rclone.start()
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{rclone.port}")
    try:
        source = open_source("s3://bucket")
        assert [source.payload(0, i)[:4] for i in range(4)] == [b"\x89PNG"] * 4
    finally:
        rclone.stop()
