import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from soo_marl.envs import BatchedPhysicalDeception, preset
from soo_marl.envs.observations import (
    BLUE,
    RED,
    Pairing,
    blue_size,
    every_red,
    every_red_moved,
    exchanged_goal,
    imagined_red,
    moved_red,
    perspective,
    red_unseen,
    untrapped,
    with_red,
    without_red,
)
from soo_marl.random_streams import RandomStreams

SIGHT = 0.35


SIZES = (BLUE.size, BLUE.size + 1)


def blue_observations(runs: int = 2, count: int = 6, size: int = BLUE.size) -> Tensor:
    """Random fields; red is unseen in every second observation and trapped in every third."""
    blue = RandomStreams(range(runs), "blue").uniform(count, size) * 2 - 1
    blue[..., BLUE.visible] = 1.0
    blue[:, ::2, BLUE.red_position] = 0.0
    blue[:, ::2, BLUE.visible] = 0.0
    blue[..., BLUE.trapped] = 0.0
    blue[:, ::3, BLUE.trapped] = 1.0
    return blue


def red_observations(runs: int = 2, count: int = 6) -> Tensor:
    return RandomStreams(range(runs), "red").uniform(count, RED.size) * 2 - 1


def test_fields_tile_the_observations() -> None:
    for fields in (BLUE, RED):
        slices = [field for field in fields if isinstance(field, slice)]
        for size in (fields.size, slices[-1].stop):
            assert [index for field in slices for index in range(size)[field]] == list(range(size))
    assert blue_size(preset("watch")) == 10 and blue_size(preset("watch").replace(visible_bit=True)) == 11


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("zero_flag", [False, True])
def test_imagined_red_changes_red_and_if_asked_the_flag(zero_flag: bool, size: int) -> None:
    blue = blue_observations(size=size)
    before = blue.clone()
    pairs = imagined_red(SIGHT, zero_flag)(red_observations(), blue, RandomStreams([0, 1], "pairs"))
    assert torch.equal(pairs.self_observation, before) and torch.equal(blue, before)
    for field in (BLUE.goal, BLUE.landmark_0, BLUE.landmark_1):
        assert torch.equal(pairs.other_observation[..., field], before[..., field])
    assert not (pairs.other_observation[..., BLUE.red_position] == 0).all(dim=-1).any()
    expected = torch.zeros_like(before[..., BLUE.trapped]) if zero_flag else before[..., BLUE.trapped]
    assert torch.equal(pairs.other_observation[..., BLUE.trapped], expected)
    assert pairs.valid.tolist() == [[True, False] * 3] * 2
    assert pairs.other_observation.shape[-1] == size and bool((pairs.other_observation[..., BLUE.visible] == 1.0).all())


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


def test_the_visible_bit_of_a_perspective_says_whether_red_sees_blue() -> None:
    landmarks, elsewhere = torch.tensor([[0.5, 0.25], [-0.75, 0.0]]), torch.tensor([0.25, -0.25])
    apart = [torch.cat((landmarks[0] - elsewhere, *observe(elsewhere, elsewhere + 0.1, landmarks), torch.zeros(2)))] * 2
    at_same_place = torch.cat((landmarks[0] - elsewhere, *observe(elsewhere, elsewhere, landmarks), torch.zeros(2)))
    # What blue sees of red is of no importance.
    bits = torch.tensor([0.0, 1.0, 0.0])[:, None]
    blue = torch.cat((torch.stack((*apart, at_same_place)), bits), dim=-1)[None]
    seeing = torch.cat(observe(elsewhere + 0.1, elsewhere, landmarks))
    unseeing = torch.cat((seeing[:4], torch.zeros(2)))
    red = torch.stack((seeing, unseeing, torch.cat(observe(elsewhere, elsewhere, landmarks))))[None]
    pairs = perspective()(red, blue, RandomStreams([0], "pairs"))
    assert pairs.other_observation[0, :, BLUE.visible.start].tolist() == [1.0, 0.0, 1.0]
    torch.testing.assert_close(
        pairs.other_observation[..., :10],
        perspective()(red, blue[..., :10], RandomStreams([0], "pairs")).other_observation,
    )


