"""A golden case: a JSON file and, beside it, the safetensors file of the same stem."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor


class CaseFault(Exception):
    """The case cannot be run: a field is missing, or asks for what the product does not do."""


class Hparams:
    """A case's hyperparameters, which remembers what was read.

    A hyperparameter that nobody reads would be silently ignored, so :meth:`unread` names it.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            raise CaseFault(f"hparams.{name}: missing")
        self._read.add(name)
        return self._values[name]

    def get(self, name: str, default: Any) -> Any:
        return self[name] if name in self._values else default

    def require(self, names: str) -> None:
        """Fault on the first of some space-separated ``names`` that is missing."""
        for name in names.split():
            if name not in self._values:
                raise CaseFault(f"hparams.{name}: missing")

    def only(self, name: str, *allowed: Any) -> None:
        """Fault on a value that the product cannot do; a missing one is the first allowed."""
        value = self.get(name, allowed[0])
        if value not in allowed:
            able = " or ".join(json.dumps(each) for each in allowed)
            raise CaseFault(f"hparams.{name}: {json.dumps(value)} is not built, only {able} is")

    def skip(self, *names: str) -> None:
        """Hyperparameters that have no effect under the values of the others."""
        self._read.update(names)

    def unread(self) -> list[str]:
        """Names that were never read and whose value is not an "off"."""
        return [k for k, v in self._values.items() if k not in self._read and v not in _OFF]


_OFF = (None, False, 0, 0.0, "", "none")


@dataclass
class Case:
    """One case, with float16 tensors (stored so only to save space) as float32."""

    path: Path
    document: dict[str, Any]
    tensors: dict[str, Tensor]
    hparams: Hparams = field(init=False)

    def __post_init__(self) -> None:
        self.hparams = Hparams(self.field("hparams"))

    @classmethod
    def read(cls, path: Path) -> Case:
        """Read a case.

        Raises:
            CaseFault: no such file, not JSON, or tensors that cannot be read.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            beside = path.with_suffix(".safetensors")
            tensors = (
                load_file(beside, device=str(torch.get_default_device())) if beside.exists() else {}
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise CaseFault(f"{path}: {error}") from None
        if not isinstance(document, dict):
            raise CaseFault(f"{path}: not a JSON object")
        return cls(path, document, {k: _single(v) for k, v in tensors.items()})

    def field(self, name: str, default: Any = None) -> Any:
        """A field of the JSON; one without a ``default`` must be there."""
        if name in self.document:
            return self.document[name]
        if default is None:
            raise CaseFault(f"{name}: missing field")
        return default

    @property
    def kind(self) -> str:
        return self.field("kind")

    def training(self) -> bool:
        """Whether the model runs in train mode."""
        mode = self.field("mode")
        if mode not in ("train", "eval"):
            raise CaseFault(f"mode: {json.dumps(mode)} is not one of a model: train or eval")
        return mode == "train"

    # --- tensors to feed ---

    def is_input(self, name: str) -> bool:
        return any(matches(name, pattern) for pattern in self.field("inputs"))

    def input(self, name: str) -> Tensor:
        """A tensor that the case says to feed."""
        if name not in self.tensors or not self.is_input(name):
            raise CaseFault(f"inputs: tensor {name} is missing")
        return self.tensors[name]

    def inputs(self, prefix: str) -> dict[str, Tensor]:
        """All tensors to feed below ``prefix``, without it."""
        found = {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix) and self.is_input(name)
        }
        if not found:
            raise CaseFault(f"inputs: no tensor {prefix}*")
        return found

    # --- answers ---

    def answers(self) -> dict[str, Tensor]:
        """Stored tensors that are not for feeding."""
        return {name: t for name, t in self.tensors.items() if not self.is_input(name)}


def rule_for(name: str, rules: dict[str, Any]) -> Any | None:
    """The rule of a tensor: its exact name beats a prefix, a longer prefix a shorter one."""
    if name in rules:
        return rules[name]
    prefixes = [pattern for pattern in rules if pattern.endswith("*") and matches(name, pattern)]
    return rules[max(prefixes, key=len)] if prefixes else None


def matches(name: str, pattern: str) -> bool:
    """Whether ``pattern`` is the name or, with a trailing ``*``, a prefix of it."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """(H, W) of a size that is one number or two."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])
