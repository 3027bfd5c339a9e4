"""Pictures of an encoder's features: as colours, as attention, as nearest patches.

Letters: B batch, N tokens, D width, C class tokens.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.errors import UserError
from mimsuite.methods import Method, Panel
from mimsuite.models.attention_maps import LastAttention
from mimsuite.pictures.features import FeatureColours
from mimsuite.report.canvases import Canvas, canvas_of
from mimsuite.report.pictures import save_panels


def save_feature_pictures(
    method: Method, batch: Batch, out: Path, *, query: int | None = None, neighbours: int = 4
) -> list[Path]:
    """Write ``features.png``, ``attention.png`` (where it can be read) and ``nearest.png``.

    Args:
        method: in eval mode, on the batch's device.
        batch: normalised.
        query: id of the token whose nearest tokens are searched; ``None``: the middle one.
        neighbours: number of nearest tokens shown, at most one per sample.

    Raises:
        UserError: the token does not exist, or ``out`` is not writable.
    """
    with torch.no_grad(), LastAttention() as seen:
        features = method.encode(batch)
    canvas, tokens = canvas_of(method, batch, features)
    count = tokens.shape[1]
    if query is not None and not 0 <= query < count:
        raise UserError(f"--query {query}: tokens are numbered from 0 to {count - 1}")
    original = Panel("original", canvas.originals)
    colours = Panel("features (PCA of all)", canvas.paint(FeatureColours(tokens)(tokens)))
    pages = {"features": [original, colours]}
    prefix = features.cls.shape[1]
    if seen.call is not None and seen.call.query.shape[2] == prefix + count:
        weights = seen.call.weights(first=1 if prefix else None)[..., prefix:]
        heat = _heat(weights.mean(dim=1).cpu())
        by = "class token" if prefix else "mean of all tokens"
        pages["attention"] = [original, Panel(f"attention of the {by}", canvas.paint(heat))]
    middle = sum(s // 2 * _product(canvas.grid[i + 1 :]) for i, s in enumerate(canvas.grid))
    if len(tokens) > 1:
        pages["nearest"] = _nearest(canvas, tokens, middle if query is None else query, neighbours)
    try:
        out.mkdir(parents=True, exist_ok=True)
        return [
            save_panels(out / f"{name}.png", panels, (0.0,), (1.0,), len(batch))
            for name, panels in pages.items()
        ]
    except OSError as error:
        raise UserError(f"cannot write {error.filename or out}: {error.strerror}") from error


def alike(tokens: Tensor, query: int) -> tuple[Tensor, Tensor]:
    """(B, B) similarity of each sample's token ``query`` to the most similar token of each sample,
    and which that is; cosine about the mean of all tokens, -1 for the sample itself."""
    centred = F.normalize(tokens - tokens.mean(dim=(0, 1)), dim=2)
    similarity = torch.einsum("bd,cnd->bcn", centred[:, query], centred)
    best, where = similarity.max(dim=2)
    best.fill_diagonal_(-2.0)
    return best, where


def _nearest(canvas: Canvas, tokens: Tensor, query: int, neighbours: int) -> list[Panel]:
    best, where = alike(tokens, query)
    samples = best.topk(min(neighbours, len(tokens) - 1), dim=1).indices  # (B, k)
    rows = range(len(tokens))
    panels = [Panel("query", torch.stack([canvas.mark(row, query) for row in rows]))]
    for place in range(samples.shape[1]):
        found = [(int(samples[row, place]), row) for row in rows]
        marked = [canvas.mark(sample, int(where[row, sample])) for sample, row in found]
        panels.append(Panel(f"alike {place + 1}", torch.stack(marked)))
    return panels


def _heat(weights: Tensor) -> Tensor:
    """(B, N) -> (B, N, 3) colours, each sample from its least to its greatest weight."""
    from matplotlib import colormaps

    low, high = weights.amin(1, keepdim=True), weights.amax(1, keepdim=True)
    scaled = (weights - low) / (high - low).clamp_min(1e-12)
    return torch.from_numpy(colormaps["inferno"](scaled.numpy())[..., :3]).float()


def _product(values: tuple[int, ...]) -> int:
    return int(torch.tensor(values).prod()) if values else 1
