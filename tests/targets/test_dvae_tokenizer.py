"""A trained discrete autoencoder as CAE's tokenizer."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.checkpoints import open_model
from mimsuite.cli.main import app
from mimsuite.config.keys.tokenizers import DVAETokenizerSection
from mimsuite.errors import UserError
from mimsuite.targets import build_tokenizer
from mimsuite.tokens import patchify, unpatchify
from mimsuite.train.run import train

STATISTICS = ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
SHAPE = {"codes": 24, "width": 8, "depth": 1, "stride": 8}
QUICK = {
    "data.limit": 32,
    "data.workers": 0,
    "train.global_batch": 16,
    "train.device": "cpu",
    "schedule.epochs": 1,
    "schedule.warmup_epochs": 0,
    "log.pictures_every_epochs": None,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("dvae") / "run"
    keys = {
        "model.encoder.image_size": 32,
        "model.encoder.width": 8,
        "model.encoder.codes": 24,
        "model.decoder.width": 8,
    }
    train(config.with_overrides(config.load("image/dvae-clipart"), QUICK | keys, "test"), run)
    return run


def tokenizer(weights: str | Path, patch: int = 4, channels: int = 3, **keys: Any) -> Any:
    section = DVAETokenizerSection(**{"kind": "dvae", "weights": str(weights), **SHAPE, **keys})
    statistics = STATISTICS if channels == 3 else ((0.5,), (0.5,))
    return build_tokenizer(
        section, patch=patch, channels=channels, statistics=statistics, grid=(2, 3)
    )


def test_codes_are_those_that_the_run_gives(trained: Path) -> None:
    opened = open_model(trained)
    augment = opened.resolved.recipe.augment
    pixels = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))

    def normalised(mean: Any, std: Any) -> torch.Tensor:
        return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)

    views = {"image": torch.zeros(2, 3, 8, 12), "tokenizer": normalised(*STATISTICS)}
    found = tokenizer(trained)(Batch.of_views(views))
    expected = opened.method.codes(normalised(augment.mean, augment.std))
    assert found.shape == (2, 6)
    assert found.dtype == torch.int64
    # Normalising twice rounds: a place whose two best codes all but tie may get the other.
    assert (found == expected.flatten(1)).float().mean() > 0.9


def test_codes_are_drawn_at_the_student_size_and_normalisation(trained: Path) -> None:
    built = tokenizer(trained, patch=4)
    codes = torch.randint(24, (2, 6), generator=torch.Generator().manual_seed(0))
    drawn = built.draw(codes, torch.zeros(2, 6, 48))
    assert drawn.shape == (2, 6, 48)
    image = unpatchify(drawn, 4, (2, 3)) * torch.tensor(STATISTICS[1]).view(3, 1, 1)
    image = image + torch.tensor(STATISTICS[0]).view(3, 1, 1)
    assert float(image.min()) > -1e-5
    assert float(image.max()) < 1 + 1e-5
    assert patchify(image, 4).shape == drawn.shape


def test_an_export_serves_as_well(trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "dvae.safetensors"
    words = ["export", str(trained), "--format", "safetensors", "--out", str(file)]
    assert CliRunner().invoke(app, words).exit_code == 0
    batch = Batch.of_images(torch.randn(2, 3, 16, 24))
    assert torch.equal(tokenizer(file)(batch), tokenizer(trained)(batch))


def test_it_is_no_part_of_its_method_and_random_weights_say_so() -> None:
    built = tokenizer("random")
    assert copy.deepcopy(built) is built
    assert not isinstance(built, torch.nn.Module)
    lines = built.setup(None, seed=0)
    assert "TOKENIZER WITH RANDOM WEIGHTS" in lines[1]
    assert int(built(Batch.of_images(torch.randn(2, 3, 16, 24))).max()) < 24
    gray = tokenizer("random", channels=1)
    assert gray(Batch.of_images(torch.randn(2, 1, 16, 24))).shape == (2, 6)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"codes": 25}, "target.tokenizer.codes is 25, .* set target.tokenizer.codes=24"),
        ({"width": 16}, "set target.tokenizer.width=8"),
        ({"depth": 2}, "set target.tokenizer.depth=1"),
        ({"stride": 4}, "set target.tokenizer.stride=8"),
        ({"channels": 1}, "reads images of 3 channels, model.encoder.in_channels is 1"),
        ({"weights": ""}, "target.tokenizer.weights is not set and nothing is downloaded"),
        ({"weights": "nowhere"}, "target.tokenizer.weights=nowhere: no such file"),
    ],
)
def test_a_tokenizer_that_does_not_fit_is_named(
    trained: Path, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as fault:
        tokenizer(**{"weights": trained, **keys}).setup(None, seed=0)
    assert "\n" not in str(fault.value).strip()


def test_cae_trains_on_its_codes_and_a_run_of_cae_is_no_tokenizer(
    trained: Path, tmp_path: Path
) -> None:
    keys = {
        "model.encoder.image_size": 32,
        "mask.min_block": 2,
        "target.tokenizer.weights": str(trained),
        "target.tokenizer.codes": 24,
        "target.tokenizer.width": 8,
    }
    recipe = config.load("image/cae-with-dvae-clipart", smoke=True)
    train(config.with_overrides(recipe, QUICK | keys, "test"), tmp_path / "cae", quiet=True)
    assert "tokenizer: dvae, 24 codes" in (tmp_path / "cae" / "train.log").read_text()
    words = ["reconstruct", str(tmp_path / "cae"), "--input", "embedded:openclipart"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "pictures")])
    assert done.exit_code == 0
    assert (tmp_path / "pictures" / "grid.png").is_file()
    state = open_model(tmp_path / "cae").method.state_dict()
    assert not any(name.startswith("tokenizer.") for name in state)
    with pytest.raises(UserError, match="was trained by method 'cae'; it should be a run"):
        tokenizer(tmp_path / "cae").setup(None, seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"target.tokenizer.stride": 16},
            "64 x 64 makes 4 x 4 codes of 16 pixels, .* 8 x 8 patches: "
            r"set augment.second_view.image_size=\[128, 128\]",
        ),
        (
            {"augment.second_view": {"image_size": 32}},
            "augment.second_view.image_size 32 x 32 makes 4 x 4 codes",
        ),
        ({"target.tokenizer.stride": 6}, r"target\.tokenizer\.stride"),
        ({"target.tokenizer.code": 6}, "Did you mean target.tokenizer.codes"),
    ],
)
def test_a_grid_that_does_not_fit_names_its_keys(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as fault:
        config.with_overrides(config.load("image/cae-with-dvae-clipart"), changes, "test")
    assert "\n" not in str(fault.value).strip()


def test_it_takes_the_place_of_dalle_by_two_keys() -> None:
    keys = ["target.tokenizer.kind=dvae", "target.tokenizer.weights=runs/dvae-base"]
    section = config.load("image/cae-base-in1k", keys).recipe.target.tokenizer
    trained = config.load("image/dvae-base-in1k").recipe.model.encoder
    assert section.codes == trained.codes
    assert (section.width, section.depth, section.stride) == (
        trained.width,
        trained.depth,
        trained.patch_size,
    )
