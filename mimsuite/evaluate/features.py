"""Frozen features of a whole data set, computed once for all probes.

Letters: N samples, B batch, C class tokens, D width.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.cluster.peers import ALONE, Peers
from mimsuite.config.keys.shared import EvalSection
from mimsuite.console import warn
from mimsuite.data import eval_loader, views_of
from mimsuite.data.source import Source
from mimsuite.data.views import Views
from mimsuite.errors import DataError, UserError
from mimsuite.methods import Method, evaluating
from mimsuite.models import Features
from mimsuite.train.precision import Precision

if TYPE_CHECKING:
    from mimsuite.config import Resolved

PIXELS = "pixels"


@dataclass(frozen=True)
class FeatureSet:
    """Features of the same samples, in source order.

    Attributes:
        features: ``pool@layer`` (``cls@12``, ``mean@9``) or ``pixels`` -> (N, D) float32, CPU.
        labels: (N,) int64, -1 = unlabelled; (N, K) float32 if the source has ``targets``;
            ``None`` if the source has no labels.
        keys: N sample names.
        classes: names of the classes or of the K labels, if known.
    """

    features: dict[str, Tensor]
    labels: Tensor | None
    keys: list[str]
    classes: list[str] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, rows: Tensor) -> FeatureSet:
        """The samples with these row numbers."""
        return replace(
            self,
            features={name: table[rows] for name, table in self.features.items()},
            labels=None if self.labels is None else self.labels[rows],
            keys=[self.keys[row] for row in rows.tolist()],
        )


def extract(
    method: Method,
    source: Source,
    resolved: Resolved,
    *,
    pools: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    pixels: bool = False,
    peers: Peers = ALONE,
) -> FeatureSet:
    """Encode every sample once, unmasked, resized and centre-cropped.

    Features of the last block include the encoder's final norm; features of earlier blocks are the
    block's output.

    Args:
        method: on the device to compute on; in eval mode during the call.
        resolved: the run's recipe: image size, crops and normalisation, ``eval.batch``.
        pools: see :meth:`Features.pool`; ``None``: those of ``eval.pool``.
        layers: block numbers from 1; ``None``: those of ``eval.layers``.
        pixels: add the raw input as the table ``pixels``.
        peers: ranks that share the work. They split it in whole batches, so the features equal
            those of one process. The first rank gets all features, the others an empty set.

    Raises:
        UserError: a layer or pooling that the encoder does not have.
        DataError: no sample could be read, or features are not finite.
    """
    depth = method.layer_count() - 1
    chosen = wanted_layers(resolved.recipe.eval, depth) if layers is None else list(layers)
    if not chosen or min(chosen) < 1 or max(chosen) > depth:
        raise UserError(f"eval.layers {chosen}: this encoder has blocks 1 to {depth}")
    views = views_of(resolved.recipe)
    rows: dict[str, list[Tensor]] = {}
    labels: list[Tensor] = []
    keys: list[str] = []
    # A GPU is several times faster in bf16. On a CPU features are the same whatever the training.
    device = _device(method)
    wanted = resolved.recipe.train.precision if device.type == "cuda" else "fp32"
    cast = Precision(wanted, device).autocast
    with torch.inference_mode(), evaluating(method):
        mine = _positions(len(source), resolved.recipe.eval.batch, peers)
        for batch in normalized_batches(source, resolved, device, mine):
            with cast():
                features = method.encode(batch, layers=[n for n in chosen if n < depth])
            kinds = pools or wanted_pools(resolved.recipe.eval, features)
            for name, table in _tables(features, kinds, chosen, depth).items():
                rows.setdefault(name, []).append(table.float().cpu())
            if pixels:
                rows.setdefault(PIXELS, []).append(views.raw(batch).cpu())
            if batch.label is not None:
                labels.append(batch.label.cpu())
            keys += batch.keys
    # clone: autograd cannot train a probe on inference-mode tensors.
    tables = {name: torch.cat(parts).clone() for name, parts in rows.items()}
    label = torch.cat(labels).clone() if labels else None
    names = source.classes if source.targets is None else source.targets.names
    found = FeatureSet(tables, label, keys, None if names is None else list(names))
    if peers.world > 1:
        found = gathered(found, peers)
    if peers.first and not found.keys:
        raise DataError(f"{source.name} has no sample in split '{source.split}'")
    _check_finite(found)
    return found


def _check_finite(found: FeatureSet) -> None:
    """Refuse features that are not finite."""
    for name, table in found.features.items():
        odd = (~table.isfinite().all(dim=1)).nonzero()[:, 0].tolist()
        if odd:
            raise DataError(
                f"features {name} of {len(odd)} of {len(found)} samples are NaN or infinite, the "
                f"first is {found.keys[odd[0]]}: the model's weights are damaged, or the sample "
                "holds numbers too large for it"
            )


def feature(method: Method, batch: Batch, name: str) -> Tensor:
    """(B, D) float32: the pooled features ``name`` (``mean@9``) of a normalised batch."""
    pool, _, layer = name.partition("@")
    depth = method.layer_count() - 1
    wanted = [int(layer)] if int(layer) < depth else []
    return _tables(method.encode(batch, layers=wanted), [pool], [int(layer)], depth)[name].float()


def gathered(found: FeatureSet, peers: Peers) -> FeatureSet:
    """On the first rank the rows of all ranks, in rank order; on the others an empty set."""
    widths = {name: table.shape[1] for name, table in found.features.items()}
    columns = None if found.labels is None else list(found.labels.shape[1:])  # [] for class ids
    own = json.dumps([widths, columns]) if found.keys else ""
    described = [json.loads(text) for text in peers.gather_texts(own) if text]
    widths, columns = described[0] if described else ({}, None)
    features = {
        name: peers.gather_rows(found.features.get(name, torch.zeros(0, width)))
        for name, width in widths.items()
    }
    labels = None
    if columns is not None:
        none = torch.zeros(0, *columns, dtype=torch.float32 if columns else torch.int64)
        labels = peers.gather_rows(none if found.labels is None else found.labels)
    keys = [key for text in peers.gather_texts(json.dumps(found.keys)) for key in json.loads(text)]
    if not peers.first:
        return FeatureSet({}, None, [], found.classes)
    tables = {name: table for name, table in features.items() if table is not None}
    return FeatureSet(tables, labels, keys, found.classes)


def _positions(samples: int, batch: int, peers: Peers) -> range:
    """This rank's part of a source: consecutive whole batches."""
    batches = -(-samples // batch)
    first, last = (batches * number // peers.world for number in (peers.rank, peers.rank + 1))
    return range(first * batch, min(samples, last * batch))


def normalized_batches(
    source: Source,
    resolved: Resolved,
    device: torch.device,
    positions: Sequence[int] | None = None,
    views: Views | None = None,
    size: int | None = None,
) -> Iterator[Batch]:
    """Every sample of a source once, in normalised batches; corrupt samples are skipped and named.

    Args:
        positions: positions in the source of the samples to read; None: all.
        views: views of the samples; None: the recipe's.
        size: samples per batch; None: ``eval.batch``.
    """
    recipe = resolved.recipe
    views = views or views_of(recipe)
    normalize = views.normalizer(device)
    workers = recipe.data.workers
    size = size or recipe.eval.batch
    loader = eval_loader(source, views, size, workers=workers, positions=positions)
    for batch in loader:
        yield normalize(batch)
    for damage in loader.damaged:
        warn(f"left out {damage}")


def wanted_layers(section: EvalSection, depth: int) -> list[int]:
    """``eval.layers``, or the last block and those at 3/4 and 1/2 of the depth."""
    if section.layers is not None:
        return list(section.layers)
    return sorted({max(1, depth // 2), max(1, depth * 3 // 4), depth})


def wanted_pools(section: EvalSection, features: Features) -> list[str]:
    """``eval.pool``, or for ``auto`` all poolings that the encoder supports."""
    if section.pool != "auto":
        return [section.pool]
    return [pool for pool in features.pools if features.cls.shape[1] or "cls" not in pool]


def _tables(
    features: Features, pools: Sequence[str], layers: Sequence[int], depth: int
) -> dict[str, Tensor]:
    """Pooled features, deepest layer first."""
    count = features.cls.shape[1]
    tables = {}
    for layer in sorted(set(layers), reverse=True):
        at = features
        if layer != depth:
            block = features.layers[layer]  # (B, C + N, D)
            at = Features(cls=block[:, :count], tokens=block[:, count:])
        for pool in pools:
            try:
                tables[f"{pool}@{layer}"] = at.pool(pool)
            except ValueError as error:
                raise UserError(f"eval.pool: {error}") from None
    return tables


def _device(method: Method) -> torch.device:
    return next(method.parameters()).device
