"""Forward pass and gradients of small stacked networks, written out by hand for a block of runs.

What autograd does for :class:`soo_marl.agents.networks.StackedMLP`, without its bookkeeping and with intermediate
results small enough to stay in the processor's cache.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from soo_marl.agents.networks import Activation, StackedMLP

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
        network: the whole stack, without input normalisation. Its parameters and their ``grad`` may change, but must
            stay where they are.
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
