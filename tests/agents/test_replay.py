"""The replay buffer against a naive list."""

from __future__ import annotations

from collections import deque
from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from soo_marl.agents.replay import ReplayBuffer, Transitions
from soo_marl.random_streams import RandomStreams

OBSERVATIONS, ACTIONS = (3, 4), (2, 1)


def make(capacity: int, seeds: tuple[int, ...] = (0, 1)) -> ReplayBuffer:
    return ReplayBuffer(capacity, OBSERVATIONS, ACTIONS, RandomStreams(seeds, "minibatches"))


def numbered(first: int, count: int, runs: int = 2) -> Transitions:
    """Transitions in which every number tells its run, its transition and its field."""
    index = torch.arange(first, first + count, dtype=torch.float32) + 1000.0 * torch.arange(runs)[:, None]

    def field(number: int, size: int) -> torch.Tensor:
        return index[..., None] + 0.01 * number + 0.001 * torch.arange(size)

    return Transitions(
        observations=(field(1, 3), field(2, 4)),
        actions=(field(3, 2), field(4, 1)),
        rewards=field(5, 2),
        next_observations=(field(6, 3), field(7, 4)),
        terminated=index.remainder(3) == 0,
        context=index.long().remainder(2),
        next_context=index.long().remainder(5),
    )


def identities(buffer: ReplayBuffer) -> list[list[float]]:
    """Which transitions each run holds."""
    return [sorted(round(float(value)) for value in run) for run in buffer.rows[:, : buffer.size, 0]]


@settings(max_examples=60, deadline=None)
@given(capacity=st.integers(1, 12), counts=st.lists(st.integers(1, 12), min_size=1, max_size=12))
def test_the_buffer_holds_the_latest_transitions(capacity: int, counts: list[int]) -> None:
    buffer, naive, first = make(capacity), deque[int](maxlen=capacity), 0
    for count in counts:
        if count > capacity:
            with pytest.raises(ValueError, match="do not fit"):
                buffer.add(numbered(first, count))
            continue
        buffer.add(numbered(first, count))
        naive.extend(range(first, first + count))
        first += count
        assert identities(buffer) == [sorted(naive), [1000 + index for index in sorted(naive)]]
        latest = buffer.latest_observations(3)
        newest = [float(index) for index in list(naive)[::-1][:3]]
        torch.testing.assert_close(latest[0][0, :, 0], torch.tensor(newest) + 0.01)
        torch.testing.assert_close(latest[1][1, :, 3], torch.tensor(newest) + 1000.02 + 0.003)


def test_a_minibatch_holds_whole_transitions_as_stored_and_only_of_its_own_run() -> None:
    buffer = make(100)
    buffer.add(numbered(0, 60))
    sample = buffer.sample(500)
    index = (sample.observations[0][..., 0] - 0.01).round().long()
    assert bool((index[0] < 60).all() and (index[1] >= 1000).all())
    stored, rows = numbered(0, 60), index - torch.tensor([[0], [1000]])

    def expected(tensor: torch.Tensor) -> torch.Tensor:
        return torch.stack([tensor[run, rows[run]] for run in range(2)])

    for field in fields(Transitions):
        found, kept = getattr(sample, field.name), getattr(stored, field.name)
        for one, other in zip(
            *((value if isinstance(value, tuple) else (value,)) for value in (found, kept)), strict=True
        ):
            torch.testing.assert_close(one, expected(other).to(one.dtype), rtol=0, atol=0)
    assert sample.context.dtype == sample.next_context.dtype == torch.int64
    assert sample.terminated.shape == (2, 500)


def test_minibatches_are_uniform_over_what_is_stored_and_independent_between_runs() -> None:
    buffer = make(40)
    buffer.add(numbered(0, 25))
    index = buffer.sample(20_000).observations[0][..., 0].round().long() - torch.tensor([[0], [1000]])
    for run in index:
        assert stats.chisquare(torch.bincount(run, minlength=25).numpy()).pvalue > 1e-3
    assert float((index[0] == index[1]).double().mean()) == pytest.approx(1 / 25, abs=0.01)


def test_a_runs_minibatches_are_the_same_alone() -> None:
    stack, alone = make(50, (4, 8)), make(50, (8,))
    transitions = numbered(0, 30)
    stack.add(transitions)
    alone.add(
        Transitions(
            **{
                field.name: tuple(value[1:] for value in entry)
                if isinstance(entry := getattr(transitions, field.name), tuple)
                else entry[1:]
                for field in fields(Transitions)
            }
        )
    )
    assert torch.equal(stack.sample(20).rewards[1], alone.sample(20).rewards[0])


def test_stored_and_sampled_transitions_share_no_memory_with_the_outside() -> None:
    buffer, transitions = make(10), numbered(0, 10)
    buffer.add(transitions)
    transitions.observations[0].zero_()
    transitions.rewards.zero_()
    sample = buffer.sample(5)
    for tensor in (*sample.observations, sample.rewards):
        assert bool(tensor.all())
        tensor.zero_()
    assert identities(buffer)[0] == list(range(10))
    assert bool(buffer.rows[..., 3].all())


def test_sampling_from_an_empty_buffer_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        make(10).sample(1)


def test_transitions_of_another_shape_are_refused_instead_of_repeated_for_every_run() -> None:
    with pytest.raises(ValueError, match=r"2 runs .* are of 1 runs"):
        make(10).add(numbered(0, 3, runs=1))
    with pytest.raises(ValueError, match=r"26 numbers .* with 22"):
        ReplayBuffer(10, (3, 4, 1), (2, 1, 1), RandomStreams((0, 1), "x")).add(numbered(0, 3))


def test_impossible_buffers_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one transition"):
        make(0)
    with pytest.raises(ValueError, match="differ"):
        ReplayBuffer(10, (3, 4), (2,), RandomStreams((0,), "x"))


@pytest.mark.parametrize("count", [4, 10, 14])
def test_a_stored_buffer_continues_in_the_same_way_and_is_a_copy(count: int) -> None:
    buffer, again = make(10), make(10)
    for first in range(0, count, 2):
        buffer.add(numbered(first, 2))
    buffer.sample(3)
    state = buffer.state()
    again.load_state(state)
    state["rows"].zero_()
    for one in (buffer, again):
        one.add(numbered(count, 3))
    assert torch.equal(buffer.rows[:, : buffer.size], again.rows[:, : again.size])
    assert torch.equal(buffer.sample(50).rewards, again.sample(50).rewards)


def test_a_stored_buffer_of_another_shape_is_refused() -> None:
    buffer = make(10)
    buffer.add(numbered(0, 5))
    with pytest.raises(ValueError, match=r"capacity 10 .* this one of 11"):
        make(11).load_state(buffer.state())
    with pytest.raises(ValueError, match=r"with 2 runs .* with 1 "):
        make(10, (0,)).load_state(buffer.state())
