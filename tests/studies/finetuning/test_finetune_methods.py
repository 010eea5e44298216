"""Every loss against its equation in plain loops, and what it does to the agents in an update."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hand_made_agents import GAME, baselines, finetuning, set_linear
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from soo_marl.agents.maddpg import MADDPG, MADDPGConfig
from soo_marl.agents.networks import StackedMLP
from soo_marl.agents.replay import Transitions
from soo_marl.envs.observations import (
    BLUE,
    RED,
    ObservationPairs,
    imagined_red,
    perspective,
    red_unseen,
    untrapped,
)
from soo_marl.random_streams import RandomStreams
from soo_marl.studies.agents_on_disk import agent_spaces
from soo_marl.studies.finetuning.configuration import treatment
from soo_marl.studies.finetuning.methods import (
    METHODS,
    Loss,
    Sources,
    blinded,
    goal_difference,
    method,
    perturbation,
    position_goal_difference,
    position_state_difference,
    position_tie,
    published_action_loss,
    random_direction,
    self_other_overlap,
    shuffled_pairs,
    state_difference,
    stay_close,
)
from soo_marl.studies.finetuning.training import FinetuneTask, WeightedLoss
from soo_marl.studies.recipes import BLUE as BLUE_AGENT
from soo_marl.studies.recipes import RED as RED_AGENT

Array = NDArray[np.float64]

SIGHT = 0.35
SEEDS = (4, 11)
ROWS = 12
SIZES = (BLUE.size, BLUE.size + 1)
LAYERS = ("hidden_1", "hidden_2")
TIES = {
    "soo": self_other_overlap,
    "perturbation": perturbation,
    "shuffled": shuffled_pairs,
    "position_tie": position_tie,
    "goal_difference": goal_difference,
    "state_difference": state_difference,
    "position_goal_difference": position_goal_difference,
    "position_state_difference": position_state_difference,
}
"""The losses between activations."""

PAIRINGS = {
    "imagined_red": imagined_red(SIGHT),
    "imagined_red, flag zeroed": imagined_red(SIGHT, zero_flag=True),
    "perspective": perspective(),
}


def make_actor(seeds: Sequence[int] = SEEDS, size: int = BLUE.size, stream: str = "actor") -> StackedMLP:
    """Small networks that act strongly."""
    scale = [1.0] * size
    scale[BLUE.red_position] = [1.0 / SIGHT] * 2
    return StackedMLP(
        size,
        2,
        hidden_units=6,
        activation="relu",
        normalisation="none",
        random=RandomStreams(seeds, stream),
        input_scale=scale,
    )


def make_batch(seeds: Sequence[int] = SEEDS, size: int = BLUE.size, draw: int = 0, actions: int = 2) -> Transitions:
    """Blue does not see red in every second row, red is trapped in every third, and absent in the last."""
    random = RandomStreams(seeds, f"batch/{draw}")

    def observations() -> tuple[Tensor, Tensor]:
        red, blue = random.uniform(ROWS, RED.size) * 2 - 1, random.uniform(ROWS, size) * 2 - 1
        # Goal is one of the landmarks.
        blue[:, :, BLUE.goal] = blue[:, :, BLUE.landmark_0]
        blue[:, 1::3, BLUE.goal] = blue[:, 1::3, BLUE.landmark_1]
        blue[..., BLUE.red_position] *= 0.3
        blue[..., BLUE.visible] = 1.0
        blue[:, ::2, BLUE.red_position] = 0.0
        blue[:, ::2, BLUE.visible] = 0.0
        blue[..., BLUE.trapped] = 0.0
        blue[:, ::3, BLUE.trapped] = 1.0
        red[:, -1] = 0.0
        return red, blue

    return Transitions(
        observations=observations(),
        actions=tuple(torch.tanh(random.normal(ROWS, actions)) for _ in range(2)),
        rewards=random.normal(ROWS, 2),
        next_observations=observations(),
        terminated=torch.zeros(len(seeds), ROWS),
        context=random.integers(2, ROWS),
        next_context=random.integers(2, ROWS),
    )


def make_sources(seeds: Sequence[int] = SEEDS, size: int = BLUE.size, **changes: Any) -> Sources:
    fields: dict[str, Any] = {
        "initial": make_actor(seeds, size, "initial").requires_grad_(False),
        "pairing": imagined_red(SIGHT),
        "sight_radius": SIGHT,
        "layers": LAYERS,
        "towards_initial": False,
        "untrapped_only": False,
        "discrete": False,
        "random": RandomStreams(seeds, "loss"),
    }
    return Sources(**(fields | changes))


def rewound(sources: Sources) -> Sources:
    """The same, about to draw the same numbers."""
    return replace(sources, random=RandomStreams(sources.random.seeds, sources.random.name))


def hidden(actor: StackedMLP, run: int, observation: Array, layers: Sequence[str] = LAYERS) -> Array:
    """Activations of one observation, by the definition of a network."""
    values = observation * actor.input_scale[run, 0].double().numpy()
    found = []
    for name in LAYERS:
        linear = getattr(actor, name).linear
        weight, bias = (part[run].detach().double().numpy() for part in (linear.weight, linear.bias))
        values = np.maximum(weight @ values + bias[0], 0.0)
        if name in layers:
            found.append(values)
    return np.concatenate(found)


def action(actor: StackedMLP, run: int, observation: Array) -> Array:
    weight, bias = (part[run].detach().double().numpy() for part in (actor.output.weight, actor.output.bias))
    output: Array = weight @ hidden(actor, run, observation, LAYERS[1:]) + bias[0]
    return output


Quadruple = tuple[Array, Array, Array, Array]


def reference(
    rows: Callable[[int, int], Quadruple | tuple[Array, Array] | None], sources: Sources, actor: StackedMLP, runs: int
) -> list[float]:
    """Mean over rows of what is tied: two activations, or two differences of activations.

    Args:
        rows: for a run and a row the observations ``(first, second)`` or ``(first, its partner, second, its partner)``;
            None where the row does not count.
    """

    def feature(network: StackedMLP, run: int, observations: Sequence[Array]) -> Array:
        one, *other = (hidden(network, run, observation, sources.layers) for observation in observations)
        return one - other[0] if other else one

    values = []
    for run in range(runs):
        errors = []
        for row in range(ROWS):
            given = rows(run, row)
            if given is None:
                continue
            half = len(given) // 2
            sides = [feature(actor, run, given[:half]), feature(actor, run, given[half:])]
            if sources.towards_initial:
                target = feature(sources.initial, run, given[:half])
                errors.append(np.mean([np.mean((target - side) ** 2) for side in sides]))
            else:
                errors.append(np.mean((sides[0] - sides[1]) ** 2))
        values.append(float(np.mean(errors)) if errors else 0.0)
    return values


def numpy(values: Tensor) -> Array:
    return values.detach().double().numpy()


def shown(actor: StackedMLP, call: Callable[[], object]) -> list[Tensor]:
    """What a network is given while something is done."""
    given: list[Tensor] = []
    handle = actor.register_forward_pre_hook(lambda module, arguments: given.append(arguments[0].detach().clone()))
    try:
        call()
    finally:
        handle.remove()
    return given


VARIANTS = [
    {},
    {"untrapped_only": True},
    {"towards_initial": True},
    {"layers": ("hidden_2",)},
    {"layers": ("hidden_1",), "untrapped_only": True, "towards_initial": True},
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_overlap_is_the_mean_squared_difference_over_valid_rows(
    variant: dict[str, Any], size: int, pairing: str
) -> None:
    sources = make_sources(size=size, pairing=PAIRINGS[pairing], **variant)
    actor, batch = make_actor(size=size), make_batch(size=size)
    red, blue = batch.observations
    pairs = sources.pairing(red, blue, rewound(sources).random)

    def rows(run: int, row: int) -> tuple[Array, Array] | None:
        present = bool((red[run, row] != 0).any())
        counts = row % 2 == 0 if pairing != "perspective" else present
        if not counts or (sources.untrapped_only and row % 3 == 0):
            return None
        return numpy(blue[run, row]), numpy(pairs.other_observation[run, row])

    expected = reference(rows, sources, actor, len(SEEDS))
    found = self_other_overlap(sources, actor, batch)
    assert found.tolist() == pytest.approx(expected, rel=1e-4)
    assert min(expected) > 0


def test_overlap_worked_by_hand() -> None:
    # One unit reads red's x, another minus its y; two layers of six units, of which the second is silent.
    def pair(red: Tensor, blue: Tensor, random: RandomStreams) -> ObservationPairs:
        other = blue.clone()
        other[..., BLUE.red_position] = torch.tensor([0.3, -0.2]) * SIGHT
        valid = torch.zeros(blue.shape[:-1], dtype=torch.bool)
        valid[0, :4] = True  # the second run has none
        return ObservationPairs(blue, other, valid)

    actor = make_actor()
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.zero_()
        actor.hidden_1.linear.weight[:, 0, 6] = 1.0
        actor.hidden_1.linear.weight[:, 1, 7] = -1.0
    batch = make_batch()
    batch.observations[BLUE_AGENT][..., BLUE.red_position] = 0.0
    loss = self_other_overlap(make_sources(pairing=pair), actor, batch)
    assert loss.tolist() == pytest.approx([(0.3**2 + 0.2**2) / 12, 0.0])
    torch.autograd.backward(loss.sum())
    for name, parameter in actor.named_parameters():
        if parameter.grad is not None:
            assert not parameter.grad[1].any(), f"{name} of a run without a valid row is pushed"
    # Twice the difference times the input, over twelve units.
    gradient = actor.hidden_1.linear.weight.grad
    assert gradient is not None
    assert float(gradient[0, 0, 6]) == pytest.approx(2 * 0.3 * 0.3 / 12)


def test_towards_the_initial_self_fixes_the_target() -> None:
    sources, actor = make_sources(towards_initial=True), make_actor()
    before = copy.deepcopy(sources.initial.state_dict())
    torch.autograd.backward(self_other_overlap(sources, actor, make_batch()).sum())
    assert all(parameter.grad is None for parameter in sources.initial.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in sources.initial.state_dict().items())
    same = replace(rewound(sources), initial=copy.deepcopy(actor).requires_grad_(False))
    # Its own self costs nothing, so half of the two-sided loss remains.
    both = self_other_overlap(replace(rewound(sources), towards_initial=False), actor, make_batch())
    assert self_other_overlap(same, actor, make_batch()).tolist() == pytest.approx((both / 2).tolist())


@pytest.mark.parametrize("size", SIZES)
def test_losses_on_actions(size: int) -> None:
    sources, actor, batch = make_sources(size=size), make_actor(size=size), make_batch(size=size)
    blue = batch.observations[BLUE_AGENT]
    expected = []
    for run in range(len(SEEDS)):
        squares = [
            (np.tanh(action(actor, run, numpy(row))) - np.tanh(action(sources.initial, run, numpy(row)))) ** 2
            for row in blue[run]
        ]
        expected.append(float(np.mean(squares)))
    assert stay_close(sources, actor, batch).tolist() == pytest.approx(expected, rel=1e-4)
    assert published_action_loss(sources, actor, batch).tolist() == pytest.approx(np.log(expected), rel=1e-4)


def test_losses_on_discrete_actions_compare_probabilities() -> None:
    sources, actor, batch = make_sources(discrete=True), make_actor(), make_batch()
    blue = batch.observations[BLUE_AGENT]
    expected = []
    for run in range(len(SEEDS)):
        squares = []
        for row in blue[run]:
            outputs = [np.exp(action(network, run, numpy(row))) for network in (actor, sources.initial)]
            squares.append((outputs[0] / outputs[0].sum() - outputs[1] / outputs[1].sum()) ** 2)
        expected.append(float(np.mean(squares)))
    assert stay_close(sources, actor, batch).tolist() == pytest.approx(expected, rel=1e-4)


def test_losses_on_actions_begin_without_a_push() -> None:
    actor = make_actor()
    sources = make_sources(initial=copy.deepcopy(actor).requires_grad_(False))
    batch = make_batch()
    assert stay_close(sources, actor, batch).tolist() == [0.0, 0.0]
    loss = published_action_loss(sources, actor, batch)
    assert loss.tolist() == pytest.approx([math.log(1e-25)] * 2)
    torch.autograd.backward(loss.sum())
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in actor.parameters())


def gradients(loss: Tensor, actor: StackedMLP) -> list[Tensor]:
    """Per parameter ``[R, ...]``, zeros where the loss does not reach."""
    parameters = list(actor.parameters())
    found = torch.autograd.grad(loss.sum(), parameters, allow_unused=True)
    return [
        torch.zeros_like(parameter) if gradient is None else gradient
        for parameter, gradient in zip(parameters, found, strict=True)
    ]


def flat(values: Sequence[Tensor]) -> Tensor:
    """One vector per run ``[R, P]``."""
    return torch.cat([value.flatten(1) for value in values], dim=1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_random_pushes_are_as_long_as_the_gradient_of_overlap(variant: dict[str, Any]) -> None:
    sources, actor, batch = make_sources(**variant), make_actor(), make_batch()
    real = flat(gradients(self_other_overlap(rewound(sources), actor, batch), actor)).norm(dim=1)
    loss = random_direction(sources, actor, batch)
    assert loss.tolist() == [0.0, 0.0]
    first = flat(gradients(loss, actor))
    assert first.norm(dim=1).tolist() == pytest.approx(real.tolist(), rel=1e-4)
    second = flat(gradients(random_direction(sources, actor, batch), actor))
    directions = [push / push.norm(dim=1, keepdim=True) for push in (first, second)]
    # Of 122 parameters: independent directions are nearly at right angles.
    assert (directions[0] * directions[1]).sum(dim=1).abs().max() < 0.5
    assert float((directions[0][0] * directions[0][1]).sum().abs()) < 0.5, "each run has a direction of its own"


def test_random_pushes_reach_every_parameter_and_vanish_where_overlap_has_no_gradient() -> None:
    sources, actor, batch = make_sources(), make_actor(), make_batch()
    pushes = gradients(random_direction(sources, actor, batch), actor)
    assert all(bool((push != 0).all()) for push in pushes), "the output layer too"
    seen = batch.observations[BLUE_AGENT]
    seen[0, :, BLUE.red_position] = 0.1
    pushes = gradients(random_direction(sources, actor, batch), actor)
    assert not any(push[0].any() for push in pushes)
    assert all(bool(push[1].any()) for push in pushes)


@pytest.mark.parametrize("size", SIZES)
def test_perturbations_are_as_large_as_red_is_far(size: int) -> None:
    sources, actor, batch = make_sources(size=size), make_actor(size=size), make_batch(size=size)
    (given,) = shown(actor, lambda: perturbation(sources, actor, batch))
    first, second = torch.split(given, ROWS, dim=1)
    blue = batch.observations[BLUE_AGENT]
    pairs = sources.pairing(batch.observations[RED_AGENT], blue, rewound(sources).random)
    assert torch.equal(first, blue)
    change = (second - first) * actor.input_scale
    distance = pairs.other_observation[..., BLUE.red_position] / SIGHT
    unseen = red_unseen(blue)
    assert change.norm(dim=-1)[unseen].tolist() == pytest.approx(distance.norm(dim=-1)[unseen].tolist(), rel=1e-3)
    assert torch.equal(second[..., BLUE.trapped.start :], blue[..., BLUE.trapped.start :])
    assert bool((change[..., : BLUE.trapped.start] != 0).all()), "every position is changed"
    angles = torch.nn.functional.cosine_similarity(change[:, 0], change[:, 2], dim=-1)
    assert bool((angles.abs() < 0.999).all()), "each row in a direction of its own"

    def rows(run: int, row: int) -> tuple[Array, Array] | None:
        return (numpy(first[run, row]), numpy(second[run, row])) if row % 2 == 0 else None

    found = perturbation(rewound(sources), actor, batch)
    assert found.tolist() == pytest.approx(reference(rows, sources, actor, len(SEEDS)), rel=1e-4)


def order_of(sources: Sources, pairing_draws: int) -> list[list[int]]:
    """The order in which a loss shuffles rows, after what its pairing draws."""
    random = rewound(sources).random
    random.counter = pairing_draws
    return [[int(index) for index in order] for order in random.uniform(ROWS).argsort(dim=1)]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", SIZES)
def test_shuffled_pairs_are_of_unrelated_states(variant: dict[str, Any], size: int) -> None:
    sources = make_sources(size=size, **variant)
    actor, batch = make_actor(size=size), make_batch(size=size)
    blue = batch.observations[BLUE_AGENT]
    pairs = rewound(sources).pairs(batch)
    (given,) = shown(actor, lambda: shuffled_pairs(sources, actor, batch))
    first, second = torch.split(given, ROWS, dim=1)
    assert torch.equal(first, blue)
    orders = order_of(sources, 2 * ROWS)
    assert orders[0] != orders[1], "each run has an order of its own"
    for run, order in enumerate(orders):
        assert sorted(order) == list(range(ROWS)) and order != sorted(order)
        assert torch.equal(second[run], pairs.other_observation[run, order])

    def rows(run: int, row: int) -> tuple[Array, Array] | None:
        partner = orders[run][row]
        counts = all(index % 2 == 0 and (index % 3 or not sources.untrapped_only) for index in (row, partner))
        return (numpy(first[run, row]), numpy(second[run, row])) if counts else None

    expected = reference(rows, sources, actor, len(SEEDS))
    assert shuffled_pairs(rewound(sources), actor, batch).tolist() == pytest.approx(expected, rel=1e-4)
    assert max(expected) > 0


def test_shuffling_draws_a_new_order_each_time() -> None:
    sources, values = make_sources(), torch.arange(ROWS).repeat(len(SEEDS), 1)
    orders = [sources.shuffle(values).tolist() for _ in range(3)]
    assert len({str(order) for order in orders}) == 3
    assert all(sorted(row) == list(range(ROWS)) for order in orders for row in order)
    # Everything of a row goes with it.
    wide = sources.shuffle(torch.stack((values, -values), dim=-1))
    assert torch.equal(wide[..., 0], -wide[..., 1])


@pytest.mark.parametrize("loss", [position_tie, position_goal_difference, position_state_difference])
@pytest.mark.parametrize("size", SIZES)
def test_controls_without_a_self_are_never_shown_an_observation_without_red(loss: Loss, size: int) -> None:
    sources, actor = make_sources(size=size), make_actor(size=size)
    given = shown(actor, lambda: loss(sources, actor, make_batch(size=size)))
    assert given and not any(bool(red_unseen(observations).any()) for observations in given)
    assert all(bool((observations[..., BLUE.red_position].norm(dim=-1) <= SIGHT).all()) for observations in given)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_position_tie_ties_two_positions_of_red(variant: dict[str, Any], size: int) -> None:
    sources = make_sources(size=size, **variant)
    actor, batch = make_actor(size=size), make_batch(size=size)
    (given,) = shown(actor, lambda: position_tie(sources, actor, batch))
    first, second = torch.split(given, ROWS, dim=1)
    blue = batch.observations[BLUE_AGENT]
    for side in (first, second):
        assert torch.equal(side[..., : BLUE.red_position.start], blue[..., : BLUE.red_position.start])
        assert torch.equal(side[..., BLUE.trapped], blue[..., BLUE.trapped])
    assert not (first[..., BLUE.red_position] == second[..., BLUE.red_position]).any()

    def rows(run: int, row: int) -> tuple[Array, Array] | None:
        counts = row % 2 == 0 and (row % 3 or not sources.untrapped_only)
        return (numpy(first[run, row]), numpy(second[run, row])) if counts else None

    expected = reference(rows, sources, actor, len(SEEDS))
    assert position_tie(rewound(sources), actor, batch).tolist() == pytest.approx(expected, rel=1e-4)


def exchanged(observation: Array) -> Array:
    """The goal's field holds the other landmark."""
    goal, first, second = observation[0:2], observation[2:4], observation[4:6]
    other = second if np.linalg.norm(goal - first) <= np.linalg.norm(goal - second) else first
    return np.concatenate((other, observation[2:]))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("loss", [goal_difference, position_goal_difference])
