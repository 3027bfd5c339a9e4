"""URLs of remote shards and folders."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from mimsuite.errors import UserError

SCHEMES = ("s3", "http", "https")


@dataclass(frozen=True)
class Url:
    """A URL with one of :data:`SCHEMES`.

    ``str`` omits user name, password and query, which may contain a token.
    """

    text: str

    @classmethod
    def parse(cls, text: str) -> Url:
        """Parse a URL as the user wrote it.

        Raises:
            UserError: no host or bucket, a path with ``..``, or an invalid character.
        """
        if not text.isprintable() or " " in text or "\\" in text:
            raise UserError(
                f"{text!r}: an address has no spaces, backslashes or control characters"
            )
        try:
            parts = urlsplit(text)
            host = parts.hostname
            _ = parts.port
        except ValueError as fault:
            raise UserError(f"{text}: no address ({fault})") from None
        url = cls(text)
        if not host:
            kind = "bucket" if parts.scheme == "s3" else "host"
            raise UserError(
                f"{url}: an address names a {kind}: {parts.scheme}://{kind.upper()}/..."
            )
        if ".." in unquote(parts.path).split("/"):
            raise UserError(f"{url}: '..' in an address is not followed")
        return url

    @property
    def parts(self) -> SplitResult:
        return urlsplit(self.text)

    @property
    def scheme(self) -> str:
        return self.parts.scheme.lower()

    @property
    def name(self) -> str:
        """The last part of the path, a file name."""
        path = self.parts.path.rstrip("/").rpartition("/")[2]
        return path if self.scheme == "s3" else unquote(path).rpartition("/")[2]

    @property
    def parent(self) -> Url:
        return self._with_path(self.parts.path.rstrip("/").rpartition("/")[0])

    def child(self, name: str) -> Url:
        """The URL of a file or folder in this folder."""
        end = name if self.scheme == "s3" else quote(name)
        return self._with_path(f"{self.parts.path.rstrip('/')}/{end}")

    def beside(self, ending: str) -> Url:
        """The URL of the file whose name is this name plus ``ending``."""
        return self._with_path(self.parts.path + ending)

    def _with_path(self, path: str) -> Url:
        return Url(urlunsplit(self.parts._replace(path=path)))

    @property
    def bucket_path(self) -> str:
        """``bucket/key`` of an ``s3:`` URL; a key may contain ``?`` and ``#``."""
        return self.text.split("://", 1)[1].rstrip("/")

    def __str__(self) -> str:
        host = self.parts.netloc.rpartition("@")[2]
        return urlunsplit((self.parts.scheme, host, self.parts.path, "", ""))

    def link(self) -> tuple[str, dict[str, str]]:
        """The ``http:`` or ``https:`` URL for a request now, and the headers it needs."""
        if self.scheme == "s3":
            from mimsuite.data.stores import s3

            return s3.signed(self), {}
        parts = self.parts
        user, at, host = parts.netloc.rpartition("@")
        headers = {}
        if at:
            token = base64.b64encode(unquote(user).encode()).decode()
            headers["Authorization"] = f"Basic {token}"
        return urlunsplit(parts._replace(netloc=host, fragment="")), headers
