"""The differences that keep what red does on average, against their equation."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from loss_references import ROWS, SEEDS, hidden, make_actor, make_batch, make_sources, numpy, rewound, shown

from soo_marl.envs.observations import every_red, every_red_moved, exchanged_goal, red_unseen, untrapped
from soo_marl.studies.finetuning.methods import (
    KEEP_GOAL_MEAN,
    KEEP_STATE_MEAN,
    Loss,
    kept_goal_difference,
    kept_state_difference,
    position_kept_goal_difference,
    position_kept_state_difference,
)

CASES = [
    (kept_goal_difference, every_red, KEEP_GOAL_MEAN),
    (position_kept_goal_difference, every_red_moved, KEEP_GOAL_MEAN),
    (kept_state_difference, every_red, KEEP_STATE_MEAN),
    (position_kept_state_difference, every_red_moved, KEEP_STATE_MEAN),
]


@pytest.mark.parametrize("size", [10, 11])
@pytest.mark.parametrize(("loss", "pairing", "keep"), CASES)
def test_kept_differences_follow_their_equation(
    loss: Loss, pairing: Callable[..., object], keep: float, size: int
) -> None:
    sources, actor, batch = make_sources(size=size), make_actor(size=size), make_batch(size=size)
    (given,) = shown(actor, lambda: loss(sources, actor, batch))
    state, partner, other, other_partner = torch.split(given, ROWS, dim=1)
    assert torch.equal(other_partner[..., :6], partner[..., :6])
    assert bool(red_unseen(state).all()) == (pairing is every_red) == bool(red_unseen(partner).all())
    counted = untrapped(batch.observations[1])
    if "goal" in loss.__name__:
        assert torch.equal(partner, exchanged_goal(state))
    else:
        # Partners are rows of the same minibatch, and must count themselves.
        counted = counted & untrapped(partner)
    expected = []
    for run in range(len(SEEDS)):
        errors = []
        for row in range(ROWS):
            if not counted[run, row]:
                continue
            seen = [numpy(side[run, row]) for side in (state, partner, other, other_partner)]
            now, before = ([hidden(network, run, one) for one in seen] for network in (actor, sources.initial))
            target = before[0] - before[1]
            tied = [np.mean((difference - target) ** 2) for difference in (now[0] - now[1], now[2] - now[3])]
            means = [np.mean(((now[i] + now[i + 1]) / 2 - (before[i] + before[i + 1]) / 2) ** 2) for i in (0, 2)]
            errors.append(sum(tied) / 2 + means[0] + keep * means[1])
        expected.append(np.mean(errors))
    assert loss(rewound(sources), actor, batch).tolist() == pytest.approx(expected, rel=1e-3)
    assert min(expected) > 0


@pytest.mark.parametrize("loss", [kept_goal_difference, kept_state_difference])
def test_an_agent_that_red_only_adds_to_need_not_change(loss: Loss) -> None:
    actor = make_actor()
    with torch.no_grad():
        # Far above the kink of the activation function, layers are linear: effects of goal and red add up.
        for layer in (actor.hidden_1, actor.hidden_2):
            layer.linear.bias.add_(100.0)
    sources = make_sources(initial=actor)
    assert loss(sources, actor, make_batch()).tolist() == pytest.approx([0.0] * len(SEEDS), abs=1e-5)