def test_difference_of_the_goal(loss: Loss, variant: dict[str, Any], size: int) -> None:
    sources = make_sources(size=size, **variant)
    actor, batch = make_actor(size=size), make_batch(size=size)
    (given,) = shown(actor, lambda: loss(sources, actor, batch))
    # In the order in which the losses show them.
    first, _, second, _ = torch.split(given, ROWS, dim=1)
    if loss is goal_difference:
        pairs = rewound(sources).pairs(batch)
        assert torch.equal(first, pairs.self_observation) and torch.equal(second, pairs.other_observation)

    def rows(run: int, row: int) -> Quadruple | None:
        if row % 2 or (row % 3 == 0 and sources.untrapped_only):
            return None
        one, other = numpy(first[run, row]), numpy(second[run, row])
        return one, exchanged(one), other, exchanged(other)

    expected = reference(rows, sources, actor, len(SEEDS))
    assert loss(rewound(sources), actor, batch).tolist() == pytest.approx(expected, rel=1e-3)
    assert min(expected) > 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("variant", [{}, {"untrapped_only": True, "towards_initial": True}])
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_difference_of_the_state(variant: dict[str, Any], size: int, pairing: str) -> None:
    sources = make_sources(size=size, pairing=PAIRINGS[pairing], **variant)
    actor, batch = make_actor(size=size), make_batch(size=size)
    pairs = rewound(sources).pairs(batch)
    orders = order_of(sources, 0 if pairing == "perspective" else 2 * ROWS)

    def rows(run: int, row: int) -> Quadruple | None:
        partner = orders[run][row]
        if not pairs.valid[run, row] or not pairs.valid[run, partner]:
            return None
        found: list[Array] = []
        for side in (pairs.self_observation[run], pairs.other_observation[run]):
            # The other state's, with red where it is in this one.
            state, other = numpy(side[row]), numpy(side[partner])
            other[BLUE.red_position], other[BLUE.visible] = state[BLUE.red_position], state[BLUE.visible]
            found += [state, other]
        return found[0], found[1], found[2], found[3]

    expected = reference(rows, sources, actor, len(SEEDS))
    assert state_difference(sources, actor, batch).tolist() == pytest.approx(expected, rel=1e-3)
    assert max(expected) > 0


