"""`mimsuite dictionary`: cache features, train dictionaries on them, evaluate and draw them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mimsuite.checkpoints import initialise
from mimsuite.console import say
from mimsuite.data import views_of
from mimsuite.data.sources.few import Subset
from mimsuite.dictionaries.learning import Learnt, learn
from mimsuite.dictionaries.measuring import (
    Use,
    dark_share,
    measure,
    nearest_codes,
    sparsity_curve,
    strongest_images,
)
from mimsuite.dictionaries.rows import Rows
from mimsuite.dictionaries.scaling import Scaling
from mimsuite.dictionaries.sheet import Concept, concept_panels, pixels_of
from mimsuite.dictionaries.stability import stability
from mimsuite.dictionaries.stored import Stored, save_dictionary
from mimsuite.errors import DataError, UserError
from mimsuite.evaluate.dense.features import DenseTables, extract_dense
from mimsuite.evaluate.sources import open_splits
from mimsuite.methods import build
from mimsuite.methods.dictionary import DictionaryReader
from mimsuite.noise import key_of, keyed_rng
from mimsuite.report.pictures import save_panels
from mimsuite.train.device import choose_device

if TYPE_CHECKING:
    from mimsuite.config import Resolved
    from mimsuite.data.source import Source

_TABLE = "patches"


def train_dictionary(path: str | Path | None, recipe: Resolved, out: Path) -> dict[str, Any]:
    """Train the recipe's dictionary on the encoder at ``path``, and write it with its pictures.

    Args:
        path: run, checkpoint or weights file; ``None`` where the recipe has a teacher.
        out: folder for ``dictionary.safetensors``, ``overcomplete.safetensors`` and
            ``concepts.png``.

    Returns:
        metrics and concepts, JSON-serialisable.

    Raises:
        UserError: the weights do not fit, there is no such layer or split, or ``out`` is not
            writable.
        DataError: data cannot be read, or is too little.
    """
    section: Any = recipe.recipe
    device = choose_device(section.train.device)
    reader = _reader(recipe, path, device)
    layer = reader.layer
    train, test = _splits(recipe)
    with tempfile.TemporaryDirectory(prefix="mimsuite-dictionary-") as folder:
        say(f"reading patches of {len(train)} and {len(test)} images")
        learning, held = (
            extract_dense(
                lambda batch: {_TABLE: reader.tokens(batch)},
                source,
                recipe,
                device,
                Path(folder) / name,
                views_of(section),
            )
            for name, source in (("train", train), ("test", test))
        )
        for tables, source in ((learning, train), (held, test)):
            if not np.isfinite(tables.maps[_TABLE][0]).all():
                raise DataError(f"{source.name}: features are not finite: weights are damaged")
        table = learning.maps[_TABLE]
        scaling = Scaling.of(table.reshape(-1, table.shape[2]))
        rows = Rows(table, scaling, device)
        say(f"{len(rows)} rows of width {table.shape[2]}")
        found = [
            learn(rows, table.shape[2], section, section.train.seed + number, device)
            for number in range(section.method.seeds)
        ]
        first = found[0].dictionary
        facts = {
            "target": section.target.model_dump(mode="json"),
            "layer": layer,
            "width": table.shape[2],
            "encoder": str(path) if path is not None else section.model.teacher.kind,
            "recipe": recipe.name,
            "seed": section.train.seed,
            "rows": len(rows),
        }
        stored = Stored(first, scaling, facts)
        test_rows = Rows(held.maps[_TABLE], scaling, device)
        figures, use = measure(first, test_rows)
        concepts = _concepts(first, test_rows, use, section.method)
        try:
            out.mkdir(parents=True, exist_ok=True)
            save_dictionary(stored, out)
            _draw(concepts, first, test_rows, held, test, recipe, out)
        except OSError as error:
            raise UserError(f"cannot write {out}: {error.strerror or error}") from error
        return _result(facts, figures, found, test_rows, use, concepts, held, recipe)


def _reader(recipe: Resolved, path: str | Path | None, device: torch.device) -> DictionaryReader:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_of(recipe.recipe.train.seed, "weights"))
        reader = build(recipe.recipe)
    assert isinstance(reader, DictionaryReader)
    if reader.teacher is not None:
        lines = reader.teacher.open()
    elif path is None:
        raise UserError(f"{recipe.name} has no model.teacher: give a RUN")
    else:
        lines = initialise(reader, path)
    for line in lines:
        say(line)
    return reader.to(device)


def _splits(recipe: Resolved) -> tuple[Source, Source]:
    """Training and test images; a source with a single split is divided in two."""
    train, test = open_splits(recipe, labelled=False)
    if test is not None:
        return train, test
    section = recipe.recipe
    count = len(train)
    if count < 2:
        raise DataError(f"{train.name} has {count} image in '{train.split}': two are needed")
    order = keyed_rng(section.train.seed, "dictionary held out", count).permutation(count)
    held = min(max(round(section.eval.validation * count), 1), count - 1)
    return Subset(train, np.sort(order[held:])), Subset(train, np.sort(order[:held]))


def _concepts(dictionary: Any, rows: Rows, use: Use, section: Any) -> list[Concept]:
    """The codes of highest energy, with their strongest images."""
    count = min(section.concepts, int((use.share > 0).sum()))
    codes = use.energy.topk(count).indices
    images = strongest_images(dictionary, rows, codes, section.examples)
    return [
        Concept(code, f"code {code}: {use.share[code]:.1%} of patches", found)
        for code, found in zip(codes.tolist(), images, strict=True)
        if found
    ]


def _draw(
    concepts: list[Concept],
    dictionary: Any,
    rows: Rows,
    held: DenseTables,
    test: Source,
    recipe: Resolved,
    out: Path,
) -> None:
    if not concepts:
        return
    numbers = [image for concept in concepts for image in concept.images]
    pixels = pixels_of(test, recipe, held.positions, numbers)
    grid = recipe.recipe.model.encoder.grid
    panels = concept_panels(concepts, dictionary, rows, pixels, grid)
    save_panels(out / "concepts.png", panels, (0.0,), (1.0,), len(panels[0].images))


def _result(
    facts: dict[str, Any],
    figures: dict[str, float],
    found: list[Learnt],
    rows: Rows,
    use: Use,
    concepts: list[Concept],
    held: DenseTables,
    recipe: Resolved,
) -> dict[str, Any]:
    first, section = found[0], recipe.recipe
    atoms = [one.dictionary.atoms().detach() for one in found]
    likeness = [stability(atoms[0], other) for other in atoms[1:]]
    near = nearest_codes(atoms[0], torch.tensor([c.code for c in concepts], dtype=torch.int64))
    return {
        **figures,
        "dead_codes": float(first.dead.double().mean()),
        "stability": sum(likeness) / len(likeness) if likeness else None,
        "dark_matter": dark_share(first.dictionary, rows, section.train.seed),
        "curve": sparsity_curve(first.dictionary, rows, section.train.seed),
        "losses": first.losses,
        "concepts": [
            {
                "code": concept.code,
                "share": float(use.share[concept.code]),
                "mean": float(use.mean[concept.code]),
                "energy": float(use.energy[concept.code]),
                "nearest": other,
                "nearest_cosine": cosine,
                "images": [held.keys[image] for image in concept.images],
            }
            for concept, (other, cosine) in zip(concepts, near, strict=True)
        ],
        "kind": section.target.kind,
        "codes": section.target.codes,
        "seeds": len(found),
        "n_train": facts["rows"],
        "n_test": len(rows),
        **{key: facts[key] for key in ("layer", "width", "encoder", "recipe", "seed")},
        "protocol": _protocol(recipe, facts),
        "recipe_document": recipe.document,
    }


def _protocol(recipe: Resolved, facts: dict[str, Any]) -> str:
    section: Any = recipe.recipe
    where, kind = f"block {facts['layer']}" if facts["layer"] else "the map", section.target.kind
    return (
        f"dictionary: {recipe.name}, {kind} of {section.target.codes} codes on patch features "
        f"of {where}, centred and divided by one scale; {section.schedule.epochs:g} "
        f"epochs of {facts['rows']} rows; all figures but dead_codes on rows of held-out images"
    )
