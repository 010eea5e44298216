"""The loop: what it collects, schedules, logs and refuses, and that interruptions leave no trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load, save
from torch import Tensor

from soo_marl.agents import MADDPG, AgentSpaces, MADDPGConfig, Trainer, TrainingConfig
from soo_marl.agents.trainer import Averages
from soo_marl.envs import BatchedPhysicalDeception, preset

SEEDS = (2, 0)


@dataclass(frozen=True)
class Counted:
    observations: tuple[Tensor, ...]
    rewards: Tensor
    terminated: Tensor
    truncated: bool


class CountingWorlds:
    """Worlds in which the observation counts steps from the episode's number times 100, and episodes last three steps.

    Agent 0 is paid 1 per step and agent 1 the number of the step. The event ``odd`` is 1 in world 1, does not apply in
    world 0; ``never`` applies nowhere.
    """

    observation_sizes: tuple[int, ...] = (1, 1)
    action_sizes: tuple[int, ...] = (1, 1)

    def __init__(self, runs: int = 2, worlds: int = 2) -> None:
        self.shape, self.steps, self.resets = (runs, worlds), 0, 0
        self.actions: list[tuple[Tensor, ...]] = []

    def reset(self) -> tuple[Tensor, ...]:
        self.resets += 1
        self.steps = (self.steps // 100 + 1) * 100
        return self.observe()

    def observe(self) -> tuple[Tensor, ...]:
        return (torch.full((*self.shape, 1), float(self.steps)),) * 2

    def step(self, actions: Sequence[Tensor]) -> Counted:
        self.actions.append(tuple(actions))
        self.steps += 1
        rewards = torch.stack((torch.ones(self.shape), torch.full(self.shape, float(self.steps % 100))), dim=-1)
        return Counted(self.observe(), rewards, torch.zeros(self.shape, dtype=torch.bool), self.steps % 100 == 3)

    def context(self) -> Tensor:
        return torch.full(self.shape, self.steps % 100)

    def events(self) -> Mapping[str, Tensor]:
        odd = torch.tensor([torch.nan, 1.0]).expand(self.shape)
        return {"odd": odd, "never": torch.full(self.shape, torch.nan)}

    def state(self) -> dict[str, Tensor]:
        return {"steps": torch.tensor(self.steps)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.steps = int(state["steps"])


def make(worlds: Any = None, discrete: bool = False, log: Any = None, **training: Any) -> Trainer:
    worlds = CountingWorlds() if worlds is None else worlds
    maddpg = MADDPG(
        AgentSpaces(worlds.observation_sizes, worlds.action_sizes, discrete), MADDPGConfig(hidden_units=4), SEEDS
    )
    settings = {"worlds": 2, "updates": 10, "steps_per_update": 2, "batch_size": 8, "warm_up": 0, "log_every": 2}
    return Trainer(maddpg, worlds, TrainingConfig(**(settings | training)), SEEDS, log=log)


# Collecting


def test_transitions_hold_the_true_next_observation_also_at_the_end_of_an_episode() -> None:
    trainer = make()
    for _ in range(4):
        trainer.collect()
    stored = trainer.replay.rows[0, :8:2]
    before, after = stored[:, 0].tolist(), stored[:, 6].tolist()
    assert before == [100, 101, 102, 200]
    assert after == [101, 102, 103, 201]
    # Not terminated, though the third step ends the episode; the context of the state and of the next one.
    assert stored[:, 8].tolist() == [0, 0, 0, 0]
    assert stored[:, 9].tolist() == [0, 1, 2, 0] and stored[:, 10].tolist() == [1, 2, 3, 1]


def test_counts_of_steps_updates_warm_up_and_episodes() -> None:
    trainer = make(updates=3, steps_per_update=2, warm_up=20)
    trainer.run()
    # Two steps before the first update, then up to twenty transitions of two worlds, then two more for each update.
    assert len(trainer.worlds.actions) == 10 + 2 + 2  # type: ignore[attr-defined]
    assert trainer.replay.size == 28 and trainer.updates == 3
    trainer.run()
    assert trainer.updates == 3


def test_warm_up_ends_where_the_buffer_is_full() -> None:
    trainer = make(updates=1, warm_up=1_000, replay_capacity=10)
    trainer.run()
    assert trainer.replay.size == 10


def test_noise_starts_afresh_with_every_episode() -> None:
    trainer = make()
    for _ in range(2):
        trainer.collect()
    assert bool(trainer.noises[0].state.any())
    trainer.collect()
    assert not bool(trainer.noises[0].state.any())


# Acting


def test_agents_that_do_not_learn_act_greedily_and_stay_as_they_are() -> None:
    trainer = make(learners=(1,))
    before = trainer.maddpg.networks_state()
    greedy, actions = trainer.maddpg.networks.act(trainer.observations), trainer.act()
    assert torch.equal(actions[0], greedy[0]) and not torch.equal(actions[1], greedy[1])
    trainer.run()
    for name, tensor in trainer.maddpg.networks_state().items():
        assert torch.equal(tensor, before[name]) == ("/0/" in name or "input_scale" in name), name


def test_discrete_agents_that_do_not_learn_act_one_hot_and_learners_sample() -> None:
    game = preset("trackable").replace(continuous_actions=False)
    trainer = make(BatchedPhysicalDeception(game, SEEDS, 2), discrete=True, learners=(1,))
    frozen, learner = trainer.act()
    assert bool(((frozen == 0) | (frozen == 1)).all()) and bool((frozen.sum(-1) == 1).all())
    assert bool((learner < 1).all()) and bool((learner > 0).all())


def test_noise_and_learning_rates_fall_linearly() -> None:
    trainer = make(noise_start=2.0, noise_end=1.0, learning_rate_end=0.2)
    rates = []
    for until in range(1, 11):
        trainer.run(until)
        rates.append(
            [
                optimiser.learning_rate
                for optimiser in (trainer.maddpg.actor_optimisers[0], trainer.maddpg.critic_optimisers[1])
            ]
        )
        assert trainer.noise_scale == pytest.approx(2.0 - until / 10)
    torch.testing.assert_close(torch.tensor(rates), (0.003 * (1 - 0.08 * torch.arange(10.0)))[:, None].expand(-1, 2))
    silent = make(noise_start=0.0)
    assert torch.equal(silent.act()[0], silent.maddpg.networks.act(silent.observations)[0])


def test_the_scale_multiplies_the_noise() -> None:
    one, half = make(noise_start=1.0), make(noise_start=0.5)
    greedy = one.maddpg.networks.act(one.observations)[0]
    torch.testing.assert_close(one.act()[0] - greedy, 2.0 * (half.act()[0] - greedy), rtol=1e-4, atol=1e-6)


# Logging


def test_logged_values_are_averages_since_the_last_entry() -> None:
    entries: list[tuple[int, Mapping[str, Tensor]]] = []
    trainer = make(
        updates=5, steps_per_update=3, noise_start=1.0, log=lambda done, metrics: entries.append((done, metrics))
    )
    trainer.run()
    assert [done for done, _ in entries] == [2, 4]
    losses = {f"{name}/{agent}" for name in ("critic_loss", "actor_loss", "value", "reward") for agent in (0, 1)}
    for _, metrics in entries:
        assert metrics.keys() == losses | {"odd", "never", "noise"}
        assert all(values.shape == (2,) and values.dtype == torch.float32 for values in metrics.values())
        assert metrics["odd"].tolist() == [1.0, 1.0] and bool(metrics["never"].isnan().all())
        assert metrics["reward/0"].tolist() == [1.0, 1.0]
        assert metrics["reward/1"].tolist() == [2.0, 2.0]
    assert entries[0][1]["noise"].tolist() == pytest.approx([0.6] * 2)


def test_metrics_of_agents_that_do_not_learn_are_left_out() -> None:
    entries: list[Mapping[str, Tensor]] = []
    make(learners=(1,), log=lambda done, metrics: entries.append(metrics)).run()
    assert "actor_loss/1" in entries[0] and "actor_loss/0" not in entries[0] and "reward/0" in entries[0]


def test_averages_leave_out_what_does_not_apply_and_count_beyond_float32() -> None:
    averages = Averages(2, torch.device("cpu"))
    averages.add("x", torch.tensor([[1.0, torch.nan], [torch.nan, torch.nan]]))
    averages.add("x", torch.tensor([[4.0, 4.0], [torch.nan, 5.0]]))
    assert averages.take()["x"].tolist() == [3.0, 5.0]
    assert averages.take() == {}
    averages.sums["y"] = torch.full((2, 2), 2.0**24, dtype=torch.float64)
    averages.add("y", torch.ones(2, 1))
    assert averages.sums["y"].tolist() == [[2.0**24 + 1] * 2] * 2


# Interruption


def real(discrete: bool = False, learners: tuple[int, ...] | None = None) -> tuple[Trainer, list[dict[str, Tensor]]]:
    game = preset("trackable").replace(
        episode_length=7, alone_share=0.4, trapped_start_share=0.3, continuous_actions=not discrete
    )
    worlds = BatchedPhysicalDeception(game, SEEDS, 4)
    config = MADDPGConfig(hidden_units=8, contexts=2, tau=0.2)
    maddpg = MADDPG(AgentSpaces(worlds.observation_sizes, worlds.action_sizes, discrete), config, SEEDS)
    training = TrainingConfig(
        worlds=4,
        updates=20,
        steps_per_update=2,
        batch_size=16,
        replay_capacity=50,
        warm_up=24,
        log_every=3,
        learning_rate_end=0.1,
        learners=learners,
    )
    log: list[dict[str, Tensor]] = []
    return Trainer(maddpg, worlds, training, SEEDS, log=lambda done, metrics: log.append(dict(metrics))), log


def assert_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=0, equal_nan=True, msg=name)


@pytest.mark.parametrize(("discrete", "learners"), [(False, None), (True, None), (False, (1,))])
def test_training_interrupted_anywhere_is_training_uninterrupted(
    discrete: bool, learners: tuple[int, ...] | None
) -> None:
    whole, whole_log = real(discrete, learners)
    whole.run()
    running, _ = real(discrete, learners)
    # Before anything, before and after the buffer is full, in the middle of episodes and of log entries.
    for stop in (0, 1, 4, 11, 18, 20):
        running.run(stop)
        stored = save(running.state())
        running.run(min(20, stop + 2))  # what comes later must not reach what was stored
        running, _ = real(discrete, learners)
        running.run(1)  # nor what was there before
        running.load_state(load(stored))
    assert_same(whole.state(), running.state())
    for one, other in zip(whole.observations, running.observations, strict=True):
        assert torch.equal(one, other)
    assert len(whole_log) == 6


def test_log_entries_go_on_after_an_interruption() -> None:
    whole, whole_log = real()
    whole.run()
    first, first_log = real()
    first.run(10)
    second, second_log = real()
    second.load_state(first.state())
    second.run()
    for one, other in zip(whole_log, first_log + second_log, strict=True):
        assert_same(one, other)


def test_states_of_something_else_are_refused() -> None:
    trainer, _ = real()
    trainer.run(2)
    state = trainer.state()
    with pytest.raises(KeyError):
        trainer.load_state({name: tensor for name, tensor in state.items() if name != "updates"})
    with pytest.raises(ValueError, match="stored noise"):
        trainer.load_state(state | {"noise/0": torch.zeros(1)})
    with pytest.raises(ValueError, match="stored position"):
        trainer.load_state(state | {"worlds/position": torch.zeros(1, 4, 2, 2)})


# Refusals


def test_parts_that_do_not_fit_together_are_refused() -> None:
    maddpg, config = make().maddpg, TrainingConfig(worlds=2)
    with pytest.raises(ValueError, match="3 worlds per run, but there are 2"):
        Trainer(maddpg, CountingWorlds(), TrainingConfig(worlds=3), SEEDS)
    with pytest.raises(ValueError, match="there are 2, 3 and 2 of them"):
        Trainer(maddpg, CountingWorlds(runs=3), config, SEEDS)
    with pytest.raises(ValueError, match="there are 2, 2 and 1 of them"):
        Trainer(maddpg, CountingWorlds(), config, SEEDS[:1])
    with pytest.raises(ValueError, match="each seed once"):
        Trainer(maddpg, CountingWorlds(), config, (1, 1))
    with pytest.raises(ValueError, match=r"observations \(1, 1\) .* the worlds have \(6, 10\)"):
        Trainer(maddpg, BatchedPhysicalDeception(preset("paper"), SEEDS, 2), config, SEEDS)
    for learners in ((), (2,), (-1,), (0, 0)):
        with pytest.raises(ValueError, match="learners must name some of the agents 0 to 1"):
            Trainer(maddpg, CountingWorlds(), TrainingConfig(worlds=2, learners=learners), SEEDS)
    with pytest.raises(ValidationError, match="world"):
        TrainingConfig(world=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("discrete", [False, True])
def test_every_tensor_is_made_on_the_device_that_was_given(discrete: bool) -> None:
    """Where no device is named, a tensor lands on a device that cannot compute."""
    with torch.device("meta"):
        trainer, log = real(discrete)
        trainer.run(6)
        states = [trainer.maddpg.networks_state(), trainer.replay.state(), trainer.averages.sums]
        state: dict[str, Tensor] = {}
        for part in states:
            state.update(part)
        counters = state.pop("counters")
    assert {tensor.device.type for tensor in (*state.values(), *log[-1].values())} == {"cpu"}
    assert counters.device.type == "meta"  # the trick works


def test_the_sessions_default_dtype_changes_nothing() -> None:
    def trained() -> dict[str, Tensor]:
        worlds = BatchedPhysicalDeception("trackable", SEEDS, 4)
        spaces = AgentSpaces(worlds.observation_sizes, worlds.action_sizes)
        settings = MADDPGConfig(hidden_units=8, contexts=2, context_weights=(1.0, 2.0))
        training = TrainingConfig(worlds=4, updates=4, warm_up=20, batch_size=8, log_every=2)
        trainer = Trainer(MADDPG(spaces, settings, SEEDS), worlds, training, SEEDS)
        trainer.run(2)
        trainer.load_state(trainer.state())
        trainer.run()
        return trainer.state()

    expected = trained()
    torch.set_default_dtype(torch.float64)
    try:
        found = trained()
    finally:
        torch.set_default_dtype(torch.float32)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, equal_nan=True, msg=name)
