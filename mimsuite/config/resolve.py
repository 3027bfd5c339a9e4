"""A recipe, resolved: file over base, smoke sizes, overrides, checked, each value with its origin.

Precedence, lowest first: schema defaults, base, recipe, ``smoke:`` (when asked for), command line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mimsuite.config import catalog, layers, yaml
from mimsuite.config.faults import at, faults_of, refuse
from mimsuite.config.keys.shared import Recipe
from mimsuite.config.layers import COMMAND_LINE, Layer, leaves
from mimsuite.config.methods import recipe_class
from mimsuite.config.smoke import faults_of_smoke, smoke_layer
from mimsuite.config.yaml import Keys
from mimsuite.errors import UserError

DEFAULT = "default"


@dataclass(frozen=True)
class Resolved:
    """A valid recipe with every value settled.

    Attributes:
        recipe: typed and frozen.
        name: catalog name, or the path of a file of one's own.
        document: the same as plain values: every key, in section order; what config.yaml holds.
            ``base`` is null in it, since what the base gave is there.
        origins: dotted key -> ``default``, ``file:line``, ``smoke`` or ``command line``.
        changed: dotted key -> value, of the keys that smoke and overrides set.
    """

    recipe: Recipe
    name: str
    document: dict[str, Any]
    origins: dict[str, str]
    changed: dict[str, Any]

    def yaml(self) -> str:
        """The whole document as a recipe file."""
        return f"# {self.name or 'recipe'}, resolved: every key.\n{yaml.dump(self.document)}"

    def changed_since(self, document: Mapping[str, Any]) -> list[str]:
        """A line for each key that differs from an earlier document of the same run.

        Keys that the earlier version did not have count where somebody set them.
        """
        return [
            f"{key}: was {before}, is now {now}"
            for key, (before, now) in layers.differing(document, self.document).items()
            if before != "-" or self.origins.get(key, DEFAULT) != DEFAULT
        ]

    def changed_yaml(self) -> str:
        """What was changed against the recipe file, as sections of a recipe file."""
        if not self.changed:
            return f"# {self.name or 'recipe'}, nothing changed.\n"
        changed = yaml.dump(layers.nested(self.changed))
        return f"# {self.name or 'recipe'}, changed keys.\n{changed}"


def load(recipe: str | Path, overrides: Sequence[str] = (), *, smoke: bool = False) -> Resolved:
    """Resolve a recipe.

    Args:
        recipe: a catalog name such as ``image/mae-vitb16-in1k``, or a path to a YAML file.
        overrides: ``section.key=value`` texts from the command line, later ones winning.
        smoke: apply the recipe's ``smoke:`` sizes.

    Raises:
        UserError: every fault of the recipe at once, with file and line.
    """
    file = catalog.find(recipe)
    written = layers.read_chain(file)
    given = layers.of_overrides(overrides)
    changes = given.over(smoke_layer(given.over(written))) if smoke else given
    return _resolve(changes.over(written), file.name, set(changes.origins))


def from_document(document: Mapping[str, Any], name: str = "") -> Resolved:
    """Check a stored document again: a run's config.yaml or a checkpoint's recipe.

    Raises:
        UserError: it does not fit this version's schema.
    """
    origin = name or "stored recipe"
    origins = {keys[:n]: origin for keys, _ in leaves(document) for n in range(len(keys) + 1)}
    return _resolve(Layer(dict(document), origins), name, set())


def with_overrides(
    resolved: Resolved, overrides: Sequence[str] | Mapping[str, Any], origin: str = COMMAND_LINE
) -> Resolved:
    """A resolved recipe with some keys changed.

    Args:
        resolved: the recipe to start from; it stays as it is.
        overrides: ``section.key=value`` texts, or values by dotted key.
        origin: what to say of where the new values come from.
    """
    origins = {layers.way_of(key): origin for key, origin in resolved.origins.items()}
    given = layers.of_overrides(overrides, origin)
    changed = {layers.way_of(key) for key in resolved.changed} | set(given.origins)
    return _resolve(given.over(Layer(resolved.document, origins)), resolved.name, changed)


def _resolve(layer: Layer, name: str, changed: set[Keys]) -> Resolved:
    """Validate a merged layer and complete it; ``changed`` are the keys set over the file."""
    recipe = _validate(layer, name)
    document = recipe.model_dump(mode="json")
    document["base"] = None
    values = dict(leaves(document))
    return Resolved(
        recipe=recipe,
        name=name,
        document=document,
        origins={".".join(keys): layer.origins.get(keys, DEFAULT) for keys in values},
        changed={".".join(keys): value for keys, value in values.items() if keys in changed},
    )


def _validate(layer: Layer, name: str) -> Recipe:
    faults: list[str] = []
    method = layer.document.get("method")
    wanted = method.get("name") if isinstance(method, dict) else None
    kind = Recipe  # knows the sections that all methods share, where the method is not known
    if isinstance(wanted, str):
        try:
            kind = recipe_class(wanted)
        except UserError as error:
            faults.append(f"method.name: {error}{at(layer.place(('method', 'name')))}")
    try:
        # JSON mode: a list is a tuple's only spelling, yet "0.75" is not a number.
        recipe = kind.model_validate_json(json.dumps(layer.document), strict=True)
    except ValidationError as error:
        faults += faults_of(error, kind, layer)
    if kind is not Recipe:
        faults += faults_of_smoke(layer, kind)
    if faults:
        raise refuse(faults, name)
    return recipe
