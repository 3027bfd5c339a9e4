"""Networks inside trainers' containers and wrappers, and under the names of other libraries."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mimsuite import config
from mimsuite.checkpoints import Hints, open_model
from mimsuite.cli.main import main
from mimsuite.errors import UserError
from mimsuite.methods import build

State = dict[str, Tensor]


def vit(seed: int, **changes: Any) -> State:
    """A state with timm's names."""
    from timm.models import VisionTransformer

    torch.manual_seed(seed)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    return VisionTransformer(**sizes, num_classes=0, norm_layer=norm, **changes).state_dict()


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


FIRST, SECOND = vit(1), vit(2)
HEAD = {"head.mlp.0.weight": torch.ones(2, 2)}
PROJECTOR = {
    "base_encoder.head.0.weight": torch.ones(3, 48),
    "base_encoder.head.1.weight": torch.ones(3),
    "base_encoder.head.1.running_mean": torch.ones(3),
}


def opened(path: Path, content: Any, entry: str | None = None) -> tuple[State, list[str]]:
    torch.save(content, path)
    found = open_model(path, Hints(heads=3, entry=entry))
    return dict(found.method.encoder.state_dict()), found.notes


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize(
    "content",
    [
        under("model.", FIRST),
        under("backbone.", FIRST),
        under("encoder.", FIRST),
        {"state_dict": {"model": under("_orig_mod.module.model.", FIRST)}},
        {"state_dict": under("model.backbone.", FIRST) | {"model.head.weight": torch.ones(3, 48)}},
        {"module": under("module.encoder.", FIRST) | {"module.decoder.x": torch.ones(1)}},
        {"teacher": under("backbone.", FIRST) | HEAD, "student": under("module.backbone.", SECOND)},
        {"state_dict": under("module.", under("base_encoder.", FIRST) | PROJECTOR)},
    ],
)
def test_one_network_is_found(tmp_path: Path, content: Any) -> None:
    state, _ = opened(tmp_path / "w.pth", content)
    assert same(state, FIRST)


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    content = {"state_dict": under("model.backbone.", FIRST) | {"model.head.weight": torch.ones(1)}}
    _, notes = opened(tmp_path / "w.pth", {**content, "epoch": 3})
    assert "backbone taken" in notes
    assert "dropped: head.weight" in notes
    assert "dropped: epoch" in notes


@pytest.mark.parametrize(
    ("content", "taken", "other"),
    [
        ({"teacher": FIRST, "student": SECOND, "epoch": 1}, "teacher", "student"),
        ({"state_dict": {"student": SECOND, "teacher": FIRST}}, "teacher", "student"),
        (under("teacher.", FIRST) | under("student.", SECOND), "teacher", "student"),
        (
            under("module.base_encoder.", FIRST) | under("module.momentum_encoder.", SECOND),
            "base_encoder",
            "momentum_encoder",
        ),
    ],
)
def test_of_two_networks_one_is_chosen(
    tmp_path: Path, content: Any, taken: str, other: str
) -> None:
    state, notes = opened(tmp_path / "w.pth", content)
    assert same(state, FIRST)
    line = next(note for note in notes if f"{taken} taken, not" in note)
    entry = line.split("--entry ")[1]
    assert entry.endswith(other)
    state, _ = opened(tmp_path / "w.pth", content, entry)
    assert same(state, SECOND)
    with pytest.raises(UserError, match="there is no network below 'nobody'"):
        opened(tmp_path / "w.pth", content, "nobody")


def test_the_command_chooses(tmp_path: Path) -> None:
    path, out = tmp_path / "w.pth", tmp_path / "out.safetensors"
    torch.save({"teacher": FIRST, "student": SECOND}, path)
    command = ["import", str(path), "--entry", "student", "--heads", "3", "--out", str(out)]
    assert main(command) == 0
    assert same(dict(open_model(out).method.encoder.state_dict()), SECOND)


# --- mmpretrain ---------------------------------------------------------------------------------


def of_mmpretrain(state: State) -> State:
    """A ViT of timm under mmpretrain's names."""
    pairs = (
        *(("patch_embed.proj.", "patch_embed.projection."), ("blocks.", "layers.")),
        *((".norm1.", ".ln1."), (".norm2.", ".ln2."), (".mlp.fc1.", ".ffn.layers.0.0.")),
        *((".mlp.fc2.", ".ffn.layers.1."), ("fc_norm.", "ln2."), ("norm.", "ln1.")),
    )
    renamed = {}
    for name, tensor in state.items():
        for ours, theirs in pairs:
            if ours in name and not (ours == "norm." and "fc_norm" in name):
                name = name.replace(ours, theirs)
        renamed[name] = tensor
    return renamed


@pytest.mark.parametrize("lead", ["backbone.", "", "model.backbone."])
def test_vits_of_mmpretrain(tmp_path: Path, lead: str) -> None:
    content = {"meta": {"epoch": 3}, "state_dict": under(lead, of_mmpretrain(FIRST))}
    state, notes = opened(tmp_path / "w.pth", content)
    assert same(state, FIRST)
    assert "mmpretrain's names read as MAE's" in notes


def test_the_autoencoder_of_mmpretrain(tmp_path: Path, mae: Any) -> None:
    _, method = mae()
    theirs = {}
    for name, tensor in method.export_reference().items():
        decoder = name == "mask_token" or name.startswith("decoder_")
        name = name.replace("decoder_norm.", "ln1.") if decoder else name
        part = of_mmpretrain({name: tensor})
        for key, value in part.items():
            key = key.replace("decoder_layers.", "decoder_blocks.")
            theirs[("neck." if decoder else "backbone.") + key] = value
    torch.save({"state_dict": theirs}, tmp_path / "w.pth")
    found = open_model(tmp_path / "w.pth", Hints(heads=4, decoder_heads=4))
    assert found.has_decoder
    assert same(dict(found.method.state_dict()), dict(method.state_dict()))


def test_a_classifier_of_mmpretrain(tmp_path: Path, classifier: Any) -> None:
    _, method = classifier("finetune")
    theirs = under("backbone.", of_mmpretrain(method.export_reference()))
    theirs = {name.replace("backbone.head.", "head.fc."): t for name, t in theirs.items()}
    torch.save({"state_dict": theirs}, tmp_path / "w.pth")
    found = open_model(tmp_path / "w.pth", Hints(heads=4))
    assert same(dict(found.method.state_dict()), dict(method.state_dict()))


# --- NeRF-MAE -----------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module."])
def test_checkpoints_of_nerf_mae(tmp_path: Path, prefix: str) -> None:
    """As its trainer writes them, with the options of its command line beside the weights."""
    keys = {"model.decoder.kind": "unet", "model.encoder.resolution": 64}
    resolved = config.with_overrides(config.load("volume/nerf-mae-tiny-rooms"), keys, "test")
    torch.manual_seed(3)
    method = build(resolved.recipe)
    options = {"masking_prob": 0.75, "save_path": Path("results/x"), "resolution": 64}
    state = under(prefix, method.export_reference())
    torch.save({"epoch": 1200, "state_dict": state, "train_args": options}, tmp_path / "w.pt")
    found = open_model(tmp_path / "w.pt")
    assert found.has_decoder
    ours, section = found.resolved.recipe.model.encoder, resolved.recipe.model.encoder
    for key in ("resolution", "patch_size", "width", "depths", "heads", "window"):
        assert getattr(ours, key) == getattr(section, key)
    assert found.resolved.recipe.mask.ratio == 0.75
    assert same(dict(found.method.state_dict()), dict(method.state_dict()))
