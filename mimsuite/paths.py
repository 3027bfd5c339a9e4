"""Paths as people write them, alike in every option and recipe key.

``~``, ``~user``, ``$NAME`` and ``${NAME}`` are expanded here and not left to the shell, which does
not do it after ``=``, in quotes or in a recipe file. Torch-free.
"""

from __future__ import annotations

import os
import re

from mimsuite.errors import UserError

_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", re.ASCII)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # two letters or more: no drive
_DRIVE = re.compile(r"([A-Za-z]):(?=([\\/]?))(.*)", re.DOTALL)


def expand_path(text: str) -> str:
    """``~/photos`` -> ``/home/me/photos``; addresses and names of sets stay as they are.

    A file that is called so, such as ``cost$5``, is meant as it is.

    Raises:
        UserError: a variable or user that there is not, or a path of Windows.
    """
    if _ADDRESS.match(text):
        return text
    if text.startswith("~"):
        text = _in_home(text)
    if not ("$" in text or ":" in text or "\\" in text) or os.path.lexists(text):
        return text
    _refuse_windows(text)
    return _VARIABLE.sub(lambda found: _value(found[1] or found[2], text), text)


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
    """Raise a ``UserError`` for a path of Windows, also one whose backslashes the shell ate."""
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
            f"inside WSL it begins with {below}/, and its parts are parted by / (the shell takes "
            f"backslashes away); a name that begins so is written ./{text}"
        )
    raise UserError(f"{text} is a Windows path; {there}")
