from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.checkpoints import Opened, initialise
from mimsuite.errors import UserError
from mimsuite.export import export
from mimsuite.methods import Method, build
from mimsuite.tokens import resize_positions


def fresh(resolved: config.Resolved, **changes: Any) -> Method:
    """An untrained method by the same recipe with some keys changed."""
    keys = {key.replace("__", "."): value for key, value in changes.items()}
    torch.manual_seed(3)
    return build(config.with_overrides(resolved, keys, "test").recipe)


def differing(method: Method, state: dict[str, Tensor]) -> set[str]:
    """Names of the method whose values are not those of ``state``."""
    ours = method.state_dict()
    return {n for n in ours if n not in state or not torch.equal(ours[n], state[n])}


def test_run_into_the_same_recipe(tmp_path: Path, mae: Any, run_of: Any) -> None:
    resolved, trained = mae()
    method = fresh(resolved)
    lines = initialise(method, run_of(tmp_path / "run", resolved, trained))
    assert differing(method, trained.state_dict()) == set()
    assert lines == ["encoder: 30 tensors loaded", "decoder: 20 tensors loaded"]


def test_encoder_only_file_starts_a_fresh_decoder(tmp_path: Path, mae: Any) -> None:
    resolved, trained = mae()
    encoder = {
        name: tensor
        for name, tensor in trained.export_reference().items()
        if not name.startswith(("decoder_", "mask_token"))
    }
    torch.save({"model": encoder}, tmp_path / "e.pth")
    method = fresh(resolved)
    before = {n: t.clone() for n, t in method.state_dict().items()}
    lines = initialise(method, tmp_path / "e.pth")  # heads: as the recipe has them
    assert "decoder: fresh" in lines
    assert all(name.startswith("decoder.") for name in differing(method, trained.state_dict()))
    decoder = {n for n in before if n.startswith("decoder.")}
    assert not differing(method, before) & decoder


def test_encoder_into_a_fine_tuning_classifier(tmp_path: Path, mae: Any, run_of: Any) -> None:
    resolved, trained = mae()
    run = run_of(tmp_path / "run", resolved, trained)
    goal = config.load("image/mae-vitb16-finetune-in1k")
    keys = {
        f"model.encoder.{key}": resolved.document["model"]["encoder"][key]
        for key in ("image_size", "patch_size", "width", "depth", "heads")
    }
    method = fresh(config.with_overrides(goal, keys, "test"))
    lines = initialise(method, run)
    assert {n.split(".")[0] for n in differing(method, trained.state_dict())} == {"head", "fc_norm"}
    assert "head: fresh" in lines
    assert "fc_norm: fresh" in lines
    assert lines[-1] == "not taken: decoder (20 tensors), encoder.norm (2 tensors)"


def test_encoder_into_a_linear_probe_keeps_its_norm(
    tmp_path: Path, mae: Any, classifier: Any, run_of: Any
) -> None:
    resolved, trained = mae()
    method = fresh(classifier("linprobe")[0])
    initialise(method, run_of(tmp_path / "run", resolved, trained))
    assert {n.split(".")[0] for n in differing(method, trained.state_dict())} == {"head"}


def test_classifier_into_classifier(tmp_path: Path, classifier: Any, run_of: Any) -> None:
    resolved, trained = classifier()
    run = run_of(tmp_path / "run", resolved, trained)
    method = fresh(resolved)
    initialise(method, run)
    assert differing(method, trained.state_dict()) == set()
    method = fresh(resolved, target__classes=7)
    lines = initialise(method, run)
    assert differing(method, trained.state_dict()) == {"head.weight", "head.bias"}
    assert "head: fresh, since the weights hold another shape of it" in lines


def test_fine_tuned_encoder_into_an_autoencoder(
    tmp_path: Path, mae: Any, classifier: Any, run_of: Any
) -> None:
    run = run_of(tmp_path / "run", *classifier())
    method = fresh(mae()[0])
    lines = initialise(method, run)
    assert "encoder: 28 tensors loaded; its last norm is fresh" in lines
    assert "decoder: fresh" in lines


@pytest.mark.parametrize("size", [64, [32, 48], [64, 16]])
def test_positions_are_resized(tmp_path: Path, mae: Any, run_of: Any, size: Any) -> None:
    resolved, trained = mae()
    method = fresh(resolved, model__encoder__image_size=size)
    lines = initialise(method, run_of(tmp_path / "run", resolved, trained))
    assert lines[0].startswith("positions: resized from 4 x 4 to ")
    assert differing(method, trained.state_dict()) == {"encoder.pos_embed", "decoder.pos_embed"}
    grid = method.encoder.grid
    for part in (method.encoder, method.decoder):
        table = getattr(trained, "encoder" if part is method.encoder else "decoder").pos_embed
        assert torch.equal(part.pos_embed, resize_positions(table, (4, 4), grid))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model__encoder__in_channels": 1, "augment__mean": [0.5], "augment__std": [0.5]},
            r"encoder\.patch_embed\.proj\.weight is 32 x 3 x 8 x 8, in this recipe 32 x 1 x 8 x 8: "
            r"set model\.encoder\.in_channels=3",
        ),
        (
            {"model__encoder__width": 64},
            r"encoder\.cls_token is 1 x 1 x 32, in this recipe 1 x 1 x 64: "
            r"set model\.encoder\.width=32",
        ),
        ({"model__encoder__patch_size": 16}, r"set model\.encoder\.patch_size=8"),
        ({"model__encoder__depth": 3}, r"was trained with model\.encoder\.depth=2"),
        ({"model__encoder__depth": 1}, r"was trained with model\.encoder\.depth=2"),
        ({"model__encoder__heads": 8}, r"was trained with model\.encoder\.heads=4"),
        ({"model__encoder__mlp_ratio": 2.0}, r"set model\.encoder\.mlp_ratio=4\.0"),
        (
            {"model__encoder__width": 64, "model__encoder__depth": 3},
            r"set model\.encoder\.width=32 model\.encoder\.depth=2",
        ),
        ({"model__decoder__width": 32}, r"set model\.decoder\.width=16"),
        ({"model__decoder__depth": 2}, r"was trained with model\.decoder\.depth=1"),
    ],
)
def test_other_architectures_are_refused_with_the_key(
    tmp_path: Path, mae: Any, run_of: Any, changes: dict[str, Any], message: str
) -> None:
    resolved, trained = mae()
    method = fresh(resolved, **changes)
    before = {n: t.clone() for n, t in method.state_dict().items()}
    with pytest.raises(UserError, match=message) as caught:
        initialise(method, run_of(tmp_path / "run", resolved, trained))
    assert "\n" not in str(caught.value)
    assert differing(method, before) == set()


