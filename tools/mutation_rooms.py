"""The modules that ``tools/mutation.py`` changes, room by room, and the tests that judge them."""

from __future__ import annotations

ROOMS: dict[str, tuple[list[str], list[str]]] = {
    "noise": (["mimsuite/noise.py"], ["tests/test_noise.py"]),
    "schedules": (
        ["mimsuite/schedule.py", "mimsuite/models/momentum.py"],
        [
            "tests/test_schedule.py",
            "tests/test_goldens.py::test_stored_case",
            "tests/models/test_momentum.py",
        ],
    ),
    "masking": (
        ["mimsuite/masking/*.py"],
        [
            "tests/masking/test_*.py",
            "tests/methods/test_hybrid_distill.py",
            "tests/test_golden_ijepa.py",
            "tests/test_golden_vjepa.py",
            "tests/test_golden_capi.py",
            "tests/test_golden_data2vec2.py",
            "tests/test_golden_maskalign.py",
        ],
    ),
    "order": (
        ["mimsuite/data/order/*.py"],
        [
            "tests/data/test_plan.py",
            "tests/data/test_stored_order.py",
            "tests/data/test_layout.py",
            "tests/data/test_mixture.py",
            "tests/train/test_resume_order.py",
        ],
    ),
    "lanes": (
        ["mimsuite/data/loading/*.py"],
        [
            "tests/data/test_plan.py",
            "tests/data/test_stored_order.py",
            "tests/data/test_layout.py",
            "tests/data/test_lanes.py",
            "tests/data/test_train_stream.py",
            "tests/data/test_ahead.py",
            "tests/data/test_join.py",
            "tests/data/test_damage.py",
            "tests/data/test_loader_health.py",
            "tests/data/test_label_targets.py",
        ],
    ),
    "checkpoint": (
        [
            "mimsuite/train/checkpoint.py",
            "mimsuite/train/state.py",
            "mimsuite/train/saving.py",
            "mimsuite/train/stored.py",
            "mimsuite/train/tensor_files.py",
            "mimsuite/train/retention.py",
        ],
        [
            "tests/train/test_checkpoint.py",
            "tests/train/test_stored_state.py",
            "tests/train/test_background_saves.py",
            "tests/train/test_retention.py",
            "tests/train/test_resume.py",
        ],
    ),
    "targets": (
        ["mimsuite/targets/*.py"],
        [
            "tests/targets/test_*.py",
            "tests/test_goldens.py::test_stored_case",
            "tests/methods/test_rae.py",
            "tests/methods/test_vqrae.py",
            "tests/methods/test_volume_*.py",
            "tests/methods/test_nerf_mae.py",
            "tests/methods/test_crossvideomae.py",
            "tests/methods/test_hybrid_distill.py",
            "tests/methods/test_scan_segment.py",
        ],
    ),
}

# (module, change) -> why no test can tell it from the original.
_MASKING = "mimsuite/masking/"
EQUIVALENT: dict[tuple[str, str], str] = {
    (_MASKING + "ball.py", "-1 -> 1"): "the last axis of (B, 1) is the new axis 1",
    (_MASKING + "block.py", "0.0 -> 0.25"): "any keys do for a rehearsal",
    (_MASKING + "block.py", "4 -> 3"): "number of rehearsals: more find no other fault",
    (_MASKING + "random.py", "True -> False"): "torch always sorts stably on a CPU",
    (
        _MASKING + "redundant.py",
        "seen.mean(dim=1, keepdim=True) -> seen.sum(dim=1, keepdim=True)",
    ): "a cosine does not depend on length",
    (
        _MASKING + "running_cell.py",
        "2 * (y % 2) + x % 2 + t + 1 -> 2 * (y % 2) + x % 2 + t - 1",
    ): "the least over all phases",
    (
        _MASKING + "running_cell.py",
        "2 * (y % 2) + x % 2 -> 2 * (y % 2) - x % 2",
    ): "a mirror image; the least over all phases",
    (_MASKING + "squares.py", "grid[0] // side -> -(-grid[0] // side)"): "side divides the grid",
    (
        _MASKING + "tube.py",
        "mask.visible.shape[1] // frames -> -(-mask.visible.shape[1] // frames)",
    ): "as many visible tokens in each frame",
    (
        "mimsuite/targets/features.py",
        "F.l1_loss(prediction, target) -> F.l1_loss(target, prediction)",
    ): "symmetric",
    (
        "mimsuite/data/loading/dealing.py",
        "min(pieces, share.micro_batch) -> min(share.micro_batch, pieces)",
    ): "symmetric",
    (
        "mimsuite/targets/classes.py",
        "torch.searchsorted(table, at).clamp(1, _BETA_NODES) -> torch.searchsorted(table, at)",
    ): "noise is never 0 or 1",
}
