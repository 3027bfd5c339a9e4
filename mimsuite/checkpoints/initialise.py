"""Initialise a method from weights: ``--init-from``.

Weights are copied by name into a model that may be of another kind: a pretrained encoder into a
classifier, an encoder-only file into an autoencoder with a fresh decoder, a checkpoint of another
image size. The result reports what is not taken and what stays fresh.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mimsuite.checkpoints.inflate import inflated
from mimsuite.checkpoints.shapes import Hints
from mimsuite.checkpoints.weights import Weights, read_weights
from mimsuite.config.keys.section import Key, Section, marked
from mimsuite.config.keys.video import VideoViTSection
from mimsuite.errors import UserError
from mimsuite.methods import Method
from mimsuite.tokens import resize_positions
from mimsuite.weights.files import listed

# Layer norms compute nearly the same with any epsilon up to this: report it, do not refuse it.
_SMALL_EPS = 1e-5

# A classifier on the mean token has its own norm instead of the encoder's; relative position biases
# are added for fine-tuning; a ConvViT's fusion is used in pretraining only; codes of place and
# dates are a choice.
_OPTIONAL = re.compile(r"encoder\.(norm\.|fusion\.|added\.|.*\.relative_position_)")

# Parts that must be taken whole; others may stay fresh.
_STRICT = ("encoder", "decoder", "predictor")
_FEW = 4  # largest number of tensors to name individually


def initialise(method: Method, path: str | Path) -> list[str]:
    """Copy the weights at ``path`` into a fresh method.

    Positions are resized if the grid of patches differs. The optimizer and the step of a checkpoint
    are not taken: this starts a new training and does not resume one.

    Returns:
        lines that report what was loaded, resized, left fresh and dropped.

    Raises:
        UserError: nothing usable at ``path``, or weights of another architecture; the message
            names the recipe keys to change.
    """
    weights = read_weights(path, _hints(method))
    target = method.state_dict()
    theirs, ours = _section(weights.resolved.recipe, "encoder"), _section(method.recipe, "encoder")
    weights, deeper = inflated(weights, theirs, ours)
    weights, adapted = _with_channels(method, weights, target)
    for part in _STRICT:
        _require_same_section(part, method, weights, target)
    weights, lines = _resized(method, weights)
    state, fitted = method.adapt_state(weights.state)
    weights, lines = replace(weights, state=state), deeper + adapted + lines + fitted
    taken: dict[str, Tensor] = {}
    for part in _parts(target):
        tensors, line = _take(part, method, weights, target)
        taken.update(tensors)
        lines.append(line)
    adopted = {
        ours: theirs
        for ours, theirs in method.init_aliases().items()
        if ours not in taken and theirs in weights.state
    }
    taken |= {ours: weights.state[theirs] for ours, theirs in adopted.items()}
    lines += _adoptions(adopted)
    lines += _not_taken(weights, {*taken, *adopted.values()})
    method.load_state_dict({**target, **taken})
    return [*weights.notes, *lines, *_differences(method, weights, taken)]


def _hints(method: Method) -> Hints:
    encoder = _section(method.recipe, "encoder")
    decoder = _section(method.recipe, "decoder") or _section(method.recipe, "predictor")
    return Hints(
        likely_heads=getattr(encoder, "heads", None),
        likely_decoder_heads=getattr(decoder, "heads", None),
    )


def _section(recipe: Any, part: str) -> Section | None:
    found = getattr(recipe.model, part, None)
    return found if isinstance(found, Section) else None


def _same_method(method: Method, weights: Weights) -> bool:
    ours: Any = method.recipe
    return bool(weights.resolved.recipe.method.name == ours.method.name)


def _parts(names: Iterable[str]) -> list[str]:
    """First components of the names, in order: encoder, decoder, head ..."""
    return list(dict.fromkeys(name.partition(".")[0] for name in names))


def _of_part(names: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {n: tensor for n, tensor in names.items() if n == part or n.startswith(part + ".")}


def _require_same_section(
    part: str, method: Method, weights: Weights, target: Mapping[str, Tensor]
) -> None:
    """Check that the keys that a part's weights depend on are equal on both sides."""
    theirs, ours = _section(weights.resolved.recipe, part), _section(method.recipe, part)
    given = _of_part(weights.state, part)
    if theirs is None or ours is None or not given:
        return
    if part != "encoder" and not _same_method(method, weights):
        return
    if _kind(theirs) != _kind(ours):
        inflates = _kind(theirs) == "vit" and hasattr(ours, "inflate")
        mend = " (model.encoder.inflate=mean makes one of it)" if inflates else ""
        raise UserError(
            f"{weights.origin} holds a {_kind(theirs)} {part}, this recipe has a {_kind(ours)} one"
            f"{mend}"
        )
    free = marked(type(ours), Key.FREE)
    wanted = {
        f"model.{part}.{key}": getattr(theirs, key)
        for key in type(ours).model_fields
        if key not in free and getattr(theirs, key) != getattr(ours, key)
        if key != "norm_eps" or max(getattr(s, key) for s in (theirs, ours)) > _SMALL_EPS
    }
    if not wanted:
        return
    change = " ".join(f"{key}={value}" for key, value in wanted.items())
    if list(wanted) == ["model.encoder.in_channels"]:
        change += " (or keep it and set model.encoder.adapt_channels=mean)"
    for name, tensor in target.items():  # in the order of the model: its patch embedding first
        if name in given and given[name].shape != tensor.shape:
            raise UserError(
                f"{weights.origin}: {name} is {_shape(given[name])}, in this recipe "
                f"{_shape(tensor)}: set {change}, or start from other weights"
            )
    raise UserError(f"{weights.origin} was trained with {change}: set it, or start from others")


