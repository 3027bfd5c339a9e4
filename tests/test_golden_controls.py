"""tools/check_golden.py: a product or an answer that is wrong in one place fails the check."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mimsuite.methods import Method, pcp_mae
from mimsuite.methods.cae import CAE
from mimsuite.models import point_transformer
from mimsuite.models.blocks import Attention
from mimsuite.models.cae import RegressorBlock
from mimsuite.models.crate import ISTA
from mimsuite.targets import PixelTarget
from mimsuite.tokens.positions import sincos_points
from mimsuite.train import optim

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS.parent / "tools"), str(TESTS)]
from golden import build, run, tables  # noqa: E402
from golden_cases import document, stored, tensors, write  # noqa: E402

# --- negative controls: a wrong product fails -----------------------------------------------------

Sabotage = Callable[[Method], None]


def refused_by_figures(name: str) -> None:
    """A crash is no control: the check must see other numbers."""
    report = run.check(stored(name))
    assert report.verdict == "fail"
    assert not report.error


def with_eps(method: Method) -> None:
    for module in method.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5


def with_tanh_gelu(method: Method) -> None:
    for module in method.modules():
        if isinstance(module, nn.GELU):
            module.approximate = "tanh"


def with_flipped_gradient(method: Method) -> None:
    method.get_parameter("encoder.patch_embed.proj.weight").register_hook(torch.neg)


def with_mae_eps_in_convolutions(method: Method) -> None:
    for name, module in method.named_modules():
        if ".stage" in name and isinstance(module, nn.LayerNorm):
            module.eps = 1e-6


def with_unmasked_convolution(method: Method) -> None:
    method.encoder.stage1.blocks[0].attn.register_forward_pre_hook(
        lambda module, args: args[0] + method.encoder.stage1.blocks[0].conv1.bias.view(-1, 1, 1)
    )


def without_fusion(method: Method) -> None:
    method.encoder.fusion = nn.ModuleList()


def with_other_sparsity(method: Method) -> None:
    for module in method.modules():
        if isinstance(module, ISTA):
            module.sparsity *= 1.01


def with_transposed_dictionary(method: Method) -> None:
    for name, parameter in method.named_parameters():
        if name.endswith(("ista.weight", "dictionary.weight")):
            parameter.data = parameter.data.T.contiguous()


def with_swapped_qk(method: Method) -> None:
    for name, parameter in method.named_parameters():
        if name.endswith("qkv.weight"):
            query, key, value = parameter.data.chunk(3)
            parameter.data = torch.cat([value, key, query])


@pytest.mark.parametrize(
    ("sabotage", "name"),
    [
        (with_eps, "mae-a"),
        (with_eps, "mae-vit-a-globalpool"),
        (with_tanh_gelu, "mae-a"),
        (with_tanh_gelu, "mae-vit-a-globalpool"),
        (with_tanh_gelu, "mae-traj-a"),
        (with_flipped_gradient, "mae-a"),
        (with_flipped_gradient, "mae-vit-a-globalpool"),
        (with_flipped_gradient, "mae-traj-a"),
        (with_flipped_gradient, "mae-ft-traj-a"),
        (with_swapped_qk, "mae-a"),
        (with_mae_eps_in_convolutions, "convmae-a"),
        (with_unmasked_convolution, "convmae-a"),
        (without_fusion, "convmae-a"),
        (with_eps, "convmae-a"),
        (with_other_sparsity, "crate-a"),
        (with_transposed_dictionary, "crate-a"),
        (with_other_sparsity, "crate-mae-a"),
        (with_transposed_dictionary, "crate-mae-a"),
    ],
)
def test_a_wrong_model_fails(monkeypatch: Any, sabotage: Sabotage, name: str) -> None:
    load = build.load

    def load_and_break(method: Method, *rest: Any) -> None:
        load(method, *rest)
        sabotage(method)

    monkeypatch.setattr(build, "load", load_and_break)
    refused_by_figures(name)


def test_biased_variance_fails(monkeypatch: Any) -> None:
    def biased(patches: Tensor) -> tuple[Tensor, Tensor]:
        variance = patches.var(dim=-1, keepdim=True, correction=0)
        return patches.mean(dim=-1, keepdim=True), (variance + 1e-6).sqrt()

    monkeypatch.setattr(PixelTarget, "statistics", staticmethod(biased))
    for name in ("mae-a", "mae-traj-a"):
        refused_by_figures(name)


def test_a_training_path_that_differs_from_reconstruction_fails(monkeypatch: Any) -> None:
    forward = Attention.forward

    def worse(self: Attention, x: Tensor, queries: int | None = None, *more: Any) -> Tensor:
        scale = 1.001 if queries == 12 else 1.0  # the training path asks for 12 masked tokens
        return forward(self, x, queries, *more) * scale

    monkeypatch.setattr(Attention, "forward", worse)
    wrong = {finding.name for finding in run.check(stored("mae-a")).findings if not finding.ok}
    assert "pred.masked" in wrong
    assert "pred" not in wrong


Groups = list[dict[str, Any]]


def with_swapped_decay(groups: Groups) -> Groups:
    """The values of the first group without and the first with decay change places."""
    bare = next(group for group in groups if group["weight_decay"] == 0)
    other = next(group for group in groups if group["weight_decay"] > 0)
    bare["weight_decay"], other["weight_decay"] = other["weight_decay"], bare["weight_decay"]
    return groups


def with_one_moved(groups: Groups) -> Groups:
    """One tensor in the group of the other decay."""
    source = next(group for group in groups if "encoder.cls_token" in group["names"])
    at = source["names"].index("encoder.cls_token")
    target = next(g for g in groups if g["weight_decay"] != source["weight_decay"])
    for field in ("names", "params"):
        target[field].append(source[field].pop(at))
    return groups


@pytest.mark.parametrize("mutation", [with_swapped_decay, with_one_moved])
@pytest.mark.parametrize("name", ["mae-traj-a", "mae-ft-traj-a", "layer-decay-groups"])
def test_wrong_groups_fail(
    monkeypatch: Any, mutation: Callable[[Groups], Groups], name: str
) -> None:
    groups = optim.param_groups
    wrong = lambda *args, **options: mutation(groups(*args, **options))  # noqa: E731
    monkeypatch.setattr(optim, "param_groups", wrong)
    monkeypatch.setattr(tables, "param_groups", wrong)
    report = run.check(stored(name))
    assert report.verdict == "fail"
    if "traj" in name:
        assert {f.name for f in report.findings if not f.ok} >= {"param_groups"}


def test_wrong_decay_shows_in_the_weights_too(monkeypatch: Any) -> None:
    """Even where the case does not say which groups it had."""
    groups = optim.param_groups
    wrong = lambda *args, **options: with_one_moved(groups(*args, **options))  # noqa: E731
    monkeypatch.setattr(optim, "param_groups", wrong)
    report = run.check(stored("mae-traj-a"))
    assert "state_final.cls_token" in {f.name for f in report.findings if not f.ok}


# --- a wrong answer fails -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("mae-a", "grad.mask_token"),
        ("mae-a", "pred"),
        ("mae-a", "ids_restore"),
        ("mae-vit-a-globalpool", "logits"),
        ("linprobe-a", "eval_logits"),
        ("lars-a", "step3.after.w2d"),
        ("mae-traj-a", "grad_norm"),
        ("mae-traj-a", "state_final.blocks.1.mlp.fc1.bias"),
        ("mae-traj-a", "opt.exp_avg_sq.mask_token"),
        ("mae-ft-traj-a", "lr_groups"),
        ("mae-ft-traj-a", "loss"),
    ],
)
def test_one_changed_number_fails(tmp_path: Path, case: str, name: str) -> None:
    changed = tensors(case)
    flat = changed[name].flatten()
    at = int(flat.abs().argmax())
    flat[at] = flat[at] * 1.01 + 1
    report = run.check(write(tmp_path, document(case), changed))
    assert report.verdict == "fail"
    assert name in {finding.name for finding in report.findings if not finding.ok}


def test_nan_fails(tmp_path: Path) -> None:
    changed = tensors("mae-a")
    changed["latent"][0, 0, 0] = float("nan")
    path = write(tmp_path, document("mae-a"), changed)
    assert run.check(path).verdict == "fail"
    assert json.loads(run.check(path).line())["verdict"] == "fail"  # and the line is JSON


def test_a_table_with_a_wrong_number_fails(tmp_path: Path) -> None:
    for name, change in {
        "len-keep": lambda entry: entry["expected"].update(len_keep=7),
        "lr-schedules": lambda entry: entry["expected"]["lr"].__setitem__(3, 1.0),
        "state-dict-keys": lambda entry: entry["expected"]["keys"].pop("mask_token"),
        "layer-decay-groups": lambda entry: entry["expected"]["layer_id"].update(extra=1),
    }.items():
        case = document(name)
        change(case["table"][0])
        assert run.check(write(tmp_path, case, {})).verdict == "fail", name


def test_a_check_that_compares_nothing_fails(tmp_path: Path) -> None:
    case = document("mae-a") | {"compare": {}}
    report = run.check(write(tmp_path, case, tensors("mae-a")))
    assert (report.verdict, report.exit_code) == ("fail", 1)
    assert "compared nothing" in report.error


def test_gradients_stored_as_zero_must_be_zero_or_absent(tmp_path: Path) -> None:
    case, changed = document("mae-a"), tensors("mae-a")
    changed["grad.pos_embed"] = torch.zeros(1, 17, 32)  # frozen, so there is none
    assert run.check(write(tmp_path, case, changed)).verdict == "pass"
    changed["grad.norm.weight"] = torch.zeros(32)  # there is one, and it is not zero
    assert run.check(write(tmp_path, case, changed)).verdict == "fail"


# --- likewise of CAE ------------------------------------------------------------------------------


def with_a_gradient_through_the_target(patch: Any) -> None:
    def aligned(self: CAE, batch: Any, mask: Any, noise: Any) -> Tensor:
        patches = self.encoder.patches(batch.image, mask.masked)
        return self.regressor.project(self.encoder(patches, mask.masked).tokens)

    patch.setattr(CAE, "aligned", aligned)


def with_a_stream_that_is_not_normalised(patch: Any) -> None:
    """An ordinary residual branch instead of the published one."""

    def forward(
        self: RegressorBlock, x: Tensor, visible: Tensor, where: Tensor, places: Tensor, _: Any
    ) -> Tensor:
        seen = torch.cat([visible, x], dim=1)
        keys = self.norm1_k(seen + places)
        x = x + self.gamma_1_cross * self.cross_attn(
            self.norm1_q(x + where), keys, self.norm1_v(seen)
        )
        return x + self.gamma_2_cross * self.mlp_cross(self.norm2_cross(x))

    patch.setattr(RegressorBlock, "forward", forward)


@pytest.mark.parametrize(
    ("sabotage", "names"),
    [
        (with_a_gradient_through_the_target, ("cae-a", "cae-lxt-a", "cae-traj-a")),
        (with_a_stream_that_is_not_normalised, ("cae-a", "cae-lxt-a", "caev2-a", "cae-traj-a")),
    ],
)
def test_a_wrong_cae_fails(monkeypatch: Any, sabotage: Any, names: tuple[str, ...]) -> None:
    sabotage(monkeypatch)
    for name in names:
        refused_by_figures(name)


# --- likewise of PCP-MAE --------------------------------------------------------------------------


def with_all_sines_first(patch: Any) -> None:
    def code(points: Tensor, width: int) -> Tensor:
        parts = sincos_points(points, width).unflatten(-1, (3, 2, -1))
        return parts.transpose(-3, -2).flatten(-3)

    patch.setattr(pcp_mae, "sincos_points", code)
    patch.setattr(point_transformer, "sincos_points", code)


def with_visible_tokens_that_see_masked_ones(patch: Any) -> None:
    forward = Attention.forward
    patch.setattr(
        Attention,
        "forward",
        lambda self, x, queries=None, closed=0, *more: forward(self, x, queries),
    )


def with_masked_tokens_that_see_visible_ones_only(patch: Any) -> None:
    forward = Attention.forward

    def wrong(
        self: Attention, x: Tensor, queries: int | None = None, closed: int = 0, *more: Any
    ) -> Tensor:
        out = forward(self, x, queries, closed)
        if not closed:
            return out
        each = [
            forward(self, torch.cat([x[:, :closed], x[:, at : at + 1]], 1))[:, -1:]
            for at in range(closed, x.shape[1])
        ]
        return torch.cat([out[:, :closed], *each], dim=1)

    patch.setattr(Attention, "forward", wrong)


def with_the_target_through_the_mlp(patch: Any) -> None:
    error, made = pcp_mae.code_error, []
    build_it = pcp_mae.PCPMAE.__init__

    def keep(self: Any, recipe: Any) -> None:
        build_it(self, recipe)
        made.append(self)

    patch.setattr(pcp_mae.PCPMAE, "__init__", keep)
    patch.setattr(
        pcp_mae,
        "code_error",
        lambda found, codes, kind: error(found, made[-1].encoder.pos_embed(codes).detach(), kind),
    )


def without_stop_gradient(patch: Any) -> None:
    init = pcp_mae.PCPMAE.__init__

    def attached(self: Any, recipe: Any) -> None:
        init(self, recipe)
        self.detach = False

    patch.setattr(pcp_mae.PCPMAE, "__init__", attached)


def with_true_centres(patch: Any) -> None:
    rebuild = pcp_mae.PCPMAE._rebuild

    def told(self: Any, groups: Any, mask: Any, ctx: Any) -> Any:
        true = sincos_points(mask.gather(groups.center, "masked"), self.encoder.width)
        handle = self.centers.register_forward_hook(lambda module, args, output: true)
        try:
            return rebuild(self, groups, mask, ctx)
        finally:
            handle.remove()

    patch.setattr(pcp_mae.PCPMAE, "_rebuild", told)


@pytest.mark.parametrize(
    ("sabotage", "name"),
    [
        (with_all_sines_first, "encoded_vis"),
        (with_visible_tokens_that_see_masked_ones, "encoded_vis"),
        (with_masked_tokens_that_see_visible_ones_only, "encoded_masked"),
        (with_the_target_through_the_mlp, "loss_center"),
        (without_stop_gradient, "grad_recon.pred_pos_proj.0.weight"),
        (with_true_centres, "rebuilt"),
    ],
)
def test_a_wrong_pcp_mae_fails(monkeypatch: Any, sabotage: Any, name: str) -> None:
    sabotage(monkeypatch)
    report = run.check(stored("pcp_a"))
    assert report.verdict == "fail"
    assert name in {finding.name for finding in report.findings if not finding.ok}


@pytest.mark.parametrize("key", ["head_rate", "decay_head"])
def test_a_head_that_is_trained_like_the_rest_fails(monkeypatch: Any, key: str) -> None:
    resolve = build.resolve

    def without(document: dict[str, Any]) -> Any:
        document["method"].pop(key, None)
        return resolve(document)

    monkeypatch.setattr(build, "resolve", without)
    report = run.check(stored("pcp_cls_a"))
    assert {finding.name for finding in report.findings if not finding.ok} == {"meta.param_groups"}


def test_a_crate_that_pools_all_tokens_is_built_and_is_another(tmp_path: Path) -> None:
    case = document("crate-a")
    case["hparams"]["pool"] = "mean"
    report = run.check(write(tmp_path, case, tensors("crate-a")))
    assert report.verdict == "fail"
    assert {"logits", "loss"} <= {finding.name for finding in report.findings if not finding.ok}
    assert "debug.mssa0" not in {finding.name for finding in report.findings if not finding.ok}