@pytest.mark.parametrize("size", SIZES)
def test_moved_red_shows_red_twice_at_independent_points(size: int) -> None:
    blue = blue_observations(count=4000, size=size)
    before = blue.clone()
    pairs = moved_red(SIGHT)(red_observations(count=4000), blue, RandomStreams([0, 1], "pairs"))
    assert torch.equal(blue, before) and torch.equal(pairs.valid, red_unseen(blue))
    for side in (pairs.self_observation, pairs.other_observation):
        assert torch.equal(without_red(side), without_red(blue))
        assert not bool(red_unseen(side).any())
        radius = torch.linalg.vector_norm(side[..., BLUE.red_position], dim=-1)
        assert radius.max() < SIGHT + 1e-6 and radius.mean() == pytest.approx(SIGHT / 2, abs=0.01)
    one, other = (
        side[..., BLUE.red_position].flatten(0, 1).T for side in (pairs.self_observation, pairs.other_observation)
    )
    assert torch.corrcoef(torch.cat((one, other)))[:2, 2:].abs().max() < 0.05
    # The first point is the one that is imagined with the same random numbers.
    imagined = imagined_red(SIGHT)(red_observations(count=4000), blue, RandomStreams([0, 1], "pairs"))
    assert torch.equal(pairs.self_observation, imagined.other_observation)


@pytest.mark.parametrize("size", SIZES)
def test_red_is_put_into_observations_and_taken_out_of_copies(size: int) -> None:
    blue = blue_observations(size=size)
    before, point = blue.clone(), torch.tensor([0.25, -0.5])
    seeing, unseeing = with_red(blue, point), without_red(blue)
    assert torch.equal(blue, before)
    assert bool((seeing[..., BLUE.red_position] == point).all()) and not bool(red_unseen(seeing).any())
    assert not bool(unseeing[..., BLUE.red_position].any()) and bool(red_unseen(unseeing).all())
    assert torch.equal(without_red(seeing), unseeing)
    assert torch.equal(with_red(unseeing, blue[..., BLUE.red_position])[:, 1::2], blue[:, 1::2])
    # Red exactly where blue stands is seen where there is a bit to say so.
    assert bool(red_unseen(with_red(blue, torch.zeros(2))).any()) == (size == BLUE.size)


@pytest.mark.parametrize("visible_bit", [False, True])
def test_exchanging_the_goal_gives_what_blue_sees_where_the_other_landmark_is_the_goal(visible_bit: bool) -> None:
    worlds = BatchedPhysicalDeception(preset("trackable").replace(visible_bit=visible_bit), (0, 1), 50)
    (_, blue), state = worlds.observe(), worlds.state()
    worlds.load_state({**state, "goal": 1 - state["goal"]})
    exchanged = exchanged_goal(blue)
    assert torch.equal(exchanged, worlds.observe()[1]) and not torch.equal(exchanged, blue)
    assert torch.equal(exchanged_goal(exchanged), blue)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pairing", [imagined_red(SIGHT), moved_red(SIGHT), perspective()])
def test_pairings_take_any_leading_shape(pairing: Pairing, size: int) -> None:
    pairs = pairing(torch.ones(2, 3, 4, RED.size), torch.ones(2, 3, 4, size), RandomStreams([0, 1], "pairs"))
    assert pairs.self_observation.shape == pairs.other_observation.shape == (2, 3, 4, size)
    assert pairs.valid.shape == (2, 3, 4)


def test_masks_read_their_fields() -> None:
    blue = torch.zeros(3, BLUE.size)
    blue[1, BLUE.red_position] = torch.tensor([0.0, 0.1])
    blue[2, BLUE.trapped] = 1.0
    assert red_unseen(blue).tolist() == [True, False, True]
    assert untrapped(blue).tolist() == [True, True, False]
    # With a visible bit, it alone says what is seen.
    bits = torch.tensor([[1.0], [0.0], [0.0]])
    assert red_unseen(torch.cat((blue, bits), dim=-1)).tolist() == [False, True, True]


def test_every_red_pairs_each_state_with_an_untrapped_red_with_itself_without_red() -> None:
    blue = torch.zeros(1, 3, BLUE.size)
    blue[0, 1, BLUE.red_position] = torch.tensor([0.1, -0.2])
    blue[0, 2, BLUE.trapped] = 1.0
    pairs = every_red(SIGHT)(torch.zeros(1, 3, RED.size), blue, RandomStreams([3], "pairs"))
    assert pairs.valid.tolist() == [[True, True, False]]
    assert red_unseen(pairs.self_observation).all()
    # Seen red stays where it is; unseen red is imagined in the sight disc.
    assert torch.equal(pairs.other_observation[0, 1], blue[0, 1])
    imagined = torch.linalg.vector_norm(pairs.other_observation[0, 0, BLUE.red_position])
    assert 0 < float(imagined) <= SIGHT
    rest = [i for i in range(BLUE.size) if i not in range(*BLUE.red_position.indices(BLUE.size))]
    assert torch.equal(pairs.other_observation[..., rest], blue[..., rest])
    moved = every_red_moved(SIGHT)(torch.zeros(1, 3, RED.size), blue, RandomStreams([3], "pairs"))
    assert not red_unseen(moved.self_observation).any()
    assert torch.equal(moved.other_observation, pairs.other_observation)
    assert not torch.equal(moved.self_observation[0, 0], moved.other_observation[0, 0])
