"""Resources of a SLURM job: a profile of the cluster, overridden by command-line options.

Profiles are in ``~/.config/mimsuite/slurm.yaml`` (``$XDG_CONFIG_HOME/mimsuite/slurm.yaml``), by
name; the profile ``default`` is used when none is named. Does not import torch.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from mimsuite.config import yaml
from mimsuite.config.faults import at, faults_of
from mimsuite.config.keys.section import Positive, Section
from mimsuite.config.layers import COMMAND_LINE, Layer
from mimsuite.config.suggest import did_you_mean
from mimsuite.errors import UserError
from mimsuite.paths import expand_path

DEFAULT = "default"


def _text(pattern: str, what: str) -> AfterValidator:
    """A validator for texts that match a pattern, because SLURM parses the lines they go into."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"expected {what}, got {value!a}")
        return value

    return AfterValidator(check)


Name = Annotated[str, _text(r"[\w.,@+:/-]+", "a name")]
Constraint = Annotated[str, _text(r"[\w.,&|()\[\]*:+-]+", "features, as in a100&nvlink")]
Limit = Annotated[
    str,
    _text(
        r"\d+|(\d+:)?\d+:\d+|\d+-\d+(:\d+){0,2}", "a time limit, as in 30 (minutes) or 2-12:00:00"
    ),
]
Warning_ = Annotated[
    str,
    _text(r"(TERM|INT|USR1|USR2)@\d+", "signal and seconds before the limit, as in USR1@120"),
]
Line = Annotated[str, _text(r"[^\x00-\x08\x0a-\x1f\x7f]+", "one line of text")]
Option = Annotated[str, _text(r"--?\w[^\x00-\x1f\x7f]*", "an option, as in --mem=64G")]
Module = Annotated[str, _text(r"[\w./+:@-]+", "the name of a module")]


class Profile(Section):
    """Keys of a profile; those up to ``max_requeues`` are also options of `mimsuite submit`."""

    partition: Name | None = None
    account: Name | None = None
    qos: Name | None = None
    constraint: Constraint | None = None
    nodes: Positive = 1
    gpus_per_node: Positive | None = None  # one process per GPU
    tasks_per_node: Positive | None = None  # processes, on nodes without GPUs
    cpus_per_task: Positive | None = None  # None: one, plus one for each loader worker
    time: Limit | None = None  # None: the partition's default
    signal: Warning_ = "USR1@120"  # stop signal, and seconds before the time limit
    requeue: bool = True
    max_requeues: Annotated[int, Field(ge=0)] = 100
    modules: tuple[Module, ...] = ()
    environment: Annotated[dict[str, str | int], Field(default_factory=dict)]
    setup: tuple[Line, ...] = ()  # lines of bash, before training
    container: Line | None = None  # prefix of the command, such as apptainer exec --nv FILE
    command: Line | None = None  # None: this installation; in a container: mimsuite
    sbatch: tuple[Option, ...] = ()  # more options of sbatch
    srun: tuple[Option, ...] = ()  # more options of srun, such as pyxis' --container-image

    @property
    def tasks(self) -> int:
        """Processes per node, one for each device."""
        return self.gpus_per_node or self.tasks_per_node or 1

    @property
    def world(self) -> int:
        return self.nodes * self.tasks


def profile_file() -> Path:
    """The file of profiles."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(expand_path(base)) / "mimsuite" / "slurm.yaml"


def load_profile(name: str | None, given: Mapping[str, Any]) -> Profile:
    """Read a profile and override it by command-line options.

    Args:
        name: name of the profile; None: ``default`` if it exists.
        given: options from the command line, by key.

    Raises:
        UserError: no such profile, or invalid options; lists all faults at once.
    """
    layer = _read(name)
    if given.get("gpus_per_node") and "tasks_per_node" not in given:
        layer.document.pop("tasks_per_node", None)
    if given.get("tasks_per_node") and "gpus_per_node" not in given:
        layer.document.pop("gpus_per_node", None)
    return _checked(_given(given).over(layer))


def only_given(given: Mapping[str, Any]) -> Profile:
    """A profile of command-line options alone.

    Raises:
        UserError: invalid options; lists all faults at once.
    """
    return _checked(_given(given))


def _given(options: Mapping[str, Any]) -> Layer:
    return Layer(dict(options), dict.fromkeys([(key,) for key in options], COMMAND_LINE))


def _checked(merged: Layer) -> Profile:
    try:
        # Strict JSON mode: a list is accepted for a tuple, but "8" is not for a number.
        profile = Profile.model_validate_json(json.dumps(merged.document), strict=True)
    except ValidationError as error:
        faults = faults_of(error, Profile, merged)
    else:
        faults = _contradictions(profile) + _wrong_variables(profile, merged)
    if faults:
        raise UserError("\n  ".join(faults))
    return profile


def seconds_of(limit: str) -> int:
    """A SLURM time limit in seconds: minutes, M:S, H:M:S, D-H, D-H:M or D-H:M:S."""
    days, dash, rest = limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, (*parts, 0)[:2]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def _read(name: str | None) -> Layer:
    """The keys of a profile and the line of each in the file."""
    file = profile_file()
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        if name is not None:
            raise UserError(f"no profile '{name}': there is no {file}") from None
        return Layer({}, {})
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from None
    value, lines = yaml.parse(text, str(file))
    profiles = {} if value is None else value
    if not isinstance(profiles, dict) or not all(isinstance(p, dict) for p in profiles.values()):
        raise UserError(f"{file}: expected profiles by name, each with keys such as partition:")
    if name is None and DEFAULT not in profiles:
        return Layer({}, {})
    wanted = name or DEFAULT
    if wanted not in profiles:
        hint = did_you_mean(wanted, profiles) or f" There is {', '.join(profiles) or 'none'}."
        raise UserError(f"no profile '{wanted}' in {file}.{hint}")
    origins = {way[1:]: f"{file}:{line}" for way, line in lines.items() if way[0] == wanted}
    return Layer(dict(profiles[wanted]), origins)


def _contradictions(profile: Profile) -> list[str]:
    faults = []
    if profile.gpus_per_node and profile.tasks_per_node:
        faults.append(
            "gpus_per_node and tasks_per_node exclude each other: there is one process a GPU"
        )
    lead = int(profile.signal.partition("@")[2])
    if profile.time is not None and seconds_of(profile.time) <= lead:
        faults.append(
            f"time={profile.time} is over before signal={profile.signal} comes: ask for more time "
            f"or fewer seconds"
        )
    return faults


def _wrong_variables(profile: Profile, layer: Layer) -> list[str]:
    faults = []
    for name, value in profile.environment.items():
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            fault = f"environment: {name!a} is not the name of a variable"
        elif not str(value).isprintable():
            fault = f"environment.{name}: expected one line of text, got {value!a}"
        else:
            continue
        faults.append(fault + at(layer.place(("environment", name))))
    return faults
