"""Shared fixtures: quiet threads, and no test ever reads or writes the user's own files."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# What must pass before a change lands tries the same examples each time; elsewhere new ones.
settings.register_profile("repeatable", derandomize=True)
if os.environ.get("MIMSUITE_REQUIRE"):
    settings.load_profile("repeatable")

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("WDS_SECURE", "1")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Indexes of the embedded sets go to a folder of this session, in child processes too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIMSUITE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
