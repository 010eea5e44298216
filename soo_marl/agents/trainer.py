"""Collect, update, log, checkpoint, resume: the loop around :class:`soo_marl.agents.maddpg.MADDPG`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from soo_marl.agents.maddpg import MADDPG, AuxiliaryActorLoss, below
from soo_marl.agents.noise import OrnsteinUhlenbeckNoise
from soo_marl.agents.replay import ReplayBuffer, Transitions
from soo_marl.random_streams import RandomStreams


class Step(Protocol):
    """What one step of the worlds returns."""

    @property
    def observations(self) -> tuple[Tensor, ...]: ...
    @property
    def rewards(self) -> Tensor: ...
    @property
    def terminated(self) -> Tensor: ...
    @property
    def truncated(self) -> bool: ...


class Worlds(Protocol):
    """Worlds ``[R, E]`` that a trainer can learn in; all episodes start and end together.

    ``reset`` and ``step`` speak of observations and actions per agent ``[R, E, size]``. ``context`` numbers each world's
    context ``[R, E]``. ``events`` names facts ``[R, E]`` to average in logs, NaN where they do not apply.
    """

    shape: tuple[int, int]
    observation_sizes: tuple[int, ...]
    action_sizes: tuple[int, ...]

    def reset(self) -> tuple[Tensor, ...]: ...
    def observe(self) -> tuple[Tensor, ...]: ...
    def step(self, actions: Sequence[Tensor]) -> Step: ...
    def context(self) -> Tensor: ...
    def events(self) -> Mapping[str, Tensor]: ...
    def state(self) -> dict[str, Tensor]: ...
    def load_state(self, state: Mapping[str, Tensor]) -> None: ...


class TrainingConfig(BaseModel):
    """How experience is collected and used. Immutable and validated; counts are per run.

    Raises:
        pydantic.ValidationError: a field is unknown, of the wrong type, or out of its range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    worlds: int = Field(32, ge=1, description="Worlds that are stepped together.")
    updates: int = Field(1000, ge=1, description="Updates in all.")
    steps_per_update: int = Field(
        3, ge=1, description="Steps of all worlds between updates (32 worlds x 3 = 96 transitions)."
    )
    batch_size: int = Field(256, ge=1, description="Transitions per update.")
    replay_capacity: int = Field(100_000, ge=1, description="Transitions kept; the oldest go first.")
    warm_up: int = Field(2_000, ge=0, description="Transitions collected before the first update.")
    noise_theta: float = Field(
        0.15, gt=0, le=1, description="Pull of the exploration noise towards zero; 1 makes it white."
    )
    noise_sigma: float = Field(0.2, ge=0, description="Standard deviation of the noise's innovation.")
    noise_start: float = Field(1.0, ge=0, description="Factor on the noise at the first update.")
    noise_end: float = Field(0.0, ge=0, description="Factor on the noise at the last update; linear in between.")
    learning_rate_end: float = Field(
        1.0, gt=0, le=1, description="Factor on both learning rates at the last update; linear from 1 at the first."
    )
    learners: tuple[int, ...] | None = Field(
        None, description="Agents that learn, the others act greedily and stay as they are; all where none are given."
    )
    log_every: int = Field(50, ge=1, description="Updates between log entries, which average over all of them.")


