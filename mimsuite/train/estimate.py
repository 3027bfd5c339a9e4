"""Costs of a recipe, counted on fake tensors, which have shapes but no content.

One sample is one row of the batch. FLOPs count a multiply and an add as two, and only matrix
products, convolutions and attention.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from mimsuite.batch import Batch
from mimsuite.config.keys.shared import OptimSection, Recipe
from mimsuite.errors import MimsuiteError
from mimsuite.methods import Method, build
from mimsuite.noise import Noise
from mimsuite.train.blocks import prepare_blocks
from mimsuite.train.flops import CORRECTED
from mimsuite.train.random_batches import Shapes, random_batch, shapes_of
from mimsuite.train.step import run_method

_FLOAT = 4  # bytes per weight, gradient and entry of the optimizer's state: float32
_MOMENTS = {"adamw": 2, "lars": 1, "sgd": 1}  # copies of the weights in the optimizer's state
_WORKSPACE = 3  # further gradients that the backward pass of one operation holds
_SIZES = (2, 4)  # batch sizes of the two counts; their difference gives the cost per sample
_BACKWARD = 2  # backward / forward cost, where the backward pass cannot be counted

Counted = Literal["forward and backward", "forward, times 3"]


@dataclass(frozen=True)
class Memory:
    """Peak bytes of a step on one device, by part.

    Attributes:
        casts: copies of the weights in autocast's dtype.
        activations: tensors kept for the backward pass, and its workspace.
        saving: buffer of a checkpoint being written; 0 if it is not in this device's memory.
    """

    weights: int
    gradients: int
    optimizer: int
    ema: int
    casts: int
    activations: int
    saving: int = 0

    @property
    def total(self) -> int:
        """Peak of all parts; checkpoints are written when activations have been freed."""
        always = self.weights + self.gradients + self.optimizer + self.ema
        return always + max(self.casts + self.activations, self.saving)

    def as_dict(self) -> dict[str, int]:
        return {**asdict(self), "total": self.total}


@dataclass(frozen=True)
class Estimate:
    """Costs of training with a recipe.

    Attributes:
        parameters, trained: number of parameters, and of trained parameters.
        forward_flops, flops: FLOPs per sample, without and with the backward pass.
        counted: how ``flops`` was determined.
        state_bytes: size of all weights and buffers.
        moments: copies of the trained weights in the optimizer's state.
        ema: whether a moving average of the state is kept.
        fixed_bytes: kept for the backward pass at any batch size: weights cast by autocast.
        sample_bytes: kept for the backward pass, per sample.
        largest_bytes: the largest single tensor of a sample's.
    """

    parameters: int
    trained: int
    forward_flops: int
    flops: int
    counted: Counted
    state_bytes: int
    moments: int
    ema: bool
    fixed_bytes: int
    sample_bytes: int
    largest_bytes: int

    def memory(self, micro_batch: int, shards: int = 1, *, on_host: bool = False) -> Memory:
        """Peak memory of training with ``micro_batch`` samples, without the framework's own memory.

        Args:
            shards: number of devices over which FSDP shards weights, gradients and optimizer.
            on_host: whether the device is the CPU, whose memory also holds checkpoint buffers.
        """
        trained = self.trained * _FLOAT // shards
        state = self.state_bytes // shards
        return Memory(
            weights=state,
            gradients=trained,
            optimizer=self.moments * trained,
            ema=state if self.ema else 0,
            casts=self.fixed_bytes,
            activations=micro_batch * (self.sample_bytes + _WORKSPACE * self.largest_bytes),
            saving=max(state, self.moments * trained) if on_host else 0,
        )

    def memory_bytes(self, micro_batch: int) -> int:
        """Peak memory of one device; see :meth:`memory`."""
        return self.memory(micro_batch).total

    def largest_micro_batch(self, free: float, shards: int = 1, *, on_host: bool = False) -> int:
        """The largest micro-batch that fits into ``free`` bytes; 0: not even one sample fits."""
        empty = self.memory(0, shards, on_host=on_host)
        if self.memory(1, shards, on_host=on_host).total > free:
            return 0
        kept = empty.weights + empty.gradients + empty.optimizer + empty.ema + empty.casts
        a_sample = self.memory(1).activations
        return max(1, int((free - kept) // max(1, a_sample)))


def estimate(recipe: Recipe, precision: str = "fp32") -> Estimate:
    """Count a step of a few samples.

    Args:
        precision: ``fp32`` or ``tf32``, or ``bf16`` or ``fp16`` for a step under autocast.

    Raises:
        DataError, UserError: sample shapes do not follow from the recipe, and its data cannot be
            opened.
    """
    shapes = shapes_of(recipe)
    with torch.device("meta"):  # initialisation may read values; on "meta" it does nothing
        method = build(recipe).train()
    try:
        # Trace as on a CPU: on "meta", attention would use the kernel that stores its maps.
        with FakeTensorMode(allow_non_fake_inputs=True), _CPU, _Sound():
            method.to_empty(device=_CPU)
            few, more = _counts(method, shapes, recipe, precision)
    except MimsuiteError:
        raise
    except Exception:  # any type: the method reads values, so count a real step instead
        method = build(recipe).train()
        few, more = _counts(method, shapes, recipe, precision)
    rows = _SIZES[1] - _SIZES[0]
    sample_bytes = max(0, more.kept - few.kept) // rows
    return Estimate(
        parameters=sum(p.numel() for p in method.parameters()),
        trained=sum(p.numel() for p in method.parameters() if p.requires_grad),
        forward_flops=(more.forward - few.forward) // rows,
        flops=(more.both - few.both) // rows,
        counted=few.counted,
        state_bytes=_bytes_of(method),
        moments=_moments(recipe.optim),
        ema=recipe.train.ema is not None,
        fixed_bytes=max(0, few.kept - _SIZES[0] * sample_bytes),
        sample_bytes=sample_bytes,
        largest_bytes=more.largest // _SIZES[1],
    )


_CPU = torch.device("cpu")


class _Sound(TorchFunctionMode):
    """Make ``bool(tensor)`` False on fake tensors, so that finite checks pass during tracing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__bool__:
            return False
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class _Count:
    """Counts of one step: FLOPs, and bytes kept for the backward pass."""

    forward: int
    both: int
    counted: Counted
    kept: int
    largest: int


