"""The file of a dictionary: safetensors with its weights and scaling, and its facts in the header.

Weights have the keys of KempnerInstitute's library overcomplete; ``scaling.mean``,
``scaling.scale`` and ``running_threshold`` are ours.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mimsuite.config.keys.dictionaries import ArchetypalAtomsSection, TargetSection
from mimsuite.dictionaries.base import Dictionary
from mimsuite.dictionaries.build import build_dictionary
from mimsuite.dictionaries.scaling import Scaling
from mimsuite.errors import UserError

_FACTS = "mimsuite.dictionary"


@dataclass(frozen=True)
class Stored:
    """A dictionary for features of one layer of one encoder.

    Attributes:
        facts: ``target`` (the recipe's section), ``layer``, ``width``, ``encoder`` (its path or
            the kind of teacher), ``recipe``, ``seed``, ``rows``.
    """

    dictionary: Dictionary
    scaling: Scaling
    facts: dict[str, Any]

    @torch.no_grad()
    def encode(self, features: Tensor) -> Tensor:
        """(..., C) codes of the encoder's features (..., D), unscaled."""
        rows = self.scaling.scaled(features.flatten(0, -2))
        return self.dictionary.encode(rows).unflatten(0, features.shape[:-1])

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """(..., D) unscaled features reconstructed from codes (..., C)."""
        return self.scaling.restored(codes @ self.dictionary.atoms())

    def to(self, device: torch.device) -> Stored:
        """Copy to another device."""
        return Stored(self.dictionary.to(device), self.scaling.to(device), self.facts)


def save_dictionary(stored: Stored, folder: Path) -> list[Path]:
    """Write ``dictionary.safetensors`` and ``overcomplete.safetensors``.

    The second file holds only the weights. The library overcomplete loads it as the state dict of
    its corresponding module, for features that are already scaled.

    Returns:
        the two files.
    """
    state = {k: v.detach().cpu().contiguous() for k, v in stored.dictionary.state_dict().items()}
    plain = {k: v.detach().cpu().contiguous() for k, v in stored.dictionary.published().items()}
    scaling = {
        "scaling.mean": stored.scaling.mean.cpu(),
        "scaling.scale": stored.scaling.scale.cpu(),
    }
    facts = {_FACTS: json.dumps(stored.facts)}
    paths = [folder / "dictionary.safetensors", folder / "overcomplete.safetensors"]
    save_file(state | scaling, str(paths[0]), metadata=facts)
    save_file(plain, str(paths[1]), metadata=facts)
    return paths


def load_dictionary(path: str | Path) -> Stored:
    """Open the file ``dictionary.safetensors`` of :func:`save_dictionary`, or the one in a folder.

    Raises:
        UserError: the file is missing or is no dictionary of this suite.
    """
    file = Path(path)
    file = file / "dictionary.safetensors" if file.is_dir() else file
    if not file.is_file():
        raise UserError(f"--dictionary {path}: no such file")
    try:
        with safe_open(str(file), framework="pt") as opened:
            text = (opened.metadata() or {}).get(_FACTS)
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"--dictionary {path}: not a safetensors file: {error}") from None
    if text is None or "scaling.mean" not in state:
        raise UserError(f"--dictionary {path}: not a dictionary.safetensors of `dictionary`")
    try:
        facts = json.loads(text)
        section: Any = TypeAdapter(TargetSection).validate_json(json.dumps(facts["target"]))
        width = int(facts["width"])
        points = None
        if isinstance(section.atoms, ArchetypalAtomsSection):
            points = state["dictionary.C"]
        scaling = Scaling(state.pop("scaling.mean"), state.pop("scaling.scale"))
        with torch.random.fork_rng(devices=[]):
            dictionary = build_dictionary(section, width, points)
        dictionary.load_state_dict(state)
    except (ValueError, KeyError, TypeError, RuntimeError, ValidationError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"--dictionary {path}: damaged or another version: {reason}") from None
    return Stored(dictionary.eval(), scaling, facts)
