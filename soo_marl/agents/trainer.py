"""Collect, update, log, checkpoint, resume: the loop around :class:`soo_marl.agents.maddpg.MADDPG`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from soo_marl.agents.agent_networks import below
from soo_marl.agents.divergence import DivergenceWatch
from soo_marl.agents.maddpg import MADDPG, AuxiliaryActorLoss
from soo_marl.agents.noise import OrnsteinUhlenbeckNoise
from soo_marl.agents.replay import ReplayBuffer, Transitions
from soo_marl.random_streams import RandomStreams, distinct_seeds


class Step(Protocol):
    """What one step of the worlds returns."""

    @property
    def observations(self) -> tuple[Tensor, ...]:
        """Per agent ``[R, E, size]``: what follows from the actions, also at the end of an episode."""

    @property
    def rewards(self) -> Tensor:
        """``[R, E, agents]``."""

    @property
    def terminated(self) -> Tensor:
        """``[R, E]`` bool: nothing more can be earned in this episode."""

    @property
    def truncated(self) -> bool:
        """The episodes are over, whatever the reason; the trainer then calls ``reset``."""


class Worlds(Protocol):
    """Worlds ``[R, E]`` that a trainer can learn in; all episodes start and end together."""

    shape: tuple[int, int]
    """``R`` runs and ``E`` worlds of each."""
    observation_sizes: tuple[int, ...]
    """Features of each agent's observation."""
    action_sizes: tuple[int, ...]
    """Numbers in each agent's action."""

    def reset(self) -> tuple[Tensor, ...]:
        """Start an episode in every world and return each agent's observation ``[R, E, size]``."""

    def observe(self) -> tuple[Tensor, ...]:
        """Return the present observations again."""

    def step(self, actions: Sequence[Tensor]) -> Step:
        """Advance all worlds under each agent's actions ``[R, E, size]``."""

    def context(self) -> Tensor:
        """Number the context of every world, ``[R, E]`` int64."""

    def events(self) -> Mapping[str, Tensor]:
        """Name facts ``[R, E]`` of the present state to average in logs, NaN where they do not apply."""

    def state(self) -> dict[str, Tensor]:
        """Return copies of everything needed to continue."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what ``state`` returned."""


