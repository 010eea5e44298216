"""Multi-agent deep deterministic policy gradient (MADDPG), for stacks of independent runs.

Lowe, Wu, Tamar, Harb, Abbeel and Mordatch 2017, "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive Environments"
(arXiv 1706.02275). :meth:`MADDPG.update` is the algorithm; everything else sets it up.

Every tensor has a leading axis of ``R`` runs (seeds and conditions). Losses are means within a run and sums over runs, so the
gradients, their clipping and Adam's moments of one run never touch another's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from soo_marl.agents.networks import Activation, ContextCritic, Normalisation, StackedMLP
from soo_marl.agents.replay import Transitions
from soo_marl.random_streams import RandomStreams

AuxiliaryActorLoss = Callable[[int, StackedMLP, Transitions], Tensor]
"""Called as ``loss(agent, actor, batch)``; returns ``[R]``, added to that agent's actor loss."""


class MADDPGConfig(BaseModel):
    """Settings of the algorithm. Immutable and validated.

    Raises:
        pydantic.ValidationError: a field is unknown, of the wrong type, or out of its range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden_units: int = Field(64, ge=1, description="Units of each of the two hidden layers (Lowe et al.: 64).")
    activation: Activation = Field(
        "relu", description="Activation of the hidden layers (Lowe et al. relu; the paper's code leaky_relu)."
    )
    normalisation: Normalisation = Field(
        "none", description="Input normalisation: none, batch (the paper's code) or running statistics."
    )
    actor_learning_rate: float = Field(
        0.003,
        gt=0,
        description="Adam's step for actors. Too high: outputs saturate; too low: policies lag behind the critics.",
    )
    critic_learning_rate: float = Field(
        0.003,
        gt=0,
        description="Adam's step for critics. Too high: values oscillate; too low: actors follow stale values.",
    )
    gamma: float = Field(0.95, ge=0, le=1, description="Discount per step.")
    tau: float = Field(
        0.01,
        gt=0,
        le=1,
        description="Share by which target networks approach the trained ones in each update. "
        "Values propagate at a rate of about tau (1 - gamma) per update: too low is slow, too high unstable.",
    )
    gradient_clip: float = Field(0.5, gt=0, description="Largest norm of a run's gradient (both references: 0.5).")
    clip_scope: Literal["network", "tensor"] = Field(
        "network",
        description="Clip the gradient of a whole network (the paper's code) or of each tensor alone (openai/maddpg).",
    )
    pre_squash_penalty: float = Field(
        0.01,
        ge=0,
        description="Weight of the mean squared actor output before tanh or softmax in the actor loss "
        "(openai/maddpg: 0.001 on logits). Too low: actors saturate and stop learning; too high: actions stay timid.",
    )
    others_actions: Literal["replay", "policy"] = Field(
        "replay",
        description="Where the actor update takes the other agents' actions from (Lowe et al. equation 6: replay).",
    )
    contexts: int = Field(
        1, ge=1, description="Number of contexts the environment reports, each with a value network of its own."
    )
    context_weights: tuple[float, ...] | None = Field(
        None, description="Weight of each context's transitions in the actor loss; equal where none are given."
    )
    reward_scale: float = Field(
        1.0, gt=0, description="Fixed factor on rewards; brings values to the order of 10, which the critics fit best."
    )
    standardise_rewards: bool = Field(
        False,
        description="Subtract the mean and divide by the standard deviation of all rewards seen by an agent in a run "
        "(the paper's code).",
    )


@dataclass(frozen=True)
class AgentSpaces:
    """What the algorithm must know of the agents; index ``i`` is agent ``i`` everywhere."""

    observation_sizes: tuple[int, ...]
    action_sizes: tuple[int, ...]
    discrete: bool = False
    """Actions are points of a simplex (Gumbel-softmax) instead of forces in [-1, 1]."""
    observation_scales: tuple[tuple[float, ...], ...] | None = None
    """Fixed factors per agent and observation feature that bring the inputs of all networks to order 1."""


@dataclass(frozen=True)
class UpdateStatistics:
    """What one update did; each ``[R, agents]``, NaN for agents that did not learn."""

    critic_loss: Tensor
    actor_loss: Tensor
    value: Tensor
    """Mean value of the current policy's actions, in units of scaled reward."""


