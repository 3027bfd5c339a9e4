"""Resolve a recipe: merge base, file, smoke sizes and overrides, and validate the result.

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
    """A valid recipe: every key has its final value and its origin.

    Attributes:
        recipe: typed and frozen.
        name: catalog name, or path of a recipe file outside the catalog.
        document: the recipe as plain values: every key, in section order, as in config.yaml.
            ``base`` is null, because the values of the base are merged in.
        origins: dotted key -> ``default``, ``file:line``, ``smoke`` or ``command line``.
        changed: dotted key -> value, for keys set by smoke sizes or overrides.
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
        """One line for each key that differs from an earlier document of the same run.

        A key that the earlier version lacked counts only if it was set explicitly.
        """
        return [
            f"{key}: was {before}, is now {now}"
            for key, (before, now) in layers.differing(document, self.document).items()
            if before != "-" or self.origins.get(key, DEFAULT) != DEFAULT
        ]

    def changed_yaml(self) -> str:
        """The keys changed against the recipe file, as YAML sections."""
        if not self.changed:
            return f"# {self.name or 'recipe'}, nothing changed.\n"
        changed = yaml.dump(layers.nested(self.changed))
        return f"# {self.name or 'recipe'}, changed keys.\n{changed}"


def load(recipe: str | Path, overrides: Sequence[str] = (), *, smoke: bool = False) -> Resolved:
    """Resolve a recipe.

    Args:
        recipe: a catalog name such as ``image/mae-vitb16-in1k``, or a path to a YAML file.
        overrides: ``section.key=value`` texts from the command line; the last one wins.
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
    """Validate a stored document: a run's config.yaml or a checkpoint's recipe.

    Raises:
        UserError: the document does not fit this version's schema.
    """
    origin = name or "stored recipe"
    origins = {keys[:n]: origin for keys, _ in leaves(document) for n in range(len(keys) + 1)}
    return _resolve(Layer(dict(document), origins), name, set())


def with_overrides(
    resolved: Resolved, overrides: Sequence[str] | Mapping[str, Any], origin: str = COMMAND_LINE
) -> Resolved:
    """A resolved recipe with some keys changed.

    Args:
        resolved: the recipe to start from; it is not modified.
        overrides: ``section.key=value`` texts, or values by dotted key.
        origin: origin that is recorded for the new values.
    """
    origins = {layers.way_of(key): origin for key, origin in resolved.origins.items()}
    given = layers.of_overrides(overrides, origin)
    changed = {layers.way_of(key) for key in resolved.changed} | set(given.origins)
    return _resolve(given.over(Layer(resolved.document, origins)), resolved.name, changed)


def _resolve(layer: Layer, name: str, changed: set[Keys]) -> Resolved:
    """Validate a merged layer and fill in defaults; ``changed``: keys set on top of the file."""
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
    kind = Recipe  # checks the shared sections even if the method is unknown
    if isinstance(wanted, str):
        try:
            kind = recipe_class(wanted)
        except UserError as error:
            faults.append(f"method.name: {error}{at(layer.place(('method', 'name')))}")
    try:
        # JSON mode accepts lists for tuples, but not the text "0.75" for a number.
        recipe = kind.model_validate_json(json.dumps(layer.document), strict=True)
    except ValidationError as error:
        faults += faults_of(error, kind, layer)
    if kind is not Recipe:
        faults += faults_of_smoke(layer, kind)
    if faults:
        raise refuse(faults, name)
    return recipe
