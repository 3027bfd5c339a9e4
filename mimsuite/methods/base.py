"""What a method is: prepare, mask, forward.

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


def alone(tensor: Tensor) -> Tensor:
    """The all-gather of a single process."""
    return tensor


@dataclass(frozen=True)
class Progress:
    """How far training is, for schedules.

    Attributes:
        step: optimizer steps before this one; 0 is the first.
        total: optimizer steps of the whole training.
        epoch_steps: optimizer steps of an epoch.
        skipped: 0-d float, after the step: 1 where the update was left out since loss or gradient
            norm was not finite.
    """

    step: int = 0
    total: int = 1
    epoch_steps: int = 1
    skipped: Tensor = field(default_factory=lambda: torch.zeros(()))


@dataclass(frozen=True)
class Context:
    """What one step computed once, without gradient, for both the mask and the loss.

    Attributes:
        noise: keyed noise of this micro-batch.
        progress: of the training; outside of it that of its first step.
        gather: all-gather over ranks, given by the trainer; identity on one process.
        made: whatever the method's ``prepare`` computed (teacher features, token ids, groups).
    """

    noise: Noise
    gather: Callable[[Tensor], Tensor] = alone
    made: dict[str, Any] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True)
class Output:
    """Result of a forward pass.

    Attributes:
        loss: scalar float32.
        terms: named scalars for the log, detached.
        prediction: the raw prediction, in the order of ``masks``.
        masks: the masks it was made under.
        weight: 0-d, where ``loss`` is a ratio of sums over the batch whose denominator differs
            between batches (e.g. the number of valid points): that denominator, so that
            ``loss * weight`` is the sum. ``None``: every micro-batch counts alike.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    prediction: Tensor | None = None
    masks: dict[str, TokenMask] = field(default_factory=dict)
    weight: Tensor | None = None


@dataclass(frozen=True)
class Panel:
    """One labelled column of a picture: (B, C, H, W), or clips (B, C, T, H, W), float in the space
    of the normalised input."""

    title: str
    images: Tensor


class Method(nn.Module):
    """Base of all methods. A subclass names its recipe class and sets ``self.encoder``.

    Example:
        >>> masks = method.mask(batch, noise, ctx := method.prepare(batch, noise))
        >>> method(batch, masks, ctx).loss.backward()
    """

    Recipe: ClassVar[type[sections.Recipe]]
    # Columns of the log that say how much the features of samples differ.
    collapse_terms: ClassVar[tuple[str, ...]] = ()
    # Parameter names of the published code, where they differ from ours in names alone.
    names: ClassVar[Names | None] = None
    encoder: Encoder
    _kept: Sequence[nn.Module] = ()  # parts that stay in eval mode

    def __init__(self, recipe: sections.Recipe) -> None:
        super().__init__()
        self.recipe = recipe

    def freeze_first(self, blocks: int) -> None:
        """Keep the encoder's embeddings and first ``blocks`` blocks as they are: no gradient, and
        eval mode always, so that running statistics and drop path rest, too.

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
        """Frozen blocks stay in eval mode."""
        super().train(mode)
        for part in self._kept:
            part.eval()
        return self

    def begin(self, batches: Callable[[], Iterable[Batch]] | None) -> list[str]:
        """Get ready for training, before its first step and again whenever it is resumed: open
        the weights of teachers, fit what is fitted to the data.

        Args:
            batches: normalised batches of the training stream from its start, the same on every
                rank, so that what is made of them is the same too; ``None`` where a checkpoint is
                about to bring what was fitted.

        Returns:
            lines for people.
        """
        return []

    def check(self, batch: Batch) -> None:
        """Look at a batch on the host, as the loader made it; raises a ``MimsuiteError`` for one
        that cannot be trained on."""

    def prepare(
        self, batch: Batch, noise: Noise, gather: Callable[[Tensor], Tensor] = alone
    ) -> Context:
        """Work without gradient that mask and loss share: teachers, tokenizer ids, groups.

        Must not change weights: where they are sharded (FSDP) it sees copies put together for this
        call, and a change would be lost. That is what :meth:`after_step` is for.
        """
        return Context(noise, gather)

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        """The masks of this batch by name: one entry, or one a view."""
        raise NotImplementedError

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Loss and prediction."""
        raise NotImplementedError

    def after_step(self, progress: Progress) -> None:
        """Follow an optimizer step: move a momentum teacher, centre targets ...

        Called without gradient after every step, on the parameters as this rank holds them: whole,
        or its shards (FSDP). Must do the same on every rank. What it changes has to be parameters
        or buffers, so that checkpoints hold it.
        """

    def scheduled(self, progress: Progress) -> dict[str, float]:
        """Values of this method's own schedules in a step, by name, as the log shows them."""
        return {}

    def keep_frozen(self, part: nn.Module) -> None:
        """Never train a part: no gradient, and eval mode always."""
        self._kept = [*self._kept, part.requires_grad_(False).eval()]

    def encode(self, batch: Batch, layers: Collection[int] = ()) -> Features:
        """Features of the intact sample, as every probe reads them."""
        return self.encoder.encode(batch, layers=layers)

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Columns of a picture: original, masked, rebuilt ... Empty where there are none."""
        return []

    def adopts(self) -> dict[str, str]:
        """Parameters that ``--init-from`` begins as others of a pretrained model: name -> its name
        there, for what has another name or place here."""
        return {}

    def fitted(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Weights of a pretrained model, under our names, as ``--init-from`` shall take them, and
        lines for people; raises a ``UserError`` for weights that cannot be fitted."""
        return state, []

    # --- what the optimizer asks ---

    def layer_count(self) -> int:
        """The layer id of the head: 1 + number of blocks + 1 in a plain transformer."""
        return self.encoder.depth + 1

    def layer_id(self, name: str) -> int:
        """Layer id of a parameter, for layer decay; by default that of the encoder."""
        prefix, _, rest = name.partition(".")
        return self.encoder.rate_layer(rest) if prefix == "encoder" else self.layer_count()

    def parameter_groups(self) -> dict[str, GroupSection]:
        """Named groups with rates and decays of their own: how the names of their parameters
        begin (the longest such beginning counts) -> the recipe's keys for them."""
        return {}

    def clip_parts(self) -> tuple[str, ...]:
        """Parts whose gradients are clipped for themselves with ``optim.clip_scope=parts``: how
        the names of their parameters begin. They hold all that is trained."""
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
        """Parameters that do not decay although they have more than one axis."""
        return set()

    def unused_parameters(self) -> set[str]:
        """Frozen parameters that published code trains in name only: it never reads them. They
        are kept for the export."""
        return set()

    # --- published checkpoints ---

    def export_reference(self) -> dict[str, Tensor]:
        """The state under the published implementation's key names."""
        if self.names is None:
            raise NotImplementedError(f"{type(self).__name__} has no published key layout")
        return {self.names.published(name): value for name, value in self.state_dict().items()}

    @classmethod
    def import_reference(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A published state under our key names; keys that are not understood stay as they are."""
        if cls.names is None:
            raise NotImplementedError(f"{cls.__name__} has no published key layout")
        return {cls.names.ours(name): value for name, value in state.items()}


def _is_frozen(part: nn.Module) -> bool:
    """Whether it has parameters and none of them is trained."""
    own = [parameter.requires_grad for parameter in part.parameters()]
    return bool(own) and not any(own)


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Eval mode, and back to what each part was in: a frozen part stays in eval mode."""
    before = {part: part.training for module in modules for part in module.modules()}
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, training in before.items():
            part.training = training
