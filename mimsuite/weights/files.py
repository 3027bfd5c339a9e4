"""Reading of foreign weights files without running any code in them.

A ``.pth`` file is a pickle, and a pickle is a program. It is read by torch's restricted unpickler,
which accepts tensors, numbers, text and plain containers. Stand-ins for objects that training code
often saves with its weights are added to its list (:mod:`mimsuite.weights.harmless`). Anything else
in a file is an error.
"""

from __future__ import annotations

import json
import re
import shlex
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from mimsuite.errors import UserError
from mimsuite.text import clean
from mimsuite.weights.container import Kind, sniff
from mimsuite.weights.harmless import HARMLESS, Array, plain
from mimsuite.weights.model_folder import Beside, beside, shards

# Entries in which training code stores the weights; the first one present is used. A teacher comes
# before a student, because papers evaluate this average over training.
_CONTAINERS = (
    *("model", "state_dict", "model_state_dict", "module", "base_model", "network", "net"),
    *("teacher", "target_encoder", "base_encoder", "encoder", "backbone", "student"),
    *("model_ema", "ema", "state_dict_ema", "weights", "params", "params_ema"),
    *("classifiers", "classifier", "0"),  # heads alone; of several, the first
)
# Entries of a checkpoint that are read as one model, with the entry's name as prefix.
_TOGETHER = ("encoder", "predictor", "target_encoder")
_SETTINGS = ("args", "train_args", "hyper_parameters", "config", "cfg")
_DEEPEST = 3  # nested containers
_PREFIX = "module."  # added by DistributedDataParallel
# Parts of names that torch.compile, FSDP, checkpointed blocks and DeepSpeed put anywhere.
_WRAPPERS = re.compile(
    r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)
_SHOWN = 5  # names listed in a message
_LONGEST_NAME = 100  # characters; names of real models are shorter


@dataclass(frozen=True)
class WeightsFile:
    """The content of a weights file.

    Attributes:
        path: the file or folder that was read.
        tensors: name -> strided CPU tensor, floating-point ones as finite float32.
        facts: the training settings stored with the weights (``args``), or empty.
        beside: descriptions of the model next to the file (``config.json``), or empty.
        metadata: text entries of a safetensors header.
        dropped: names of the file's other content, which was not read.
        notes: lines about changes made while reading.
        wanted: the requested entry, if the file has no such entry and names have to decide.
    """

    path: Path
    tensors: dict[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)
    beside: Beside = field(default_factory=Beside)
    metadata: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wanted: str | None = None


def read_weights_file(path: Path, entry: str | None = None) -> WeightsFile:
    """Read a ``.safetensors`` file, a file of ``torch.save``, or a Hugging Face folder of either.

    Weights are at the top level of the file or in an entry such as ``model``, ``state_dict`` or
    ``teacher``, with or without the prefixes that wrappers add to every name.

    Args:
        path: a file; a folder; the index of a model in several files.
        entry: the entry to read from a checkpoint with several networks, such as ``student`` or
            ``state_dict.student``.

    Raises:
        UserError: the file is missing, damaged or no weights file, or holds more than tensors,
            numbers, text and settings.
    """
    files = shards(path)
    metadata: dict[str, str] = {}
    tensors: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    dropped: list[str] = list(files.left)
    notes: list[str] = []
    wanted = entry
    for file in files.paths:
        kind = sniff(file)
        if kind is Kind.SAFETENSORS:
            inside, header = _read_safetensors(file)
            metadata |= header
        else:
            content = _numbered(_read_torch(file, kind))
            if not entry:
                content = _joined(content)
            way = _way_to_tensors(path, content, entry)
            if entry and way[: len(entry.split("."))] == tuple(entry.split(".")):
                wanted = None
            inside, facts, left, taken = _unwrap(content, way)
            dropped += left
            notes += taken
        if twice := sorted(tensors.keys() & inside.keys()):
            raise UserError(f"{path}: {listed(twice)} is in two of its files")
        tensors |= inside
    if missing := sorted(files.names - tensors.keys()):
        raise UserError(f"{path} lacks tensors that its index names: {listed(missing)}")
    facts = _settings(metadata) | facts
    state, changes = _plain(path, tensors)
    return WeightsFile(path, state, facts, beside(path), metadata, dropped, notes + changes, wanted)


