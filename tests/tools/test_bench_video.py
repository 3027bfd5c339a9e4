"""The plain side of tools/bench_video.py is the published function too."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "tools")]
from golden_cases import document, tensors  # noqa: E402
from plain_video import PlainVideoMAE  # noqa: E402


def test_the_plain_side_passes_the_stored_case() -> None:
    sizes, given = document("pretrain_A")["hparams"], tensors("pretrain_A")
    model = PlainVideoMAE(
        *(
            {
                "width": sizes[f"{part}_embed_dim"],
                "depth": sizes[f"{part}_depth"],
                "heads": sizes[f"{part}_num_heads"],
                "mlp_ratio": sizes["mlp_ratio"],
                "tubelet": sizes["tubelet_size"],
                "patch_size": sizes["patch_size"],
            }
            for part in ("encoder", "decoder")
        )
    )
    state = {n.removeprefix("state."): t for n, t in given.items() if n.startswith("state.")}
    model.load_state_dict(state, strict=True)
    loss, prediction = model(given["video"], given["enc_mask"].bool(), given["dec_mask"].bool())
    loss.backward()
    torch.testing.assert_close(prediction, given["pred"], atol=1e-4, rtol=0)
    torch.testing.assert_close(loss, given["loss"][0], atol=1e-5, rtol=0)
    torch.testing.assert_close(
        model.target(given["video"]), given["target_full"], atol=1e-5, rtol=0
    )
    parameters = dict(model.named_parameters())
    for name in document("pretrain_A")["meta"]["grad_names"]:
        reference = given[f"grad.{name}"]
        assert (parameters[name].grad - reference).norm() <= 1e-4 * reference.norm(), name
