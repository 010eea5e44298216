"""Runs that break down are stopped alone, in their last good state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from soo_marl.agents import MADDPG, AgentSpaces, MADDPGConfig
from soo_marl.agents.trainer import Trainer, TrainingConfig
from soo_marl.envs.batched_simple_adversary import BatchedSimpleAdversary, SimpleAdversaryConfig

SEEDS = (3, 1, 8)


def make(log: Any = None, stopped: Tensor | None = None, **config: Any) -> Trainer:
    worlds = BatchedSimpleAdversary(SimpleAdversaryConfig(continuous_actions=True), SEEDS, 2)
    spaces = AgentSpaces(worlds.observation_sizes, worlds.action_sizes)
    settings = {"worlds": 2, "updates": 20, "batch_size": 8, "warm_up": 16, "log_every": 5} | config
    learner = MADDPG(spaces, MADDPGConfig(hidden_units=8), SEEDS)
    return Trainer(learner, worlds, TrainingConfig(**settings), SEEDS, log=log, stopped=stopped)


def poison(trainer: Trainer, number: float) -> None:
    """Break the second run's critics, as a diverging run does."""
    for critic in trainer.maddpg.networks.critics:
        critic.get_parameter("networks.0.output.bias").data[1] = number


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -1e6])
def test_a_run_that_breaks_down_stops_alone_in_its_last_good_state(number: float) -> None:
    entries: list[Mapping[str, Tensor]] = []
    broken = make(lambda updates, metrics: entries.append(metrics))
    sound = make()
    for trainer in (broken, sound):
        trainer.run(10)
    good = broken.maddpg.networks_state()
    for trainer in (broken, sound):
        trainer.run(12)
    poison(broken, number)
    for trainer in (broken, sound):
        trainer.run()
    assert broken.stopped.tolist() == [-1, 10, -1] and sound.stopped.tolist() == [-1, -1, -1]
    for name, tensor in broken.maddpg.networks_state().items():
        assert torch.equal(tensor[[0, 2]], sound.maddpg.networks_state()[name][[0, 2]])
        assert torch.equal(tensor[1], good[name][1])
    for metrics in entries[2:]:
        assert all(bool(values[1].isnan()) for values in metrics.values())
        assert not bool(metrics["value/0"][[0, 2]].isnan().any())


def test_a_run_whose_policy_breaks_down_stands_still_until_it_is_stopped() -> None:
    """Worlds refuse actions that are not finite, and the other runs must go on."""
    trainer = make()
    trainer.run(11)
    trainer.maddpg.networks.actors[1].get_parameter("output.bias").data[1] = torch.nan
    trainer.collect()
    assert not bool(trainer.replay.rows[:, : trainer.replay.size].isnan().any())
    trainer.run()
    assert trainer.stopped.tolist() == [-1, 10, -1]


def test_a_break_after_the_last_log_entry_is_seen_at_the_end() -> None:
    trainer = make(updates=12)
    trainer.run(11)
    poison(trainer, torch.nan)
    trainer.run()
    assert trainer.stopped.tolist() == [-1, 10, -1]


def test_a_stopped_run_stays_stopped_in_the_next_stage() -> None:
    trainer = make(stopped=torch.tensor([-1, 0, -1]))
    before = trainer.maddpg.networks_state()
    trainer.run()
    for name, tensor in trainer.maddpg.networks_state().items():
        assert torch.equal(tensor[1], before[name][1])
        assert torch.equal(tensor[0], before[name][0]) == name.endswith("input_scale")
    assert trainer.stopped.tolist() == [-1, 0, -1]


@pytest.mark.parametrize("stop_at", [11, 13, 15])
def test_what_was_stopped_and_the_good_state_survive_an_interruption(stop_at: int) -> None:
    whole, first, second = make(), make(), make()
    for trainer in (whole, first):
        trainer.run(11)
        poison(trainer, torch.nan)
        trainer.run(stop_at)
    second.load_state(first.state())
    for trainer in (whole, second):
        trainer.run()
    assert second.stopped.tolist() == whole.stopped.tolist() == [-1, 10, -1]
    states = whole.maddpg.networks_state(), second.maddpg.networks_state()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_values_that_rewards_can_add_up_to_are_believed() -> None:
    trainer = make()
    trainer.run(5)
    # Everything earned so far is still in the replay buffer.
    earned = trainer.replay.sample(5_000).rewards.abs().amax(dim=1)
    torch.testing.assert_close(trainer.maddpg.largest_reward.float(), earned)
    largest = trainer.maddpg.largest_reward.amax(dim=1)
    believed = 10.0 * (1.0 + largest / 0.05)
    trainer.watch.look(6, (believed * 0.99).expand(3, 3).T.float())
    assert trainer.stopped.tolist() == [-1, -1, -1]
    trainer.watch.look(7, (believed * torch.tensor([1.01, 0.5, 0.5])).expand(3, 3).T.float())
    assert trainer.stopped.tolist() == [6, -1, -1]