def listed(names: list[str], limit: int = _SHOWN) -> str:
    """``a, b, c and 7 more``."""
    shown = ", ".join(clean(name)[:_LONGEST_NAME] for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except Exception as error:  # damage raises many kinds of exceptions
        raise UserError(f"{path} is damaged or incomplete ({_line(error)}): get it anew") from None


def _settings(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Settings that ``--format reference`` stores as JSON text in the safetensors header."""
    try:
        settings = json.loads(metadata.get("args", "{}"))
    except (ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _read_torch(path: Path, kind: Kind) -> Any:
    if kind is Kind.ZIP:
        check_archive(path)
    try:
        with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about odd pickles; real faults are raised
            # Memory-mapped, so that only the used part of a large checkpoint is read.
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=kind is Kind.ZIP or None
            )
    except Exception as error:  # damage raises many kinds of exceptions
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if asked and asked[1].startswith("dall_e."):
            command = shlex.join(["mimsuite", "import", str(path), "--from", "dalle"])
            raise UserError(
                f"{path} is a network of DALL-E's tokenizer: `{command}` converts its encoder"
            ) from None
        if asked:
            raise UserError(
                f"{path} asks for Python code ({asked[1]}): it was not read and none of its code "
                f"ran. If you trust it, save only its weights as .safetensors where it was made"
            ) from None
        raise UserError(f"{path} is damaged or no weights file ({_line(error)})") from None


def _numbered(content: Any) -> Any:
    """Lists of networks in a checkpoint as mappings from their numbers."""
    if not isinstance(content, Mapping):
        return content
    lists = {
        key: {str(number): network for number, network in enumerate(value)}
        for key, value in content.items()
        if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value)
    }
    return {**content, **lists} if lists else content


def _joined(content: Any) -> Any:
    """Replace the networks of ``_TOGETHER`` in a checkpoint by one entry ``state_dict``."""
    if not isinstance(content, Mapping) or not all(name in content for name in _TOGETHER):
        return content
    networks = {name: content[name] for name in _TOGETHER}
    if any(_way(network, ()) != () for network in networks.values()):
        return content
    together = {
        f"{name}.{key}": value
        for name, network in networks.items()
        for key, value in _unprefixed(network).items()
    }
    others = {key: value for key, value in content.items() if key not in _TOGETHER}
    return {**others, "state_dict": together}


def check_archive(path: Path) -> None:
    """torch.save writes an archive with a ``data.pkl`` and stores it uncompressed.

    Raises:
        UserError: another archive, or a damaged one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # zipfile also raises struct, unicode and value errors
        raise UserError(f"{path} is damaged or incomplete ({_line(error)}): get it anew") from None
    if not any(Path(member.filename).name == "data.pkl" for member in members):
        names = [member.filename for member in members]
        raise UserError(f"{path} is a zip archive without weights: found {listed(names) or '-'}")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise UserError(f"{path} is a compressed archive, which torch.save never writes")


def _way_to_tensors(path: Path, content: Any, entry: str | None) -> tuple[str, ...]:
    """Names of the nested entries that lead to the weights of a checkpoint.

    Raises:
        UserError: the checkpoint has no weights.
    """
    if isinstance(content, Tensor) or not isinstance(content, Mapping):
        raise UserError(f"{path} holds no weights: found a {type(content).__name__}")
    way = _way(content, tuple(entry.split("."))) if entry else None
    way = way or _way(content, ())
    if way is None:
        found = listed([str(key) for key in content]) or "nothing"
        raise UserError(f"{path} holds no weights: found entries {found}")
    return way


def _unwrap(
    content: Mapping[Any, Any], way: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Any], list[str], list[str]]:
    """The weights of a checkpoint, its settings, its dropped entries, and a note on the choice."""
    facts: dict[str, Any] = {}
    dropped: list[str] = []
    others: list[str] = []
    inside = content
    for depth, name in enumerate(way):
        lead = "".join(f"{outer}." for outer in way[:depth])
        settings = [key for key in _SETTINGS if isinstance(plain(inside.get(key)), dict)]
        for key in settings:
            facts = {**plain(inside[key]), **facts}
        beside_it = [key for key in inside if key != name and key not in settings]
        dropped += [f"{lead}{key}" for key in beside_it]
        others += [
            f"{lead}{key}"
            for key in beside_it
            if key in _CONTAINERS and _way(inside[key], ()) is not None
        ]
        inside = inside[name]
    taken = [f"{'.'.join(way)} taken"] if others else []
    if others:
        taken[0] += f", not {listed(others)}: to choose, mimsuite import FILE --entry {others[0]}"
    return _level(inside), facts, dropped, taken


def _level(inside: Mapping[Any, Any]) -> dict[str, Any]:
    """Tensors of a network among those of another, below the name of their entry."""
    found: dict[str, Any] = {}
    for name, value in inside.items():
        nested = isinstance(value, Mapping) and value and isinstance(name, str)
        if nested and all(isinstance(tensor, Tensor) for tensor in value.values()):
            found |= {f"{name}.{key}": tensor for key, tensor in value.items()}
        else:
            found[name] = value
    return found


def _way(content: Any, wanted: tuple[str, ...]) -> tuple[str, ...] | None:
    """Names of the nested entries that lead to tensors: ``()`` = here; ``None`` = no tensors.

    Args:
        wanted: names to follow first.
    """
    if not isinstance(content, Mapping):
        return None
    if wanted:
        rest = _way(content.get(wanted[0]), wanted[1:])
        return None if rest is None else (wanted[0], *rest)
    for name in _CONTAINERS:
        below = _way(content.get(name), ()) if name in content else None
        if below is not None and len(below) < _DEEPEST:
            return (name, *below)
    here = any(isinstance(value, Tensor | Array) for value in content.values())
    return () if here else None


def _plain(path: Path, given: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors as float32 without the prefixes of wrappers, and notes on what was changed."""
    notes: list[str] = []
    tensors: dict[str, Tensor] = OrderedDict()
    types = set()
    changed: set[str] = set()
    for name, value in given.items():
        if not isinstance(name, str) or len(name) > _LONGEST_NAME or not name.isprintable():
            raise UserError(f"{path} holds no weights: an entry has an impossible name")
        tensor = _checked(path, name, value)
        if tensor.is_floating_point():
            if tensor.dtype is not torch.float32:
                types.add(str(tensor.dtype).removeprefix("torch."))
                tensor = tensor.float()
            if not _finite(tensor):
                raise UserError(
                    f"{path}: {name} holds values that are not finite: the file is damaged, or "
                    f"its training had diverged"
                )
        name = _bare(name, changed)
        if name in tensors:
            raise UserError(f"{path}: {name} is there twice, with and without a wrapper")
        tensors[name] = tensor
    if types:
        notes.append(f"{' and '.join(sorted(types))} weights were converted to float32")
    notes += [f"{wrapper} of a wrapper taken out of names" for wrapper in sorted(changed)]
    short = _unprefixed(tensors)
    if short.keys() != tensors.keys():
        notes.append(f"prefix {_PREFIX} taken off every name")
    return dict(short), notes


def _bare(name: str, changed: set[str]) -> str:
    """The name without wrappers' parts, which are added to ``changed``."""
    changed.update(_WRAPPERS.findall(name))
    return _WRAPPERS.sub("", name)


def _finite(tensor: Tensor) -> bool:
    """Whether every value is finite; the sum is a fast first check, but may overflow."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def _checked(path: Path, name: str, value: Any) -> Tensor:
    """The value of a state dict as a tensor, refused unless it is a plain one held by the file."""
    if isinstance(value, Array):
        numbers = value.values()
        if numbers is not None and numbers.dtype.kind in "biuf":
            value = torch.from_numpy(numbers.astype(numbers.dtype.newbyteorder("=")))
    if not isinstance(value, Tensor):
        raise UserError(f"{path}: {name} is not a tensor but of type {type(value).__name__}")
    tensor = value.detach()
    ordinary = tensor.layout is torch.strided and not tensor.is_quantized
    if not ordinary or tensor.device.type != "cpu" or tensor.is_complex():
        raise UserError(f"{path}: {name} is not a plain tensor of numbers")
    # A view with stride 0 can claim any shape over a few bytes and exhaust memory when used.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UserError(f"{path}: {name} claims shape {tuple(tensor.shape)} but holds less")
    return tensor


def _unprefixed(state: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Without ``module.``, as often as all names begin with it."""
    while state and all(str(name).startswith(_PREFIX) for name in state):
        state = {str(name).removeprefix(_PREFIX): value for name, value in state.items()}
    return state


def _line(error: Exception) -> str:
    """The first sentence of an exception, for the end of a message."""
    lines = str(error).strip().splitlines()
    return clean(lines[0].split(". ")[0])[:120] if lines else type(error).__name__
