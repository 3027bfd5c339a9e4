"""Features as colours: their three main directions as red, green and blue.

Letters: B batch, N tokens, K some of them, D width, H x W grid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mimsuite.masking import TokenMask
from mimsuite.tokens import from_tubelets, patchify, tubelets, unpatchify

_LOW, _HIGH = 0.02, 0.98  # quantiles that become black and full colour


class FeatureColours:
    """A map from features to colours, fitted to some features so that others can be compared.

    Args:
        features: (B, N, D) to fit: their principal components over all tokens.
    """

    def __init__(self, features: Tensor) -> None:
        flat = features.detach().float().flatten(0, 1)
        self.mean = flat.mean(dim=0)
        _, _, directions = torch.linalg.svd(flat - self.mean, full_matrices=False)
        directions = directions[:3]
        # The sign of a component is arbitrary: the same picture on every machine.
        largest = directions.abs().argmax(dim=1, keepdim=True)
        self.directions = directions * directions.gather(1, largest).sign()
        projected = (flat - self.mean) @ self.directions.T
        self.low = projected.quantile(_LOW, dim=0)
        self.high = projected.quantile(_HIGH, dim=0)

    def __call__(self, features: Tensor) -> Tensor:
        """(B, K, D) -> (B, K, 3) in [0, 1]; fewer than three directions leave colours at 0."""
        projected = (features.detach().float() - self.mean) @ self.directions.T
        scaled = (projected - self.low) / (self.high - self.low).clamp_min(1e-6)
        return torch.nn.functional.pad(scaled.clamp(0, 1), (0, 3 - scaled.shape[-1]))


def feature_pictures(
    images: Tensor,
    mask: TokenMask,
    patch: int,
    features: Tensor,
    predicted: tuple[Tensor, Tensor],
    statistics: tuple[tuple[float, ...], tuple[float, ...]],
) -> dict[str, Tensor]:
    """Pictures of a feature method by their titles, in the space of the normalised images.

    Args:
        images: (B, C, H, W), normalised by ``statistics`` (mean, deviation).
        patch: pixels of a token's side.
        features: (B, N, D) of the teacher, all tokens.
        predicted: the student's (B, K, D), and which tokens they are of, (B, K).

    Returns:
        the original; what is visible; the teacher's features and the predicted ones as the same
        colours, one pixel per token. Tokens that are not predicted are gray.
    """
    hidden = mask.dense().unsqueeze(-1)  # (B, N, 1)
    visible = patchify(images.float(), patch).masked_fill(hidden, 0.0)
    rows, columns = mask.grid
    colours = FeatureColours(features)
    channels, (tokens, ids) = images.shape[1], predicted
    return {
        "original": images.float(),
        "masked": unpatchify(visible, patch, (rows, columns)),
        "teacher features (PCA)": _picture(colours(features), mask.grid, statistics, channels),
        "predicted features (PCA)": _picture(colours(tokens), mask.grid, statistics, channels, ids),
    }


def clip_feature_pictures(
    clips: Tensor,
    mask: TokenMask,
    token: tuple[int, int],
    features: Tensor,
    predicted: tuple[Tensor, Tensor],
    statistics: tuple[tuple[float, ...], tuple[float, ...]],
) -> dict[str, Tensor]:
    """As :func:`feature_pictures`, of (B, C, T, H, W) clips or (B, C, H, W) images.

    Args:
        token: frames of a token, and pixels of its side.
    """
    still = clips.ndim == 4
    clips = clips.float().unsqueeze(2) if still else clips.float()
    tubelet, patch = token
    hidden = mask.dense().unsqueeze(-1)
    seen = from_tubelets(
        tubelets(clips, tubelet, patch).masked_fill(hidden, 0.0), tubelet, patch, _three(mask.grid)
    )
    colours, (found, ids) = FeatureColours(features), predicted
    frames, rows, columns = _three(mask.grid)

    def shown(values: Tensor, places: Tensor | None = None) -> Tensor:
        flat = _picture(
            colours(values), (frames * rows, columns), statistics, clips.shape[1], places
        )
        film = flat.unflatten(2, (frames, rows))  # (B, C, T, H, W), a pixel a token
        return film.repeat_interleave(tubelet, dim=2)

    pictures = {
        "original": clips,
        "context": seen,
        "target features (PCA)": shown(features),
        "predicted features (PCA)": shown(found, ids),
    }
    return {name: film[:, :, 0] if still else film for name, film in pictures.items()}


def _three(grid: tuple[int, ...]) -> tuple[int, int, int]:
    frames, rows, columns = grid
    return frames, rows, columns


def _picture(
    colours: Tensor,
    grid: tuple[int, ...],
    statistics: tuple[tuple[float, ...], tuple[float, ...]],
    channels: int,
    ids: Tensor | None = None,
) -> Tensor:
    """Colours (B, K, 3) of the tokens ``ids`` (B, K), all where ``None``: (B, channels, H, W)."""
    batch, pixels = len(colours), colours
    if ids is not None:
        pixels = colours.new_full((batch, grid[0] * grid[1], 3), 0.5)
        pixels = pixels.scatter(1, ids.unsqueeze(-1).expand(-1, -1, 3), colours)
    if channels != 3:
        pixels = pixels.mean(dim=-1, keepdim=True).expand(-1, -1, channels)
    mean, std = (torch.tensor(values, device=colours.device) for values in statistics)
    return ((pixels - mean) / std).transpose(1, 2).reshape(batch, channels, *grid)
