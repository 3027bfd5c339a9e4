"""Base of methods: prepare, mask, forward.

A method returns its loss, its named terms and what pictures need. It never logs, never touches the
optimizer and never knows its rank.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.config.keys import shared as sections
from mimsuite.config.keys.shared import GroupSection
from mimsuite.errors import UserError
from mimsuite.masking import TokenMask
from mimsuite.models import Encoder, Features
from mimsuite.noise import Noise
from mimsuite.weights.names import Names


def no_gather(tensor: Tensor) -> Tensor:
    """All-gather of a single process: the tensor itself."""
    return tensor


@dataclass(frozen=True)
class Progress:
    """Progress of training, for schedules.

    Attributes:
        step: optimizer steps done before this one; 0 for the first.
        total: optimizer steps of the whole training.
        epoch_steps: optimizer steps per epoch.
        skipped: 0-d float, known after the step: 1 if the update was skipped because the loss or
            the gradient norm was not finite.
    """

    step: int = 0
    total: int = 1
    epoch_steps: int = 1
    skipped: Tensor = field(default_factory=lambda: torch.zeros(()))


@dataclass(frozen=True)
class Context:
    """Values that a step computes once, without gradient, for both the mask and the loss.

    Attributes:
        noise: keyed noise of this micro-batch.
        progress: progress of the training; outside training, that of the first step.
        gather: all-gather over ranks, set by the trainer; identity on one process.
        prepared: results of the method's ``prepare`` (teacher features, token ids, groups).
    """

    noise: Noise
    gather: Callable[[Tensor], Tensor] = no_gather
    prepared: dict[str, Any] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True)
class Output:
    """Result of a forward pass.

    Attributes:
        loss: scalar float32.
        terms: named scalars for the log, detached.
        prediction: the raw prediction, in the order of ``masks``.
        masks: the masks of the prediction.
        weight: 0-d denominator of ``loss``, if the loss is a ratio of sums whose denominator
            differs between batches (such as the number of valid points); ``loss * weight`` is the
            sum. ``None``: all micro-batches count equally.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    prediction: Tensor | None = None
    masks: dict[str, TokenMask] = field(default_factory=dict)
    weight: Tensor | None = None


@dataclass(frozen=True)
class Panel:
    """One titled column of a picture.

    Attributes:
        images: (B, C, H, W), or clips (B, C, T, H, W), float.
        normalised: whether they are in the value range of the normalised input; else in [0, 1].
    """

    title: str
    images: Tensor
    normalised: bool = True


