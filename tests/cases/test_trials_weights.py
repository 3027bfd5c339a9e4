"""Weights as trainers wrap them, and as the cache of huggingface.co keeps them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mimsuite.checkpoints import Hints, open_model
from mimsuite.cli.main import main
from tests.needs import module

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def vit() -> State:
    """A state with timm's names."""
    from timm.models import VisionTransformer

    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    return VisionTransformer(**sizes, num_classes=0, norm_layer=norm).state_dict()


def blocks_wrapped(name: str, state: State) -> State:
    return {key.replace("blocks.1.", f"blocks.1.{name}."): t for key, t in state.items()}


def same_encoder(path: Path, state: State) -> bool:
    found = open_model(path, Hints(heads=3)).method.encoder.state_dict()
    return all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize(
    "wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"]
)
@pytest.mark.parametrize("lead", ["", "model.", "_forward_module.module."])
def test_parts_that_wrappers_put_into_names(
    wrapper: str, lead: str, vit: State, tmp_path: Path
) -> None:
    state = {lead + name: tensor for name, tensor in blocks_wrapped(wrapper, vit).items()}
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    assert same_encoder(tmp_path / "w.pth", vit)
    notes = open_model(tmp_path / "w.pth", Hints(heads=3)).notes
    assert f"{wrapper}. of a wrapper taken out of names" in notes


def test_a_name_twice_is_refused(vit: State, tmp_path: Path, capsys: Any) -> None:
    both = vit | {f"_orig_mod.{name}": tensor for name, tensor in vit.items()}
    torch.save(both, tmp_path / "w.pth")
    assert main(["import", str(tmp_path / "w.pth"), "--heads", "3"]) == 2
    assert "is there twice, with and without a wrapper" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["weights", "params", "network", "model_state_dict"])
def test_further_names_of_entries(name: str, vit: State, tmp_path: Path) -> None:
    torch.save({name: vit, "epoch": 3}, tmp_path / "w.pth")
    assert same_encoder(tmp_path / "w.pth", vit)


def test_a_folder_of_the_hubs_cache(tmp_path: Path, capsys: Any) -> None:
    transformers = module("transformers")
    sizes = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    settings = transformers.ViTConfig(image_size=32, intermediate_size=96, **sizes)
    model = transformers.ViTModel(settings)
    folder = tmp_path / "models--owner--name"
    model.save_pretrained(folder / "snapshots" / "a1")
    assert main(["import", str(folder), "--out", str(tmp_path / "x.safetensors")]) == 0
    model.save_pretrained(folder / "snapshots" / "b2")
    assert main(["import", str(folder), "--out", str(tmp_path / "y.safetensors")]) == 2
    assert "2 snapshots: give one" in capsys.readouterr().err
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("b2")
    assert main(["import", str(folder), "--out", str(tmp_path / "y.safetensors")]) == 0


def test_a_name_of_the_hub_says_how_to_get_it(capsys: Any) -> None:
    assert main(["import", "owner/vit-mae-base"]) == 2
    assert "hf download owner/vit-mae-base" in capsys.readouterr().err


def test_another_model_of_the_hub_is_named(tmp_path: Path, capsys: Any) -> None:
    transformers = module("transformers")
    sizes = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    settings = transformers.CLIPVisionConfig(image_size=32, intermediate_size=96, **sizes)
    transformers.CLIPVisionModel(settings).save_pretrained(tmp_path / "clip")
    assert main(["import", str(tmp_path / "clip")]) == 2
    assert "model_type clip_vision_model" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["reference", "hf"])
def test_how_far_frames_are_apart_survives(form: str, tmp_path: Path) -> None:
    """It decides which frames are seen, so the features too."""
    from mimsuite import config
    from mimsuite.checkpoints.opened import Opened
    from mimsuite.export import export
    from mimsuite.methods import build

    if form == "hf":
        module("transformers")
    resolved = config.load("video/videomae2-tiny-motion", smoke=True)
    assert resolved.recipe.augment.stride == 1
    opened = Opened(build(resolved.recipe).eval(), resolved, "here", 1, True, [])
    out = tmp_path / ("v.pth" if form == "reference" else "v")
    export(opened, form, out)
    again = open_model(out)
    assert again.resolved.recipe.augment.stride == 1
    assert not [note for note in again.notes if "augment.stride" in note]


def test_frames_without_a_distance_are_said_to_be_assumed(tmp_path: Path) -> None:
    from mimsuite import config
    from mimsuite.methods import build

    method = build(config.load("video/videomae2-tiny-motion", smoke=True).recipe)
    sizes = {"num_heads": 4, "decoder_num_heads": 4, "input_size": 32, "num_frames": 8}
    torch.save({"model": method.export_reference(), "args": sizes}, tmp_path / "v.pth")
    (note,) = [note for note in open_model(tmp_path / "v.pth").notes if "stride" in note]
    assert note.startswith("augment.stride=4 assumed")
    torch.save(
        {"model": method.export_reference(), "args": {**sizes, "sampling_rate": 2}},
        tmp_path / "v.pth",
    )
    assert open_model(tmp_path / "v.pth").resolved.recipe.augment.stride == 2
