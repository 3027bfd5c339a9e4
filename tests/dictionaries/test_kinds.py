"""Kinds of dictionaries: what selection, pursuit and projection promise, whatever the weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from mimsuite.config.keys.dictionaries import PenaltySection, TargetSection
from mimsuite.dictionaries.atoms import ArchetypalAtoms, Atoms
from mimsuite.dictionaries.batchtopk import BatchTopKDictionary
from mimsuite.dictionaries.build import build_dictionary
from mimsuite.dictionaries.losses import explained_by_dead, penalty
from mimsuite.dictionaries.training import Activity, train_step

WIDTH, CODES, ROWS = 12, 30, 64
KINDS = {
    "relu": {},
    "topk": {"active": 4},
    "batchtopk": {"active": 4},
    "jumprelu": {"bandwidth": 0.05},
    "pursuit": {"active": 4},
    "orthogonal": {"active": 4},
}


def section(kind: str, **more: Any) -> Any:
    given = {"kind": kind, "codes": CODES, **KINDS[kind], **more}
    return TypeAdapter(TargetSection).validate_python(given)


def rows(seed: int = 0, count: int = ROWS) -> torch.Tensor:
    """Sparse mixtures of 20 directions."""
    random = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(
        torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(9)), dim=1
    )
    codes = torch.rand(count, 20, generator=random) * (
        torch.rand(count, 20, generator=random) < 0.1
    )
    return 4 * codes @ atoms + 0.05 * torch.randn(count, WIDTH, generator=random)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_and_codes_add_up_to_the_output(kind: str) -> None:
    torch.manual_seed(0)
    dictionary = build_dictionary(section(kind), WIDTH)
    optimizer = torch.optim.Adam(dictionary.parameters(), lr=1e-2)
    losses = [
        train_step(dictionary, rows(step), optimizer, PenaltySection(), 1.0).error
        for step in range(60)
    ]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    coded = dictionary.eval()(rows(99))
    torch.testing.assert_close(coded.output, coded.codes @ coded.atoms)
    torch.testing.assert_close(dictionary.encode(rows(99)), coded.codes)


@pytest.mark.parametrize("kind", ["topk", "pursuit", "orthogonal"])
def test_no_row_has_more_codes_than_allowed(kind: str) -> None:
    coded = build_dictionary(section(kind), WIDTH)(rows())
    assert int((coded.codes != 0).sum(dim=1).max()) <= 4
    if kind != "pursuit":
        assert coded.codes.min() >= 0


def test_a_pursuit_leaves_what_the_codes_do_not_explain() -> None:
    for kind in ("pursuit", "orthogonal"):
        x = rows()
        coded = build_dictionary(section(kind), WIDTH)(x)
        torch.testing.assert_close(coded.before, x - coded.output, atol=1e-5, rtol=1e-5)


def test_refitting_explains_no_less_than_plain_pursuit() -> None:
    torch.manual_seed(0)
    plain = build_dictionary(section("pursuit", active=6), WIDTH)
    refit = build_dictionary(section("orthogonal", active=6, fit_steps=200), WIDTH)
    refit.load_state_dict(plain.state_dict())
    x = rows()
    assert (x - refit(x).output).norm() < (x - plain(x).output).norm()


def test_batches_share_what_is_allowed_and_later_rows_are_cut_at_the_mean_threshold() -> None:
    dictionary = build_dictionary(section("batchtopk", momentum=0.5), WIDTH)
    assert isinstance(dictionary, BatchTopKDictionary)
    first, second = rows(0), rows(1)
    assert int((dictionary(first).codes > 0).sum()) == 4 * ROWS
    before = float(dictionary.running_threshold)
    after = float(dictionary._of_batch(dictionary.encoder(second).relu()))
    dictionary(second)
    assert float(dictionary.running_threshold) == pytest.approx((before + after) / 2)
    dictionary.eval()
    # A row's codes do not depend on what is beside it.
    torch.testing.assert_close(dictionary(second).codes[:3], dictionary(second[:3]).codes)


def test_reading_atoms_twice_changes_nothing_and_evaluation_writes_nothing() -> None:
    atoms = Atoms(CODES, WIDTH)
    stored = atoms._weights.detach().clone()
    read = atoms.eval()()
    assert torch.equal(atoms._weights, stored)
    torch.testing.assert_close(atoms.train()(), read)
    torch.testing.assert_close(atoms(), read)
    assert not torch.equal(atoms._weights, stored)
    torch.testing.assert_close(read.norm(dim=1), torch.ones(CODES))


@pytest.mark.parametrize("delta", [0.0, 0.5])
def test_archetypal_atoms_stay_near_mixtures_of_points(delta: float) -> None:
    torch.manual_seed(0)
    points = torch.randn(40, WIDTH)
    atoms = ArchetypalAtoms(points, CODES, delta)
    torch.testing.assert_close(atoms(), points[:CODES])
    with torch.no_grad():
        atoms.W.normal_()
        atoms.Relax[1:].normal_()
    assert atoms().isfinite().all()
    assert atoms.W.min() >= 0
    assert atoms.Relax.norm(dim=1).max() <= delta + 1e-6
    assert atoms.Relax[0].norm() == 0


def test_codes_that_nobody_uses_are_drawn_to_the_error() -> None:
    dictionary = build_dictionary(section("topk"), WIDTH)
    activity = Activity(CODES, torch.device("cpu"))
    x = rows()
    coded = dictionary(x)
    activity.see(coded.codes)
    unused = ~(coded.codes > 0).any(dim=0)
    assert torch.equal(activity.idle(ROWS), unused)
    idle = torch.zeros(CODES, dtype=torch.bool)
    idle[:5] = True
    assert float(explained_by_dead(x, coded, ~torch.ones_like(idle), 8)) == 0
    explained_by_dead(x, coded, idle, 8).backward()
    moved = dictionary.dictionary._weights.grad.norm(dim=1) > 0
    assert not moved[5:].any()  # the error is detached: living atoms are left alone
    assert moved[:5].any()


def test_l1_does_not_depend_on_the_batch() -> None:
    dictionary = build_dictionary(section("relu"), WIDTH)
    small, x = PenaltySection(kind="l1", weight=0.1), rows()
    twice = torch.cat([x, x])
    found = [float(penalty(small, dictionary, one, dictionary(one))) for one in (x, twice)]
    assert found[0] == pytest.approx(found[1])


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("topk", {"active": CODES + 1}),
        ("topk", {"penalty": {"kind": "l0", "weight": 1.0}}),
        ("topk", {"penalty": {"kind": "revive", "weight": 1.0}}),
        ("topk", {"encoder": "mlp_ln_1"}),
        ("pursuit", {"penalty": {"kind": "unchosen", "weight": 1.0}}),
        ("pursuit", {"encoder": "linear"}),
    ],
)
def test_sections_that_cannot_work_are_refused(kind: str, more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        section(kind, **more)


@pytest.mark.parametrize("name", ["mlp_ln_1", "mlp_bn_1", "mlp_ln_3", "mlp_bn_3"])
def test_encoders_with_norms_have_the_published_keys(name: str) -> None:
    made = build_dictionary(section("topk", encoder=name, encoder_start="random"), WIDTH)
    assert made(rows()).codes.shape == (ROWS, CODES)
    keys = set(made.state_dict())
    assert {"encoder.final_block.0.weight", "encoder.final_block.1.weight"} <= keys
    blocks = {f"encoder.mlp_blocks.{i}.{j}.weight" for i in range(2) for j in range(2)}
    assert (blocks <= keys) == name.endswith("_3")
