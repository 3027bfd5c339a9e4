"""Representation autoencoders: what is trained, files that are missing, decoders that come in, and
mistakes that the golden cases catch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.checkpoints.published import understand
from mimsuite.checkpoints.shapes import Hints
from mimsuite.config import Resolved
from mimsuite.errors import UserError
from mimsuite.evaluate.scoring.reconstruction import ReconstructionScorer, picture_psnr
from mimsuite.methods import Method, build
from mimsuite.methods.base import Progress
from mimsuite.methods.rae import RAE, split_names
from mimsuite.models import discriminator as judges
from mimsuite.noise import Noise
from mimsuite.targets import adversarial
from mimsuite.targets.latents import ExactStatistics
from mimsuite.weights.files import read_weights_file

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent / "tools"), str(TESTS)]
from golden import run  # noqa: E402

Patch = pytest.MonkeyPatch
TINY = {
    "model.encoder.image_size": 16,
    "model.encoder.network.weights": "random",
    "model.encoder.network.width": 16,
    "model.encoder.network.depth": 1,
    "model.decoder.width": 16,
    "model.decoder.depth": 1,
    "model.decoder.mlp_width": 24,
    "model.latent.noise": 0.8,
}
JUDGE = {
    "network": {
        "kind": "dino",
        "weights": "random",
        "patch_size": 8,
        "width": 8,
        "depth": 1,
        "heads": 2,
    },
    "image_size": 32,
    "layers": [1],
    "from_epoch": 0,
    "heads_from_epoch": 0,
}


def resolved(**changes: Any) -> Resolved:
    keys = {key.replace("__", "."): value for key, value in changes.items()}
    loaded = config.load("image/rae-mae-tiny-clipart")
    return config.with_overrides(loaded, TINY | keys, "test")


def rae(**changes: Any) -> Any:
    torch.manual_seed(0)
    return build(resolved(**changes).recipe)


def images(samples: int = 4) -> Batch:
    return Batch.of_images(torch.randn(samples, 3, 16, 16, generator=torch.manual_seed(1)))


def step(method: Method, batch: Batch) -> Any:
    noise = Noise(0, 0, batch.index)
    context = method.prepare(batch, noise)
    return method(batch, method.mask(batch, noise, context), context)


def test_the_whole_decoder_learns_and_the_encoder_is_in_no_state() -> None:
    method = rae().train()
    step(method, images()).loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in method.decoder.parameters())
    assert all(name.startswith("decoder.") for name in method.state_dict())


def test_noise_is_of_training_alone() -> None:
    method, batch = rae(), images()
    first, clean = step(method.train(), batch).prediction, step(method.eval(), batch).prediction
    assert not torch.equal(first, clean)
    assert torch.equal(clean, step(method, batch).prediction)


def test_heads_are_trained_after_the_step_and_by_nothing_else() -> None:
    method = rae(target__adversarial=JUDGE).train()
    heads = method.discriminator.heads
    before = [p.clone() for p in heads.parameters()]
    step(method, images()).loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in heads.parameters())
    assert not heads.training
    with torch.no_grad():
        method.after_step(Progress())
    moved = [not torch.equal(p, old) for p, old in zip(heads.parameters(), before, strict=True)]
    assert all(moved)
    assert method._to_judge == {}
    assert not heads.training


def test_a_skipped_step_trains_no_head() -> None:
    method = rae(target__adversarial=JUDGE).train()
    step(method, images())
    before = [p.clone() for p in method.discriminator.heads.parameters()]
    method.after_step(Progress(skipped=torch.ones(())))
    after = method.discriminator.heads.parameters()
    assert all(torch.equal(p, old) for p, old in zip(after, before, strict=True))


def test_a_perceptual_term_is_added() -> None:
    method = rae(target__perceptual={"weights": "random"}).eval()
    output = step(method, images(2))
    added = output.loss - output.terms["l1"]
    torch.testing.assert_close(added, output.terms["perceptual"])
    assert added > 0


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ({"target__perceptual": {}}, "target.perceptual.weights"),
        (
            {"target__adversarial": JUDGE | {"network": JUDGE["network"] | {"weights": ""}}},  # type: ignore[operator]
            "target.adversarial.network.weights",
        ),
        ({"target__perceptual": {"weights": "no.pth"}}, "target.perceptual.weights=no.pth"),
    ],
)
def test_missing_files_are_named_with_their_source(keys: dict[str, Any], name: str) -> None:
    with pytest.raises(UserError) as error:
        rae(**keys).setup(None)
    assert name in str(error.value)
    assert "github.com" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_sharded_decoder_cannot_be_judged() -> None:
    with pytest.raises(UserError, match=r"train\.parallel=ddp"):
        resolved(target__adversarial=JUDGE, train__parallel="fsdp")


def test_latents_come_back(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "stat.safetensors"
    save_file({"mean": torch.randn(16, 2, 2), "var": torch.rand(16, 2, 2)}, file)
    method = rae(model__latent__statistics=str(file))
    tokens = torch.randn(3, 4, 16)
    torch.testing.assert_close(method.tokens_of(method.latents(tokens)), tokens)
    save_file({"mean": torch.randn(5, 2, 2)}, file)
    with pytest.raises(UserError, match=r"mean is \(5, 2, 2\), latents are \(16, 2, 2\)"):
        _ = rae(model__latent__statistics=str(file)).statistics


def test_exact_statistics_are_those_of_all_batches() -> None:
    rows, exact = torch.randn(50, 3, 2, 2), ExactStatistics()
    for batch in rows.split(7):
        exact.add(batch)
    found = exact.statistics()
    torch.testing.assert_close(found.mean, rows.mean(0))
    torch.testing.assert_close(found.variance, rows.var(0, unbiased=False))


def test_a_released_decoder_comes_and_goes() -> None:
    method = rae()
    published = split_names(method.state_dict())
    assert "decoder_layers.0.attention.attention.key.bias" in published
    returned = RAE.import_reference(published)
    assert returned.keys() == method.state_dict().keys()
    assert all(torch.equal(returned[n], t) for n, t in method.state_dict().items())


@pytest.mark.parametrize(
    ("mark", "recipe", "label"),
    [
        ("encoder.model.embeddings.register_tokens", "image/rae-dinov2b-xl-in1k", "DINOv2-B"),
        ("encoder.model.embeddings.cls_token", "image/rae-maeb-xl-in1k", "MAE-B"),
        ("encoder.model.vision_model.post_layernorm.bias", "image/rae-siglip2b", "SigLIP2-B"),
    ],
)
def test_a_whole_training_checkpoint_gives_its_decoder(
    mark: str, recipe: str, label: str, tmp_path: Path
) -> None:
    method = rae(model__decoder__width=768, model__decoder__heads=12)
    whole = {f"decoder.{n}": t for n, t in split_names(method.state_dict()).items()}
    whole[mark] = torch.zeros(1, 4, 8)
    other = {name: torch.zeros_like(tensor) for name, tensor in whole.items()}
    file = tmp_path / "ep-last.pt"
    content = {"step": 3, "epoch": 1, "model": other, "ema": whole, "optimizer": {"state": {}}}
    torch.save(content | {"disc": {"heads.0.weight": torch.zeros(2)}}, file)
    _, found = understand(read_weights_file(file, "ema"), Hints())
    assert found.recipe.startswith(recipe)
    assert label in found.notes[0]
    assert found.state.keys() == method.state_dict().keys()
    assert all(torch.equal(found.state[n], t) for n, t in method.state_dict().items())


def test_figures_of_a_perfect_copy() -> None:
    class Copy:
        pixels = staticmethod(lambda images: images)
        rebuilt = staticmethod(lambda batch: batch.image)

    pictures = torch.randint(0, 256, (3, 3, 8, 8)).float() / 255
    scorer = ReconstructionScorer(resolved())
    figures = scorer.measure(scorer.judge(Copy(), Batch.of_images(pictures)))
    assert figures["l1"] == 0
    assert figures["psnr"] > 45  # cutting to 8 bits may lose one step
    assert picture_psnr(pictures, pictures).tolist() == [pytest.approx(100)] * 3


# --- one mistake in one place fails the check -----------------------------------------------------


def exact_gelu(patch: Patch) -> None:
    plain = judges.load_features

    def exact(*given: Any) -> Any:
        vit = plain(*given)
        for block in vit.blocks:
            block.mlp.act = nn.GELU()
        return vit

    patch.setattr(judges, "load_features", exact)


def zero_padding(patch: Patch) -> None:
    pad = F.pad
    patch.setattr(F, "pad", lambda x, size, mode="constant": pad(x, size))


def no_rounding(patch: Patch) -> None:
    patch.setattr("mimsuite.methods.rae.eight_bit", lambda images: images.clamp(-1, 1))


def noise_of_a_normal_deviation(patch: Patch) -> None:
    def noised(self: RAE, tokens: Tensor, noise: Noise) -> Tensor:
        return tokens + self.latent.noise * noise.normal("latent", tokens[0].numel()).view_as(
            tokens
        )

    patch.setattr(RAE, "noised", noised)


def frozen_positions(patch: Patch) -> None:
    from mimsuite.models import token_decoder

    table = token_decoder.position_table
    patch.setattr(token_decoder, "position_table", lambda *a, **k: table(*a).requires_grad_(False))


def antialiased(patch: Patch) -> None:
    resize = F.interpolate
    patch.setattr(F, "interpolate", lambda x, **keys: resize(x, **keys, antialias=True))


def judged_while_training(patch: Patch) -> None:
    deceive = RAE._deceive

    def trained(self: RAE, *given: Any) -> Any:
        self.discriminator.heads.train()  # type: ignore[union-attr]
        return deceive(self, *given)

    patch.setattr(RAE, "_deceive", trained)


def fakes_of_noisy_tokens(patch: Patch) -> None:
    keep = RAE._keep

    def noisy(self: RAE, batch: Batch, tokens: Tensor, images: Tensor, ctx: Any) -> None:
        keep(self, batch, self.noised(tokens, ctx.noise), images, ctx)

    patch.setattr(RAE, "_keep", noisy)


def weight_of_the_sum(patch: Patch) -> None:
    plain = adversarial.adaptive_weight
    patch.setattr(
        "mimsuite.methods.rae.adaptive_weight", lambda *given: plain(*given).clamp_max(1.0) * 0.5
    )


CONTROLS: list[tuple[str, Callable[[Patch], None]]] = [
    ("disc-a", exact_gelu),
    ("disc-a", zero_padding),
    ("gan-traj-a", no_rounding),
    ("gan-traj-a", judged_while_training),
    ("gan-traj-a", fakes_of_noisy_tokens),
    ("gan-traj-a", weight_of_the_sum),
    ("generic-a", noise_of_a_normal_deviation),
    ("generic-a", antialiased),
    ("traj-a", frozen_positions),
]


@pytest.mark.parametrize(
    ("name", "mistake"), CONTROLS, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_mistake_fails(name: str, mistake: Callable[[Patch], None], monkeypatch: Patch) -> None:
    path = TESTS / "goldens" / "rae" / f"{name}.json"
    assert run.check(path).verdict == "pass"
    mistake(monkeypatch)
    assert run.check(path).verdict == "fail"