class Method(nn.Module):
    """Base of all methods. A subclass sets ``Recipe``, its recipe class, and ``self.encoder``.

    Example:
        >>> masks = method.mask(batch, noise, ctx := method.prepare(batch, noise))
        >>> method(batch, masks, ctx).loss.backward()
    """

    Recipe: ClassVar[type[sections.Recipe]]
    # Columns of the log that measure how much the features of samples differ.
    collapse_terms: ClassVar[tuple[str, ...]] = ()
    # Parameter names of the published code, if only the names differ.
    names: ClassVar[Names | None] = None
    encoder: Encoder
    _kept: Sequence[nn.Module] = ()  # parts that stay in eval mode

    def __init__(self, recipe: sections.Recipe) -> None:
        super().__init__()
        self.recipe = recipe

    def freeze_first(self, blocks: int) -> None:
        """Freeze the encoder's embeddings and first ``blocks`` blocks: no gradient, and always eval
        mode, so that running statistics do not change and drop path is off.

        Raises:
            UserError: the encoder has fewer blocks.
        """
        depth = self.layer_count() - 1
        if blocks > depth:
            raise UserError(f"model.freeze {blocks}: this encoder has {depth} blocks")
        for name, parameter in self.encoder.named_parameters():
            if self.encoder.layer_id(name) <= blocks:
                parameter.requires_grad_(False)
        self._kept = [part for part in self.encoder.modules() if _is_frozen(part)]
        self.train(self.training)

    def train(self, mode: bool = True) -> Method:
        """Set the mode; frozen blocks stay in eval mode."""
        super().train(mode)
        for part in self._kept:
            part.eval()
        return self

    def setup(self, batches: Callable[[], Iterable[Batch]] | None) -> list[str]:
        """Set up training before its first step and after each resume: open the weights of
        teachers, fit what depends on the data.

        Args:
            batches: normalised batches of the training stream from its start, the same on every
                rank, so that results are the same too; ``None`` if a checkpoint will restore what
                was fitted.

        Returns:
            lines that report what was done.
        """
        return []

    def check(self, batch: Batch) -> None:
        """Check a batch on the host, as it comes from the loader; raises a ``MimsuiteError`` if it
        is unfit for training."""

    def prepare(
        self, batch: Batch, noise: Noise, gather: Callable[[Tensor], Tensor] = no_gather
    ) -> Context:
        """Compute, without gradient, what mask and loss share: teacher features, token ids, groups.

        Must not change weights: under FSDP it sees copies that are gathered for this call, and a
        change would be lost. Change them in :meth:`after_step`.
        """
        return Context(noise, gather)

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        """The masks of this batch by name: one entry, or one per view; by default nothing is
        masked."""
        return {}

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Loss and prediction."""
        raise NotImplementedError

    def after_step(self, progress: Progress) -> None:
        """Follow an optimizer step: move a momentum teacher, centre targets ...

        Called without gradient after every step, on the parameters that this rank holds: whole
        ones, or its shards (FSDP). Must do the same on every rank. May change only parameters and
        buffers, so that checkpoints hold the result. No other hook may change parameters: they are
        copied for a checkpoint while the next step's gradients are computed.
        """

    def scheduled(self, progress: Progress) -> dict[str, float]:
        """Values of the method's own schedules in a step, by name, for the log."""
        return {}

    def keep_frozen(self, part: nn.Module) -> None:
        """Freeze a part: no gradient, and always eval mode."""
        self._kept = [*self._kept, part.requires_grad_(False).eval()]

    def encode(self, batch: Batch, layers: Collection[int] = ()) -> Features:
        """Features of the unmasked sample, for probes."""
        return self.encoder.encode(batch, layers=layers)

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Columns of a picture: original, masked, reconstructed ... Empty if there are none."""
        return []

    def init_aliases(self) -> dict[str, str]:
        """Our parameter -> the pretrained parameter that ``--init-from`` initialises it from, if
        their names differ."""
        return {}

    def adapt_state(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Adapt the weights of a pretrained model, under our names, for ``--init-from``; returns
        them and lines that report it. Raises a ``UserError`` for weights that do not fit."""
        return state, []

    # --- for the optimizer ---

    def layer_count(self) -> int:
        """Layer id of the head; 1 + number of blocks + 1 in a plain transformer."""
        return self.encoder.depth + 1

    def layer_id(self, name: str) -> int:
        """Layer id of a parameter, for layer decay; by default the encoder's."""
        prefix, _, rest = name.partition(".")
        return self.encoder.rate_layer(rest) if prefix == "encoder" else self.layer_count()

    def parameter_groups(self) -> dict[str, GroupSection]:
        """Groups with their own rates and decays: prefix of their parameters' names (the longest
        match counts) -> the recipe's keys for the group."""
        return {}

    def clip_parts(self) -> tuple[str, ...]:
        """Prefixes of the parts whose gradients are clipped separately with
        ``optim.clip_scope=parts``. Together they cover all trained parameters."""
        return ("",)

    def rate_scale(self, name: str) -> float:
        """Factor of the rate of a parameter, beside that of layer decay."""
        return 1.0

    def decay_share(self, name: str, parameter: Tensor) -> float:
        """Factor of the weight decay of a parameter: by default 0 for vectors, for biases and for
        what :meth:`no_weight_decay` names, and 1 for all others."""
        matrix = parameter.ndim > 1 and not name.endswith(".bias")
        return float(matrix and name not in self.no_weight_decay())

    def no_weight_decay(self) -> set[str]:
        """Parameters with more than one axis that do not decay."""
        return set()

    def unused_parameters(self) -> set[str]:
        """Frozen parameters that published code stores but never reads; kept for the export."""
        return set()

    # --- published checkpoints ---

    def export_reference(self) -> dict[str, Tensor]:
        """The state under the published code's key names."""
        if self.names is None:
            raise NotImplementedError(f"{type(self).__name__} has no published key layout")
        return {self.names.published(name): value for name, value in self.state_dict().items()}

    @classmethod
    def import_reference(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A published state under our key names; unknown keys are unchanged."""
        if cls.names is None:
            raise NotImplementedError(f"{cls.__name__} has no published key layout")
        return {cls.names.ours(name): value for name, value in state.items()}


def _is_frozen(part: nn.Module) -> bool:
    """Whether a part has parameters and none of them is trained."""
    own = [parameter.requires_grad for parameter in part.parameters()]
    return bool(own) and not any(own)


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Switch to eval mode, then restore the mode of each part; frozen parts stay in eval mode."""
    before = {part: part.training for module in modules for part in module.modules()}
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, training in before.items():
            part.training = training
