"""Multi-agent deep deterministic policy gradient (MADDPG), for stacks of independent runs.

Lowe, Wu, Tamar, Harb, Abbeel and Mordatch 2017, "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive
Environments" (arXiv 1706.02275). :meth:`MADDPG.update` is the algorithm, with its equations
in :mod:`soo_marl.agents.gradients`; everything else sets it up.

Every tensor has a leading axis of ``R`` runs (seeds and conditions). Losses are means within a run and sums over runs,
so the gradients, their clipping and Adam's moments of one run never touch another's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from soo_marl.agents.adam import StackedAdam
from soo_marl.agents.block_update import BlockGradients, RunBlock, run_blocks
from soo_marl.agents.configuration import AgentSpaces, MADDPGConfig
from soo_marl.agents.gradients import AutogradGradients, Gradients, fill_gradients
from soo_marl.agents.networks import ContextCritic, SoftUpdate, StackedMLP, target_copy
from soo_marl.agents.replay import Transitions
from soo_marl.agents.reward_statistics import RewardStatistics
from soo_marl.random_streams import RandomStreams, distinct_seeds

__all__ = [
    "MADDPG",
    "AgentSpaces",
    "AuxiliaryActorLoss",
    "MADDPGConfig",
    "UpdateStatistics",
    "below",
    "greedy_action",
]

AuxiliaryActorLoss = Callable[[int, StackedMLP, Transitions], Tensor]
"""Called as ``loss(agent, actor, batch)``; returns ``[R]``, added to that agent's actor loss.

The actor is in evaluation mode, so that observations that the loss makes up neither use nor change batch statistics.
"""


@dataclass(frozen=True)
class UpdateStatistics:
    """What one update did; each ``[R, agents]``, NaN for agents that did not learn."""

    critic_loss: Tensor
    """Mean squared error of the critic, in squared units of scaled reward."""
    actor_loss: Tensor
    """What the actor descended, penalties and auxiliary loss included."""
    value: Tensor
    """Mean value of the current policy's actions, in units of scaled reward."""


