"""Keyed noise: a pure function of seed, purpose, step and row."""

from __future__ import annotations

import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mimsuite.noise import FixedNoise, KeyedGenerator, Noise, _signed, key_of, keyed_rng

quick = settings(max_examples=60, deadline=None)
SEEDS, STEPS = st.integers(0, 2**63), st.integers(0, 10**9)


def rows(seed: int, step: int, index: list[int], purpose: str, width: int) -> torch.Tensor:
    return Noise(seed, step, torch.tensor(index)).rows(purpose, width)


# --- the same for any way of cutting a batch ------------------------------------------------------


@quick
@given(
    SEEDS, STEPS, st.integers(1, 24), st.integers(1, 40), st.lists(st.integers(1, 23), max_size=4)
)
def test_micro_batches_see_the_rows_of_the_whole(
    seed: int, step: int, batch: int, width: int, cuts: list[int]
) -> None:
    index = list(range(batch))
    whole = rows(seed, step, index, "mask", width)
    edges = [0, *sorted(cut for cut in set(cuts) if cut < batch), batch]
    parts = [rows(seed, step, index[a:b], "mask", width) for a, b in pairwise(edges)]
    assert torch.equal(torch.cat(parts), whole)


@quick
@given(SEEDS, STEPS, st.permutations(range(9)))
def test_a_row_does_not_know_its_neighbours(seed: int, step: int, order: list[int]) -> None:
    whole = rows(seed, step, list(range(9)), "mask", 5)
    assert torch.equal(rows(seed, step, order, "mask", 5), whole[torch.tensor(order)])


@quick
@given(SEEDS, STEPS, st.integers(1, 30), st.integers(1, 30))
def test_more_numbers_do_not_change_the_first(seed: int, step: int, few: int, more: int) -> None:
    wide = rows(seed, step, [0, 3], "mask", few + more)
    assert torch.equal(rows(seed, step, [0, 3], "mask", few), wide[:, :few])


# --- different keys, different numbers ------------------------------------------------------------


def test_every_part_of_the_key_matters() -> None:
    base = rows(0, 0, [0], "mask", 64)
    others = [
        rows(1, 0, [0], "mask", 64),
        rows(0, 1, [0], "mask", 64),
        rows(0, 0, [1], "mask", 64),
        rows(0, 0, [0], "drop_path", 64),
    ]
    every = torch.cat([base, *others])
    assert len(every.unique(dim=0)) == 5
    # 63 degrees of freedom: far from +-1 unless two streams are shifted copies.
    assert torch.corrcoef(every).fill_diagonal_(0).abs().max() < 0.6


def test_streams_of_neighbouring_rows_do_not_overlap() -> None:
    """A counter-based generator with a poor key would repeat row i in row i + 1, shifted."""
    numbers = rows(0, 0, list(range(64)), "mask", 256).flatten()
    # 2**23 values, 16,384 draws: about 16 chance meetings are expected, not thousands.
    assert len(numbers.unique()) > len(numbers) - 60


# --- uniform on an open interval ------------------------------------------------------------------


@quick
@given(SEEDS, STEPS)
def test_open_interval_and_finite_logarithms(seed: int, step: int) -> None:
    noise = rows(seed, step, list(range(8)), "mask", 100)
    assert noise.dtype == torch.float32
    assert noise.min() > 0
    assert noise.max() < 1
    assert torch.log(-torch.log(noise)).isfinite().all()


def test_extremes_of_the_range_are_inside() -> None:
    """The formula's smallest and largest number, whatever the bits are."""
    bits = torch.tensor([0, 2**23 - 1])
    noise = (bits.to(torch.float32) + 0.5) * 2.0**-23
    assert noise[0] > 0
    assert noise[1] < 1
    assert torch.log(-torch.log(noise)).isfinite().all()


@pytest.mark.parametrize("axis", [0, 1])
def test_uniform_over_rows_and_along_them(axis: int) -> None:
    noise = rows(3, 7, list(range(400)), "mask", 400).double()
    deviation = math.sqrt(1 / 12 / 400)
    assert (noise.mean(axis) - 0.5).abs().max() < 5 * deviation
    counts = torch.histc(noise, bins=50, min=0, max=1)
    expected = noise.numel() / 50
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 49 + 5 * math.sqrt(2 * 49)


def test_neighbours_are_uncorrelated() -> None:
    noise = rows(0, 0, list(range(300)), "mask", 300) - 0.5
    along = (noise[:, 1:] * noise[:, :-1]).mean() * 12
    across = (noise[1:] * noise[:-1]).mean() * 12
    assert abs(float(along)) < 5 / 300
    assert abs(float(across)) < 5 / 300


# --- stable for ever ------------------------------------------------------------------------------


def test_stored_values() -> None:
    """Runs made by an earlier release resume with the masks they began with."""
    assert key_of(0, "mask", 0) == STORED_KEY
    assert torch.equal(rows(0, 0, [0, 1], "mask", 3), torch.tensor(STORED_ROWS))
    assert torch.equal(rows(2**63, 12345, [4095], "mixup", 2), torch.tensor(STORED_LARGE))
    assert keyed_rng(0, "crop", 1, "a/b.png").random(2).tolist() == STORED_CROP


STORED_KEY = 10750591634923582197
STORED_ROWS = [
    [0.7874392867088318, 0.15357083082199097, 0.6658082604408264],
    [0.3787563443183899, 0.47562140226364136, 0.697471559047699],
]
STORED_LARGE = [[0.3504377007484436, 0.4622604250907898]]
STORED_CROP = [0.7336966108219127, 0.9726280308832518]


