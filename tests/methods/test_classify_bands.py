from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.methods import build
from mimsuite.methods.classify_bands import BandsClassifier
from mimsuite.noise import Noise
from tests.methods.test_mae_bands import batch, method


def classifier(*keys: str) -> BandsClassifier:
    keys = ("model.encoder.depth=2", "target.classes=4", *keys)
    torch.manual_seed(0)
    found = build(config.load("bands/mae-tiny-finetune", list(keys)).recipe)
    assert isinstance(found, BandsClassifier)
    torch.nn.init.normal_(found.head.weight)
    return found.eval()


def without(given: Batch, *names: str) -> Batch:
    return Batch.of_views({name: v for name, v in given.views.items() if name not in names})


@pytest.mark.parametrize("pool", ["mean", "attentive"])
def test_place_and_dates_are_told_to_the_encoder(pool: str) -> None:
    model, given = classifier(f"model.pool={pool}"), batch()
    answers = model.answers(given)
    torch.testing.assert_close(answers, model.head(model.pooled(model.encode(given))))
    for name in ("place", "dates"):
        assert not torch.allclose(answers, model.answers(without(given, name)), atol=1e-3)


def test_training_learns_from_what_evaluation_sees() -> None:
    model, given = classifier(), replace(batch(), label=torch.tensor([0, 3]))
    noise = Noise(0, 0, given.index)
    ctx = model.prepare(given, noise)
    out = model(given, {}, ctx)
    torch.testing.assert_close(out.prediction, model.answers(given))
    out.loss.backward()
    assert model.encoder.added.location.grad.abs().item() > 0
    assert "encoder.added.dates" in model.no_weight_decay()


def test_every_tensor_of_a_pretrained_encoder_is_taken() -> None:
    pretrained, model = method().state_dict(), classifier().state_dict()
    names = {name for name in pretrained if name.startswith("encoder.")}
    assert names - {"encoder.norm.weight", "encoder.norm.bias"} <= set(model)


def test_turned_windows_must_be_squares() -> None:
    with pytest.raises(Exception, match=r"augment.rotate: 32 x 64 pixels must be a square"):
        config.load("bands/mae-tiny-finetune", ["model.encoder.image_size=[32, 64]"])
