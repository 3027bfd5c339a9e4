"""``model.freeze``: first blocks stay as they are, and nothing else changes."""

from __future__ import annotations

import pytest
import torch

from mimsuite import config
from mimsuite.cli.main import main
from mimsuite.errors import UserError
from mimsuite.methods import build
from mimsuite.train import checkpoint
from mimsuite.train.optim import param_groups

PRETRAIN = [
    ("image/mae-tiny-fashion", "blocks.0."),
    ("video/videomae2-tiny-motion", "patch_embed"),
    ("points/mae-tiny-furniture", "tokenizer."),
]


def tuning(*overrides: str):
    return config.load("image/mae-tiny-finetune", ["target.classes=10", *overrides])


@pytest.mark.parametrize("blocks", [1, 2])
def test_first_blocks_get_no_gradient_no_decay_and_keep_their_groups(blocks):
    method = build(tuning(f"model.freeze={blocks}").recipe)
    names = {name for group in param_groups(method, 0.05, 0.5) for name in group["names"]}
    frozen = {name for name, p in method.named_parameters() if not p.requires_grad}
    assert frozen
    assert not frozen & names
    assert all(method.layer_id(name) <= blocks for name in frozen)
    assert all(method.layer_id(name) > blocks for name in names)
    scale = {n: g["lr_scale"] for g in param_groups(method, 0.05, 0.5) for n in g["names"]}
    whole = build(tuning().recipe)
    wanted = {n: g["lr_scale"] for g in param_groups(whole, 0.05, 0.5) for n in g["names"]}
    assert all(scale[name] == wanted[name] for name in scale)


def test_frozen_blocks_stay_in_eval_mode():
    method = build(tuning("model.freeze=1").recipe).train()
    first, second = method.encoder.blocks[0], method.encoder.blocks[1]
    assert not any(part.training for part in first.modules())
    assert all(part.training for part in second.modules())
    assert method.training


@pytest.mark.parametrize("value", ["all", "true"])
def test_the_whole_encoder_is_frozen_by_either_name(value):
    method = build(tuning(f"model.freeze={value}").recipe)
    assert not any(p.requires_grad for p in method.encoder.parameters())


def test_more_blocks_than_there_are_is_refused(tmp_path, capsys):
    with pytest.raises(UserError, match=r"model.freeze 99: this encoder has \d+ blocks"):
        build(tuning("model.freeze=99").recipe)
    out = tmp_path / "a"
    command = ["pretrain", "image/mae-tiny-fashion", "--smoke", "--out", str(out)]
    assert main([*command, "model.freeze=99"]) == 2
    assert main([*command, "model.freeze=-1"]) == 2
    assert "model.freeze" in capsys.readouterr().err
    assert not out.exists()


def test_pretraining_leaves_frozen_blocks_at_their_weights(tmp_path, capsys):
    command = ["pretrain", "image/mae-tiny-fashion", "--smoke", "data.limit=200"]
    command += ["train.global_batch=50", "optim.weight_decay=0.5"]
    assert main([*command, "--out", str(tmp_path / "a")]) == 0
    more = ["--init-from", str(tmp_path / "a"), "--out", str(tmp_path / "b"), "model.freeze=1"]
    assert main([*command, *more]) == 0
    before, after = (
        checkpoint.read(next((tmp_path / name / "checkpoints").glob("step-*"))).model
        for name in ("a", "b")
    )
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {n for n in before if n.startswith("encoder.blocks.0.")} <= same
    assert not {n for n in before if n.startswith("encoder.blocks.1.")} & same
    shown = capsys.readouterr().err
    assert len({line for line in shown.splitlines() if line.startswith("  model ")}) == 2


@pytest.mark.parametrize(("recipe", "part"), PRETRAIN)
def test_every_modality_freezes_its_first_blocks(recipe, part):
    method = build(config.load(recipe, ["model.freeze=1"], smoke=True).recipe)
    frozen = {n for n, p in method.encoder.named_parameters() if not p.requires_grad}
    assert any(name.startswith(part) for name in frozen)
    assert any(p.requires_grad for p in method.encoder.parameters())
