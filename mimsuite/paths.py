"""Expansion of paths, the same in every option and recipe key.

``~``, ``~user``, ``$NAME`` and ``${NAME}`` are expanded here because the shell does not expand them
after ``=``, in quotes or in a recipe file. Does not import torch.
"""

from __future__ import annotations

import os
import re

from mimsuite.errors import UserError

_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", re.ASCII)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # two letters or more, as one letter is a drive
_DRIVE = re.compile(r"([A-Za-z]):(?=([\\/]?))(.*)", re.DOTALL)


def expand_path(text: str) -> str:
    """``~/photos`` -> ``/home/me/photos``; URLs and names of data sets are not changed.

    A path that exists literally, such as ``cost$5``, is not expanded.

    Raises:
        UserError: an unknown variable or user, or a Windows path.
    """
    if _ADDRESS.match(text):
        return text
    if text.startswith("~"):
        text = _in_home(text)
    if not ("$" in text or ":" in text or "\\" in text) or os.path.lexists(text):
        return text
    _refuse_windows(text)
    return _VARIABLE.sub(lambda match: _value(match[1] or match[2], text), text)


def _in_home(text: str) -> str:
    expanded = os.path.expanduser(text)
    if expanded == text and not os.path.lexists(text):
        user, _, _ = text[1:].partition("/")
        raise UserError(
            f"{text}: there is no user '{user}'; a name that begins with ~ is written ./{text}"
            if user
            else f"{text}: the home folder is not known: set HOME, or write the whole path"
        )
    return expanded


def _value(name: str, text: str) -> str:
    if not os.environ.get(name):
        raise UserError(f"{text}: the variable {name} is not set")
    return os.environ[name]


def _refuse_windows(text: str) -> None:
    """Raise a ``UserError`` for a Windows path, even if the shell removed its backslashes."""
    if os.name == "nt":
        return
    if text.startswith("\\\\"):
        raise UserError(f"{text} is a network path of Windows: mount it, and give its folder here")
    drive = _DRIVE.fullmatch(text)
    if drive is None or (len(text) > 2 and not re.match(r"[\w\\/.~]", drive[3])):
        return
    below = f"/mnt/{drive[1].lower()}"
    if drive[2]:
        there = f"inside WSL it is {below}/{drive[3].replace(chr(92), '/').strip('/')}"
    else:
        there = (
            f"inside WSL it begins with {below}/ and has / for every backslash (the shell removes "
            f"backslashes); for a file that really has this name, write ./{text}"
        )
    raise UserError(f"{text} is a Windows path; {there}")
