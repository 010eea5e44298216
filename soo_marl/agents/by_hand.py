"""The gradients of MADDPG's two losses written out by hand, a block of runs at a time: an accelerator.

The equations stand in :mod:`soo_marl.agents.maddpg`, and a test holds this to them, gradient by gradient. It is faster
because nothing is recorded for automatic differentiation, and because a block's intermediate results stay in the
processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from soo_marl.agents.agent_networks import AgentNetworks
from soo_marl.agents.configuration import MADDPGConfig
from soo_marl.agents.networks import Activation, ContextCritic, StackedMLP
from soo_marl.agents.replay import Transitions

_NUMBERS_PER_LAYER = 65_536
"""Activations of one hidden layer that a block may hold: 256 KiB, a quarter of a common second-level cache."""

_LEAKY_SLOPE = 0.01


class Pass(NamedTuple):
    """What a forward pass leaves for the gradients; each ``[C, B, ...]`` for ``C`` runs."""

    inputs: Tensor
    """After scaling."""
    hidden_1: Tensor
    hidden_2: Tensor
    outputs: Tensor


class MLPBlock:
    """The networks of some runs of a stack.

    With inputs ``x`` and activation function ``f``: ``h_1 = f(W_1 x + b_1)``, ``h_2 = f(W_2 h_1 + b_2)``,
    ``y = W_3 h_2 + b_3``. Below, ``g_y`` is the gradient of the loss with respect to ``y``, and so on.

    Args:
        network: the whole stack. Its parameters and their ``grad`` may change, but must stay where they are.
        runs: which runs of it.
    """

    def __init__(self, network: StackedMLP, runs: slice) -> None:
        layers = (network.hidden_1.linear, network.hidden_2.linear, network.output)
        self.weights = [layer.weight.detach()[runs] for layer in layers]
        self.biases = [layer.bias.detach()[runs] for layer in layers]
        self.weight_gradients = [layer.weight.grad[runs] for layer in layers if layer.weight.grad is not None]
        self.bias_gradients = [layer.bias.grad[runs] for layer in layers if layer.bias.grad is not None]
        self.input_scale = network.input_scale[runs] if network.scales_input else None
        self.activation: Activation = network.activation

    def forward(self, inputs: Tensor) -> Pass:
        """Outputs ``[C, B, outputs]`` of inputs ``[C, B, inputs]``, and what the gradients need."""
        scaled = inputs if self.input_scale is None else inputs * self.input_scale
        hidden_1 = self._activate(torch.baddbmm(self.biases[0], scaled, self.weights[0].mT))
        hidden_2 = self._activate(torch.baddbmm(self.biases[1], hidden_1, self.weights[1].mT))
        return Pass(scaled, hidden_1, hidden_2, torch.baddbmm(self.biases[2], hidden_2, self.weights[2].mT))

    def fill_gradients(self, passed: Pass, gradient: Tensor) -> None:
        """Write the gradients of all parameters, given that of the outputs ``g_y`` ``[C, B, outputs]``."""
        # g_W3 = g_y h_2^T and g_b3 = g_y, summed over the batch; in the same way for the other layers.
        hidden_1, hidden_2 = self._hidden_gradients(passed, gradient)
        torch.bmm(gradient.mT, passed.hidden_2, out=self.weight_gradients[2])
        torch.bmm(hidden_2.mT, passed.hidden_1, out=self.weight_gradients[1])
        # The narrow matrix comes first: this is several times as fast as the transposed product with a few inputs.
        self.weight_gradients[0].copy_(torch.bmm(passed.inputs.mT, hidden_1).mT)
        for layer, output_gradient in enumerate((hidden_1, hidden_2, gradient)):
            torch.sum(output_gradient, dim=1, keepdim=True, out=self.bias_gradients[layer])

    def input_gradient(self, passed: Pass, gradient: Tensor, columns: slice) -> Tensor:
        """The gradient ``[C, B, columns]`` of some inputs, given that of the outputs ``g_y`` ``[C, B, outputs]``."""
        hidden_1, _ = self._hidden_gradients(passed, gradient)
        # Stored as [inputs, outputs], few inputs are several times as fast.
        weight = self.weights[0][:, :, columns].mT.contiguous()
        of_scaled = torch.bmm(hidden_1, weight.mT)
        return of_scaled if self.input_scale is None else of_scaled * self.input_scale[..., columns]

    def _hidden_gradients(self, passed: Pass, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """``g_1 = f'(h_1) W_2^T g_2`` and ``g_2 = f'(h_2) W_3^T g_y``, both before the activation function."""
        weight = self.weights[2]
        # A matrix product with a single column is far slower than what it stands for.
        hidden_2 = gradient * weight if weight.shape[1] == 1 else torch.bmm(gradient, weight)
        self._through_activation(hidden_2, passed.hidden_2)
        hidden_1 = torch.bmm(hidden_2, self.weights[1])
        self._through_activation(hidden_1, passed.hidden_1)
        return hidden_1, hidden_2

    def _activate(self, values: Tensor) -> Tensor:
        """Apply ``f`` in place."""
        if self.activation == "relu":
            return values.relu_()
        return torch.nn.functional.leaky_relu_(values, _LEAKY_SLOPE)

    def _through_activation(self, gradient: Tensor, hidden: Tensor) -> None:
        """Multiply a gradient in place by ``f'``, which both functions let one tell from the activation ``hidden``."""
        if self.activation == "relu":
            torch.ops.aten.threshold_backward.grad_input(gradient, hidden, 0, grad_input=gradient)
        else:
            torch.ops.aten.leaky_relu_backward.grad_input(gradient, hidden, _LEAKY_SLOPE, True, grad_input=gradient)


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


