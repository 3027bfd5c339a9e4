"""Checkpoints of VideoMAE and VideoMAE V2 as their training loops write them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS)]
from golden_cases import tensors  # noqa: E402

from mimsuite import config  # noqa: E402
from mimsuite.checkpoints import open_model  # noqa: E402
from mimsuite.checkpoints.initialise import initialise  # noqa: E402
from mimsuite.checkpoints.shapes import Hints  # noqa: E402
from mimsuite.errors import UserError  # noqa: E402
from mimsuite.export.to_files import write_safetensors  # noqa: E402
from mimsuite.methods import build  # noqa: E402
from mimsuite.tokens import resize_clip_positions  # noqa: E402

HINTS = Hints(heads=4, decoder_heads=3, image_size=(32, 32))


def state_of(case: str) -> dict[str, torch.Tensor]:
    return {n.removeprefix("state."): t for n, t in tensors(case).items() if "state." in n}


def saved(state: dict[str, torch.Tensor], path: Path, prefix: str, container: str) -> Path:
    torch.save({container: {prefix + n: t for n, t in state.items()}, "epoch": 3}, path)
    return path


@pytest.mark.parametrize("container", ["model", "module"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_pretraining_checkpoints_open(container: str, prefix: str, tmp_path: Path) -> None:
    file = saved(state_of("pretrain_A"), tmp_path / "vit.pth", prefix, container)
    opened = open_model(file, HINTS)
    recipe: Any = opened.resolved.recipe
    assert recipe.method.name == "videomae"
    assert opened.has_decoder
    assert recipe.model.encoder.grid == (8, 4, 4)
    assert recipe.model.decoder.width == 24
    own = opened.method.export_reference()
    assert own.keys() == state_of("pretrain_A").keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in state_of("pretrain_A").items())


@pytest.mark.parametrize("prefix", ["", "encoder.", "backbone."])
def test_encoders_open_without_their_decoder(prefix: str, tmp_path: Path) -> None:
    encoder = {
        n.removeprefix("encoder."): t
        for n, t in state_of("pretrain_A").items()
        if n.startswith("encoder.")
    }
    opened = open_model(saved(encoder, tmp_path / "vit.pth", prefix, "module"), HINTS)
    assert not opened.has_decoder
    assert opened.resolved.recipe.model.encoder.depth == 2


def test_classifiers_open(tmp_path: Path) -> None:
    opened = open_model(saved(state_of("finetune_A"), tmp_path / "ft.pth", "", "module"), HINTS)
    recipe: Any = opened.resolved.recipe
    assert recipe.method.name == "classify-video"
    assert recipe.target.classes == 7
    assert opened.method.export_reference().keys() == state_of("finetune_A").keys()


def test_other_sizes_say_from_where_positions_are_resized(tmp_path: Path) -> None:
    opened = open_model(saved(state_of("pretrain_A"), tmp_path / "a.pth", "", "model"), HINTS)
    file = tmp_path / "weights.safetensors"
    write_safetensors(opened, file)
    larger: dict[str, Any] = {"model.encoder.image_size": 48, "model.encoder.frames": 8}

    def started() -> Any:
        method = build(config.with_overrides(opened.resolved, larger, "test").recipe)
        return method, initialise(method, file)

    with pytest.raises(UserError, match=r"trained_size=\[16, 32, 32\]"):
        started()
    larger["model.encoder.trained_size"] = [16, 32, 32]
    method, notes = started()
    assert "positions: resized from clips of 16 x 32 x 32" in notes
    table = resize_clip_positions(opened.method.encoder.pos_embed, (8, 4, 4), (4, 6, 6))
    assert torch.equal(method.encoder.pos_embed, table)
    assert torch.equal(method.decoder.mask_token, opened.method.decoder.mask_token)
