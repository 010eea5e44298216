"""Multi-agent deep deterministic policy gradient (MADDPG), for stacks of independent runs.

Lowe, Wu, Tamar, Harb, Abbeel and Mordatch 2017, "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive
Environments" (arXiv 1706.02275). :meth:`MADDPG.update` is Algorithm 1, and the two losses below it are its equations;
everything else sets them up. :mod:`soo_marl.agents.by_hand` computes the gradients of both losses faster.

Every tensor has a leading axis of ``R`` runs (seeds and conditions). Losses are means within a run and sums over runs,
so the gradients, their clipping and Adam's moments of one run never touch another's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from soo_marl.agents.adam import StackedAdam, share_storage
from soo_marl.agents.agent_networks import AgentNetworks, below
from soo_marl.agents.by_hand import GradientsByHand
from soo_marl.agents.configuration import AgentSpaces, MADDPGConfig
from soo_marl.agents.networks import StackedMLP
from soo_marl.agents.replay import Transitions

AuxiliaryActorLoss = Callable[[int, StackedMLP, Transitions], Tensor]
"""Called as ``loss(agent, actor, batch)``; returns ``[R]``, added to that agent's actor loss."""


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
    """Learns the networks of ``R`` runs of ``A`` agents.

    Args:
        spaces, config, seeds, device, stream: as :class:`~soo_marl.agents.agent_networks.AgentNetworks` takes them.
        gradients: how those of both losses are computed: ``by_hand``, or by ``autograd``, which is the same up to
            rounding and takes longer.

    Raises:
        ValueError: there is no seed, one is given twice, or gradients are computed in neither way.
    """

    def __init__(
        self,
        spaces: AgentSpaces,
        config: MADDPGConfig,
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
        stream: str = "maddpg",
        gradients: Literal["by_hand", "autograd"] = "by_hand",
    ) -> None:
        if gradients not in ("by_hand", "autograd"):
            raise ValueError(f"gradients are computed by_hand or by autograd, not {gradients!r}")
        self.config, self.gradients = config, gradients
        self.networks = AgentNetworks(spaces, config, seeds, device, stream)
        """Actors and critics that learn."""
        self.targets = self.networks.copy()
        """Their slowly following copies."""
        self.spaces, self.seeds, self.device = spaces, self.networks.seeds, self.networks.device
        self.agents = len(spaces.observation_sizes)
        self.actor_optimisers = [self._adam(actor, config.actor_learning_rate) for actor in self.networks.actors]
        self.critic_optimisers = [self._adam(critic, config.critic_learning_rate) for critic in self.networks.critics]
        self._followed = [
            [
                (share_storage(self.targets.critics[i]), self.critic_optimisers[i].parameters),
                (share_storage(self.targets.actors[i]), self.actor_optimisers[i].parameters),
            ]
            for i in range(self.agents)
        ]
        self._by_hand = GradientsByHand(self.networks, self.targets, config)
        self._learning_rate_factor = 1.0
        self.largest_reward = torch.zeros(len(self.seeds), self.agents, dtype=torch.float64, device=self.device)
        """Largest size of a reward that each agent was seen to earn: ``[R, agents]``."""
        self.freeze(torch.zeros(len(self.seeds), dtype=torch.bool, device="cpu"))

    @torch.no_grad()
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
        shape = (3, len(self.seeds), self.agents)
        statistics = torch.full(shape, torch.nan, dtype=torch.float32, device=self.device)
        gradients = self._by_hand.of(batch) if self.gradients == "by_hand" else _GradientsByAutograd(self, batch)
        for i in learning:
            critic_loss = gradients.critic(i)
            self.critic_optimisers[i].step(self._frozen)
            actor_loss, value = gradients.actor(i)
            if auxiliary_actor_loss is not None:
                with torch.enable_grad():
                    auxiliary_loss = auxiliary_actor_loss(i, self.networks.actors[i], batch)
                fill_gradients(self.networks.actors[i], auxiliary_loss, add=True)
                actor_loss += auxiliary_loss.detach()
            self.actor_optimisers[i].step(self._frozen)
            statistics[:, :, i] = torch.stack((critic_loss, actor_loss, value))
        for i in learning:
            for target, source in self._followed[i]:
                target.lerp_(source, self.config.tau)  # theta' <- tau theta + (1 - tau) theta'
        return UpdateStatistics(*statistics.unbind())

    def critic_loss(self, i: int, batch: Transitions, next_actions: Sequence[Tensor]) -> Tensor:
        """Equation 6: ``E[(Q_i(o, a_1, ..., a_N) - y)^2]`` ``[R]``, ``y = r_i + gamma Q'_i(o', a'_1, ..., a'_N)``.

        Args:
            i: whose critic.
            batch: transitions ``[R, B, ...]``.
            next_actions: of all agents' target policies, ``a'_j = mu'_j(o'_j)``.
        """
        with torch.no_grad():
            next_value: Tensor = self.targets.critics[i](
                _joint(batch.next_observations, next_actions), batch.next_context
            )
            reward = batch.rewards[..., i] * self.config.reward_scale
            y = reward + self.config.gamma * (1.0 - batch.terminated) * next_value
        value: Tensor = self.networks.critics[i](_joint(batch.observations, batch.actions), batch.context)
        return (value - y).square().mean(dim=1)

    def actor_loss(self, i: int, batch: Transitions) -> tuple[Tensor, Tensor]:
        """Equation 5 descends ``-E[Q_i(o, a_1, ..., mu_i(o_i), ..., a_N)]``; here contexts weigh, and outputs cost.

        Args:
            i: whose actor; the other agents' actions are those of the batch.
            batch: transitions ``[R, B, ...]``.

        Returns:
            The loss, and the mean value of the actor's actions, each ``[R]``.
        """
        output = self.networks.actors[i](batch.observations[i])
        actions = [*batch.actions[:i], self.networks.squash(output), *batch.actions[i + 1 :]]
        value: Tensor = self.networks.critics[i](_joint(batch.observations, actions), batch.context)
        penalty = self.config.pre_squash_penalty * output.square().mean(dim=(1, 2))
        return penalty - self.config.weigh(value, batch.context).mean(dim=1), value.mean(dim=1)

    def scale_learning_rates(self, factor: float) -> None:
        """Set the learning rates to ``factor`` times the configured ones."""
        self._learning_rate_factor = factor
        for actor, critic in zip(self.actor_optimisers, self.critic_optimisers, strict=True):
            actor.learning_rate = self.config.actor_learning_rate * factor
            critic.learning_rate = self.config.critic_learning_rate * factor

    def freeze(self, runs: Tensor) -> None:
        """Let no further update change actors and critics of these runs (bool ``[R]`` on the CPU), and of no others."""
        self.frozen = runs
        self._frozen = runs.to(self.device) if bool(runs.any()) else None

    def networks_state(self) -> dict[str, Tensor]:
        """Copies of all networks and their targets, as named tensors with a leading axis of runs."""
        targets = self.targets.state()
        return self.networks.state() | {f"target_{name}": tensor for name, tensor in targets.items()}

    def load_networks(self, state: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`networks_state` returned; other entries of ``state`` are ignored.

        Raises:
            RuntimeError: the state is of another configuration.
        """
        self.networks.load_state(state)
        self.targets.load_state(below(state, "target_"))

    def take_agent(self, agent: int, source: MADDPG) -> None:
        """Take over one agent's networks and targets from another learner with the same runs, but not Adam's moments.

        Raises:
            RuntimeError: the networks are of other sizes, or there are not as many runs.
        """
        taken = {name: tensor for name, tensor in source.networks_state().items() if f"/{agent}/" in name}
        self.load_networks(self.networks_state() | taken)

    def state(self) -> dict[str, Tensor]:
        """Return copies of everything that changes while learning, as named tensors."""
        state = self.networks_state()
        for name, optimiser in self._optimisers().items():
            state.update({f"{name}/{key}": tensor for key, tensor in optimiser.state().items()})
        state["frozen"] = self.frozen.clone()
        # Files keep the shape that they had when rewards could be standardised.
        state["reward_statistics"] = nn.functional.pad(self.largest_reward[None], (0, 0, 0, 0, 3, 0))
        state["learning_rate_factor"] = torch.tensor(self._learning_rate_factor, dtype=torch.float64)
        state["gumbel_counter"] = torch.tensor(self.networks.random.counter)
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned.

        Raises:
            KeyError, RuntimeError: the state is of another configuration.
        """
        self.load_networks(state)
        for name, optimiser in self._optimisers().items():
            optimiser.load_state(below(state, f"{name}/"))
        self.freeze(state["frozen"].cpu())
        self.largest_reward.copy_(state["reward_statistics"][3])
        self.scale_learning_rates(float(state["learning_rate_factor"]))
        self.networks.random.counter = int(state["gumbel_counter"])

    def _optimisers(self) -> dict[str, StackedAdam]:
        named = {"actor_adam": self.actor_optimisers, "critic_adam": self.critic_optimisers}
        return {f"{name}/{agent}": optimiser for name, all in named.items() for agent, optimiser in enumerate(all)}

    def _adam(self, network: nn.Module, learning_rate: float) -> StackedAdam:
        return StackedAdam(network, learning_rate, self.config.gradient_clip, self.config.clip_scope)


class _GradientsByAutograd:
    """Fills ``grad`` of one network at a time by differentiating the learner's own losses on one batch."""

    def __init__(self, maddpg: MADDPG, batch: Transitions) -> None:
        self.maddpg, self.batch, targets = maddpg, batch, maddpg.targets
        pairs = zip(targets.actors, batch.next_observations, strict=True)
        self.next_actions = [targets.squash(actor(observation)) for actor, observation in pairs]

    @torch.enable_grad()
    def critic(self, i: int) -> Tensor:
        loss = self.maddpg.critic_loss(i, self.batch, self.next_actions)
        fill_gradients(self.maddpg.networks.critics[i], loss)
        return loss.detach()

    @torch.enable_grad()
    def actor(self, i: int) -> tuple[Tensor, Tensor]:
        loss, value = self.maddpg.actor_loss(i, self.batch)
        fill_gradients(self.maddpg.networks.actors[i], loss)
        return loss.detach(), value.detach()


def fill_gradients(network: nn.Module, loss: Tensor, add: bool = False) -> None:
    """Write the gradients of a network's parameters with respect to losses ``[R]``, or add them to what is there.

    A run's loss depends on its own parameters alone, so the gradient of the sum holds every run's own.
    """
    parameters = list(network.parameters())
    # A loss on hidden layers alone does not reach the output layer, and a constant reaches nothing.
    with torch.enable_grad():
        gradients = torch.autograd.grad(loss.sum(), parameters, allow_unused=True) if loss.requires_grad else ()
    for parameter, gradient in zip(parameters, gradients, strict=False):
        if parameter.grad is None:
            raise ValueError("the network's parameters have no gradients to fill: give it to an optimiser first")
        if gradient is not None:
            parameter.grad.add_(gradient) if add else parameter.grad.copy_(gradient)


def _joint(observations: Sequence[Tensor], actions: Sequence[Tensor]) -> Tensor:
    """What a critic sees: the observations and actions of all agents ``[R, B, inputs]``."""
    return torch.cat((*observations, *actions), dim=-1)
