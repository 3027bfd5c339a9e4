"""A model's input preprocessing, from ``preprocessor_config.json`` or timm's ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mimsuite.errors import UserError
from mimsuite.weights.model_folder import Beside

_INTERPOLATION = {2: "bilinear", 3: "bicubic"}  # numbers of Pillow


def input_facts(beside: Beside) -> tuple[dict[str, Any], list[str]]:
    """``mean``, ``std``, ``interpolation`` and ``resize`` (short side), if given; and notes.

    Raises:
        UserError: pixels are not scaled to [0, 1].
    """
    given = beside.preprocessor
    if not given:
        return _of_timm(beside.config), []
    facts: dict[str, Any] = {}
    factor = given.get("rescale_factor", 1 / 255)
    if given.get("do_rescale", True) is False or abs(factor * 255 - 1) > 1e-6:
        raise UserError(
            f"preprocessor_config.json: pixels that are not divided by 255 (rescale_factor "
            f"{factor}, do_rescale {given.get('do_rescale', True)}) are not supported"
        )
    mean, std = given.get("image_mean"), given.get("image_std")
    if given.get("do_normalize", True) is False:
        length = len(mean) if isinstance(mean, list) else 3
        mean, std = [0.0] * length, [1.0] * length
    if isinstance(mean, list) and isinstance(std, list):
        facts |= {"mean": [float(x) for x in mean], "std": [float(x) for x in std]}
    if given.get("resample") in _INTERPOLATION:
        facts["interpolation"] = _INTERPOLATION[given["resample"]]
    return facts | _resize(given), _notes(given)


def _resize(given: Mapping[str, Any]) -> dict[str, Any]:
    """The short side before the centre crop; ``None``: that of the crop."""
    size = given.get("size")
    short = size.get("shortest_edge") if isinstance(size, dict) else None
    crop = given.get("crop_size")
    crop = crop.get("height") if isinstance(crop, dict) else crop
    return {"resize": short if isinstance(short, int) and short != crop else None}


def _notes(given: Mapping[str, Any]) -> list[str]:
    size = given.get("size")
    whole = isinstance(size, int) or (isinstance(size, dict) and "height" in size)
    if whole and given.get("do_resize", True) and not given.get("do_center_crop", False):
        return [
            "preprocessor_config.json stretches pictures that are not square; here their centre "
            "is cropped"
        ]
    return []


def _of_timm(config: Mapping[str, Any]) -> dict[str, Any]:
    own = config.get("pretrained_cfg")
    if not isinstance(own, dict):
        return {}
    return {
        key: [float(x) for x in own[key]]
        for key in ("mean", "std")
        if isinstance(own.get(key), list)
    }