def test_heads_of_a_released_size_are_known(tmp_path: Path, mae: Any) -> None:
    size = {"model__encoder__width": 768, "model__encoder__depth": 1}
    _, trained = mae(**size, model__encoder__heads=12)
    torch.save({"model": trained.export_reference()}, tmp_path / "m.pth")
    method = fresh(mae(**size, model__encoder__heads=6)[0])
    with pytest.raises(UserError, match=r"model\.encoder\.heads=12"):
        initialise(method, tmp_path / "m.pth")


def test_settings_that_change_the_meaning_are_said(tmp_path: Path, mae: Any, run_of: Any) -> None:
    resolved, trained = mae()
    run = run_of(tmp_path / "run", resolved, trained)
    changes = {"augment__mean": [0.5, 0.5, 0.5], "target__normalize": False}
    lines = initialise(fresh(resolved, **changes), run)
    assert any("the weights expect augment.mean=[0.485" in line for line in lines)
    assert "the decoder was trained with target.normalize=true" in lines


@pytest.mark.parametrize("form", ["plain", "ours"])
def test_an_unknown_normalisation_is_not_claimed(tmp_path: Path, mae: Any, form: str) -> None:
    gray = {"model__encoder__in_channels": 1, "augment__std": [0.3], "data__channels": "gray"}
    resolved, trained = mae(**gray, augment__mean=[0.2])
    path = tmp_path / "m.pth"
    if form == "ours":
        export(Opened(trained, resolved, "test", None, True, []), "reference", path)
    else:
        torch.save({"model": trained.export_reference()}, path)
    lines = initialise(fresh(resolved, augment__mean=[0.4]), path)
    claimed = [line for line in lines if line.startswith("the weights expect augment.mean=[0.2]")]
    assert len(claimed) == (form == "ours")
    assert any("0.5 assumed" in line for line in lines) == (form == "plain")


def test_another_kind_of_encoder_is_refused(
    tmp_path: Path, mae: Any, run_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved, trained = mae()
    run = run_of(tmp_path / "run", resolved, trained)
    from mimsuite.checkpoints import initialise as function
    from mimsuite.checkpoints import weights as module

    read = module.read_weights

    def read_other(*arguments: Any) -> Any:
        weights = read(*arguments)
        recipe = weights.resolved.recipe
        encoder = recipe.model.encoder.model_copy(update={"kind": "swin"})
        model = recipe.model.model_copy(update={"encoder": encoder})
        other = replace(weights.resolved, recipe=recipe.model_copy(update={"model": model}))
        return replace(weights, resolved=other)

    monkeypatch.setitem(function.__globals__, "read_weights", read_other)
    with pytest.raises(UserError, match="holds a swin encoder, this recipe has a vit one"):
        initialise(fresh(resolved), run)


@pytest.mark.parametrize(
    ("way", "channels"), [("mean", 1), ("mean", 5), ("repeat", 5), ("mean", 2)]
)
def test_channels_are_adapted_on_request(
    tmp_path: Path, mae: Any, images: Any, way: str, channels: int
) -> None:
    """An image whose channels are all equal gives what it gave; nothing of it is silent."""
    _, rgb = mae()
    torch.save({"model": rgb.export_reference()}, tmp_path / "w.pth")
    more = {
        "model__encoder__in_channels": channels,
        "data__channels": "gray" if channels == 1 else "native",
        "augment__mean": [0.5] * channels,
        "augment__std": [0.5] * channels,
    }
    _, refusing = mae(**more)
    with pytest.raises(UserError, match=r"set model\.encoder\.adapt_channels=mean"):
        initialise(refusing, tmp_path / "w.pth")
    _, method = mae(**more, model__encoder__adapt_channels=way)
    lines = initialise(method, tmp_path / "w.pth")
    kernel = "encoder.patch_embed.proj.weight"
    assert f"{kernel}: 3 channels adapted to {channels} ({way})" in lines
    assert f"fresh, since it predicts {channels} channels: " in "\n".join(lines)
    gray = images(channels=1)
    with torch.no_grad():
        found, expected = (
            model.encoder.encode(Batch.of_views({"image": gray.expand(-1, n, -1, -1)})).tokens
            for model, n in ((method, channels), (rgb, 3))
        )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_channels_are_not_left_out(tmp_path: Path, mae: Any) -> None:
    _, rgb = mae()
    torch.save({"model": rgb.export_reference()}, tmp_path / "w.pth")
    keys = {"augment__mean": [0.5], "augment__std": [0.5], "data__channels": "gray"}
    _, gray = mae(**keys, model__encoder__in_channels=1, model__encoder__adapt_channels="repeat")
    with pytest.raises(UserError, match="would leave out 2 of 3 channels: set mean"):
        initialise(gray, tmp_path / "w.pth")
