"""Stacked networks: a stack is its members, side by side."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from soo_marl.agents.networks import (
    Activation,
    ContextCritic,
    Normalisation,
    StackedMLP,
    StackedNormalisation,
    target_copy,
)
from soo_marl.overlap import record_activations
from soo_marl.random_streams import RandomStreams

SEEDS = (3, 0, 7)


def make(seeds: Any = SEEDS, name: str = "test", **changes: Any) -> StackedMLP:
    settings: dict[str, Any] = {"hidden_units": 8, "activation": "relu", "normalisation": "none"} | changes
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


@pytest.mark.parametrize("normalisation", ["none", "batch", "running"])
def test_a_run_starts_and_computes_the_same_alone_as_in_a_stack(normalisation: Normalisation) -> None:
    network, batch = make(normalisation=normalisation), inputs()
    stack_output = network(batch)
    for run, seed in enumerate(SEEDS):
        alone = make([seed], normalisation=normalisation)
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


def test_batch_normalisation_is_torchs_run_by_run() -> None:
    layer = StackedNormalisation("batch", len(SEEDS), 5, torch.device("cpu"))
    layer.scale.data.copy_(torch.linspace(0.5, 2.0, layer.scale.numel()).view_as(layer.scale))
    layer.shift.data.copy_(torch.linspace(-1.0, 1.0, layer.shift.numel()).view_as(layer.shift))
    members = [nn.BatchNorm1d(5) for _ in SEEDS]
    for run, member in enumerate(members):
        member.weight.data, member.bias.data = layer.scale.data[run, 0].clone(), layer.shift.data[run, 0].clone()
    batch_size, random = 16, RandomStreams(range(len(SEEDS)), "batches")
    biased = torch.ones(len(SEEDS), 5)
    for _ in range(4):
        batch = random.normal(batch_size, 5) * 2.0 + 1.0
        output = layer(batch)
        for run, member in enumerate(members):
            torch.testing.assert_close(output[run], member(batch[run]))
            torch.testing.assert_close(layer.mean[run, 0], member.running_mean)
        biased = 0.9 * biased + 0.1 * batch.var(dim=1, correction=0)
        torch.testing.assert_close(layer.variance[:, 0], biased)
    # Torch averages B / (B - 1) times as much from each batch; the start value 1 is the same.
    start = 0.9**4
    for run, member in enumerate(members):
        unbiased = (layer.variance[run, 0] - start) * batch_size / (batch_size - 1) + start
        torch.testing.assert_close(unbiased, member.running_var)
        member.running_var = layer.variance[run, 0].clone()

    layer.eval()
    before = layer.mean.clone(), layer.variance.clone()
    batch = inputs()
    for run, member in enumerate(members):
        torch.testing.assert_close(layer(batch)[run], member.eval()(batch[run]))
    assert torch.equal(layer.mean, before[0]) and torch.equal(layer.variance, before[1])


def test_batch_normalisation_has_torchs_gradients() -> None:
    layer, member = StackedNormalisation("batch", 1, 5, torch.device("cpu")), nn.BatchNorm1d(5)
    one, other = inputs(1).requires_grad_(), inputs(1)[0].requires_grad_()
    layer(one).pow(3).sum().backward()
    member(other).pow(3).sum().backward()
    torch.testing.assert_close(one.grad[0], other.grad, rtol=1e-4, atol=1e-4)  # type: ignore[index]
    torch.testing.assert_close(layer.scale.grad[0, 0], member.weight.grad, rtol=1e-4, atol=1e-4)  # type: ignore[index]


def test_running_normalisation_uses_running_statistics_in_both_modes() -> None:
    layer = StackedNormalisation("running", 1, 1, torch.device("cpu"))
    batch = torch.tensor([[[2.0], [6.0]]])
    output = layer(batch)
    # Mean 0 -> 0.01 * 4, variance 1 -> 0.99 + 0.01 * 4.
    expected = (batch - 0.04) / (1.03 + 1e-5) ** 0.5
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(layer.eval()(batch), expected)
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    for _ in range(2000):
        layer.train()(batch)
    torch.testing.assert_close(layer(batch), torch.tensor([[[-1.0], [1.0]]]), rtol=1e-3, atol=1e-3)


def test_a_target_copy_has_statistics_and_weights_of_its_own() -> None:
    network = make(normalisation="batch")
    target = target_copy(network)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    network(inputs())
    with torch.no_grad():
        network.output.weight.add_(1.0)
    # In training mode it normalises by batch, but what it keeps does not change.
    torch.testing.assert_close(target(inputs()), make(normalisation="batch")(inputs()))
    assert all(torch.equal(before[name], tensor) for name, tensor in target.state_dict().items())
    assert not any(parameter.requires_grad for parameter in target.parameters())


def test_hidden_layers_can_be_recorded_by_name() -> None:
    network, batch = make(activation="leaky_relu"), inputs()
    with record_activations(network, ["hidden_1", "hidden_2"]) as record:
        output = network(batch)
        activations = record.take()
    assert [tuple(value.shape) for value in activations.values()] == [(3, 16, 8)] * 2
    torch.testing.assert_close(network.output(activations["hidden_2"]), output)
    torch.testing.assert_close(network.hidden_2(activations["hidden_1"]), activations["hidden_2"])


def test_each_transition_is_valued_by_the_network_of_its_context() -> None:
    networks = [StackedMLP(5, 1, hidden_units=8, activation="relu", normalisation="none",
                           random=RandomStreams(SEEDS, f"critic/{context}")) for context in range(2)]  # fmt: skip
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