def test_state_difference_between_positions() -> None:
    sources, actor, batch = make_sources(), make_actor(), make_batch()
    (given,) = shown(actor, lambda: position_state_difference(sources, actor, batch))
    first, first_partner, second, second_partner = torch.split(given, ROWS, dim=1)
    orders = order_of(sources, 4 * ROWS)
    for side, partner in ((first, first_partner), (second, second_partner)):
        assert torch.equal(side[..., BLUE.red_position], partner[..., BLUE.red_position])
        for run, order in enumerate(orders):
            assert torch.equal(partner[run, :, : BLUE.red_position.start], side[run, order, : BLUE.red_position.start])

    def rows(run: int, row: int) -> Quadruple | None:
        if row % 2 or orders[run][row] % 2:
            return None
        parts = [numpy(part[run, row]) for part in (first, first_partner, second, second_partner)]
        return parts[0], parts[1], parts[2], parts[3]

    expected = reference(rows, sources, actor, len(SEEDS))
    assert position_state_difference(rewound(sources), actor, batch).tolist() == pytest.approx(expected, rel=1e-3)


def test_differences_are_zero_where_red_only_adds() -> None:
    # With every unit far above zero the network is linear, so that red shifts its activations, whatever the goal is.
    actor = make_actor()
    with torch.no_grad():
        for layer in (actor.hidden_1, actor.hidden_2):
            layer.linear.bias.add_(10.0)
    batch = make_batch()
    assert self_other_overlap(make_sources(), actor, batch).detach().min() > 1e-3
    for loss in (goal_difference, state_difference, position_goal_difference, position_state_difference):
        assert loss(make_sources(), actor, batch).detach().max() < 1e-9, loss.__name__


