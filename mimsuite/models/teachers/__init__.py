"""Frozen teachers, chosen by the ``kind`` of a recipe's teacher section."""

from __future__ import annotations

from functools import partial
from typing import Any

from mimsuite.config.keys.shared import AugmentSection
from mimsuite.config.keys.teachers import BaseTeacherSection
from mimsuite.models.teachers import clip, dino, efficientnet, plain, run, timm_model
from mimsuite.models.teachers.base import Backbone, Teacher, TeacherFeatures, Wanted
from mimsuite.models.teachers.cached import CachedTeacher

__all__ = ["Backbone", "Teacher", "TeacherFeatures", "Wanted", "build_teacher"]

_KINDS: dict[str, Any] = {
    "clip": clip.load,
    "dino": dino.load,
    "run": run.load,
    "timm": timm_model.load,
    "efficientnet-lite0": efficientnet.load,
}


def build_teacher(
    section: BaseTeacherSection,
    grid: tuple[int, int],
    augment: AugmentSection,
    key: str = "target.teacher",
    plain_norm: bool = False,
) -> Teacher:
    """The teacher that a recipe's section describes; it loads its weights on first use.

    Args:
        section: a section of :mod:`mimsuite.config.keys.teachers`.
        grid: rows and columns of the student's tokens.
        augment: the student's augmentation, with the normalisation of its images.
        key: dotted key of the section in the recipe, for messages.
        plain_norm: tokens come out of a last norm without weight and bias.
    """
    load = partial(_KINDS[section.kind], section, grid, key)
    if plain_norm:
        load = partial(plain.load, load)
    if section.cache is not None:
        return CachedTeacher(section, grid, augment, load, key)
    return Teacher(section, grid, (augment.mean, augment.std), load)