class Trainer:
    """Trains a MADDPG in worlds, for a number of updates that may be interrupted anywhere and continued from ``state()``.

    Args:
        maddpg: the learner, changed in place.
        worlds: where it learns.
        config: how.
        seeds: one seed per run.
        stream: prefix of the random streams, so that successive stages of one run draw different numbers.
        auxiliary_actor_loss: passed to every update.
        log: called as ``log(updates done, metrics)`` with metrics ``[R]`` by name.
    """

    def __init__(
        self,
        maddpg: MADDPG,
        worlds: Worlds,
        config: TrainingConfig,
        seeds: Sequence[int],
        *,
        stream: str = "training",
        auxiliary_actor_loss: AuxiliaryActorLoss | None = None,
        log: Callable[[int, Mapping[str, Tensor]], None] | None = None,
    ) -> None:
        self.maddpg, self.worlds, self.config = maddpg, worlds, config
        self.auxiliary_actor_loss, self.log = auxiliary_actor_loss, log
        device = maddpg.device
        self.replay = ReplayBuffer(
            config.replay_capacity,
            worlds.observation_sizes,
            worlds.action_sizes,
            RandomStreams(seeds, f"{stream}/minibatches", device),
            device,
        )
        self.noises = [
            OrnsteinUhlenbeckNoise(
                (config.worlds, size),
                config.noise_theta,
                config.noise_sigma,
                RandomStreams(seeds, f"{stream}/noise/{agent}", device),
            )
            for agent, size in enumerate(worlds.action_sizes)
        ]
        self.learners = tuple(range(maddpg.agents)) if config.learners is None else config.learners
        self.updates = 0
        self.observations = worlds.reset()
        self.context = worlds.context()
        self.averages = Averages(len(seeds), device)

    def run(self, until: int | None = None) -> None:
        """Train until the given number of updates is done in all (by default the configured number)."""
        until = self.config.updates if until is None else until
        while self.updates < until:
            for _ in range(self.config.steps_per_update):
                self.collect()
            while self.replay.size < min(self.config.warm_up, self.config.replay_capacity):
                self.collect()
            self.maddpg.scale_learning_rates(1.0 + (self.config.learning_rate_end - 1.0) * self.progress)
            statistics = self.maddpg.update(
                self.replay.sample(self.config.batch_size), self.learners, self.auxiliary_actor_loss
            )
            self.updates += 1
            for agent in self.learners:
                self.averages.add(f"critic_loss/{agent}", statistics.critic_loss[:, agent])
                self.averages.add(f"actor_loss/{agent}", statistics.actor_loss[:, agent])
                self.averages.add(f"value/{agent}", statistics.value[:, agent])
            if self.updates % self.config.log_every == 0:
                metrics = {**self.averages.take(), "noise": torch.full((self.replay.runs,), self.noise_scale)}
                if self.log is not None:
                    self.log(self.updates, metrics)

    def collect(self) -> None:
        """One step of all worlds into the replay buffer."""
        actions = self.act()
        step = self.worlds.step(actions)
        next_context = self.worlds.context()
        self.replay.add(
            Transitions(
                observations=self.observations,
                actions=actions,
                rewards=step.rewards,
                next_observations=step.observations,
                terminated=step.terminated,
                context=self.context,
                next_context=next_context,
            )
        )
        self.maddpg.reward_statistics.add(step.rewards)
        for agent in range(self.maddpg.agents):
            self.averages.add(f"reward/{agent}", step.rewards[..., agent])
        self.observations, self.context = step.observations, next_context
        if step.truncated:
            for name, values in self.worlds.events().items():
                self.averages.add(name, values)
            self.observations, self.context = self.worlds.reset(), self.worlds.context()
            for noise in self.noises:
                noise.reset()

    def act(self) -> tuple[Tensor, ...]:
        """Actions for the present observations: exploring for agents that learn, greedy for the others."""
        scale = self.noise_scale
        exploring = self.maddpg.act(self.observations, [noise.sample() * scale for noise in self.noises])
        if len(self.learners) == self.maddpg.agents:
            return exploring
        greedy = self.maddpg.act(self.observations)
        return tuple(exploring[i] if i in self.learners else greedy[i] for i in range(self.maddpg.agents))

    @property
    def noise_scale(self) -> float:
        """The present factor on the exploration noise."""
        return self.config.noise_start + (self.config.noise_end - self.config.noise_start) * self.progress

    @property
    def progress(self) -> float:
        """Share of the updates that are done."""
        return min(1.0, self.updates / self.config.updates)

    def state(self) -> dict[str, Tensor]:
        """Everything needed to continue as if never interrupted, as named tensors."""
        state = {f"maddpg/{name}": tensor for name, tensor in self.maddpg.state().items()}
        state.update({f"worlds/{name}": tensor for name, tensor in self.worlds.state().items()})
        state.update({f"averages/{name}": tensor for name, tensor in self.averages.sums.items()})
        for agent, noise in enumerate(self.noises):
            state[f"noise/{agent}"] = noise.state
        counters = [self.replay.random.counter, *(noise.random.counter for noise in self.noises)]
        state["counters"] = torch.tensor(counters)
        state["progress"] = torch.tensor([self.updates, self.replay.size, self.replay.position])
        state["replay"] = self.replay.rows[:, : self.replay.size]
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned.

        Raises:
            KeyError, RuntimeError: the state is of another configuration.
        """
        self.maddpg.load_state(below(state, "maddpg/"))
        self.worlds.load_state(below(state, "worlds/"))
        self.averages.sums = {name: tensor.clone() for name, tensor in below(state, "averages/").items()}
        for agent, noise in enumerate(self.noises):
            noise.state = state[f"noise/{agent}"].clone()
        replay_counter, *noise_counters = (int(counter) for counter in state["counters"])
        self.replay.random.counter = replay_counter
        for noise, counter in zip(self.noises, noise_counters, strict=True):
            noise.random.counter = counter
        self.updates, self.replay.size, self.replay.position = (int(value) for value in state["progress"])
        self.replay.rows[:, : self.replay.size] = state["replay"]
        self.observations, self.context = self.worlds.observe(), self.worlds.context()


class Averages:
    """Running means per run of named values, where NaN stands for a value that does not apply."""

    def __init__(self, runs: int, device: torch.device) -> None:
        self.runs, self.device = runs, device
        self.sums: dict[str, Tensor] = {}
        """By name ``[2, R]``: sum and count."""

    def add(self, name: str, values: Tensor) -> None:
        """Count values ``[R, ...]``."""
        values = values.detach().reshape(self.runs, -1)
        sums = torch.stack((values.nansum(dim=1), (~values.isnan()).sum(dim=1))).float()
        self.sums[name] = self.sums[name] + sums if name in self.sums else sums

    def take(self) -> dict[str, Tensor]:
        """Return the means ``[R]`` (NaN over nothing) and start afresh."""
        means = {name: total / count for name, (total, count) in self.sums.items()}
        self.sums = {}
        return means