@pytest.mark.parametrize("size", SIZES)
def test_an_actor_that_ignores_red_costs_nothing(size: int) -> None:
    actor, batch = make_actor(size=size), make_batch(size=size)
    with torch.no_grad():
        actor.hidden_1.linear.weight[:, :, BLUE.red_position] = 0.0
        actor.hidden_1.linear.weight[:, :, BLUE.visible] = 0.0
    for name in ("soo", "position_tie", "goal_difference", "state_difference"):
        assert TIES[name](make_sources(size=size), actor, batch).tolist() == [0.0, 0.0], name
    assert perturbation(make_sources(size=size), actor, batch).detach().min() > 0, "other fields are changed as well"
    assert shuffled_pairs(make_sources(size=size), actor, batch).detach().min() > 0


@given(seed=st.integers(0, 2**32), untrapped_only=st.booleans(), towards=st.booleans(), name=st.sampled_from([*TIES]))
@settings(max_examples=40, deadline=None)
def test_rows_that_do_not_count_have_no_influence(seed: int, untrapped_only: bool, towards: bool, name: str) -> None:
    seeds = (seed, seed + 1)
    actor, batch = make_actor(seeds), make_batch(seeds)
    sources = make_sources(seeds, untrapped_only=untrapped_only, towards_initial=towards)
    blue = batch.observations[BLUE_AGENT]
    changed = blue.clone()
    counts = red_unseen(blue) & (untrapped(blue) if untrapped_only else torch.ones_like(red_unseen(blue)))
    noise = RandomStreams(seeds, "noise").normal(ROWS, BLUE.size) * 100.0
    changed[~counts] += noise[~counts].nan_to_num()
    changed[..., BLUE.trapped] = blue[..., BLUE.trapped]
    other = replace(batch, observations=(batch.observations[RED_AGENT], changed))
    values = [TIES[name](rewound(sources), actor, of) for of in (batch, other)]
    assert torch.equal(values[0], values[1])
    assert bool((values[0] >= 0).all()) and bool(values[0].isfinite().all())
    # Gradients neither.
    pushes = [flat(gradients(TIES[name](rewound(sources), actor, of), actor)) for of in (batch, other)]
    torch.testing.assert_close(*pushes, rtol=1e-4, atol=1e-7)


