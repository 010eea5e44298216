"""The gradients of MADDPG's update written out by hand, a block of runs at a time.

It computes what :mod:`soo_marl.agents.gradients` computes, which reads more easily. It is faster because nothing is
recorded for automatic differentiation, and because a block's intermediate results stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from soo_marl.agents.mlp_block import MLPBlock, Pass
from soo_marl.agents.networks import ContextCritic, StackedMLP
from soo_marl.agents.replay import Transitions

if TYPE_CHECKING:
    from soo_marl.agents.maddpg import MADDPG

_NUMBERS_PER_LAYER = 65_536
"""Activations of one hidden layer that a block may hold: 256 KiB, a quarter of a common second-level cache."""


class CriticBlock:
    """The critics of some runs, one network per context (see ``ContextCritic``)."""

    def __init__(self, critic: ContextCritic, runs: slice) -> None:
        self.networks = [MLPBlock(network, runs) for network in critic.networks if isinstance(network, StackedMLP)]

    def forward(self, inputs: Tensor, context: Tensor) -> tuple[list[Pass], Tensor]:
        """What each context's network makes of joint inputs ``[C, B, inputs]``, and the value ``[C, B]``."""
        passes = [network.forward(inputs) for network in self.networks]
        if len(passes) == 1:
            return passes, passes[0].outputs[..., 0]
        values = torch.cat([passed.outputs for passed in passes], dim=-1)
        return passes, values.gather(-1, context[..., None])[..., 0]

    def fill_gradients(self, passes: Sequence[Pass], gradient: Tensor, context: Tensor) -> None:
        """Write the gradients of all parameters, given that of the value ``[C, B]``."""
        for number, (network, passed) in enumerate(zip(self.networks, passes, strict=True)):
            network.fill_gradients(passed, self._own(gradient, context, number))

    def input_gradient(self, passes: Sequence[Pass], gradient: Tensor, context: Tensor, columns: slice) -> Tensor:
        """The gradient ``[C, B, columns]`` of some inputs, given that of the value ``[C, B]``."""
        total, *others = (
            network.input_gradient(passed, self._own(gradient, context, number), columns)
            for number, (network, passed) in enumerate(zip(self.networks, passes, strict=True))
        )
        for other in others:
            total += other
        return total

    def _own(self, gradient: Tensor, context: Tensor, number: int) -> Tensor:
        """The part ``[C, B, 1]`` of a gradient that belongs to one context's network."""
        return (gradient if len(self.networks) == 1 else gradient * (context == number))[..., None]


@dataclass(frozen=True)
class RunBlock:
    """All networks of some runs."""

    runs: slice
    actors: list[MLPBlock]
    target_actors: list[MLPBlock]
    critics: list[CriticBlock]
    target_critics: list[CriticBlock]