class TrainingConfig(BaseModel):
    """How experience is collected and used; counts are per run. Immutable and validated.

    Raises:
        pydantic.ValidationError: a field is unknown, of the wrong type, or out of its range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

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
    noise_end: float = Field(
        0.0, ge=0, description="Factor on the noise reached after the last update; linear in between."
    )
    learning_rate_end: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Factor on both learning rates reached after the last update; linear from 1.",
    )
    learners: tuple[int, ...] | None = Field(
        None, description="Agents that learn, the others act greedily and stay as they are; all where none are given."
    )
    log_every: int = Field(
        50,
        ge=1,
        description="Updates between log entries, which average over all of them; a rest is not logged.",
    )


class Trainer:
    """Trains a MADDPG in worlds; may be interrupted after any update and continued from :meth:`state`.

    Args:
        maddpg: the learner, changed in place.
        worlds: where it learns, on the same device; they are reset.
        config: how.
        seeds: one seed per run.
        stream: prefix of the random streams, so that successive stages of one run draw different numbers.
        auxiliary_actor_loss: passed to every update.
        log: called as ``log(updates done, metrics)`` with metrics ``[R]`` by name.
        stopped: runs that were stopped in an earlier stage, as :attr:`stopped` of its trainer.

    Raises:
        ValueError: learner, worlds, configuration and seeds do not fit together.
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
        stopped: Tensor | None = None,
    ) -> None:
        self.learners = tuple(range(maddpg.agents)) if config.learners is None else config.learners
        _check_fit(maddpg, worlds, config, self.learners, distinct_seeds(seeds))
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
        self.updates = 0
        """Updates done so far."""
        self.observations = worlds.reset()
        self.context = worlds.context()
        self.averages = Averages(len(seeds), device)
        self.watch = DivergenceWatch(maddpg, stopped)

    @property
    def stopped(self) -> Tensor:
        """Int64 ``[R]``: updates done at the last good state of a run that broke down, -1 for one that goes on."""
        return self.watch.stopped

    def run(self, until: int | None = None) -> None:
        """Train until the given number of updates is done in all (by default the configured number).

        A run that breaks down is stopped alone (see :class:`soo_marl.agents.divergence.DivergenceWatch`).

        Metrics, averages per run between two log entries: ``reward/<agent>`` per step; ``critic_loss/<agent>``,
        ``actor_loss/<agent>`` and ``value/<agent>`` of learning agents; the worlds' events at the end of episodes; and
        ``noise``, the present factor on the exploration noise. Those of stopped runs are NaN.
        """
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
            logging = self.updates % self.config.log_every == 0
            if logging or self.updates == self.config.updates:
                noise = torch.full_like(statistics.value[:, 0], self.noise_scale)
                metrics = {**self.averages.take(), "noise": noise}
                self.watch.look(self.updates, torch.stack([metrics[f"value/{i}"] for i in self.learners], dim=1))
                if logging and self.log is not None:
                    goes_on = (self.stopped < 0).to(self.maddpg.device)
                    self.log(self.updates, {k: torch.where(goes_on, v, torch.nan) for k, v in metrics.items()})

    def collect(self) -> None:
        """One step of all worlds into the replay buffer."""
        # A run that has broken down acts NaN, which worlds refuse, until the watch looks: it stands still instead.
        actions = tuple(action.nan_to_num_() for action in self.act())
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
        largest = self.maddpg.largest_reward
        torch.maximum(largest, step.rewards.double().abs().amax(dim=1), out=largest)
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
        exploring = self.maddpg.networks.act(self.observations, [noise.sample() * scale for noise in self.noises])
        if len(self.learners) == self.maddpg.agents:
            return exploring
        greedy = self.maddpg.networks.act(self.observations)
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
        """Return copies of everything needed to continue as if never interrupted, as named tensors."""
        state = {f"maddpg/{name}": tensor for name, tensor in self.maddpg.state().items()}
        state.update({f"worlds/{name}": tensor for name, tensor in self.worlds.state().items()})
        state.update({f"replay/{name}": tensor for name, tensor in self.replay.state().items()})
        state.update({f"averages/{name}": tensor for name, tensor in self.averages.sums.items()})
        state.update({f"watch/{name}": tensor for name, tensor in self.watch.state().items()})
        for agent, noise in enumerate(self.noises):
            state[f"noise/{agent}"] = noise.state.clone()
        state["noise_counters"] = torch.tensor([noise.random.counter for noise in self.noises])
        state["updates"] = torch.tensor(self.updates)
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned, on whatever device it lies.

        Raises:
            KeyError, RuntimeError, ValueError: the state is of another configuration.
        """
        self.maddpg.load_state(below(state, "maddpg/"))
        self.worlds.load_state(below(state, "worlds/"))
        self.replay.load_state(below(state, "replay/"))
        self.averages.load(below(state, "averages/"))
        self.watch.load_state(below(state, "watch/"))
        for agent, noise in enumerate(self.noises):
            noise.load_state(state[f"noise/{agent}"], int(state["noise_counters"][agent]))
        self.updates = int(state["updates"])
        self.observations, self.context = self.worlds.observe(), self.worlds.context()


def _check_fit(
    maddpg: MADDPG, worlds: Worlds, config: TrainingConfig, learners: Sequence[int], seeds: Sequence[int]
) -> None:
    if not len(maddpg.seeds) == worlds.shape[0] == len(seeds):
        raise ValueError(
            f"learner, worlds and seeds must be of the same runs, but there are {len(maddpg.seeds)}, {worlds.shape[0]} "
            f"and {len(seeds)} of them"
        )
    if worlds.shape[1] != config.worlds:
        raise ValueError(f"the configuration is for {config.worlds} worlds per run, but there are {worlds.shape[1]}")
    spaces = maddpg.spaces
    if (spaces.observation_sizes, spaces.action_sizes) != (worlds.observation_sizes, worlds.action_sizes):
        raise ValueError(
            f"the learner is for observations {spaces.observation_sizes} and actions {spaces.action_sizes}, "
            f"the worlds have {worlds.observation_sizes} and {worlds.action_sizes}"
        )
    if not learners or len(set(learners)) != len(learners) or not set(learners) <= set(range(maddpg.agents)):
        raise ValueError(f"learners must name some of the agents 0 to {maddpg.agents - 1}, each once, not {learners}")


class Averages:
    """Running means per run of named values, where NaN stands for a value that does not apply.

    Args:
        runs: ``R``.
        device: where the sums lie.
    """

    def __init__(self, runs: int, device: torch.device) -> None:
        self.runs, self.device = runs, device
        self.sums: dict[str, Tensor] = {}
        """By name ``[2, R]`` float64: sum and count."""

    def add(self, name: str, values: Tensor) -> None:
        """Count values ``[R, ...]``."""
        values = values.detach().reshape(self.runs, -1)
        # In float32, counts would stop growing at 2^24.
        sums = torch.stack((values.nansum(dim=1, dtype=torch.float64), (~values.isnan()).sum(dim=1).double()))
        self.sums[name] = self.sums[name] + sums if name in self.sums else sums

    def take(self) -> dict[str, Tensor]:
        """Return the means ``[R]`` float32 (NaN over nothing) and start afresh."""
        means = {name: (total / count).float() for name, (total, count) in self.sums.items()}
        self.sums = {}
        return means

    def load(self, sums: Mapping[str, Tensor]) -> None:
        """Continue from ``sums`` of before."""
        self.sums = {name: total.to(self.device, copy=True) for name, total in sums.items()}