def of_run(batch: Transitions, run: int) -> Transitions:
    return batch.of_runs(slice(run, run + 1))


@pytest.mark.parametrize("name", [name for name, entry in METHODS.items() if entry.loss])
def test_a_run_alone_is_pushed_as_in_a_stack(name: str) -> None:
    loss = METHODS[name].loss
    assert loss is not None
    actor, batch = make_actor(), make_batch()
    value = loss(make_sources(), actor, batch)
    stacked = flat(gradients(value, actor))
    value = value.detach()
    for run, seed in enumerate(SEEDS):
        alone_actor = make_actor([seed])
        alone_value = loss(make_sources([seed]), alone_actor, of_run(batch, run))
        assert alone_value.tolist() == pytest.approx([float(value[run])], rel=1e-5, abs=1e-12)
        alone = flat(gradients(alone_value, alone_actor))
        torch.testing.assert_close(alone[0], stacked[run], rtol=1e-4, atol=1e-7)


MADDPG_CONFIG = MADDPGConfig(hidden_units=8, contexts=2)


def learner_and_loss(name: str, seeds: Sequence[int] = SEEDS, **changes: Any) -> tuple[MADDPG, WeightedLoss | None]:
    """Agents that have moved a little since their fine-tuning began, and the loss of a method as studies use it."""
    config = finetuning(baselines(seeds=tuple(seeds), maddpg=MADDPG_CONFIG), [treatment(name, updates=6, **changes)])
    task = FinetuneTask(config, config.treatments[0], Path())
    learner = MADDPG(agent_spaces(GAME), config.maddpg, seeds)
    loss = task.auxiliary_loss(task.phases[0], learner)
    assert (loss is None) is (METHODS[name].loss is None)
    learner.update(make_batch(seeds, GAME_SIZE, draw=9), (BLUE_AGENT,))
    assert loss is None or isinstance(loss, WeightedLoss)
    return learner, loss


