"""Download of remote objects; a broken transfer continues where it stopped, in the same version."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse, IncompleteRead

from mimsuite.data.stores import connections, retry
from mimsuite.data.stores.retry import Denied, NotThere, Patience, Transient, retried
from mimsuite.data.stores.url import Url
from mimsuite.errors import DataError

_CHUNK = 1 << 20
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)$")
_PASSING = (408, 425, 429)
_MISSING = (404, 410)
_REFUSED = (401, 403, 407)


@dataclass(frozen=True)
class Version:
    """Identity of a remote object: size and ETag.

    Attributes:
        size: bytes.
        tag: the ETag, or without one the time of the last change; None: unknown.
    """

    size: int
    tag: str | None = None


def look(url: Url) -> Version:
    """Query the version of an object.

    Raises:
        NotThere: the object does not exist.
        Denied: the server refuses access.
        DataError: no response after all tries.
    """

    def ask() -> Version:
        response = _ask(url, 0, 1, None)
        try:
            return _version(url, response)
        finally:
            connections.finish(response)

    return retried(url, ask)


def whole(url: Url, most: int) -> bytes:
    """Download a small object.

    Raises:
        DataError: as :func:`look`, or it has more than ``most`` bytes.
    """
    version = look(url)
    if version.size > most:
        raise DataError(f"{url} has {version.size} bytes, more than the {most} it may have")
    return b"".join(Transfer(url, version).chunks(0, version.size))


class Transfer:
    """Reads one version of an object.

    Attributes:
        version: an unknown tag is taken from the first response.
    """

    def __init__(self, url: Url, version: Version) -> None:
        self.url, self.version = url, version

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from ``start`` to ``stop`` in pieces, each once.

        Raises:
            NotThere, Denied: immediately.
            DataError: the object has changed, or all tries failed.
        """
        patience, at = Patience(self.url), start
        while at < stop:
            try:
                for piece in self._answer(at, stop, start == 0 and stop == self.version.size):
                    at += len(piece)
                    patience.came(len(piece))
                    yield piece
                if at < stop:
                    raise Transient("the answer ended early")
            except Transient as fault:
                patience.failed(fault)

    def once(self, start: int, stop: int) -> bytes:
        """The bytes from ``start`` to ``stop``, in a single try.

        Raises:
            Transient: the try failed.
            NotThere, Denied, DataError: as :meth:`chunks`.
        """
        data = b"".join(self._answer(start, stop, start == 0 and stop == self.version.size))
        if len(data) < stop - start:
            raise Transient("the answer ended early")
        return data

    def _answer(self, at: int, stop: int, is_whole: bool) -> Iterator[bytes]:
        response = _ask(self.url, at, stop, self.version)
        try:
            self.version = _same(self.url, _version(self.url, response), self.version)
            skip = _skipped(response, at, is_whole, self.url)
            for piece in _body(response, stop - at + skip):
                rest, skip = piece[skip:], max(0, skip - len(piece))
                if rest:
                    yield rest
        except BaseException:
            connections.drop(response)
            raise
        connections.finish(response)


def _ask(url: Url, start: int, stop: int, version: Version | None) -> HTTPResponse:
    link, headers = url.link()
    headers = {**headers, "Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    # A weak ETag is not valid for ranges (If-Range), so it is only compared here.
    if version is not None and version.tag is not None and not version.tag.startswith("W/"):
        headers["If-Range"] = version.tag
    response = connections.get(link, headers, url)
    if response.status in (200, 206) or (response.status == 416 and start == 0):
        return response
    code = _code(response)
    said = f"{response.status}{' ' + code if code else ''}"
    connections.drop(response)
    if response.status in _PASSING or response.status >= 500:
        raise Transient(f"the server answers {said}", _wanted_wait(response))
    if response.status in _MISSING:
        raise NotThere(f"{url} is not there (the server answers {said})")
    if response.status in _REFUSED:
        how = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY" if url.scheme == "s3" else "the address"
        raise Denied(
            f"{url}: access denied (the server answers {said}): check {how} and its rights"
        )
    raise DataError(f"{url}: the server answers {said}")


def _version(url: Url, response: HTTPResponse) -> Version:
    tag = response.getheader("ETag") or response.getheader("Last-Modified")
    # Some servers answer 200 to a range request, so the header decides, not the status.
    if (found := _RANGE.match(response.getheader("Content-Range") or "")) is not None:
        return Version(int(found[3]), tag)
    if response.status == 416:  # the object is empty
        return Version(0, tag)
    length = response.getheader("Content-Length") or ""
    if not length.isdecimal():
        raise DataError(f"{url}: the server does not report its size")
    return Version(int(length), tag)


def _same(url: Url, found: Version, known: Version) -> Version:
    other_tag = None not in (found.tag, known.tag) and found.tag != known.tag
    if found.size != known.size or other_tag:
        raise DataError(
            f"{url} changed: it has {found.size} bytes and version {found.tag}, expected "
            f"{known.size} bytes{f' and version {known.tag}' if known.tag else ''}; start again"
        )
    return replace(known, tag=known.tag or found.tag)


def _skipped(response: HTTPResponse, at: int, is_whole: bool, url: Url) -> int:
    """Number of bytes in the body before the requested ones."""
    header = response.getheader("Content-Range")
    if header is None:
        if at and not is_whole:
            raise DataError(
                f"{url}: the server does not serve ranges of bytes; set data.cache to a folder to "
                f"which shards are downloaded"
            )
        return at
    found = _RANGE.match(header)
    if found is None or found[1] is None or int(found[1]) != at:
        raise Transient("the server answers with other bytes than asked for")
    return 0


def _body(response: HTTPResponse, most: int) -> Iterator[bytes]:
    began, came = time.monotonic(), 0
    while most > 0:
        try:
            piece = response.read1(min(_CHUNK, most))
        except (OSError, HTTPException) as fault:
            cut = isinstance(fault, IncompleteRead)
            raise Transient("cut off" if cut else connections.reason(fault)) from None
        if not piece:
            return
        most -= len(piece)
        yield piece
        came += len(piece)
        now = time.monotonic()
        if now - began > retry.STALL_SECONDS:
            if came < retry.SLOWEST * (now - began):
                raise Transient("hardly a byte came")
            began, came = now, 0


def _code(response: HTTPResponse) -> str:
    """S3's error code."""
    try:
        found = re.search(rb"<Code>(\w{1,60})</Code>", response.read(4096))
    except (OSError, HTTPException):
        return ""
    return found[1].decode() if found else ""


def _wanted_wait(response: HTTPResponse) -> float | None:
    """Seconds to wait by ``Retry-After``, which is a number or a date."""
    text = response.getheader("Retry-After")
    if text is None:
        return None
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
