"""Losses on differences, and between positions of red, against their equations in plain loops."""

from typing import Any

import numpy as np
import pytest
import torch
from loss_references import (
    PAIRINGS,
    ROWS,
    SEEDS,
    SIGHT,
    SIZES,
    TIES,
    VARIANTS,
    Array,
    Quadruple,
    make_actor,
    make_batch,
    make_sources,
    numpy,
    order_of,
    reference,
    rewound,
    shown,
)

from soo_marl.envs.observations import (
    BLUE,
    BLUE_AGENT,
    red_unseen,
)
from soo_marl.studies.finetuning.methods import (
    Loss,
    goal_difference,
    perturbation,
    position_goal_difference,
    position_state_difference,
    position_tie,
    self_other_overlap,
    shuffled_pairs,
    state_difference,
)


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
