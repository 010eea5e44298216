import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from soo_marl.envs.observations import (
    BLUE,
    RED,
    Pairing,
    imagined_red,
    perspective,
    red_unseen,
    untrapped,
)
from soo_marl.random_streams import RandomStreams

SIGHT = 0.35


def blue_observations(runs: int = 2, count: int = 6) -> Tensor:
    """Random fields; red is unseen in every second observation and trapped in every third."""
    blue = RandomStreams(range(runs), "blue").uniform(count, BLUE.size) * 2 - 1
    blue[:, ::2, BLUE.red_position] = 0.0
    blue[..., BLUE.trapped] = 0.0
    blue[:, ::3, BLUE.trapped] = 1.0
    return blue


def red_observations(runs: int = 2, count: int = 6) -> Tensor:
    return RandomStreams(range(runs), "red").uniform(count, RED.size) * 2 - 1


def test_fields_tile_the_observations() -> None:
    for fields in (BLUE, RED):
        slices = [field for field in fields if isinstance(field, slice)]
        assert [index for field in slices for index in range(fields.size)[field]] == list(range(fields.size))


@pytest.mark.parametrize("zero_flag", [False, True])
def test_imagined_red_changes_red_and_if_asked_the_flag(zero_flag: bool) -> None:
    blue = blue_observations()
    before = blue.clone()
    pairs = imagined_red(SIGHT, zero_flag)(red_observations(), blue, RandomStreams([0, 1], "pairs"))
    assert torch.equal(pairs.self_observation, before) and torch.equal(blue, before)
    for field in (BLUE.goal, BLUE.landmark_0, BLUE.landmark_1):
        assert torch.equal(pairs.other_observation[..., field], before[..., field])
    assert not (pairs.other_observation[..., BLUE.red_position] == 0).all(dim=-1).any()
    expected = torch.zeros_like(before[..., BLUE.trapped]) if zero_flag else before[..., BLUE.trapped]
    assert torch.equal(pairs.other_observation[..., BLUE.trapped], expected)
    assert pairs.valid.tolist() == [[True, False] * 3] * 2


def test_imagined_red_has_uniform_angle_and_radius() -> None:
    count = 20_000
    blue = torch.zeros(1, count, BLUE.size)
    pairs = imagined_red(SIGHT)(torch.zeros(1, count, RED.size), blue, RandomStreams([3], "pairs"))
    imagined = pairs.other_observation[0, :, BLUE.red_position]
    radius = torch.linalg.vector_norm(imagined, dim=-1) / SIGHT
    angle = torch.atan2(imagined[:, 1], imagined[:, 0]) / (2 * math.pi) % 1.0
    assert radius.max() < 1.0 + 1e-6
    for uniform in (radius, angle):
        # Kolmogorov-Smirnov distance; 1.95 / sqrt(n) is exceeded once in a thousand.
        ordered = uniform.sort().values
        assert (ordered - torch.arange(count) / count).abs().max() < 1.95 / math.sqrt(count)
    # Uniform in the radius, not in the area: half of the points lie within half of the radius.
    assert (radius < 0.5).float().mean() == pytest.approx(0.5, abs=0.02)
    assert torch.corrcoef(torch.stack((radius, angle)))[0, 1].abs() < 0.03


@given(st.lists(st.integers(-5, 50), min_size=1, max_size=4, unique=True), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_draws_of_a_run_do_not_depend_on_the_stack(seeds: list[int], count: int) -> None:
    blue, red = torch.zeros(len(seeds), count, BLUE.size), torch.zeros(len(seeds), count, RED.size)
    stacked = imagined_red(SIGHT)(red, blue, RandomStreams(seeds, "pairs")).other_observation
    for run, seed in enumerate(seeds):
        alone = imagined_red(SIGHT)(red[:1], blue[:1], RandomStreams([seed], "pairs")).other_observation
        assert torch.equal(stacked[run], alone[0])


def observe(position: Tensor, other: Tensor, landmarks: Tensor) -> list[Tensor]:
    """Landmarks and the other agent as seen from a position."""
    return [landmarks[0] - position, landmarks[1] - position, other - position]


@pytest.mark.parametrize("goal", [0, 1])
@pytest.mark.parametrize("zero_flag", [False, True])
def test_perspective_is_what_blue_would_see_from_reds_place(goal: int, zero_flag: bool) -> None:
    landmarks = torch.tensor([[0.5, 0.25], [-0.75, 0.0]])
    red, blue = torch.tensor([0.125, -0.5]), torch.tensor([0.25, -0.25])
    flag = torch.ones(2)
    from_blue = observe(blue, red, landmarks)
    blue_observation = torch.cat((landmarks[goal] - blue, *from_blue, flag))[None, None]
    red_observation = torch.cat(observe(red, blue, landmarks))[None, None]
    pairs = perspective(zero_flag)(red_observation, blue_observation, RandomStreams([0], "pairs"))
    expected = torch.cat((landmarks[goal] - red, *observe(red, blue, landmarks), flag * (not zero_flag)))
    torch.testing.assert_close(pairs.other_observation[0, 0], expected)
    assert torch.equal(pairs.self_observation, blue_observation)
    assert pairs.valid.item()
    # Worked by hand: blue stands 0.125 to the right of red and 0.25 above it.
    assert pairs.other_observation[0, 0, BLUE.red_position].tolist() == [0.125, 0.25]


def test_perspective_keeps_an_unseen_blue_unseen_and_needs_a_present_red() -> None:
    red, blue = red_observations(1, 2), blue_observations(1, 2)
    red[0, 0, RED.blue_position] = 0.0
    red[0, 1] = 0.0
    pairs = perspective()(red, blue, RandomStreams([0], "pairs"))
    assert pairs.other_observation[0, 0, BLUE.red_position].tolist() == [0.0, 0.0]
    assert pairs.valid.tolist() == [[True, False]]


@pytest.mark.parametrize("pairing", [imagined_red(SIGHT), perspective()])
def test_pairings_take_any_leading_shape(pairing: Pairing) -> None:
    pairs = pairing(torch.ones(2, 3, 4, RED.size), torch.ones(2, 3, 4, BLUE.size), RandomStreams([0, 1], "pairs"))
    assert pairs.other_observation.shape == (2, 3, 4, BLUE.size)
    assert pairs.valid.shape == (2, 3, 4)


def test_masks_read_their_fields() -> None:
    blue = torch.zeros(3, BLUE.size)
    blue[1, BLUE.red_position] = torch.tensor([0.0, 0.1])
    blue[2, BLUE.trapped] = 1.0
    assert red_unseen(blue).tolist() == [True, False, True]
    assert untrapped(blue).tolist() == [True, True, False]
