"""Actors and critics for stacks of independent runs: every parameter has a leading axis of runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from soo_marl.random_streams import RandomStreams

Activation = Literal["relu", "leaky_relu"]

HIDDEN_LAYERS = ("hidden_1", "hidden_2")
"""Layers of a :class:`StackedMLP` whose activations self-other overlap compares (paper: both hidden layers)."""

_ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}


class StackedLinear(nn.Module):
    """``R`` linear layers side by side: ``[R, B, inputs] -> [R, B, outputs]``.

    Weights ``[R, outputs, inputs]`` and biases ``[R, 1, outputs]`` start uniform in ``+- bound``, by default
    ``1 / sqrt(inputs)`` as torch's own linear layer, each run from its own stream.
    """

    def __init__(self, inputs: int, outputs: int, random: RandomStreams, bound: float | None = None) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(inputs) if bound is None else bound
        self.weight = nn.Parameter((random.uniform(outputs, inputs) * 2.0 - 1.0) * bound)
        self.bias = nn.Parameter((random.uniform(1, outputs) * 2.0 - 1.0) * bound)

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs ``[R, B, outputs]`` of inputs ``[R, B, inputs]``."""
        return torch.baddbmm(self.bias, inputs, self.weight.mT)


class StackedHidden(nn.Module):
    """One hidden layer with its activation function; a hook on it records the hidden activations ``[R, B, units]``."""

    def __init__(self, inputs: int, units: int, activation: Activation, random: RandomStreams) -> None:
        super().__init__()
        self.linear = StackedLinear(inputs, units, random)
        self.activation = _ACTIVATIONS[activation]()

    def forward(self, inputs: Tensor) -> Tensor:
        """Hidden activations ``[R, B, units]`` of inputs ``[R, B, inputs]``."""
        hidden: Tensor = self.activation(self.linear(inputs))
        return hidden


class StackedMLP(nn.Module):
    """``R`` multi-layer perceptrons side by side: ``[R, B, inputs] -> [R, B, outputs]``.

    The submodules ``hidden_1``, ``hidden_2`` and ``output`` can be recorded by name.

    Args:
        inputs, outputs: feature sizes.
        hidden_units: units of each hidden layer.
        activation: activation function of the hidden layers.
        random: one stream per run for the initial weights.
        input_scale: fixed factors ``[inputs]`` on the inputs.
        output_bound: initial bound of the output layer's weights; small values keep a squashed output from saturating.

    Raises:
        ValueError: ``input_scale`` has not one factor per input.
    """

    input_scale: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        hidden_units: int,
        activation: Activation,
        random: RandomStreams,
        input_scale: Sequence[float] | None = None,
        output_bound: float | None = None,
    ) -> None:
        super().__init__()
        self.runs = len(random.seeds)
        self.activation: Activation = activation
        self.hidden_1 = StackedHidden(inputs, hidden_units, activation, random)
        self.hidden_2 = StackedHidden(hidden_units, hidden_units, activation, random)
        self.output = StackedLinear(hidden_units, outputs, random, output_bound)
        self.scales_input = input_scale is not None
        if input_scale is not None and len(input_scale) != inputs:
            raise ValueError(f"input_scale must have one factor per input, {inputs} in all, not {len(input_scale)}")
        factors = [1.0] * inputs if input_scale is None else [*map(float, input_scale)]
        scale = torch.tensor(factors, dtype=torch.float32, device=self.output.weight.device)
        self.register_buffer("input_scale", scale.expand(self.runs, 1, inputs).contiguous())

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs ``[R, B, outputs]`` of inputs ``[R, B, inputs]``, neither squashed nor sampled."""
        if self.scales_input:
            inputs = inputs * self.input_scale
        outputs: Tensor = self.output(self.hidden_2(self.hidden_1(inputs)))
        return outputs


class ContextCritic(nn.Module):
    """One value network per context of the game; each transition is valued by the network of its own context.

    With one context this is an ordinary critic. Several keep apart situations whose values have little in common, for
    example an agent alone and the same agent among others.

    Args:
        networks: one network with a single output per context, in order.
    """

    def __init__(self, networks: Sequence[StackedMLP]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, inputs: Tensor, context: Tensor) -> Tensor:
        """Value ``[R, B]`` of joint observations and actions ``[R, B, inputs]`` in contexts ``[R, B]`` (int64)."""
        if len(self.networks) == 1:
            value: Tensor = self.networks[0](inputs)[..., 0]
            return value
        values = torch.cat([network(inputs) for network in self.networks], dim=-1)
        return values.gather(-1, context[..., None])[..., 0]
