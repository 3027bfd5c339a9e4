"""MAE pretraining: one forward and backward pass (kind ``image/mae``).

Everything runs as a training step runs it: prepare, mask, forward. The training path predicts
masked tokens only, so the published prediction of all tokens comes from ``MAE.reconstruct``, and
the training path's own prediction is compared with the stored one on the masked tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from golden import build
from golden.case import Case
from golden.results import Results
from mimsuite.batch import Batch
from mimsuite.masking import gather_tokens
from mimsuite.methods import Context, Output
from mimsuite.methods.mae import MAE
from mimsuite.models import Features
from mimsuite.noise import FixedNoise
from mimsuite.tokens import unpatchify

REQUIRED = (
    "mlp_ratio norm_eps qkv_bias drop_path_rate dropout in_chans img_size patch_size embed_dim "
    "depth num_heads decoder_embed_dim decoder_depth decoder_num_heads decoder_mlp_ratio "
    "mask_ratio norm_pix_loss loss_kind norm_pix_eps patch_norm_variance batch"
)


def pretrain(case: Case) -> Results:
    """The tensors of an ``image/mae`` case."""
    case.hparams.require(REQUIRED)
    build.refuse_drop_path(case)
    method = build.method_of(build.mae_document(case.hparams))
    run, results = run_case(case, method)
    results.tensors.update(run.debug)
    results.on_masked["pred"] = (run.output.prediction, run.mask)
    return results


def run_case(case: Case, method: MAE) -> tuple[Pass, Results]:
    """A pass of the case's weights, images and noise: tensors and gradients, sizes as facts."""
    build.load(method, case)
    method.train(case.training())
    run = Pass(method, build.images(case), build.noise(case, _tokens(method)))
    run.output.loss.backward()
    results = Results({**dict(run.tensors()), **build.gradients(method)})
    sizes = {
        "len_keep": run.mask.visible.shape[1],
        "num_patches": run.mask.tokens,
        "batch": len(run.batch),
    }
    for name, value in sizes.items():
        if name in case.hparams:
            results.facts[f"hparams.{name}"] = (value, case.hparams[name])
    return run, results


def published_model(name: str, stage: str, pool: str | None) -> dict[str, Any] | None:
    """The recipe document of a released model; ``None`` for a name that is not one."""
    named = re.fullmatch(r"vit_(base|large|huge)_patch(\d+)(_dec512d8b)?", name)
    if not named:
        return None
    encoder = {"image_size": 224, "patch_size": int(named[2]), **build.SIZES[named[1]]}
    if stage == "pretrain":
        return {
            "method": {"name": "mae"},
            "model": {"encoder": encoder, "decoder": build.DECODER},
            "mask": {"ratio": 0.75},
            "target": {"normalize": True},
        }
    if stage == "finetune" and pool in ("mean", "cls"):
        encoder["trained_positions"] = True
        return {
            "method": {"name": "classify"},
            "model": {"encoder": encoder, "pool": pool, "head_init_std": 0.01},
            "target": {"classes": 1000},
        }
    return None


class Pass:
    """One pass of an MAE under given noise, with all that a case may ask about.

    Attributes:
        output: of the training path.
        mask: under which it was.
        latent: (B, C + V, D) encoder output after its last norm; of an encoder of all tokens
            (B, C + N, D), in raster order.
        prediction: (B, N, P) over all tokens.
        debug: output of each block; decoder blocks in raster order.
    """

    def __init__(self, method: MAE, images: Tensor, noise: Tensor) -> None:
        self.method = method
        self.batch = Batch.of_images(images)
        rows = FixedNoise({"mask": noise})
        with torch.no_grad():
            context = method.prepare(self.batch, rows)
            masks = method.mask(self.batch, rows, context)
        self.mask = masks["image"]
        self.debug: dict[str, Tensor] = {}
        self.output = self._train(masks, context)
        self.prediction = self._reconstruct(masks, context)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors but debug outputs and gradients, under the names of the goldens."""
        method, mask = self.method, self.mask
        yield "mask", mask.dense().float()
        yield "ids_restore", mask.restore()
        yield "ids_keep", mask.visible
        yield "latent", self.latent
        yield "loss", self.output.loss
        yield "pred", self.prediction
        patches = method.encoder.patches(self.batch.image)
        yield "patchified", patches
        yield "target", method.target(patches)
        yield "unpatchify_pred", unpatchify(self.prediction, method.patch_size, method.grid)

    def _train(self, masks: dict[str, Any], context: Context) -> Output:
        seen: dict[str, Tensor] = {}
        with outputs_of(self.method.encoder.blocks, seen):
            features: list[Features] = []
            keep = lambda module, args, output: features.append(output)  # noqa: E731
            handle = self.method.encoder.register_forward_hook(keep)
            output = self.method(self.batch, masks, context)
            handle.remove()
        self.debug |= {f"debug.block{number}": tensor for number, tensor in seen.items()}
        tokens = features[0].tokens
        if tokens.shape[1] == self.mask.tokens:  # visible ones first
            tokens = gather_tokens(tokens, self.mask.restore())
        self.latent = torch.cat([features[0].cls, tokens], dim=1)
        return output

    @torch.no_grad()
    def _reconstruct(self, masks: dict[str, Any], context: Context) -> Tensor:
        blocks = self.method.decoder.blocks
        seen: dict[str, Tensor] = {}
        inputs: list[Tensor] = []
        handle = blocks[-1].register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
        with outputs_of(blocks, seen):
            prediction = self.method.reconstruct(self.batch, masks, context)
        handle.remove()
        restore, count = self.mask.restore(), self.method.encoder.class_tokens
        for number, tensor in seen.items():
            if int(number) == len(blocks) - 1:
                # The path skips the class token of the last block, which nobody reads: that one
                # row comes from the same block run on its whole input.
                cls, tokens = blocks[-1](inputs[0])[:, :count], tensor
            else:
                cls, tokens = tensor[:, :count], tensor[:, count:]
            index = restore.unsqueeze(-1).expand_as(tokens)
            self.debug[f"debug.decoder_block{number}"] = torch.cat(
                [cls, tokens.gather(1, index)], dim=1
            )
        return prediction


@contextmanager
def outputs_of(blocks: nn.ModuleList, seen: dict[str, Tensor]) -> Iterator[None]:
    """Collect each block's output, by its number, while the context lasts."""

    def keep(number: str) -> Any:
        return lambda module, args, output: seen.__setitem__(number, output.detach())

    handles = [
        block.register_forward_hook(keep(number)) for number, block in blocks.named_children()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tokens(method: MAE) -> int:
    """Numbers that a sample's mask is drawn from."""
    return method.sampler.noise_width(method.grid)
