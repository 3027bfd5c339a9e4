"""Codes of frozen tokens: what is trained, the start by k-means, use, and a tokenizer."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.checkpoints import open_model
from mimsuite.cli.main import app
from mimsuite.config.keys.rae import CodebookSection
from mimsuite.config.keys.tokenizers import RunTokenizerSection
from mimsuite.errors import DataError, UserError
from mimsuite.methods import build
from mimsuite.noise import Noise
from mimsuite.targets import build_tokenizer
from mimsuite.targets.codebook import Codebook, use_of
from mimsuite.train.run import train

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent / "tools"), str(TESTS)]
from golden import run  # noqa: E402

NETWORK = {"kind": "run", "weights": "random", "patch_size": 8, "width": 16, "depth": 1, "heads": 2}
TINY: dict[str, Any] = {
    "model.encoder.image_size": 16,
    "model.encoder.network": NETWORK,
    "model.decoder.width": 16,
    "model.decoder.depth": 1,
    "model.decoder.mlp_width": 24,
    "model.codebook.codes": 12,
    "model.codebook.samples": 64,
}
QUICK = {
    "data.limit": 32,
    "data.workers": 0,
    "train.global_batch": 16,
    "train.device": "cpu",
    "schedule.epochs": 1,
    "schedule.warmup_epochs": 0,
    "log.pictures_every_epochs": None,
}


def resolved(**changes: Any) -> Any:
    keys = TINY | {key.replace("__", "."): value for key, value in changes.items()}
    return config.with_overrides(config.load("image/vqrae-tiny-clipart"), keys, "test")


def vqrae(**changes: Any) -> Any:
    torch.manual_seed(0)
    return build(resolved(**changes).recipe)


def images(samples: int = 8) -> Batch:
    return Batch.of_images(torch.randn(samples, 3, 16, 16, generator=torch.manual_seed(1)))


def step(method: Any, batch: Batch) -> Any:
    context = method.prepare(batch, Noise(0, 0, batch.index))
    return method(batch, {}, context)


@pytest.mark.parametrize("width", [None, 8])
def test_the_map_and_the_decoder_learn_and_the_points_stay(width: int | None) -> None:
    method = vqrae(model__codebook__width=width).train()
    output = step(method, images())
    output.loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in method.parameters())
    assert "codebook.points" not in dict(method.named_parameters())
    added = output.loss - output.terms["l1"]
    torch.testing.assert_close(added, method.codebook_weight * output.terms["codebook"])
    assert 0 < output.terms["used"] <= 1
    assert method.codebook.points.shape == (12, width or 16)


def test_kmeans_starts_at_the_tokens() -> None:
    method = vqrae(model__codebook__start="kmeans")
    lines = method.setup(lambda: [images(16)])
    assert lines[-1] == "codebook: 12 k-means centres of 64 tokens"
    torch.testing.assert_close(method.codebook.table(), method.codebook.points)
    started = method.codebook.points.clone()
    method.setup(lambda: [images(4)])
    assert torch.equal(method.codebook.points, started)
    far = vqrae(model__codebook__start="random")
    ours, theirs = (step(m, images()).terms["codebook"] for m in (method, far))
    assert ours < theirs
    with pytest.raises(DataError, match=r"model.codebook.codes is 12, the data gave only 4 tokens"):
        vqrae(model__codebook__start="kmeans").setup(lambda: [images(1)])


def test_a_code_is_drawn_as_it_is_rebuilt() -> None:
    method, batch = vqrae().eval(), images(2)
    codes = method.codes(batch.image)
    assert codes.shape == (2, 2, 2)
    torch.testing.assert_close(method.drawn(codes), method.rebuilt(batch))


def test_use_of_a_vocabulary() -> None:
    used, perplexity = use_of(torch.tensor([0, 0, 3, 3]), 8)
    assert float(used) == 0.25
    assert float(perplexity) == pytest.approx(2.0)


def test_the_gradient_passes_the_codes() -> None:
    book = Codebook(CodebookSection(codes=5), 4)
    vectors = torch.randn(3, 2, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(book(vectors).vectors.sum(), vectors)
    assert torch.equal(gradient, torch.ones_like(vectors))


def swapped_weights(patch: pytest.MonkeyPatch) -> None:
    plain, factors = torch.nn.functional.mse_loss, itertools.cycle([0.25, 4.0])
    patch.setattr("mimsuite.targets.codebook.F.mse_loss", lambda a, b: next(factors) * plain(a, b))


def cosine_distance(patch: pytest.MonkeyPatch) -> None:
    from mimsuite.targets.kmeans import nearest

    unit = torch.nn.functional.normalize
    patch.setattr("mimsuite.targets.codebook.nearest", lambda a, b: nearest(unit(a), unit(b)))


def unmoved_codes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Codebook, "table", lambda self: self.points + 0 * self.map(self.points))


@pytest.mark.parametrize("mistake", [swapped_weights, cosine_distance, unmoved_codes])
def test_a_mistake_fails(mistake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = TESTS / "goldens/rae/simvq-a.json"
    assert run.check(path).verdict == "pass"
    mistake(monkeypatch)
    assert run.check(path).verdict == "fail"


# --- as a tokenizer ---


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("vqrae") / "run"
    keys = {key.replace(".", "__"): value for key, value in QUICK.items()}
    train(resolved(**keys), out, quiet=True)
    return out


def tokenizer(weights: str | Path, **keys: Any) -> Any:
    grid, channels = keys.pop("grid", (2, 2)), keys.pop("channels", 3)
    given = {"kind": "run", "weights": str(weights), "codes": 12, "stride": 8} | keys
    statistics = ((0.5,) * channels, (0.2,) * channels)
    section = RunTokenizerSection.model_validate(given)
    return build_tokenizer(
        section, patch=4, channels=channels, statistics=statistics, grid=tuple(grid)
    )


def test_a_run_is_a_tokenizer(trained: Path) -> None:
    built, method = tokenizer(trained), open_model(trained)
    assert built.setup(None, 0) == ["tokenizer: run, 12 codes"]
    pixels = torch.rand(3, 3, 16, 16)
    codes = built(Batch.of_images((pixels - 0.5) / 0.2))
    augment = method.resolved.recipe.augment
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (augment.mean, augment.std))
    expected = method.method.codes((pixels - mean) / std).flatten(1)
    assert (codes == expected).float().mean() > 0.9  # normalising twice rounds
    assert built.draw(codes, torch.zeros(3, 4, 48)).shape == (3, 4, 48)


def test_random_codes_say_so_and_are_not_drawn() -> None:
    built = tokenizer("random")
    assert "RANDOM WEIGHTS" in built.setup(None, 0)[1]
    codes = built(Batch.of_images(torch.randn(2, 3, 16, 16)))
    assert codes.shape == (2, 4)
    assert built.draw(codes, torch.zeros(2, 4, 48)) is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"codes": 13}, "set target.tokenizer.codes=12"),
        ({"stride": 4}, "set target.tokenizer.stride=8"),
        ({"channels": 1}, "reads images of 3 channels"),
        ({"grid": (4, 4)}, "gives 2 x 2 codes, model.encoder has 4 x 4 patches"),
        ({"weights": ""}, "target.tokenizer.weights is not set"),
    ],
)
def test_what_does_not_fit_is_named(trained: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as fault:
        tokenizer(**{"weights": trained, **keys}).setup(None, 0)
    assert "\n" not in str(fault.value).strip()


def test_cae_learns_its_codes_and_evaluate_counts_them(trained: Path, tmp_path: Path) -> None:
    keys = {
        "model.encoder.image_size": 16,
        "mask.min_block": 1,
        "target.tokenizer.weights": str(trained),
        "target.tokenizer.codes": 12,
    }
    recipe = config.load("image/cae-with-vqrae-clipart", smoke=True)
    train(config.with_overrides(recipe, QUICK | keys, "test"), tmp_path / "cae", quiet=True)
    assert "tokenizer: run, 12 codes" in (tmp_path / "cae" / "train.log").read_text()
    done = CliRunner().invoke(app, ["evaluate", str(trained), "--json"])
    assert done.exit_code == 0
    assert '"utilisation"' in done.stdout
    with pytest.raises(UserError, match="method 'cae', which has no codes"):
        tokenizer(tmp_path / "cae").setup(None, 0)