class RunBlock:
    """All networks of some runs, and their targets."""

    def __init__(self, networks: AgentNetworks, targets: AgentNetworks, runs: slice) -> None:
        self.runs = runs
        self.actors, self.target_actors = (
            [MLPBlock(actor, runs) for actor in each.actors] for each in (networks, targets)
        )
        self.critics, self.target_critics = (
            [CriticBlock(critic, runs) for critic in each.critics] for each in (networks, targets)
        )


class GradientsByHand:
    """Computes the gradients of both losses of a learner, cutting its runs into blocks; a GPU has them all in one.

    Args:
        networks: what learns; their parameters have a ``grad`` to be filled.
        targets: their targets.
        config: of the learner.
    """

    def __init__(self, networks: AgentNetworks, targets: AgentNetworks, config: MADDPGConfig) -> None:
        self.networks, self.targets, self.config = networks, targets, config
        self._blocks: dict[int, list[RunBlock]] = {}

    def of(self, batch: Transitions) -> BatchGradients:
        """Those for one minibatch ``[R, B, ...]``."""
        return BatchGradients(self.networks, self.config, self.blocks(batch.rewards.shape[1]), batch)

    def blocks(self, batch_size: int) -> list[RunBlock]:
        """The networks of all runs in blocks fit for minibatches of one size."""
        if batch_size not in self._blocks:
            runs = in_block = len(self.networks.seeds)
            if self.networks.device.type == "cpu":
                in_block = max(1, _NUMBERS_PER_LAYER // (batch_size * self.config.hidden_units))
            parts = [slice(first, min(first + in_block, runs)) for first in range(0, runs, in_block)]
            self._blocks[batch_size] = [RunBlock(self.networks, self.targets, part) for part in parts]
        return self._blocks[batch_size]


class BatchGradients:
    """Fills ``grad`` of one network at a time, from one minibatch."""

    def __init__(
        self, networks: AgentNetworks, config: MADDPGConfig, blocks: Sequence[RunBlock], batch: Transitions
    ) -> None:
        self.networks, self.config, self.blocks, self.batch = networks, config, blocks, batch
        self.parts = [batch.of_runs(block.runs) for block in blocks]
        self.joint = [torch.cat((*part.observations, *part.actions), dim=-1) for part in self.parts]
        self.next_joint = self._next_joint()

    def _next_joint(self) -> list[Tensor]:
        noises = [self._gumbel(agent) for agent in range(len(self.networks.actors))]
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
        losses = []
        for block, part, joint, next_joint in zip(self.blocks, self.parts, self.joint, self.next_joint, strict=True):
            _, next_value = block.target_critics[i].forward(next_joint, part.next_context)
            reward = part.rewards[..., i] * self.config.reward_scale
            y = reward + self.config.gamma * (1.0 - part.terminated) * next_value
            passes, value = block.critics[i].forward(joint, part.context)
            error = value - y
            losses.append(error.square().mean(dim=1))
            # The loss is the mean of (Q - y)^2.
            block.critics[i].fill_gradients(passes, error * (2.0 / error.shape[1]), part.context)
        return torch.cat(losses)

    def actor(self, i: int) -> tuple[Tensor, Tensor]:
        """Fill the gradients of agent ``i``'s actor; returns its loss and the value of its actions, each ``[R]``."""
        config, losses, values = self.config, [], []
        noise, columns = self._gumbel(i), self._action_columns(i)
        for block, part, joint in zip(self.blocks, self.parts, self.joint, strict=True):
            passed = block.actors[i].forward(part.observations[i])
            output = passed.outputs
            action = self._squash(output, noise, block.runs)
            joint = joint.clone()
            joint[..., columns] = action
            passes, value = block.critics[i].forward(joint, part.context)
            penalty = config.pre_squash_penalty * output.square().mean(dim=(1, 2))
            losses.append(penalty - config.weigh(value, part.context).mean(dim=1))
            values.append(value.mean(dim=1))
            # The loss is the mean of -Q, weighed, plus the penalty times the mean of output^2.
            of_value = config.weigh(torch.full_like(value, -1.0 / value.shape[1]), part.context)
            of_action = block.critics[i].input_gradient(passes, of_value, part.context, columns)
            of_output = self._squash_gradient(action, of_action)
            of_output += output * (2.0 * config.pre_squash_penalty / output[0].numel())
            block.actors[i].fill_gradients(passed, of_output)
        return torch.cat(losses), torch.cat(values)

    def _gumbel(self, agent: int) -> Tensor | None:
        """Noise ``[R, B, action size]`` for samples of discrete actions, drawn for all runs in one piece."""
        spaces = self.networks.spaces
        if not spaces.discrete:
            return None
        return self.networks.random.gumbel(self.batch.rewards.shape[1], spaces.action_sizes[agent])

    def _squash(self, outputs: Tensor, noise: Tensor | None, runs: slice) -> Tensor:
        return torch.tanh(outputs) if noise is None else torch.softmax(outputs + noise[runs], dim=-1)

    def _squash_gradient(self, action: Tensor, gradient: Tensor) -> Tensor:
        """The gradient before tanh or softmax, given that of the action."""
        if not self.networks.spaces.discrete:
            return gradient * (1.0 - action.square())
        return action * (gradient - (gradient * action).sum(dim=-1, keepdim=True))

    def _action_columns(self, agent: int) -> slice:
        """Where agent's action lies among the critic's inputs."""
        spaces = self.networks.spaces
        start = sum(spaces.observation_sizes) + sum(spaces.action_sizes[:agent])
        return slice(start, start + spaces.action_sizes[agent])