def _counts(method: Method, shapes: Shapes, recipe: Recipe, precision: str) -> list[_Count]:
    prepare_blocks(method, recipe.train.model_copy(update={"compile": False}), _CPU)
    return [_count(method, shapes, size, recipe, precision) for size in _SIZES]


def _count(method: Method, shapes: Shapes, size: int, recipe: Recipe, precision: str) -> _Count:
    """Count one step; a storage shared by several views counts once."""
    owned = {tensor.untyped_storage()._cdata for tensor in _state_of(method)}
    kept: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in owned:
            kept[storage._cdata] = storage
        return tensor

    half = precision in ("bf16", "fp16")
    cast = torch.autocast("cpu", torch.bfloat16) if half else nullcontext()
    batch = random_batch(shapes, size, _CPU)
    counted: Counted = "forward and backward"
    with FlopCounterMode(display=False, custom_mapping=CORRECTED) as counter:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), cast:
            loss = _loss(method, batch, recipe.train.seed)
        forward = both = counter.get_total_flops()
        # With recomputation, one block's activations at a time fit into the workspace.
        sizes = [storage.nbytes() for storage in kept.values()]
        try:
            loss.backward()
            both = counter.get_total_flops()
        except RuntimeError:  # an operation whose backward does not support fake tensors
            counted, both = "forward, times 3", forward * (1 + _BACKWARD)
    method.zero_grad()
    batch_bytes = sum(view.numel() * _FLOAT for view in batch.views.values())
    return _Count(forward, both, counted, sum(sizes) + batch_bytes, max(sizes, default=0))


def _state_of(method: nn.Module) -> list[Tensor]:
    return [*method.parameters(), *method.buffers()]


def _bytes_of(method: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in _state_of(method))


def _moments(optim: OptimSection) -> int:
    return 0 if optim.name != "adamw" and not optim.momentum else _MOMENTS[optim.name]


def _loss(method: Method, batch: Batch, seed: int) -> Tensor:
    return run_method(method, batch, Noise(seed, 0, batch.index)).loss


def samples_of(recipe: Recipe) -> int | None:
    """Number of samples; None if the data cannot be opened, which a dry run allows."""
    from mimsuite.data import open_training_set

    try:
        return len(open_training_set(recipe))
    except MimsuiteError:
        return None
