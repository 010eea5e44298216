"""Multi-agent deep deterministic policy gradient (MADDPG), for stacks of independent runs.

Lowe, Wu, Tamar, Harb, Abbeel and Mordatch 2017, "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive
Environments" (arXiv 1706.02275). :meth:`MADDPG.update` is the algorithm; everything else sets it up.

Every tensor has a leading axis of ``R`` runs (seeds and conditions). Losses are means within a run and sums over runs,
so the gradients, their clipping and Adam's moments of one run never touch another's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from soo_marl.agents.configuration import AgentSpaces, MADDPGConfig
from soo_marl.agents.networks import ContextCritic, StackedMLP, target_copy
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
    "clip_per_run",
    "greedy_action",
    "soft_update",
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
        self.target_actors = [target_copy(actor) for actor in self.actors]
        self.target_critics = [target_copy(critic) for critic in self.critics]
        self.actor_optimisers = [self._adam(actor, config.actor_learning_rate) for actor in self.actors]
        self.critic_optimisers = [self._adam(critic, config.critic_learning_rate) for critic in self.critics]
        self._learning_rate_factor = 1.0
        self.reward_statistics = RewardStatistics(len(self.seeds), self.agents, self.device)
        self.random = RandomStreams(self.seeds, f"{stream}/gumbel", device)

    def act(self, observations: Sequence[Tensor], noise: Sequence[Tensor] | None = None) -> tuple[Tensor, ...]:
        """Choose actions ``[R, B, action size]`` for observations ``[R, B, observation size]`` of each agent.

        Without noise the policies are greedy: the mean action, or the one-hot most probable one, and no random number
        is drawn. With noise ``[R, B, action size]`` per agent, continuous actions are perturbed by it and clipped to
        [-1, 1]; discrete ones are relaxed Gumbel-softmax samples, whatever the noise.
        """
        with torch.no_grad():
            outputs = [actor.eval()(observation) for actor, observation in zip(self.actors, observations, strict=True)]
            if noise is None:
                return tuple(greedy_action(output, self.spaces.discrete) for output in outputs)
            if self.spaces.discrete:
                return tuple(self._squash(output) for output in outputs)
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
        with self._training_mode(learning):
            return self._update(batch, learning, auxiliary_actor_loss)

    def _update(
        self, batch: Transitions, learning: Sequence[int], auxiliary_actor_loss: AuxiliaryActorLoss | None
    ) -> UpdateStatistics:
        config, agents = self.config, range(self.agents)
        statistics = torch.full((3, len(self.seeds), self.agents), torch.nan, device=self.device)
        joint = torch.cat((*batch.observations, *batch.actions), dim=-1)
        with torch.no_grad():
            rewards = self.reward_statistics.standardise(batch.rewards) if config.standardise_rewards else batch.rewards
            next_actions = [self._squash(self.target_actors[j](batch.next_observations[j])) for j in agents]
            next_joint = torch.cat((*batch.next_observations, *next_actions), dim=-1)

        for i in learning:
            # Critic: y = r_i + gamma Q'_i(o', mu'(o')), loss (Q_i(o, a) - y)^2. Lowe et al., equation 6, Algorithm 1.
            with torch.no_grad():
                next_value = self.target_critics[i](next_joint, batch.next_context)
                target = rewards[..., i] * config.reward_scale + config.gamma * (1.0 - batch.terminated) * next_value
            critic_loss = (self.critics[i](joint, batch.context) - target).square().mean(dim=1)
            self._descend(self.critic_optimisers[i], critic_loss)

            # Actor: the gradient of Q_i(o, a_1, ..., mu_i(o_i), ..., a_N) with respect to mu_i. Algorithm 1.
            pre_squash = self.actors[i].train()(batch.observations[i])
            self.actors[i].eval()
            actions = list(batch.actions if config.others_actions == "replay" else self.act(batch.observations))
            actions[i] = self._squash(pre_squash)
            value = self.critics[i](torch.cat((*batch.observations, *actions), dim=-1), batch.context)
            penalty = config.pre_squash_penalty * pre_squash.square().mean(dim=(1, 2))
            actor_loss = -self._weigh_contexts(value, batch.context).mean(dim=1) + penalty
            if auxiliary_actor_loss is not None:
                actor_loss = actor_loss + auxiliary_actor_loss(i, self.actors[i], batch)
            self._descend(self.actor_optimisers[i], actor_loss)
            statistics[:, :, i] = torch.stack((critic_loss, actor_loss, value.mean(dim=1))).detach()

        for i in learning:
            soft_update(self.target_critics[i], self.critics[i], config.tau)
            soft_update(self.target_actors[i], self.actors[i], config.tau)
        return UpdateStatistics(*statistics.unbind())

    def scale_learning_rates(self, factor: float) -> None:
        """Set the learning rates to ``factor`` times the configured ones."""
        self._learning_rate_factor = factor
        for optimisers, rate in (
            (self.actor_optimisers, self.config.actor_learning_rate),
            (self.critic_optimisers, self.config.critic_learning_rate),
        ):
            for optimiser in optimisers:
                optimiser.param_groups[0]["lr"] = rate * factor

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
                for index, moments in optimiser.state_dict()["state"].items():
                    state.update({f"{name}/{agent}/{index}/{key}": tensor.clone() for key, tensor in moments.items()})
        state["reward_statistics"] = self.reward_statistics.sums.clone()
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
                moments: dict[int, dict[str, Tensor]] = {}
                for key, tensor in below(state, f"{name}/{agent}/").items():
                    index, _, moment = key.partition("/")
                    moments.setdefault(int(index), {})[moment] = tensor.clone()
                optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
        self.reward_statistics.sums.copy_(state["reward_statistics"])
        self.scale_learning_rates(float(state["learning_rate_factor"]))
        self.random.counter = int(state["gumbel_counter"])

    @contextmanager
    def _training_mode(self, learning: Sequence[int]) -> Iterator[None]:
        """Critics and targets of the learning agents normalise by batch, where they do; actors see to it themselves."""
        sets = (self.critics, self.target_critics, self.target_actors)
        networks = [networks[agent] for networks in sets for agent in learning]
        try:
            for network in networks:
                network.train()
            yield
        finally:
            for network in (*networks, *self.actors):
                network.eval()

    def _optimisers(self) -> dict[str, Sequence[torch.optim.Adam]]:
        return {"actor_adam": self.actor_optimisers, "critic_adam": self.critic_optimisers}

    def _modules(self) -> dict[str, Sequence[nn.Module]]:
        return {
            "actor": self.actors,
            "critic": self.critics,
            "target_actor": self.target_actors,
            "target_critic": self.target_critics,
        }

    def _squash(self, output: Tensor) -> Tensor:
        """Turn an actor's output into an action that carries gradients: tanh, or a Gumbel-softmax sample."""
        if not self.spaces.discrete:
            return torch.tanh(output)
        return torch.softmax(output + self.random.gumbel(*output.shape[1:]), dim=-1)

    def _weigh_contexts(self, value: Tensor, context: Tensor) -> Tensor:
        if self.config.context_weights is None:
            return value
        return value * torch.tensor(self.config.context_weights, device=value.device)[context]

    def _descend(self, optimiser: torch.optim.Adam, loss: Tensor) -> None:
        """One Adam step on the sum of losses ``[R]``, the gradient of each run clipped by itself."""
        parameters = optimiser.param_groups[0]["params"]
        gradients = torch.autograd.grad(loss.sum(), parameters)
        clip_per_run(gradients, self.config.gradient_clip, self.config.clip_scope)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimiser.step()

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

    @staticmethod
    def _adam(module: nn.Module, learning_rate: float) -> torch.optim.Adam:
        trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
        return torch.optim.Adam(trainable, lr=learning_rate, fused=True)


