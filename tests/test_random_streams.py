"""Random streams: the right distributions, independence, and numbers that a run keeps in any company."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from soo_marl.random_streams import RandomStreams, distinct_seeds

SEED = st.integers(-(2**70), 2**70)


def correlation(one: Tensor, other: Tensor) -> float:
    return float(np.corrcoef(one.flatten().numpy(), other.flatten().numpy())[0, 1])


def test_bits_are_those_of_splitmix64() -> None:
    """From key 0, the published test values of SplitMix64 with seed 0."""
    streams = RandomStreams([0], "anything")
    streams._keys.zero_()
    bits = [int(value) & (2**64 - 1) for value in streams._bits((3,))[0]]
    assert bits == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_uniform_numbers_are_uniform() -> None:
    numbers = RandomStreams(range(4), "test").uniform(50_000)
    assert numbers.shape == (4, 50_000) and numbers.dtype == torch.float32
    assert float(numbers.min()) >= 0.0 and float(numbers.max()) < 1.0
    for run in numbers.double().numpy():
        assert stats.kstest(run, "uniform").pvalue > 1e-3
    # All 24 bits vary: the lowest is set half of the time.
    lowest = (numbers.double() * 2**24).long() & 1
    assert float(lowest.double().mean()) == pytest.approx(0.5, abs=0.005)


def test_normal_numbers_are_normal() -> None:
    numbers = RandomStreams(range(2), "test").normal(100, 500)
    assert numbers.shape == (2, 100, 500)
    for run in numbers.flatten(1).double().numpy():
        assert stats.kstest(run, "norm").pvalue > 1e-3
        assert stats.kurtosis(run) == pytest.approx(0.0, abs=0.1)


def test_gumbel_numbers_are_gumbel_and_finite() -> None:
    numbers = RandomStreams(range(2), "test").gumbel(50_000)
    assert bool(numbers.isfinite().all())
    for run in numbers.double().numpy():
        assert stats.kstest(run, "gumbel_r").pvalue > 1e-3


def test_gumbel_numbers_are_finite_at_both_ends_of_the_grid() -> None:
    class Ends(RandomStreams):
        def uniform(self, *shape: int) -> Tensor:
            return torch.tensor([[0.0, 1.0 - 2.0**-24]])

    low, high = Ends([0], "test").gumbel(2)[0].tolist()
    assert low == pytest.approx(-math.log(25 * math.log(2)), rel=1e-5)
    assert high == pytest.approx(24 * math.log(2), rel=1e-5)


@settings(max_examples=50, deadline=None)
@given(seed=SEED, high=st.integers(1, 2**30))
def test_integers_are_in_range(seed: int, high: int) -> None:
    numbers = RandomStreams([seed], "test").integers(high, 200)
    assert numbers.dtype == torch.int64
    assert int(numbers.min()) >= 0 and int(numbers.max()) < high


def test_integers_are_uniform() -> None:
    numbers = RandomStreams([0, 1], "test").integers(7, 70_000)
    for run in numbers:
        assert stats.chisquare(np.bincount(run.numpy(), minlength=7)).pvalue > 1e-3
    wide = RandomStreams([0], "test").integers(2**30, 50_000).double() / 2**30
    assert stats.kstest(wide[0].numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("high", [0, -1, 2**30 + 1])
def test_integers_below_an_impossible_number_are_refused(high: int) -> None:
    with pytest.raises(ValueError, match=r"2\^30"):
        RandomStreams([0], "test").integers(high, 3)


def test_seeds_names_and_successive_draws_are_independent() -> None:
    streams = RandomStreams(range(2), "test")
    first, second = streams.uniform(50_000), streams.uniform(50_000)
    other_name = RandomStreams(range(2), "tesu").uniform(50_000)
    pairs = [(first[0], first[1]), (first, second), (first, other_name), (first[:, :-1], first[:, 1:])]
    for one, other in pairs:
        assert abs(correlation(one, other)) < 0.02


@settings(max_examples=30, deadline=None)
@given(seeds=st.lists(SEED, min_size=1, max_size=6, unique=True), data=st.data())
def test_a_runs_numbers_do_not_depend_on_the_other_runs(seeds: list[int], data: st.DataObject) -> None:
    run = data.draw(st.integers(0, len(seeds) - 1))
    stack, alone = RandomStreams(seeds, "test"), RandomStreams([seeds[run]], "test")
    assert torch.equal(stack.uniform(3, 5)[run], alone.uniform(3, 5)[0])
    assert torch.equal(stack.integers(10, 4)[run], alone.integers(10, 4)[0])
    torch.testing.assert_close(stack.normal(7)[run], alone.normal(7)[0])
    torch.testing.assert_close(stack.gumbel(7)[run], alone.gumbel(7)[0])


@settings(max_examples=20, deadline=None)
@given(seed=SEED, before=st.integers(0, 50), count=st.integers(1, 50))
def test_the_counter_is_the_whole_state(seed: int, before: int, count: int) -> None:
    streams = RandomStreams([seed], "test")
    streams.uniform(before)
    again = RandomStreams([seed], "test")
    again.counter = streams.counter
    assert torch.equal(streams.normal(count), again.normal(count))
    assert streams.counter == again.counter == before + 2 * count


def test_draws_continue_where_the_last_ended() -> None:
    together, apart = RandomStreams([3], "test"), RandomStreams([3], "test")
    assert torch.equal(together.uniform(10)[0], torch.cat((apart.uniform(4)[0], apart.uniform(2, 3)[0].flatten())))


def test_seed_zero_is_a_seed_and_signs_matter() -> None:
    numbers = RandomStreams([0, 1, -1], "test").uniform(4)
    assert len({tuple(run) for run in numbers.tolist()}) == 3


def test_seeds_that_are_no_integers_are_refused() -> None:
    with pytest.raises(TypeError):
        RandomStreams([0.5], "test")  # type: ignore[list-item]
    assert distinct_seeds(np.arange(3)) == (0, 1, 2)


def test_repeated_or_missing_seeds_are_refused_where_runs_are_to_be_independent() -> None:
    with pytest.raises(ValueError, match="each seed once, but 2 repeats"):
        distinct_seeds([1, 2, 2])
    with pytest.raises(ValueError, match="at least one run"):
        distinct_seeds([])
