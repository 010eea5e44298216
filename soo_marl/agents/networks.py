"""Actors and critics for stacks of independent runs: every parameter has a leading axis of runs."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from soo_marl.random_streams import RandomStreams

Activation = Literal["relu", "leaky_relu"]
Normalisation = Literal["none", "batch", "running"]

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

    def extra_repr(self) -> str:
        """What ``repr`` shows: the feature sizes."""
        return f"{self.weight.shape[2]}, {self.weight.shape[1]}"


class StackedNormalisation(nn.Module):
    """Normalises inputs per run and feature, with a learnt scale and shift when normalising by batch.

    ``batch`` is batch normalisation as in the paper's code: batch statistics in training mode, running ones in
    evaluation mode. Its running variance averages the biased batch variance, ``(B - 1) / B`` times what torch's own
    layer averages. ``running`` uses running statistics in both modes, so that acting and training see the same inputs.

    Args:
        kind: ``batch`` or ``running``.
        runs, inputs: sizes.
        device: where the statistics lie.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, kind: Literal["batch", "running"], runs: int, inputs: int, device: torch.device) -> None:
        super().__init__()
        self.kind = kind
        self.tracks = True
        """Whether passes in training mode move the running statistics. Target networks copy theirs instead."""
        self.momentum = 0.1 if kind == "batch" else 0.01
        self.register_buffer("mean", torch.zeros(runs, 1, inputs, dtype=torch.float32, device=device))
        self.register_buffer("variance", torch.ones(runs, 1, inputs, dtype=torch.float32, device=device))
        if kind == "batch":
            self.scale = nn.Parameter(torch.ones(runs, 1, inputs, dtype=torch.float32, device=device))
            self.shift = nn.Parameter(torch.zeros(runs, 1, inputs, dtype=torch.float32, device=device))

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalised inputs ``[R, B, inputs]``; in training mode the running statistics follow the batch."""
        mean, variance = self.mean, self.variance
        if self.training:
            batch_variance, batch_mean = torch.var_mean(inputs, dim=1, keepdim=True, correction=0)
            if self.tracks:
                with torch.no_grad():
                    self.mean.lerp_(batch_mean, self.momentum)
                    self.variance.lerp_(batch_variance, self.momentum)
            if self.kind == "batch":
                mean, variance = batch_mean, batch_variance
        normalised = (inputs - mean) * torch.rsqrt(variance + 1e-5)
        return normalised * self.scale + self.shift if self.kind == "batch" else normalised

    def extra_repr(self) -> str:
        """What ``repr`` shows: the kind and the number of features."""
        return f"{self.kind}, {self.mean.shape[-1]}"


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

    The two hidden layers are the submodules ``hidden_1`` and ``hidden_2``; hooks on them record hidden activations.

    Args:
        inputs, outputs: feature sizes.
        hidden_units: units of each hidden layer.
        activation: activation function of the hidden layers.
        normalisation: input normalisation, see :class:`StackedNormalisation`.
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
        normalisation: Normalisation,
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
        device = self.output.weight.device
        self.normalisation = (
            nn.Identity() if normalisation == "none" else StackedNormalisation(normalisation, self.runs, inputs, device)
        )
        self.scales_input = input_scale is not None
        if input_scale is not None and len(input_scale) != inputs:
            raise ValueError(f"input_scale must have one factor per input, {inputs} in all, not {len(input_scale)}")
        factors = [1.0] * inputs if input_scale is None else [*map(float, input_scale)]
        scale = torch.tensor(factors, dtype=torch.float32, device=device)
        self.register_buffer("input_scale", scale.expand(self.runs, 1, inputs).contiguous())

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs ``[R, B, outputs]`` of inputs ``[R, B, inputs]``, neither squashed nor sampled."""
        if self.scales_input:
            inputs = inputs * self.input_scale
        outputs: Tensor = self.output(self.hidden_2(self.hidden_1(self.normalisation(inputs))))
        return outputs


class ContextCritic(nn.Module):
    """One value network per context of the game; each transition is valued by the network of its own context.

    With one context this is an ordinary critic. Several keep apart situations whose values have little in common, for
    example an agent alone and the same agent among others. With several contexts and batch normalisation each network
    normalises over the whole batch, whatever its contexts.

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


Network = TypeVar("Network", bound=nn.Module)


def share_storage(network: nn.Module) -> Tensor:
    """Move all parameters ``[R, ...]`` of a network into one tensor ``[R, P]``, of which they become views.

    What is done to all parameters alike (Adam, clipping, soft updates) is then done once, not once per parameter.
    """
    parameters = list(network.parameters())
    shared = torch.cat([parameter.detach().flatten(1) for parameter in parameters], dim=1)
    for parameter, view in zip(parameters, views_of(shared, parameters), strict=True):
        parameter.data = view
    return shared


def views_of(shared: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Cut ``[R, P]`` into views with the shapes of the given tensors ``[R, ...]``, in order."""
    parts = torch.split(shared, [tensor[0].numel() for tensor in like], dim=1)
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]


def target_copy(network: Network) -> Network:
    """A copy to serve as target network: without gradients, and with statistics that only ``soft_update`` moves."""
    target = copy.deepcopy(network).requires_grad_(False)
    for module in target.modules():
        if isinstance(module, StackedNormalisation):
            module.tracks = False
    return target


class SoftUpdate:
    """Lets a target network follow a trained one: ``target <- (1 - tau) target + tau source``; buffers are copied.

    Args:
        target: the network that follows; its parameters become views of one tensor.
        source: the network that is followed.
        parameters: all parameters of ``source``, from :func:`share_storage`.
    """

    def __init__(self, target: nn.Module, source: nn.Module, parameters: Tensor) -> None:
        self.source = parameters
        self.target = share_storage(target)
        self.buffers = list(zip(target.buffers(), source.buffers(), strict=True))

    @torch.no_grad()
    def __call__(self, tau: float) -> None:
        """Move the target by a share ``tau`` of its distance from the source."""
        self.target.lerp_(self.source, tau)
        for target, source in self.buffers:
            target.copy_(source)
