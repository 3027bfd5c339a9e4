"""Point-MAE, Point-CMAE and what is built on their encoder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from mimsuite.batch import Batch
from mimsuite.config import Resolved, from_document
from mimsuite.errors import DataError, UserError
from mimsuite.masking import TokenMask
from mimsuite.methods import Method, build
from mimsuite.methods.pcp_mae import code_error
from mimsuite.noise import Noise
from mimsuite.tokens.positions import sincos_points
from mimsuite.train.estimate import estimate
from mimsuite.train.optim import param_groups
from mimsuite.train.step import run_method

ENCODER = {
    "kind": "point-transformer",
    **{"points": 48, "groups": 10, "group_size": 6, "width": 24, "depth": 2, "heads": 4},
    "tokenizer": [8, 16, 16],
}
CODED = {**ENCODER, "positions": "sincos"}


def resolved(method: dict[str, Any], **sections: Any) -> Resolved:
    document = {
        "recipe": {"modality": "points"},
        "method": method,
        "model": {"encoder": ENCODER, "decoder": {"depth": 2, "heads": 4, "drop_path": 0.1}},
        "mask": {"kind": "random", "ratio": 0.6},
        "target": {"norm": "l2"},
        "optim": {"lr": 1e-3},
        "schedule": {"epochs": 1},
        "train": {"global_batch": 4},
    }
    return from_document(document | sections)


def made(name: str, **keys: Any) -> Method:
    torch.manual_seed(0)
    return build(resolved({"name": name, **keys}, **(coded() if name == "pcp-mae" else {})).recipe)


def coded(depth: int = 1, **target: Any) -> dict[str, Any]:
    """Sections of PCP-MAE."""
    centers = {"depth": depth, "heads": 4, "drop_path": 0.1}
    model = {"encoder": CODED, "decoder": {"depth": 2, "heads": 4}, "centers": centers}
    return {"model": model, "target": {"norm": "l2", **target}}


def classifier(**model: Any) -> Method:
    sections = {
        "model": {"encoder": ENCODER, **model},
        "mask": {},
        "target": {"classes": 3},
    }
    torch.manual_seed(0)
    return build(resolved({"name": "point-classify"}, **sections).recipe)


def clouds(count: int = 4, label: list[int] | None = None) -> Batch:
    points = torch.randn(count, 48, 3, generator=torch.Generator().manual_seed(1))
    known = None if label is None else torch.tensor(label)
    return Batch.of_views({"points": points}, known)


def noise(batch: Batch, step: int = 0) -> Noise:
    return Noise(0, step, batch.index)


@pytest.mark.parametrize("name", ["point-mae", "point-cmae", "pcp-mae"])
def test_every_trained_parameter_gets_a_gradient(name: str) -> None:
    method, batch = made(name).train(), clouds()
    output = run_method(method, batch, noise(batch))
    output.loss.backward()
    assert output.prediction is not None
    assert output.prediction.shape == (4, 6, 6, 3)
    frozen = {n for n, p in method.named_parameters() if not p.requires_grad}
    assert frozen == method.unused_parameters()
    assert not [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.parametrize("name", ["point-mae", "point-cmae", "pcp-mae"])
def test_published_names_and_back(name: str) -> None:
    method = made(name)
    published = method.export_reference()
    assert "MAE_encoder.blocks.blocks.1.attn.qkv.weight" in published
    assert "increase_dim.0.weight" in published
    ours = type(method).import_reference(published)
    assert ours.keys() == method.state_dict().keys()


def test_masks_of_both_views_are_independent_draws() -> None:
    method, batch = made("point-cmae"), clouds()
    context = method.prepare(batch, noise(batch))
    masks = method.mask(batch, noise(batch), context)
    assert {mask.masked.shape[1] for mask in masks.values()} == {6}
    assert not torch.equal(masks["view1"].dense(), masks["view2"].dense())
    again = method.mask(batch, noise(batch), context)
    assert torch.equal(masks["view1"].dense(), again["view1"].dense())


@pytest.mark.parametrize("kind", ["all_pairs", "same_token"])
def test_no_token_masked_in_both_views_costs_nothing(kind: str) -> None:
    method, batch = made("point-cmae", consistency=kind).train(), clouds()
    rows = noise(batch)
    first = torch.arange(10).expand(4, -1) < 5
    masks = {
        "view1": TokenMask.from_removed(first, (10,)),
        "view2": TokenMask.from_removed(~first, (10,)),
    }
    output = method(batch, masks, method.prepare(batch, rows))
    assert output.terms["consistency"] == 0
    output.loss.backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_the_consistency_of_ranks_is_that_of_the_whole_batch() -> None:
    """Two halves of a batch as two ranks: the mean of their losses is the loss of the whole."""
    method, batch = made("point-cmae").eval(), clouds()
    rows = noise(batch)
    context = method.prepare(batch, rows)
    masks = method.mask(batch, rows, context)
    comasked = (masks["view1"].dense() & masks["view2"].dense()).sum(1).float()
    counts = torch.stack([comasked[:2].sum(), comasked[2:].sum()])
    assert counts[0] != counts[1]
    whole = run_method(method, batch, rows).terms["consistency"]
    halves = []
    for part in (slice(0, 2), slice(2, 4)):
        half = batch.rows(part.start, part.stop)
        given = run_method(method, half, noise(half), gather=lambda tensor: counts)
        halves.append(given.terms["consistency"])
    torch.testing.assert_close(sum(halves) / 2, whole)


def test_tokenizing_the_visible_groups_only_is_another_recipe() -> None:
    batch = clouds()
    losses = [
        run_method(made("point-mae", tokenize=kind).train(), batch, noise(batch)).loss
        for kind in ("all", "visible")
    ]
    assert losses[0] != losses[1]  # other batch statistics
    evaluated = [
        run_method(made("point-mae", tokenize=kind).eval(), batch, noise(batch)).loss
        for kind in ("all", "visible")
    ]
    torch.testing.assert_close(*evaluated)  # the same function otherwise


def test_encode_offers_class_token_and_maximum() -> None:
    batch = clouds()
    features = made("point-cmae").eval().encode(batch, layers=[1])
    assert features.cls.shape == (4, 1, 24)
    assert features.pool("cls_max").shape == (4, 48)
    assert features.layers[1].shape == (4, 11, 24)
    plain = made("point-mae").eval().encode(batch)
    assert plain.cls.shape == (4, 0, 24)
    assert plain.pools == ("max", "mean")


def test_tokens_do_not_decay_and_positions_of_class_tokens_do() -> None:
    decay = {
        n: g["weight_decay"] for g in param_groups(made("point-cmae"), 0.05) for n in g["names"]
    }
    assert decay["views.0.cls_token"] == decay["decoder.1.mask_token"] == 0
    assert decay["views.1.cls_pos"] == 0.05


@pytest.mark.parametrize("name", ["point-mae", "point-cmae", "pcp-mae"])
def test_pictures_show_original_masked_and_rebuilt(name: str) -> None:
    method, batch = made(name).eval(), clouds(2)
    context = method.prepare(batch, noise(batch))
    panels = method.panels(batch, method.mask(batch, noise(batch), context), context)
    assert [panel.title.split()[0].rstrip(":") for panel in panels[:3]] == [
        *("original", "masked", "reconstruction")
    ]
    for panel in panels:
        assert panel.images.shape[:2] == (2, 3)
        assert panel.images.min() < 0.9  # something is drawn


def test_a_recipe_for_images_is_refused() -> None:
    with pytest.raises(UserError, match=r"takes point clouds: set recipe\.modality=points"):
        resolved({"name": "point-mae"}, recipe={"modality": "image"})


def test_frozen_protocols_train_what_they_say() -> None:
    def trained(**keys: Any) -> set[str]:
        named = classifier(head="linear", **keys).named_parameters()
        return {name for name, parameter in named if parameter.requires_grad}

    head = {"head.layers.0.weight", "head.layers.0.bias"}
    assert trained(freeze=True) == head | {"cls.cls_token", "cls.cls_pos"}
    assert trained(freeze=True, strict_freeze=True) == head
    method = classifier(freeze=True).train()
    assert method.encoder.training
    assert not classifier(freeze=True, strict_freeze=True).train().encoder.training


def test_labels_that_cannot_be_learnt_are_named() -> None:
    method = classifier().train()
    with pytest.raises(DataError, match="sample 1 has no label"):
        method.check(clouds(2, [0, -1]))
    with pytest.raises(DataError, match=r"sample 0 has label 3; target\.classes is 3"):
        method.check(clouds(2, [3, 1]))
    batch = clouds(4, [0, 1, 2, 0])
    run_method(method, batch, noise(batch)).loss.backward()


@pytest.mark.parametrize("name", ["point-mae", "point-cmae", "pcp-mae"])
def test_costs_are_counted_without_data(name: str) -> None:
    recipe = made(name).recipe
    counted = estimate(recipe)
    assert counted.parameters == sum(p.numel() for p in build(recipe).parameters())
    assert counted.flops > counted.forward_flops > 0


def test_centres_are_predicted_from_what_the_encoder_does_not_know() -> None:
    """Masked groups that are moved elsewhere change the target, and nothing that is computed."""
    method, batch = made("pcp-mae").eval(), clouds()
    context = method.prepare(batch, noise(batch))
    masks = method.mask(batch, noise(batch), context)
    seen: list[torch.Tensor] = []
    method.centers.register_forward_hook(lambda module, args, output: seen.append(output))
    losses = []
    for shift in (0.0, 0.5):
        groups = context.prepared["groups"]
        hidden = masks["points"].dense().unsqueeze(-1)
        moved = replace(groups, center=groups.center + shift * hidden)
        output = method(batch, masks, replace(context, prepared={"groups": moved}))
        losses.append((output.terms["chamfer"], output.terms["centers"]))
    assert torch.equal(seen[0], seen[1])
    assert losses[0][0] == losses[1][0]
    assert losses[0][1] != losses[1][1]


@pytest.mark.parametrize("kind", ["l2", "l1", "smooth-l1", "cosine"])
def test_every_error_of_centres_is_zero_where_they_are_right(kind: str) -> None:
    codes = sincos_points(torch.rand(2, 3, 3), 24)
    assert code_error(codes, codes, kind) == pytest.approx(0, abs=1e-6)
    assert code_error(-codes, codes, kind) > 0


def test_reconstruction_trains_the_centres_only_where_it_shall() -> None:
    batch = clouds()
    for detach in (True, False):
        method = made("pcp-mae", detach=detach).train()
        output = run_method(method, batch, noise(batch))
        output.prediction.square().sum().backward()  # type: ignore[union-attr]
        reached = [p.grad is not None for p in method.centers.parameters()]
        assert any(reached) != detach


def test_pictures_place_groups_where_they_were_predicted() -> None:
    method, batch = made("pcp-mae").eval(), clouds()
    context = method.prepare(batch, noise(batch))
    panels = method.panels(batch, method.mask(batch, noise(batch), context), context)
    assert [panel.title.split(":")[0] for panel in panels] == [
        "original",
        "masked",
        "reconstruction",
        "at predicted centres",
    ]
    assert not torch.equal(panels[2].images, panels[3].images)


def test_centres_need_codes() -> None:
    sections = coded()
    sections["model"]["encoder"] = ENCODER
    with pytest.raises(UserError, match=r"set encoder\.positions=sincos"):
        resolved({"name": "pcp-mae"}, **sections)
    sections["model"]["encoder"] = {**CODED, "width": 20}
    with pytest.raises(UserError, match="6 must divide width 20"):
        resolved({"name": "pcp-mae"}, **sections)


def test_what_reads_the_encoder_may_be_trained_at_a_rate_of_its_own() -> None:
    sections = {"model": {"encoder": CODED}, "mask": {}, "target": {"classes": 3}}
    keys = {"name": "point-classify", "head_rate": 10.0, "decay_head": True}
    method = build(resolved(keys, **sections).recipe)
    for group in param_groups(method, 0.05):
        reads = [name.startswith(("cls.", "head.")) for name in group["names"]]
        assert all(reads) or not any(reads)
        own = group["own"]
        assert (own.lr if own else None) == (10.0 * method.recipe.lr if reads[0] else None)
        assert group["weight_decay"] == 0.05 or not reads[0]