def _with_channels(
    method: Method, weights: Weights, target: Mapping[str, Tensor]
) -> tuple[Weights, list[str]]:
    """Adapt the weights to the method's number of channels, if ``adapt_channels`` is set.

    Kernels (D, C, ...) are adapted. A decoder's last layer predicts the pixels of all channels: it
    is left out and stays fresh.

    Raises:
        UserError: the encoder embeds its patches without kernels of channels.
    """
    theirs, ours = _section(weights.resolved.recipe, "encoder"), _section(method.recipe, "encoder")
    old, new = getattr(theirs, "in_channels", None), getattr(ours, "in_channels", None)
    way = getattr(ours, "adapt_channels", None)
    if way is None or old is None or new is None or old == new:
        return weights, []
    assert theirs is not None
    state = dict(weights.state)
    kernels = [
        name
        for name, tensor in state.items()
        if name.startswith("encoder.") and tensor.ndim >= 4 and tensor.shape[1] == old
        if name in target and target[name].shape[1:2] == (new,)
    ]
    if not kernels:
        raise UserError(
            f"model.encoder.adapt_channels: a {_kind(theirs)} encoder has no kernels of channels"
        )
    for name in kernels:
        state[name] = _adapted(state[name], new, way)
    last = [
        name
        for name, tensor in state.items()
        if name.startswith("decoder.") and name in target
        if tensor.shape != target[name].shape and len(tensor) * new == len(target[name]) * old
    ]
    for name in last:
        state[name] = target[name]
    encoder = theirs.model_copy(update={"in_channels": new})
    recipe: Any = weights.resolved.recipe
    model = recipe.model.model_copy(update={"encoder": encoder})
    resolved = replace(weights.resolved, recipe=recipe.model_copy(update={"model": model}))
    lines = [f"{', '.join(kernels)}: {old} channels adapted to {new} ({way})"]
    lines += [f"fresh, since it predicts {new} channels: {listed(last)}"] if last else []
    return replace(weights, state=state, resolved=resolved, normalisation_known=False), lines


def _adapted(kernel: Tensor, channels: int, way: str) -> Tensor:
    """(D, C, ...) -> (D, channels, ...); see ``AdaptChannels``.

    Raises:
        UserError: ``repeat`` for fewer channels, which would drop some.
    """
    old = kernel.shape[1]
    if way == "mean":
        return kernel.sum(dim=1, keepdim=True).expand(-1, channels, *kernel.shape[2:]) / channels
    if channels < old:
        raise UserError(
            f"model.encoder.adapt_channels=repeat would leave out {old - channels} of {old} "
            f"channels: set mean"
        )
    sources = [channel % old for channel in range(channels)]
    copies = torch.tensor([sources.count(source) for source in sources], dtype=kernel.dtype)
    return kernel[:, sources] / copies.view(1, -1, *[1] * (kernel.ndim - 2))


def _resized(method: Method, weights: Weights) -> tuple[Weights, list[str]]:
    """The weights with position tables resized to the method's grid."""
    theirs, ours = _section(weights.resolved.recipe, "encoder"), _section(method.recipe, "encoder")
    old, new = getattr(theirs, "grid", None), getattr(ours, "grid", None)
    if old is None or new is None or old == new:
        return weights, []
    if isinstance(ours, VideoViTSection) and isinstance(theirs, VideoViTSection):
        return weights, [_fixed_positions(weights, theirs, ours)]
    tables = {
        name: resize_positions(tensor, old, new)
        for name, tensor in weights.state.items()
        if name.endswith(".pos_embed") and name.count(".") == 1  # encoder.pos_embed, decoder. ...
    }
    line = f"positions: resized from {old[0]} x {old[1]} to {new[0]} x {new[1]} patches"
    return replace(weights, state={**weights.state, **tables}), [line]


