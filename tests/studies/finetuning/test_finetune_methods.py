"""Every loss against its equation in plain loops."""

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hand_made_agents import GAME, set_linear
from loss_references import (
    PAIRINGS,
    ROWS,
    SEEDS,
    SIGHT,
    SIZES,
    VARIANTS,
    Array,
    action,
    flat,
    gradients,
    make_actor,
    make_batch,
    make_sources,
    numpy,
    order_of,
    reference,
    rewound,
    shown,
)
from torch import Tensor

from soo_marl.envs.observations import (
    BLUE,
    BLUE_AGENT,
    RED_AGENT,
    ObservationPairs,
    red_unseen,
)
from soo_marl.random_streams import RandomStreams
from soo_marl.studies.finetuning.methods import (
    METHODS,
    blinded,
    goal_difference,
    method,
    perturbation,
    published_action_loss,
    random_direction,
    self_other_overlap,
    shuffled_pairs,
    state_difference,
    stay_close,
)


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
