"""Builds the dictionary of a recipe's ``target`` section."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mimsuite.config.keys.dictionaries import (
    ArchetypalAtomsSection,
    BatchTopKSection,
    JumpReLUSection,
    OrthogonalSection,
    PursuitSection,
    TopKSection,
)
from mimsuite.dictionaries.atoms import ArchetypalAtoms, Atoms
from mimsuite.dictionaries.base import Dictionary
from mimsuite.dictionaries.batchtopk import BatchTopKDictionary
from mimsuite.dictionaries.encoders import Coder
from mimsuite.dictionaries.jumprelu import JumpReLUDictionary
from mimsuite.dictionaries.orthogonal import OrthogonalDictionary
from mimsuite.dictionaries.pursuit import PursuitDictionary
from mimsuite.dictionaries.relu import ReLUDictionary
from mimsuite.dictionaries.topk import TopKDictionary


def build_dictionary(section: Any, width: int, points: Tensor | None = None) -> Dictionary:
    """A freshly initialised dictionary in train mode; weights depend on the caller's torch seed.

    Args:
        section: a section of :mod:`mimsuite.config.keys.dictionaries`.
        width: D of the features.
        points: (P, D) candidates for archetypal atoms.
    """
    atoms = _atoms(section, width, points)
    if isinstance(section, OrthogonalSection):
        return OrthogonalDictionary(atoms, section.active, section.dropout, section.fit_steps)
    if isinstance(section, PursuitSection):
        return PursuitDictionary(atoms, section.active, section.dropout)
    coder = Coder(width, section.codes, section.encoder)
    if section.encoder_start == "tied":
        coder.tie(atoms())
    if isinstance(section, TopKSection):
        return TopKDictionary(atoms, coder, section.active)
    if isinstance(section, BatchTopKSection):
        return BatchTopKDictionary(atoms, coder, section.active, section.momentum)
    if isinstance(section, JumpReLUSection):
        return JumpReLUDictionary(atoms, coder, section.codes, section.kernel, section.bandwidth)
    return ReLUDictionary(atoms, coder)


def _atoms(section: Any, width: int, points: Tensor | None) -> nn.Module:
    atoms = section.atoms
    if not isinstance(atoms, ArchetypalAtomsSection):
        return Atoms(section.codes, width, atoms.projection, atoms.multiplier)
    assert points is not None
    return ArchetypalAtoms(points, section.codes, atoms.delta, atoms.multiplier)