def _fixed_positions(weights: Weights, theirs: VideoViTSection, ours: VideoViTSection) -> str:
    """Report that fixed positions are resized when the model is built, from the size that the
    recipe gives as ``trained_size``.

    Raises:
        UserError: the recipe does not give it.
    """
    trained = list(theirs.trained_size or theirs.size)
    if list(ours.trained_size or ours.size) != trained:
        raise UserError(
            f"{weights.origin} was trained on clips of {' x '.join(map(str, theirs.size))} "
            f"(frames, height, width), not {' x '.join(map(str, ours.size))}: set "
            f"model.encoder.trained_size={trained} to resize the positions"
        )
    return f"positions: resized from clips of {' x '.join(map(str, trained))}"


def _take(
    part: str, method: Method, weights: Weights, target: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], str]:
    """The tensors that a part of the method takes from the weights, and a line that reports it."""
    ours, theirs = _of_part(target, part), _of_part(weights.state, part)
    if not theirs or (part != "encoder" and not _same_method(method, weights)):
        return {}, f"{part}: fresh"
    common = {name: tensor for name, tensor in theirs.items() if name in ours}
    lacking = [name for name in ours if name not in theirs]
    extra = [name for name in theirs if name not in ours]
    other = [name for name in common if theirs[name].shape != ours[name].shape]
    if part not in _STRICT:
        if lacking or extra or other:
            return {}, f"{part}: fresh, since the weights hold another shape of it"
        return common, f"{part}: {len(common)} tensors loaded"
    wrong = [name for name in (*lacking, *extra) if not _OPTIONAL.match(name)]
    if wrong:
        verb = "lacks" if wrong[0] in lacking else "has unknown"
        raise UserError(f"{weights.origin} {verb} {listed(wrong)}")
    if other:
        name = other[0]
        raise UserError(
            f"{weights.origin}: {name} is {_shape(theirs[name])}, in this recipe "
            f"{_shape(ours[name])}"
        )
    line = f"{part}: {len(common)} tensors loaded"
    fresh = {
        "its last norm": any(name.startswith("encoder.norm.") for name in lacking),
        "its fusion": any(name.startswith("encoder.fusion.") for name in lacking),
        "its codes of place and dates": any(name.startswith("encoder.added.") for name in lacking),
        "its table of relative positions": any(".relative_position_" in name for name in lacking),
    }
    return common, "; ".join([line, *(f"{what} is fresh" for what, one in fresh.items() if one)])


def _adoptions(adopted: Mapping[str, str]) -> list[str]:
    """A line for each tensor initialised from another; one for each part if there are many."""
    if len(adopted) <= _FEW:
        return [f"{ours}: begins as {theirs}" for ours, theirs in adopted.items()]
    parts = Counter((o.partition(".")[0], t.partition(".")[0]) for o, t in adopted.items())
    return [f"{ours}: begins as {theirs} ({n} tensors)" for (ours, theirs), n in parts.items()]


def _not_taken(weights: Weights, taken: Collection[str]) -> list[str]:
    """``not taken: encoder.norm (2 tensors), decoder (20 tensors)``."""
    left = Counter(_group(name) for name in sorted(weights.state) if name not in taken)
    return [f"not taken: {', '.join(f'{g} ({n} tensors)' for g, n in left.items())}"] * bool(left)


def _group(name: str) -> str:
    """The part that a name belongs to; leftover encoder tensors are grouped more finely."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "encoder" else parts[0]


def _differences(method: Method, weights: Weights, taken: Mapping[str, Tensor]) -> list[str]:
    """Differing settings under which weights load but compute something else."""
    theirs: Any = weights.resolved.recipe
    ours: Any = method.recipe
    lines = []
    normalisation = [(r.augment.mean, r.augment.std) for r in (theirs, ours)]
    if weights.normalisation_known and normalisation[0] != normalisation[1]:
        lines.append(
            f"the weights expect augment.mean={list(theirs.augment.mean)} "
            f"augment.std={list(theirs.augment.std)}; this recipe has others"
        )
    eps = [getattr(_section(r, "encoder"), "norm_eps", None) for r in (theirs, ours)]
    if eps[0] != eps[1]:
        lines.append(f"the weights were computed with model.encoder.norm_eps={eps[0]}")
    normalize = getattr(theirs.target, "normalize", None)
    other = normalize != getattr(ours.target, "normalize", None)
    if other and any(name.startswith("decoder.") for name in taken):
        lines.append(f"the decoder was trained with target.normalize={str(normalize).lower()}")
    return lines


def _kind(section: Section) -> str:
    return str(getattr(section, "kind", type(section).__name__))


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a scalar"
