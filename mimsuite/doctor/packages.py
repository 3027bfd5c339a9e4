"""Checks of the packages in the suite's metadata: installed, in the right version, how to install.

Versions are read from the packages' metadata, so nothing is imported.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib import metadata

from packaging.requirements import Requirement

from mimsuite.doctor.findings import Finding

# Purpose of each extra; extras for developers are left out.
_PURPOSE = {
    "points": "mesh and point-cloud files",
    "video": "videos that decord does not read",
    "cloud": "shards at s3: addresses",
    "fast": "a faster JPEG decoder",
    "onnx": "export to ONNX",
    "log": "experiment trackers (log.writers)",
}


def check_packages(suite: str = "mimsuite") -> list[Finding]:
    """Check Python, the suite's requirements, and each extra."""
    python = Finding("python", "ok", platform.python_version())
    try:
        wanted = [Requirement(text) for text in metadata.requires(suite) or []]
        parts = metadata.metadata(suite).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        mend = f"pip install {suite}, or `make setup` in a clone"
        return [python, Finding(suite, "note", "not installed, run from its folder", mend)]
    core = _of(wanted, "")
    found = [python, Finding(suite, "ok", metadata.version(suite)), *map(_needed, core)]
    always = {one.name for one in core}
    for part in (name for name in _PURPOSE if name in parts):
        own = [one for one in _of(wanted, part) if one.name not in always]
        found.append(_optional(f"{suite}[{part}]", _PURPOSE[part], own))
    return found


def _of(wanted: Iterable[Requirement], part: str) -> list[Requirement]:
    """The requirements of an extra on this machine; ``""``: of the suite itself."""
    return [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": part})]


def _needed(wanted: Requirement) -> Finding:
    version = _version(wanted)
    facts = {"version": version, "wanted": str(wanted.specifier)}
    if version is None:
        return Finding(wanted.name, "missing", "not installed", _pip(str(wanted)), facts)
    if not wanted.specifier.contains(version, prereleases=True):
        value = f"{version}, wanted is {wanted.specifier}"
        return Finding(wanted.name, "missing", value, _pip(_bare(wanted)), facts)
    return Finding(wanted.name, "ok", version, facts=facts)


def _optional(name: str, purpose: str, wanted: list[Requirement]) -> Finding:
    versions = {one.name: _version(one) for one in wanted}
    lacking = [
        one.name
        for one in wanted
        if (version := versions[one.name]) is None
        or not one.specifier.contains(version, prereleases=True)
    ]
    if lacking:
        value = f"not there ({', '.join(lacking)}): {purpose}"
        return Finding(name, "note", value, _pip(name), versions)
    shown = ", ".join(f"{package} {version}" for package, version in versions.items())
    return Finding(name, "ok", f"{shown or 'nothing more needed'}: {purpose}", facts=versions)


def _version(wanted: Requirement) -> str | None:
    try:
        return metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return None


def _bare(wanted: Requirement) -> str:
    return f"{wanted.name}{wanted.specifier}"


def _pip(what: str) -> str:
    return f"pip install '{what.partition(';')[0].strip()}'"