class MADDPG:
    """Actors, critics and their targets for ``R`` runs of ``A`` agents.

    Outside :meth:`update` all networks are in evaluation mode, which matters to normalised ones alone.

    Args:
        spaces: sizes of the agents' observations and actions.
        config: settings.
        seeds: one seed per run; all that is random in a run derives from it.
        device: where everything lies.
        stream: prefix of the random streams; learners of one seed with different prefixes start from different weights.

    Raises:
        ValueError: there is no seed, or one is given twice.
    """

    def __init__(
        self,
        spaces: AgentSpaces,
        config: MADDPGConfig,
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
        stream: str = "maddpg",
    ) -> None:
        self.spaces, self.config, self.stream = spaces, config, stream
        self.seeds, self.device = distinct_seeds(seeds), torch.device(device)
        self.agents = len(spaces.observation_sizes)
        self.actors = [self._actor(agent).eval() for agent in range(self.agents)]
        self.critics = [self._critic(agent).eval() for agent in range(self.agents)]
        self.actor_optimisers = [self._adam(actor, config.actor_learning_rate) for actor in self.actors]
        self.critic_optimisers = [self._adam(critic, config.critic_learning_rate) for critic in self.critics]
        self.target_actors = [target_copy(actor) for actor in self.actors]
        self.target_critics = [target_copy(critic) for critic in self.critics]
        self._soft_updates = [
            (
                SoftUpdate(self.target_critics[agent], self.critics[agent], self.critic_optimisers[agent].parameters),
                SoftUpdate(self.target_actors[agent], self.actors[agent], self.actor_optimisers[agent].parameters),
            )
            for agent in range(self.agents)
        ]
        self._learning_rate_factor = 1.0
        self.gradients: type[AutogradGradients] | type[BlockGradients] = (
            BlockGradients if config.normalisation == "none" else AutogradGradients
        )
        """How gradients are computed: both ways agree up to rounding."""
        self._blocks: dict[int, list[RunBlock]] = {}
        self.freeze(torch.zeros(len(self.seeds), dtype=torch.bool, device="cpu"))
        self.reward_statistics = RewardStatistics(len(self.seeds), self.agents, self.device)
        self.random = RandomStreams(self.seeds, f"{stream}/gumbel", device)

    def act(self, observations: Sequence[Tensor], noise: Sequence[Tensor] | None = None) -> tuple[Tensor, ...]:
        """Choose actions ``[R, B, action size]`` for observations ``[R, B, observation size]`` of each agent.

        Without noise the policies are greedy: the mean action, or the one-hot most probable one, and no random number
        is drawn. With noise ``[R, B, action size]`` per agent, continuous actions are perturbed by it and clipped to
        [-1, 1]; discrete ones are relaxed Gumbel-softmax samples, whatever the noise.
        """
        with torch.no_grad():
            outputs = [actor(observation) for actor, observation in zip(self.actors, observations, strict=True)]
            if noise is None:
                return tuple(greedy_action(output, self.spaces.discrete) for output in outputs)
            if self.spaces.discrete:
                return tuple(self.squash(output) for output in outputs)
            return tuple(
                (torch.tanh(output) + extra).clamp_(-1.0, 1.0) for output, extra in zip(outputs, noise, strict=True)
            )

    def update(
        self,
        batch: Transitions,
        learners: Iterable[int] | None = None,
        auxiliary_actor_loss: AuxiliaryActorLoss | None = None,
    ) -> UpdateStatistics:
        """One gradient step for the critic and the actor of each learning agent, then the soft update of the targets.

        Args:
            batch: transitions ``[R, B, ...]``, each run's own.
            learners: indices of the agents that learn; all where none are given.
            auxiliary_actor_loss: added to the actor loss, for example self-other overlap.
        """
        learning = tuple(range(self.agents) if learners is None else learners)
        rewards = batch.rewards
        if self.config.standardise_rewards:
            rewards = self.reward_statistics.standardise(rewards)
        shape = (3, len(self.seeds), self.agents)
        statistics = torch.full(shape, torch.nan, dtype=torch.float32, device=self.device)
        with self._training_mode(learning), torch.no_grad():
            gradients: Gradients = self.gradients(self, batch, rewards)
            for i in learning:
                critic_loss = gradients.critic(i)
                self.critic_optimisers[i].step(self._frozen)
                actor_loss, value = gradients.actor(i)
                if auxiliary_actor_loss is not None:
                    actor_loss += self._add_gradient(auxiliary_actor_loss, i, batch)
                self.actor_optimisers[i].step(self._frozen)
                statistics[:, :, i] = torch.stack((critic_loss, actor_loss, value))
            for i in learning:
                for soft_update in self._soft_updates[i]:
                    soft_update(self.config.tau)
        return UpdateStatistics(*statistics.unbind())

    def scale_learning_rates(self, factor: float) -> None:
        """Set the learning rates to ``factor`` times the configured ones."""
        self._learning_rate_factor = factor
        for optimisers, rate in (
            (self.actor_optimisers, self.config.actor_learning_rate),
            (self.critic_optimisers, self.config.critic_learning_rate),
        ):
            for optimiser in optimisers:
                optimiser.learning_rate = rate * factor

    def networks_state(self) -> dict[str, Tensor]:
        """Copies of all networks and their targets, as named tensors with a leading axis of runs."""
        return {
            f"{name}/{agent}/{key}": tensor.clone()
            for name, modules in self._modules().items()
            for agent, module in enumerate(modules)
            for key, tensor in module.state_dict().items()
        }

    def load_networks(self, state: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`networks_state` returned; other entries of ``state`` are ignored.

        Raises:
            RuntimeError: the state is of another configuration.
        """
        for name, modules in self._modules().items():
            for agent, module in enumerate(modules):
                module.load_state_dict(below(state, f"{name}/{agent}/"))

    def take_agent(self, agent: int, source: MADDPG) -> None:
        """Take over one agent's networks and targets from another learner with the same runs, but not Adam's moments.

        Raises:
            RuntimeError: the networks are of other sizes, or there are not as many runs.
        """
        for name, modules in self._modules().items():
            modules[agent].load_state_dict(source._modules()[name][agent].state_dict())

    def state(self) -> dict[str, Tensor]:
        """Return copies of everything that changes while learning, as named tensors."""
        state = self.networks_state()
        for name, optimisers in self._optimisers().items():
            for agent, optimiser in enumerate(optimisers):
                state.update({f"{name}/{agent}/{key}": tensor for key, tensor in optimiser.state().items()})
        state["frozen"] = self.frozen.clone()
        state["reward_statistics"] = self.reward_statistics.values.clone()
        state["learning_rate_factor"] = torch.tensor(self._learning_rate_factor, dtype=torch.float64)
        state["gumbel_counter"] = torch.tensor(self.random.counter)
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned.

        Raises:
            KeyError, RuntimeError: the state is of another configuration.
        """
        self.load_networks(state)
        for name, optimisers in self._optimisers().items():
            for agent, optimiser in enumerate(optimisers):
                optimiser.load_state(below(state, f"{name}/{agent}/"))
        self.freeze(state["frozen"].cpu())
        self.reward_statistics.values.copy_(state["reward_statistics"])
        self.scale_learning_rates(float(state["learning_rate_factor"]))
        self.random.counter = int(state["gumbel_counter"])

    @contextmanager
    def _training_mode(self, learning: Sequence[int]) -> Iterator[None]:
        """Critics and targets of the learning agents normalise by batch, where they do; actors see to it themselves."""
        if self.config.normalisation == "none":
            yield
            return
        sets = (self.critics, self.target_critics, self.target_actors)
        networks = [networks[agent] for networks in sets for agent in learning]
        try:
            for network in networks:
                network.train()
            yield
        finally:
            for network in (*networks, *self.actors):
                network.eval()

    def _optimisers(self) -> dict[str, Sequence[StackedAdam]]:
        return {"actor_adam": self.actor_optimisers, "critic_adam": self.critic_optimisers}

    def _modules(self) -> dict[str, Sequence[nn.Module]]:
        return {
            "actor": self.actors,
            "critic": self.critics,
            "target_actor": self.target_actors,
            "target_critic": self.target_critics,
        }

    def squash(self, output: Tensor) -> Tensor:
        """Turn an actor's output into an action that carries gradients: tanh, or a Gumbel-softmax sample."""
        if not self.spaces.discrete:
            return torch.tanh(output)
        return torch.softmax(output + self.random.gumbel(*output.shape[1:]), dim=-1)

    def context_weights(self, context: Tensor) -> Tensor | None:
        """Weight of each transition in the actor loss, shaped as ``context``; None where all count the same."""
        if self.config.context_weights is None:
            return None
        weights = torch.tensor(self.config.context_weights, dtype=torch.float32, device=context.device)
        return weights[context]

    def blocks(self, batch_size: int) -> list[RunBlock]:
        """The networks of all runs in blocks fit for minibatches of one size."""
        if batch_size not in self._blocks:
            self._blocks[batch_size] = run_blocks(self, batch_size)
        return self._blocks[batch_size]

    def freeze(self, runs: Tensor) -> None:
        """Let no further update change actors and critics of these runs (bool ``[R]`` on the CPU), and of no others."""
        self.frozen = runs
        self._frozen = runs.to(self.device) if bool(runs.any()) else None

    def _add_gradient(self, loss: AuxiliaryActorLoss, agent: int, batch: Transitions) -> Tensor:
        """Add the gradient of a loss to that of an actor; returns the loss ``[R]``."""
        with torch.enable_grad():
            values = loss(agent, self.actors[agent], batch)
        fill_gradients(self.actors[agent], values, add=True)
        return values.detach()

    def _actor(self, agent: int) -> StackedMLP:
        spaces = self.spaces
        return StackedMLP(
            spaces.observation_sizes[agent],
            spaces.action_sizes[agent],
            hidden_units=self.config.hidden_units,
            activation=self.config.activation,
            normalisation=self.config.normalisation,
            random=RandomStreams(self.seeds, f"{self.stream}/actor/{agent}", self.device),
            input_scale=spaces.observation_scales[agent] if spaces.observation_scales else None,
            # A small first output keeps tanh from saturating before anything is learnt (the paper's code: 0.003).
            output_bound=None if spaces.discrete else 3e-3,
        )

    def _critic(self, agent: int) -> ContextCritic:
        spaces = self.spaces
        scale: tuple[float, ...] | None = None
        if spaces.observation_scales:
            scale = sum(spaces.observation_scales, ()) + (1.0,) * sum(spaces.action_sizes)
        return ContextCritic(
            [
                StackedMLP(
                    sum(spaces.observation_sizes) + sum(spaces.action_sizes),
                    1,
                    hidden_units=self.config.hidden_units,
                    activation=self.config.activation,
                    normalisation=self.config.normalisation,
                    random=RandomStreams(self.seeds, f"{self.stream}/critic/{agent}/{context}", self.device),
                    input_scale=scale,
                )
                for context in range(self.config.contexts)
            ]
        )

    def _adam(self, network: nn.Module, learning_rate: float) -> StackedAdam:
        return StackedAdam(network, learning_rate, self.config.gradient_clip, self.config.clip_scope)


def greedy_action(output: Tensor, discrete: bool) -> Tensor:
    """The action ``[..., action size]`` of an actor's output without exploration."""
    if not discrete:
        return torch.tanh(output)
    one_hot: Tensor = nn.functional.one_hot(output.argmax(dim=-1), output.shape[-1])
    return one_hot.to(output.dtype)


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries of a state whose names start with ``prefix``, without it."""
    return {key[len(prefix) :]: tensor for key, tensor in state.items() if key.startswith(prefix)}
