"""Find networks inside wrapper modules: ``model.``, ``teacher.backbone.``, ``base_encoder.`` ..."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mimsuite.errors import UserError
from mimsuite.weights.files import WeightsFile, listed

# Name components that wrap a network ("holders"). If a file has several networks, the one whose
# holder comes first here is read: the momentum copy, which is evaluated, before the trained one.
_HOLDERS = (
    *("teacher", "target_encoder", "base_encoder", "encoder_q", "online_encoder"),
    *("backbone", "encoder", "model", "module", "net", "network", "vit", "visual", "trunk"),
    *("student", "momentum_encoder", "encoder_k"),
)
# Names that identify the patch embedding of a layout.
_KERNELS = (
    "patch_embed.proj.weight",
    "patch_embed.projection.weight",
    "embeddings.patch_embeddings.projection.weight",
)


def unwrapped(file: WeightsFile) -> Iterator[WeightsFile]:
    """Yield the file as it is, then with each holder removed from its names.

    If it has several networks and ``file.wanted`` does not choose one, the last is the one that is
    usually evaluated.

    Raises:
        UserError: there is no network below ``file.wanted``.
    """
    while True:
        if file.wanted is None:
            yield file
        shared = _shared(file)
        if shared is None:
            break
        file = _below(file, f"{shared}.")
    leads = {
        name.removesuffix(kernel)
        for kernel in _KERNELS
        for name in file.tensors
        if name.endswith(f".{kernel}")
    }
    known = [lead for lead in leads if all(part in _HOLDERS for part in lead[:-1].split("."))]
    if file.wanted is not None:
        meant = [lead for lead in known if f".{file.wanted}." in f".{lead}"]
        if not meant:
            raise UserError(f"there is no network below '{file.wanted}'")
    else:
        meant = known
    if not known:
        return
    chosen = min(meant, key=lambda lead: (_rank(lead), lead))
    inside = _below(file, chosen)
    others = sorted(lead.rstrip(".") for lead in known if lead != chosen)
    notes = [f"{chosen.rstrip('.')} taken"]
    if others:
        notes[0] += f", not {listed(others)}: to choose, mimsuite import FILE --entry {others[0]}"
    left = [name for name in file.tensors if not name.startswith(chosen)]
    notes.append(f"dropped: {listed(_groups(left), 20)}")
    yield replace(inside, notes=[*file.notes, *notes])


def _shared(file: WeightsFile) -> str | None:
    """The holder that all names start with."""
    first = {name.partition(".")[0] for name in file.tensors}
    holder = first.pop() if len(first) == 1 else None
    return holder if holder in _HOLDERS else None


def _below(file: WeightsFile, lead: str) -> WeightsFile:
    tensors = {n.removeprefix(lead): t for n, t in file.tensors.items() if n.startswith(lead)}
    note = [f"prefix {lead} taken off every name"] if len(tensors) == len(file.tensors) else []
    return replace(file, tensors=tensors, notes=[*file.notes, *note])


def _rank(lead: str) -> tuple[int, int]:
    """Sort key: the first holder that identifies the copy, then the shortest."""
    parts = lead[:-1].split(".")
    slow = [_HOLDERS.index(part) for part in parts]
    late = max(slow) if max(slow) >= _HOLDERS.index("student") else min(slow)
    return late, len(parts)


def _groups(names: list[str]) -> list[str]:
    """Names grouped by their first components: ``predictor (4 tensors)``."""
    counts: dict[str, int] = {}
    for name in names:
        group = ".".join(name.split(".")[:2])
        counts[group] = counts.get(group, 0) + 1
    return [f"{group} ({n} tensors)" if n > 1 else group for group, n in counts.items()]