@quick
@given(st.lists(st.one_of(st.integers(), st.text()), min_size=1, max_size=4))
def test_keys_are_64_bit_and_repeatable(parts: list[object]) -> None:
    assert key_of(*parts) == key_of(*parts)
    assert 0 <= key_of(*parts) < 2**64


def test_keys_of_different_parts_differ() -> None:
    assert key_of(1, "2") != key_of("1", 2)
    assert key_of("ab", "c") != key_of("a", "bc")


# --- noise given by hand --------------------------------------------------------------------------


def test_fixed_noise_hands_out_what_it_was_given() -> None:
    given_rows = torch.rand(2, 4)
    assert FixedNoise({"mask": given_rows}).rows("mask", 4) is given_rows


def test_fixed_noise_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="'mask' has width 4, asked for 9"):
        FixedNoise({"mask": torch.rand(2, 4)}).rows("mask", 9)


@quick
@given(st.integers(0, 2**63), st.text(max_size=20))
def test_keyed_generators_are_numpys_philox(seed: int, name: str) -> None:
    ours = keyed_rng(seed, "augment", name)
    theirs = np.random.Generator(np.random.Philox(key=key_of(seed, "augment", name)))
    assert ours.random(9).tolist() == theirs.random(9).tolist()
    assert ours.integers(1000, size=9).tolist() == theirs.integers(1000, size=9).tolist()
    assert ours.permutation(9).tolist() == theirs.permutation(9).tolist()


@quick
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(0, 3))
def test_one_generator_for_all_keys_gives_the_numbers_of_many(keys: list[int], more: int) -> None:
    generator = pickle.loads(pickle.dumps(KeyedGenerator()))
    for key in keys:
        ours, theirs = generator(7, key), keyed_rng(7, key)
        assert ours.integers(9, dtype=np.uint32) == theirs.integers(9, dtype=np.uint32)
        assert ours.random(more).tolist() == theirs.random(more).tolist()


# --- normal, shared and derived noise -------------------------------------------------------------


def test_stored_values_of_derived_noise() -> None:
    noise = Noise(0, 0, torch.tensor([0, 1]))
    torch.testing.assert_close(noise.normal("z", 3), torch.tensor(STORED_NORMAL))
    assert noise.shared("s", 3).tolist() == STORED_SHARED
    assert torch.equal(noise.within("a").rows("mask", 2), torch.tensor(STORED_WITHIN))
    assert KeyedGenerator()(0, "crop", 1, "a/b.png").random(2).tolist() == STORED_CROP


STORED_NORMAL = [
    [1.4878367185592651, 0.6388326287269592, -1.64008367061615],
    [0.31994369626045227, 0.32908186316490173, 0.19009822607040405],
]
STORED_SHARED = [0.1661191189372082, 0.5951327896759152, 0.6487280224858688]
STORED_WITHIN = [
    [0.8973575234413147, 0.7248569130897522],
    [0.23920398950576782, 0.20338338613510132],
]


@pytest.mark.parametrize("width", [1, 2, 501])
def test_normal_noise_is_normal(width: int) -> None:
    numbers = Noise(1, 2, torch.arange(100_000 // width)).normal("z", width).double()
    assert numbers.shape[1] == width
    assert abs(float(numbers.mean())) < 0.02
    assert abs(float(numbers.var()) - 1) < 0.03
    assert abs(float((numbers**4).mean()) - 3) < 0.2
    assert abs(float((numbers > 1.959964).double().mean()) - 0.025) < 0.003
    if width > 1:  # the two halves come of the same radius and angle
        halves = numbers[:, 0] * numbers[:, (width + 1) // 2]
        assert abs(float(halves.mean())) < 4 / math.sqrt(len(numbers))


def test_noise_on_the_host_takes_the_copy_of_the_index() -> None:
    index, host = torch.tensor([4, 5]), torch.tensor([7, 8])
    assert torch.equal(Noise(0, 1, index).on_host("m", 3), rows(0, 1, [4, 5], "m", 3))
    copied = Noise(0, 1, index, host)
    assert torch.equal(copied.on_host("m", 3), rows(0, 1, [7, 8], "m", 3))
    inside = Noise(key_of(0, "part"), 1, host).rows("m", 3)
    assert torch.equal(copied.within("part").on_host("m", 3), inside)


def test_noise_without_content_has_the_rows_from_0_on_the_host() -> None:
    noise = Noise(0, 1, torch.empty(2, dtype=torch.int64, device="meta"))
    assert torch.equal(noise.on_host("m", 3), rows(0, 1, [0, 1], "m", 3))


def test_fixed_noise_within_a_part_shared_and_without_rows() -> None:
    a, b = torch.rand(2, 4), torch.rand(2, 4)
    fixed = FixedNoise({"mask": a, "teacher/mask": b})
    assert fixed.within("teacher").rows("mask", 4) is b
    assert fixed.shared("mask", 4).tolist() == a[0].tolist()
    assert fixed.normal("mask", 4) is a
    assert fixed.device == FixedNoise({}).device == torch.device("cpu")


def test_keys_become_the_int64_of_the_same_bits() -> None:
    values = [0, 2**63 - 1, 2**63, 2**64 - 1]
    assert [_signed(value) for value in values] == np.array(values, np.uint64).astype(int).tolist()