class MADDPG:
    """Actors, critics and their targets for ``R`` runs of ``A`` agents.

    Args:
        spaces: sizes of the agents' observations and actions.
        config: settings.
        seeds: one seed per run; all that is random in a run derives from it.
        device: where everything lies.
    """

    def __init__(
        self, spaces: AgentSpaces, config: MADDPGConfig, seeds: Sequence[int], device: torch.device | str = "cpu"
    ) -> None:
        self.spaces, self.config, self.seeds, self.device = spaces, config, tuple(seeds), torch.device(device)
        self.agents = len(spaces.observation_sizes)
        self.actors = [self._actor(agent) for agent in range(self.agents)]
        self.critics = [self._critic(agent) for agent in range(self.agents)]
        self.target_actors = [self._actor(agent) for agent in range(self.agents)]
        self.target_critics = [self._critic(agent) for agent in range(self.agents)]
        self.actor_optimisers = [self._adam(actor, config.actor_learning_rate) for actor in self.actors]
        self.critic_optimisers = [self._adam(critic, config.critic_learning_rate) for critic in self.critics]
        self.reward_statistics = RewardStatistics(len(self.seeds), self.agents, self.device)
        self.random = RandomStreams(seeds, "gumbel", device)

    def act(self, observations: Sequence[Tensor], noise: Sequence[Tensor] | None = None) -> tuple[Tensor, ...]:
        """Choose actions for observations ``[R, B, observation size]`` of each agent.

        Without noise the policies are greedy: the mean action, or the one-hot most probable one. With noise, continuous
        actions are perturbed by it and clipped to [-1, 1]; discrete ones are relaxed Gumbel-softmax samples, whatever the noise.
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
        config, agents = self.config, range(self.agents)
        statistics = torch.full((3, len(self.seeds), self.agents), torch.nan, device=self.device)
        joint = torch.cat((*batch.observations, *batch.actions), dim=-1)
        with torch.no_grad():
            rewards = self.reward_statistics.standardise(batch.rewards) if config.standardise_rewards else batch.rewards
            next_actions = [self._squash(self.target_actors[j](batch.next_observations[j])) for j in agents]
            next_joint = torch.cat((*batch.next_observations, *next_actions), dim=-1)

        learning = list(agents if learners is None else learners)
        for i in learning:
            # Critic: y = r_i + gamma Q'_i(o', mu'(o')), loss (Q_i(o, a) - y)^2. Lowe et al., equation 6 and Algorithm 1.
            with torch.no_grad():
                next_value = self.target_critics[i](next_joint, batch.next_context)
                target = rewards[..., i] * config.reward_scale + config.gamma * (1.0 - batch.terminated) * next_value
            critic_loss = (self.critics[i](joint, batch.context) - target).square().mean(dim=1)
            self._descend(self.critic_optimisers[i], critic_loss)

            # Actor: the gradient of Q_i(o, a_1, ..., mu_i(o_i), ..., a_N) with respect to mu_i. Algorithm 1.
            pre_squash = self.actors[i].train()(batch.observations[i])
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
        for optimisers, rate in (
            (self.actor_optimisers, self.config.actor_learning_rate),
            (self.critic_optimisers, self.config.critic_learning_rate),
        ):
            for optimiser in optimisers:
                optimiser.param_groups[0]["lr"] = rate * factor

    def state(self) -> dict[str, Tensor]:
        """Everything that changes while learning, as named tensors (all but the counters have a leading axis of runs)."""
        state = {}
        for name, modules in self._modules().items():
            for agent, module in enumerate(modules):
                state.update({f"{name}/{agent}/{key}": tensor for key, tensor in module.state_dict().items()})
        for name, optimisers in (("actor_adam", self.actor_optimisers), ("critic_adam", self.critic_optimisers)):
            for agent, optimiser in enumerate(optimisers):
                for index, moments in optimiser.state_dict()["state"].items():
                    state.update({f"{name}/{agent}/{index}/{key}": tensor for key, tensor in moments.items()})
        state["reward_statistics"] = self.reward_statistics.sums
        state["gumbel_counter"] = torch.tensor(self.random.counter)
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned.

        Raises:
            KeyError, RuntimeError: the state is of another configuration.
        """
        for name, modules in self._modules().items():
            for agent, module in enumerate(modules):
                module.load_state_dict(below(state, f"{name}/{agent}/"))
        for name, optimisers in (("actor_adam", self.actor_optimisers), ("critic_adam", self.critic_optimisers)):
            for agent, optimiser in enumerate(optimisers):
                moments: dict[int, dict[str, Tensor]] = {}
                for key, tensor in below(state, f"{name}/{agent}/").items():
                    index, _, moment = key.partition("/")
                    moments.setdefault(int(index), {})[moment] = tensor.clone()
                optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
        self.reward_statistics.sums.copy_(state["reward_statistics"])
        self.random.counter = int(state["gumbel_counter"])

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
            random=RandomStreams(self.seeds, f"actor/{agent}", self.device),
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
                    random=RandomStreams(self.seeds, f"critic/{agent}/{context}", self.device),
                    input_scale=scale,
                )
                for context in range(self.config.contexts)
            ]
        )

    @staticmethod
    def _adam(module: nn.Module, learning_rate: float) -> torch.optim.Adam:
        trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
        return torch.optim.Adam(trainable, lr=learning_rate, fused=True)


class RewardStatistics:
    """Running mean and standard deviation of the rewards of each run and agent."""

    def __init__(self, runs: int, agents: int, device: torch.device) -> None:
        self.sums = torch.zeros(3, runs, agents, dtype=torch.float64, device=device)
        """Count, sum and sum of squares."""

    def add(self, rewards: Tensor) -> None:
        """Count rewards ``[R, n, agents]``."""
        values = rewards.double()
        count = torch.full_like(self.sums[0], rewards.shape[1])
        self.sums += torch.stack((count, values.sum(dim=1), values.square().sum(dim=1)))

    def standardise(self, rewards: Tensor) -> Tensor:
        """Subtract the mean and divide by the standard deviation (by 1 where all rewards were the same)."""
        count, total, squares = self.sums
        mean = total / count.clamp(min=1)
        deviation = (squares / count.clamp(min=1) - mean.square()).clamp(min=0).sqrt()
        deviation = torch.where(deviation > 1e-6, deviation, 1.0)
        return ((rewards - mean[:, None]) / deviation[:, None]).to(rewards.dtype)


def greedy_action(output: Tensor, discrete: bool) -> Tensor:
    """The action ``[..., action size]`` of an actor's output without exploration."""
    if not discrete:
        return torch.tanh(output)
    return nn.functional.one_hot(output.argmax(dim=-1), output.shape[-1]).to(output.dtype)


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
