"""The gradients of MADDPG's update as the paper writes them, by automatic differentiation.

This is the reference: :mod:`soo_marl.agents.block_update` computes the same faster, and a test holds it to this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from soo_marl.agents.replay import Transitions

if TYPE_CHECKING:
    from soo_marl.agents.maddpg import MADDPG


class Gradients(Protocol):
    """Fills ``grad`` of all parameters of one network at a time, from one batch."""

    def critic(self, i: int) -> Tensor:
        """Gradients of agent ``i``'s critic; returns its loss ``[R]``."""

    def actor(self, i: int) -> tuple[Tensor, Tensor]:
        """Gradients of agent ``i``'s actor; returns its loss and the mean value of its actions, each ``[R]``."""


class AutogradGradients:
    """Gradients by automatic differentiation, for any networks.

    Args:
        maddpg: the learner.
        batch: transitions ``[R, B, ...]``.
        rewards: ``[R, B, agents]`` as the critics are to see them.
    """

    def __init__(self, maddpg: MADDPG, batch: Transitions, rewards: Tensor) -> None:
        self.maddpg, self.batch, self.rewards = maddpg, batch, rewards
        self.joint = torch.cat((*batch.observations, *batch.actions), dim=-1)
        targets = zip(maddpg.target_actors, batch.next_observations, strict=True)
        with torch.no_grad():
            next_actions = [maddpg.squash(actor(observation)) for actor, observation in targets]
            self.next_joint = torch.cat((*batch.next_observations, *next_actions), dim=-1)

    def critic(self, i: int) -> Tensor:
        """y = r_i + gamma Q'_i(o', mu'(o')), loss (Q_i(o, a) - y)^2. Lowe et al., equation 6, Algorithm 1."""
        maddpg, batch, config = self.maddpg, self.batch, self.maddpg.config
        with torch.no_grad():
            next_value: Tensor = maddpg.target_critics[i](self.next_joint, batch.next_context)
            reward = self.rewards[..., i] * config.reward_scale
            target = reward + config.gamma * (1.0 - batch.terminated) * next_value
        with torch.enable_grad():
            value: Tensor = maddpg.critics[i](self.joint, batch.context)
            loss = (value - target).square().mean(dim=1)
        fill_gradients(maddpg.critics[i], loss)
        return loss.detach()

    def actor(self, i: int) -> tuple[Tensor, Tensor]:
        """The gradient of Q_i(o, a_1, ..., mu_i(o_i), ..., a_N) with respect to mu_i. Algorithm 1."""
        maddpg, batch, config = self.maddpg, self.batch, self.maddpg.config
        with torch.enable_grad():
            pre_squash = maddpg.actors[i].train()(batch.observations[i])
            maddpg.actors[i].eval()
            actions = list(batch.actions if config.others_actions == "replay" else maddpg.act(batch.observations))
            actions[i] = maddpg.squash(pre_squash)
            value = maddpg.critics[i](torch.cat((*batch.observations, *actions), dim=-1), batch.context)
            weights = maddpg.context_weights(batch.context)
            weighed = value if weights is None else value * weights
            penalty = config.pre_squash_penalty * pre_squash.square().mean(dim=(1, 2))
            loss = penalty - weighed.mean(dim=1)
        fill_gradients(maddpg.actors[i], loss)
        return loss.detach(), value.detach().mean(dim=1)


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
