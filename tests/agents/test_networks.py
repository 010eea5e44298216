"""Stacked networks: a stack is its members, side by side."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from soo_marl.agents.networks import Activation, ContextCritic, StackedMLP
from soo_marl.overlap import record_activations
from soo_marl.random_streams import RandomStreams

SEEDS = (3, 0, 7)


def make(seeds: Any = SEEDS, name: str = "test", **changes: Any) -> StackedMLP:
    settings: dict[str, Any] = {"hidden_units": 8, "activation": "relu"} | changes
    return StackedMLP(5, 2, random=RandomStreams(seeds, name), **settings)


def inputs(runs: int = len(SEEDS), batch: int = 16) -> torch.Tensor:
    return RandomStreams(range(runs), "inputs").normal(batch, 5) * 3.0 + 1.0


def plain(network: StackedMLP, run: int, activation: type[nn.Module]) -> nn.Sequential:
    """The same function as one run of a stack, from torch's own layers."""
    layers: list[nn.Module] = []
    for name in ("hidden_1.linear", "hidden_2.linear", "output"):
        stacked = network.get_submodule(name)
        layer = nn.Linear(stacked.weight.shape[2], stacked.weight.shape[1])
        layer.weight.data, layer.bias.data = stacked.weight.data[run].clone(), stacked.bias.data[run, 0].clone()
        layers += [layer, activation()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize(("activation", "layer"), [("relu", nn.ReLU), ("leaky_relu", nn.LeakyReLU)])
def test_a_stack_equals_torchs_own_layers_run_by_run(activation: Activation, layer: type[nn.Module]) -> None:
    network, batch = make(activation=activation), inputs()
    output = network(batch)
    weights = torch.linspace(-1, 1, output.numel()).view_as(output)
    (output * weights).sum().backward()
    for run in range(len(SEEDS)):
        member = plain(network, run, layer)
        expected = member(batch[run])
        (expected * weights[run]).sum().backward()
        torch.testing.assert_close(output[run], expected)
        torch.testing.assert_close(network.hidden_1.linear.weight.grad[run], member[0].weight.grad)  # type: ignore
        torch.testing.assert_close(network.output.bias.grad[run, 0], member[4].bias.grad)  # type: ignore


def test_a_run_starts_and_computes_the_same_alone_as_in_a_stack() -> None:
    network, batch = make(), inputs()
    stack_output = network(batch)
    for run, seed in enumerate(SEEDS):
        alone = make([seed])
        for name, parameter in alone.named_parameters():
            torch.testing.assert_close(parameter[0], network.get_parameter(name)[run], rtol=0, atol=0)
        torch.testing.assert_close(alone(batch[run : run + 1])[0], stack_output[run])
        for name, buffer in alone.named_buffers():
            torch.testing.assert_close(buffer[0], network.get_buffer(name)[run])


def test_initial_weights_are_within_their_bounds() -> None:
    network = make(output_bound=3e-3)
    for layer, bound in (
        (network.hidden_1.linear, 5**-0.5),
        (network.hidden_2.linear, 8**-0.5),
        (network.output, 3e-3),
    ):
        largest = float(layer.weight.detach().abs().max())
        assert 0.8 * bound < largest <= bound
        assert float(layer.bias.detach().abs().max()) <= bound


def test_inputs_are_scaled_by_fixed_factors() -> None:
    scale = (1.0, 2.0, 0.5, 8.0, 1.0)
    batch = inputs()
    torch.testing.assert_close(make(input_scale=scale)(batch), make()(batch * torch.tensor(scale)))
    with pytest.raises(ValueError, match="one factor per input, 5 in all, not 2"):
        make(input_scale=(1.0, 1.0))


def test_hidden_layers_can_be_recorded_by_name() -> None:
    network, batch = make(activation="leaky_relu"), inputs()
    with record_activations(network, ["hidden_1", "hidden_2"]) as record:
        output = network(batch)
        activations = record.take()
    assert [tuple(value.shape) for value in activations.values()] == [(3, 16, 8)] * 2
    torch.testing.assert_close(network.output(activations["hidden_2"]), output)
    torch.testing.assert_close(network.hidden_2(activations["hidden_1"]), activations["hidden_2"])


def test_each_transition_is_valued_by_the_network_of_its_context() -> None:
    networks = [
        StackedMLP(5, 1, hidden_units=8, activation="relu", random=RandomStreams(SEEDS, f"critic/{context}"))
        for context in range(2)
    ]
    critic, batch = ContextCritic(networks), inputs()
    context = torch.arange(16).remainder(2).expand(3, 16).clone()
    context[1] = 1
    value = critic(batch, context)
    assert value.shape == (3, 16)
    each = torch.stack([network(batch)[..., 0] for network in networks])
    torch.testing.assert_close(value, torch.where(context == 0, each[0], each[1]))
    # Only the network of the context learns from it.
    value[1].sum().backward()
    assert not bool(networks[0].output.weight.grad.any())  # type: ignore[union-attr]
    assert bool(networks[1].output.weight.grad[1].any())  # type: ignore[index]
    assert not bool(networks[1].output.weight.grad[[0, 2]].any())  # type: ignore[index]
