"""What only some games draw at a start, against plain loops over single worlds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from soo_marl.envs import BatchedPhysicalDeception, preset
from soo_marl.envs.batched import pause_schedule, second_landmark
from soo_marl.random_streams import RandomStreams


def plane(*points: tuple[float, float]) -> Tensor:
    """One run of worlds, a point each: ``[2, 1, E]``."""
    return torch.tensor(points).T[:, None]


def test_the_second_landmark_is_the_first_candidate_that_is_far_enough() -> None:
    first = plane((0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (-0.5, 0.25))
    candidates = torch.stack(
        (
            plane((0.5, 0.0), (0.1, 0.0), (0.1, 0.0), (-0.5, 0.3)),
            plane((0.6, 0.0), (0.0, -0.375), (0.2, 0.1), (-0.4, 0.3)),
            plane((0.7, 0.0), (0.7, 0.0), (0.3, 0.0), (-0.6, 0.3)),
        )
    )
    chosen = second_landmark(first, candidates, separation=0.375, edge=0.75)
    # The last two worlds have no such candidate: farthest corners. The second one lies at exactly the separation.
    assert chosen[:, 0].T.tolist() == [[0.5, 0.0], [0.0, -0.375], [0.75, 0.75], [0.75, -0.75]]


@settings(max_examples=30, deadline=None)
@given(separation=st.floats(0.01, 1.16), dtype=st.sampled_from([torch.float32, torch.float64]), seed=st.integers(0, 99))
def test_landmarks_start_apart_and_inside(separation: float, dtype: torch.dtype, seed: int) -> None:
    config = preset("trackable").replace(landmark_separation=separation)
    worlds = BatchedPhysicalDeception(config, (seed,), 200, dtype=dtype)
    first, second = worlds.landmarks.unbind(dim=2)
    assert float((first - second).norm(dim=-1).min()) >= separation - 1e-6
    assert float(worlds.landmarks.abs().max()) <= 0.825 + 1e-6


def test_only_landmarks_that_are_too_near_are_drawn_again() -> None:
    plain, apart = (
        BatchedPhysicalDeception(preset("trackable").replace(landmark_separation=separation), (3,), 2000)
        for separation in (0.0, 0.4)
    )
    before, after = plain.landmarks, apart.landmarks
    near = (before[:, :, 0] - before[:, :, 1]).norm(dim=-1) < 0.4
    assert torch.equal(before[:, :, 0], after[:, :, 0]) and torch.equal(plain.position, apart.position)
    assert torch.equal((before[:, :, 1] != after[:, :, 1]).any(dim=-1), near)
    # The circle of radius 0.4 covers at most 18.5 % of the square.
    assert 0.1 < float(near.float().mean()) < 0.185


def paused_by_hand(uniform: list[float], chance: float, steps: tuple[int, int]) -> list[bool]:
    fewest, most = steps
    paused: list[bool] = []
    while len(paused) < len(uniform):
        number = uniform[len(paused)]
        if number < chance:
            paused += [True] * (fewest + int(number / chance * (most - fewest + 1)))
        else:
            paused.append(False)
    return paused[: len(uniform)]


@settings(max_examples=50, deadline=None)
@given(
    chance=st.sampled_from([1.0, 0.5, 0.25, 0.125, 0.03125]),
    fewest=st.integers(1, 6),
    more=st.integers(0, 6),
    length=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_the_schedule_of_pauses_is_that_of_a_plain_loop(
    chance: float, fewest: int, more: int, length: int, seed: int
) -> None:
    uniform = RandomStreams((seed, seed + 1), "pauses").uniform(5, length)
    schedule = pause_schedule(uniform.movedim(-1, 0).contiguous(), chance, (fewest, fewest + more))
    assert schedule.shape == (length, 2, 5)
    for run in range(2):
        for world in range(5):
            expected = paused_by_hand(uniform[run, world].tolist(), chance, (fewest, fewest + more))
            assert schedule[:, run, world].tolist() == expected


def test_pauses_have_all_lengths_equally_often() -> None:
    uniform = RandomStreams((0,), "pauses").uniform(60_000, 13).movedim(-1, 0)
    first = pause_schedule(uniform, 0.05, (4, 12))
    # Those that begin in the first step, with nothing after them.
    began = first[:, 0, first[0, 0]]
    length = torch.where(began.all(dim=0), 13, began.int().argmin(dim=0))
    counts = torch.bincount(length, minlength=14)
    assert counts[:4].sum() == 0
    # 3,000 pauses of nine lengths, some of which another pause makes longer.
    assert counts[4:12].float().mean() == pytest.approx(320, abs=30) and counts[4:12].min() > 250