def greedy_action(output: Tensor, discrete: bool) -> Tensor:
    """The action ``[..., action size]`` of an actor's output without exploration."""
    if not discrete:
        return torch.tanh(output)
    one_hot: Tensor = nn.functional.one_hot(output.argmax(dim=-1), output.shape[-1])
    return one_hot.to(output.dtype)


def clip_per_run(gradients: Sequence[Tensor], largest: float, scope: Literal["network", "tensor"] = "network") -> None:
    """Scale down in place the gradients ``[R, ...]`` of each run whose norm exceeds ``largest``.

    The norm is taken over all tensors of a run (``network``) or over each tensor alone (``tensor``).
    """
    squares = torch.stack([gradient.flatten(1).square().sum(dim=1) for gradient in gradients])
    if scope == "network":
        squares = squares.sum(dim=0, keepdim=True).expand(len(gradients), -1)
    factors = (largest / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for gradient, factor in zip(gradients, factors, strict=True):
        gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))


def soft_update(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Move target parameters towards the source's: ``target <- (1 - tau) target + tau source``; buffers are copied."""
    with torch.no_grad():
        torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), tau)
        for target_buffer, source_buffer in zip(target.buffers(), source.buffers(), strict=True):
            target_buffer.copy_(source_buffer)


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries of a state whose names start with ``prefix``, without it."""
    return {key[len(prefix) :]: tensor for key, tensor in state.items() if key.startswith(prefix)}
