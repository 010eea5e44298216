"""What a loss does to the agents in an update, and what has no influence on it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hand_made_agents import GAME, baselines, finetuning
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_references import ROWS, SEEDS, TIES, flat, gradients, make_actor, make_batch, make_sources, rewound
from torch import Tensor

from soo_marl.agents import MADDPG, MADDPGConfig
from soo_marl.agents.replay import Transitions
from soo_marl.envs.observations import (
    BLUE,
    BLUE_AGENT,
    RED_AGENT,
    red_unseen,
    untrapped,
)
from soo_marl.random_streams import RandomStreams
from soo_marl.studies.finetuning.configuration import treatment
from soo_marl.studies.finetuning.methods import (
    METHODS,
)
from soo_marl.studies.finetuning.training import WeightedLoss, finetune_task
from soo_marl.studies.learning.agents_on_disk import agent_spaces


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
    task = finetune_task(config, config.treatments[0], Path())
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
            value = loss(BLUE_AGENT, learner.networks.actors[BLUE_AGENT], batch).detach()
            loss.load_state({"counter": torch.tensor(0), "calls": torch.tensor(0)})
        statistics = learner.update(batch, learners, loss if with_loss else None)
        losses.append(statistics.actor_loss)
        states.append(learner.state())
    actor = {f"{part}/{BLUE_AGENT}" for part in ("actor", "actor_adam", "target_actor")}
    assert differing(*states) == actor
    change = losses[1] - losses[0]
    torch.testing.assert_close(change[:, BLUE_AGENT], value, rtol=1e-3, atol=1e-5)
    assert not both_learn or change[:, RED_AGENT].tolist() == [0.0, 0.0]
