from __future__ import annotations

from pathlib import Path

import pytest

from mimsuite import config
from mimsuite.config import Resolved
from mimsuite.errors import UserError
from mimsuite.evaluate import compose


@pytest.fixture(scope="module")
def pretrained(recipes: Path, pictures: Path) -> Resolved:
    return config.load(recipes / "pretrain.yaml", [f"data.source={pictures}"])


def test_encoder_is_the_run_s_and_the_rest_the_recipe_s(pretrained: Resolved) -> None:
    composed = compose(pretrained, "", "finetune").recipe
    encoder, theirs = composed.model.encoder, pretrained.recipe.model.encoder
    assert (encoder.width, encoder.depth, encoder.image_size) == (16, 2, 16)
    assert (encoder.drop_path, encoder.trained_positions) == (0.1, True)
    assert theirs.drop_path == 0.0
    assert composed.augment.mean == pretrained.recipe.augment.mean
    assert composed.optim.layer_decay == 0.75
    assert composed.data.source == pretrained.recipe.data.source
    assert composed.target.classes == 3


def test_resize_before_the_crop_follows_the_image_size(pretrained: Resolved) -> None:
    assert compose(pretrained, "", "finetune").recipe.augment.eval_resize == round(256 * 16 / 224)


def test_command_line_wins_and_origins_are_told(pretrained: Resolved) -> None:
    composed = compose(
        pretrained, "", "finetune", overrides=["model.encoder.drop_path=0.3", "target.classes=9"]
    )
    assert composed.recipe.model.encoder.drop_path == 0.3
    assert composed.recipe.target.classes == 9
    assert composed.origins["model.encoder.drop_path"] == "command line"
    assert composed.origins["model.encoder.width"] == "pretrained run"


def test_recipe_for_another_task_or_none_is_refused(pretrained: Resolved, recipes: Path) -> None:
    with pytest.raises(UserError, match="linear-probe recipe, not a finetune"):
        compose(pretrained, str(recipes / "probe.yaml"), "finetune")
    bare = config.with_overrides(pretrained, {"recipe.finetune": ""})
    with pytest.raises(UserError, match="--recipe"):
        compose(bare, "", "finetune")