GAME_SIZE = 11
TRAINED = [name for name, entry in METHODS.items() if entry.trains]


def differing(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Networks and optimisers in which something differs, as ``name/agent``."""
    assert before.keys() == after.keys()
    return {"/".join(name.split("/")[:2]) for name in before if not torch.equal(before[name], after[name])}


OF_BLUE = {f"{name}/{BLUE_AGENT}" for name in ("actor", "target_actor", "critic", "target_critic")}


@pytest.mark.parametrize("name", TRAINED)
def test_an_update_leaves_red_and_other_runs_alone(name: str) -> None:
    batch, other = make_batch(size=GAME_SIZE), make_batch(size=GAME_SIZE, draw=1)
    # The second run meets something else.
    mixed = replace(
        batch,
        observations=tuple(torch.cat((ours[:1], theirs[1:])) for ours, theirs in pairs(batch, other)),
        rewards=torch.cat((batch.rewards[:1], other.rewards[1:])),
    )
    states = []
    for met in (batch, mixed):
        learner, loss = learner_and_loss(name)
        before = learner.networks_state()
        statistics = learner.update(met, (BLUE_AGENT,), loss)
        after = learner.networks_state()
        assert differing(before, after) == OF_BLUE
        assert bool(statistics.actor_loss[:, BLUE_AGENT].isfinite().all())
        assert all(bool(tensor.isfinite().all()) for tensor in after.values())
        states.append(after)
    for tensor, again in zip(*(state.values() for state in states), strict=True):
        assert torch.equal(tensor[0], again[0])
    assert not torch.equal(
        states[0]["actor/1/hidden_1.linear.weight"][1], states[1]["actor/1/hidden_1.linear.weight"][1]
    )


def pairs(one: Transitions, other: Transitions) -> list[tuple[Tensor, Tensor]]:
    return list(zip(one.observations, other.observations, strict=True))


@given(
    name=st.sampled_from([name for name, entry in METHODS.items() if entry.loss]),
    seed=st.integers(0, 10_000),
    weight=st.floats(0.01, 1000.0),
    both_learn=st.booleans(),
    towards=st.sampled_from(["both", "initial_self"]),
    pairing=st.sampled_from(["imagined_red", "perspective"]),
)
@settings(max_examples=40, deadline=None)
def test_the_loss_changes_blues_actor_and_nothing_else(
    name: str, seed: int, weight: float, both_learn: bool, towards: str, pairing: str
) -> None:
    seeds, learners = (seed, seed + 1), None if both_learn else (BLUE_AGENT,)
    batch = make_batch(seeds, GAME_SIZE)
    states, losses = [], []
    value = torch.zeros(2)
    for with_loss in (False, True):
        learner, loss = learner_and_loss(name, seeds, weight=weight, towards=towards, pairing=pairing)
        assert loss is not None
        if with_loss:
            value = loss(BLUE_AGENT, learner.actors[BLUE_AGENT], batch).detach()
            loss.load_state({"counter": torch.tensor(0), "calls": torch.tensor(0)})
        statistics = learner.update(batch, learners, loss if with_loss else None)
        losses.append(statistics.actor_loss)
        states.append(learner.state())
    actor = {f"{part}/{BLUE_AGENT}" for part in ("actor", "actor_adam", "target_actor")}
    assert differing(*states) == actor
    change = losses[1] - losses[0]
    torch.testing.assert_close(change[:, BLUE_AGENT], value, rtol=1e-3, atol=1e-5)
    assert not both_learn or change[:, RED_AGENT].tolist() == [0.0, 0.0]


def test_games_of_the_methods() -> None:
    game = GAME.replace(trap_reward=10.0, goal_reward_untrapped=0.0, guide_reward=3.0)
    for name, entry in METHODS.items():
        trained, evaluated = entry.training_game(game), entry.evaluation_game(game)
        assert trained.blind == (name == "blind") and evaluated.blind == (name in ("blind", "blank"))
        assert trained.guide_reward == 3.0
        paid = (trained.trap_reward, trained.goal_reward_untrapped)
        assert paid == ((0.0, None) if name == "honest_reward" else (10.0, 0.0))
        assert evaluated == (blinded(game) if evaluated.blind else game)
    assert [name for name, entry in METHODS.items() if not entry.trains] == ["blank"]


def test_unknown_methods_are_refused_with_those_there_are() -> None:
    assert method("soo") is METHODS["soo"]
    with pytest.raises(ValueError, match=r"there is no method 'sooo'; choose among soo, soo_action, .*honest_reward$"):
        method("sooo")


def test_overlap_descends() -> None:
    """A few steps down the gradient tie self and other."""
    actor, batch = make_actor(), make_batch()
    optimiser = torch.optim.SGD(actor.parameters(), lr=1.0)
    sources = make_sources()
    first = self_other_overlap(rewound(sources), actor, batch)
    for _ in range(20):
        optimiser.zero_grad()
        torch.autograd.backward(self_other_overlap(rewound(sources), actor, batch).sum())
        optimiser.step()
    assert bool((self_other_overlap(rewound(sources), actor, batch) < first / 2).all())


def test_a_blue_that_only_sees_red_is_all_overlap_and_no_difference() -> None:
    actor = make_actor()
    set_linear(actor, {0: (6, 1.0), 1: (7, 1.0)})
    batch = make_batch()
    assert self_other_overlap(make_sources(), actor, batch).detach().min() > 0
    for loss in (goal_difference, state_difference):
        assert loss(make_sources(), actor, batch).tolist() == [0.0, 0.0]