class BlockGradients:
    """Computes the gradients of one update of a learner whose networks do not normalise their inputs.

    Args:
        maddpg: the learner.
        batch: transitions ``[R, B, ...]``.
        rewards: ``[R, B, agents]`` as the critics are to see them.
    """

    def __init__(self, maddpg: MADDPG, batch: Transitions, rewards: Tensor) -> None:
        self.maddpg, self.batch, self.rewards = maddpg, batch, rewards
        self.blocks = maddpg.blocks(batch.rewards.shape[1])
        self.parts = [batch.of_runs(block.runs) for block in self.blocks]
        self.joint = [torch.cat((*part.observations, *part.actions), dim=-1) for part in self.parts]
        self.next_joint = self._next_joint()

    def _next_joint(self) -> list[Tensor]:
        noises = [self._gumbel(agent) for agent in range(self.maddpg.agents)]
        joint = []
        for block, part in zip(self.blocks, self.parts, strict=True):
            actions = [
                self._squash(actor.forward(observation).outputs, noise, block.runs)
                for actor, observation, noise in zip(block.target_actors, part.next_observations, noises, strict=True)
            ]
            joint.append(torch.cat((*part.next_observations, *actions), dim=-1))
        return joint

    def critic(self, i: int) -> Tensor:
        """Fill the gradients of agent ``i``'s critic; returns its loss ``[R]``."""
        config, losses = self.maddpg.config, []
        for block, part, joint, next_joint in zip(self.blocks, self.parts, self.joint, self.next_joint, strict=True):
            _, next_value = block.target_critics[i].forward(next_joint, part.next_context)
            reward = self.rewards[block.runs, :, i] * config.reward_scale
            target = reward + config.gamma * (1.0 - part.terminated) * next_value
            passes, value = block.critics[i].forward(joint, part.context)
            error = value - target
            losses.append(error.square().mean(dim=1))
            # The loss is the mean of (Q - y)^2.
            block.critics[i].fill_gradients(passes, error * (2.0 / error.shape[1]), part.context)
        return torch.cat(losses)

    def actor(self, i: int) -> tuple[Tensor, Tensor]:
        """Fill the gradients of agent ``i``'s actor; returns its loss and the value of its actions, each ``[R]``."""
        config, losses, values = self.maddpg.config, [], []
        noise, columns = self._gumbel(i), self._action_columns(i)
        others = self.maddpg.act(self.batch.observations) if config.others_actions == "policy" else None
        for block, part, joint in zip(self.blocks, self.parts, self.joint, strict=True):
            passed = block.actors[i].forward(part.observations[i])
            pre_squash = passed.outputs
            action = self._squash(pre_squash, noise, block.runs)
            if others is None:
                joint = joint.clone()
            else:
                joint = torch.cat((*part.observations, *(other[block.runs] for other in others)), dim=-1)
            joint[..., columns] = action
            passes, value = block.critics[i].forward(joint, part.context)
            weights = self.maddpg.context_weights(part.context)
            weighed = value if weights is None else value * weights
            penalty = config.pre_squash_penalty * pre_squash.square().mean(dim=(1, 2))
            losses.append(penalty - weighed.mean(dim=1))
            values.append(value.mean(dim=1))
            # The loss is the mean of -Q plus the penalty times the mean of pre_squash^2.
            of_value = torch.full_like(value, -1.0 / value.shape[1])
            of_value = of_value if weights is None else of_value * weights
            of_action = block.critics[i].input_gradient(passes, of_value, part.context, columns)
            of_pre_squash = self._squash_gradient(action, of_action)
            of_pre_squash += pre_squash * (2.0 * config.pre_squash_penalty / pre_squash[0].numel())
            block.actors[i].fill_gradients(passed, of_pre_squash)
        return torch.cat(losses), torch.cat(values)

    def _gumbel(self, agent: int) -> Tensor | None:
        """Noise ``[R, B, action size]`` for samples of discrete actions, drawn for all runs in one piece."""
        spaces = self.maddpg.spaces
        if not spaces.discrete:
            return None
        return self.maddpg.random.gumbel(self.batch.rewards.shape[1], spaces.action_sizes[agent])

    def _squash(self, outputs: Tensor, noise: Tensor | None, runs: slice) -> Tensor:
        return torch.tanh(outputs) if noise is None else torch.softmax(outputs + noise[runs], dim=-1)

    def _squash_gradient(self, action: Tensor, gradient: Tensor) -> Tensor:
        """The gradient before tanh or softmax, given that of the action."""
        if not self.maddpg.spaces.discrete:
            return gradient * (1.0 - action.square())
        return action * (gradient - (gradient * action).sum(dim=-1, keepdim=True))

    def _action_columns(self, agent: int) -> slice:
        """Where agent's action lies among the critic's inputs."""
        spaces = self.maddpg.spaces
        start = sum(spaces.observation_sizes) + sum(spaces.action_sizes[:agent])
        return slice(start, start + spaces.action_sizes[agent])


def run_blocks(maddpg: MADDPG, batch_size: int) -> list[RunBlock]:
    """Cut a learner's runs into blocks for minibatches of one size; a GPU has them all in one block."""
    runs = len(maddpg.seeds)
    in_block = runs
    if maddpg.device.type == "cpu":
        in_block = max(1, _NUMBERS_PER_LAYER // (batch_size * maddpg.config.hidden_units))
    return [_run_block(maddpg, slice(first, min(first + in_block, runs))) for first in range(0, runs, in_block)]


def _run_block(maddpg: MADDPG, runs: slice) -> RunBlock:
    return RunBlock(
        runs,
        [MLPBlock(actor, runs) for actor in maddpg.actors],
        [MLPBlock(actor, runs) for actor in maddpg.target_actors],
        [CriticBlock(critic, runs) for critic in maddpg.critics],
        [CriticBlock(critic, runs) for critic in maddpg.target_critics],
    )
