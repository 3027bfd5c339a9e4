"""Sanitising of foreign text for printing, and formatting of numbers."""

from __future__ import annotations

import math
import re
import unicodedata
from datetime import UTC, datetime

# Marks that reorder the text after them, by which a file name could be displayed as another one.
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_ESCAPE_SEQUENCE = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # operating-system command: window titles, links
    r"|[\x1b\x9b]\[?[0-?]*[ -/]*[@-~]"  # control sequence: colours, cursor
)
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@'\"]+@")
_SIGNED_QUERY = re.compile(r"(://[^\s?'\"]*)\?[^\s'\"]*")


def clean(text: object) -> str:
    """One printable line of ``text``: no control characters, escape sequences or line breaks.

    Foreign file names and error messages are printed through this. Bytes of a file name that are
    not UTF-8 are shown as ``\\udc..``. Rich markup is not changed: see :func:`console.plain`.
    """
    line = _ESCAPE_SEQUENCE.sub("", str(text))
    line = line.encode("utf-8", "backslashreplace").decode()
    line = re.sub(r"[\t\n\v\f\r\x85\u2028\u2029]", " ", line)
    return "".join(c for c in line if unicodedata.category(c) != "Cc" and c not in _BIDI)


def without_credentials(text: str) -> str:
    """The text without the passwords and signed queries of its URLs."""
    return _SIGNED_QUERY.sub(r"\1?...", _CREDENTIALS.sub("***@", text))


def now() -> str:
    """The current time as written to files: ISO 8601, UTC, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def number(value: float, digits: int = 4) -> str:
    """A figure with ``digits`` significant digits: 0.8123, 1.2e-05, 31240."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 10**9:
        return str(int(value))
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def steady(value: float, digits: int = 4) -> str:
    """Like :func:`number` with trailing zeros, for figures that change in place: 0.8100."""
    if not math.isfinite(value) or abs(value) >= 10**digits:
        return number(value, digits)
    return f"{value:#.{digits}g}".rstrip(".")


def count(value: int) -> str:
    """111907840 -> ``111.9 M``."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if abs(value) >= size:
            return f"{value / (size if unit != 'k' else 1000):.1f} {unit}"
    return str(value)


def duration(seconds: float) -> str:
    """3723 -> ``1:02:03``; a day and more as ``2d 03:04``."""
    if not math.isfinite(seconds) or seconds < 0:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24}d {hours % 24:02d}:{minutes:02d}"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def memory(megabytes: float) -> str:
    """740 -> ``740 MB``, 12300 -> ``12.3 GB``."""
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"
