"""Adam on a stack against torch's own, run by run."""

from __future__ import annotations

import torch
from torch import nn

from soo_marl.agents.adam import StackedAdam
from soo_marl.agents.networks import StackedMLP
from soo_marl.random_streams import RandomStreams


def make(learning_rate: float = 0.01) -> tuple[StackedMLP, StackedAdam]:
    network = StackedMLP(3, 2, hidden_units=4, activation="relu", random=RandomStreams((0, 1), "adam"))
    return network, StackedAdam(network, learning_rate, largest_norm=0.5)


def fill(network: StackedMLP, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in network.parameters():
        assert parameter.grad is not None
        # The first run's gradient exceeds the limit, the second's does not.
        size = torch.tensor([10.0, 1e-3]).view(2, 1, 1)
        parameter.grad.copy_(torch.randn(parameter.shape, generator=generator) * size)


def test_steps_are_torchs_with_each_runs_gradient_clipped() -> None:
    network, adam = make()
    members = [[nn.Parameter(parameter[run].detach().clone()) for parameter in network.parameters()] for run in (0, 1)]
    optimisers = [torch.optim.Adam(member, lr=0.01) for member in members]
    for step in range(5):
        adam.learning_rate = 0.01 / (step + 1)
        fill(network, step)
        for run, (member, optimiser) in enumerate(zip(members, optimisers, strict=True)):
            optimiser.param_groups[0]["lr"] = 0.01 / (step + 1)
            for leaf, parameter in zip(member, network.parameters(), strict=True):
                assert parameter.grad is not None
                leaf.grad = parameter.grad[run].clone()
            nn.utils.clip_grad_norm_(member, 0.5)
            optimiser.step()
        adam.step()
    for run, member in enumerate(members):
        for leaf, parameter in zip(member, network.parameters(), strict=True):
            torch.testing.assert_close(parameter[run], leaf, rtol=1e-5, atol=1e-7)


def test_a_stored_optimiser_goes_on_bit_for_bit() -> None:
    network, adam = make()
    fill(network, 0)
    adam.step()
    again, other = make()
    again.load_state_dict(network.state_dict())
    other.load_state(adam.state())
    for both, optimiser in ((network, adam), (again, other)):
        fill(both, 1)
        optimiser.step()
    assert torch.equal(adam.parameters, other.parameters)
    assert all(torch.equal(one, same) for one, same in zip(network.parameters(), again.parameters(), strict=True))


def test_a_networks_parameters_and_gradients_are_views_of_one_tensor_each() -> None:
    network, adam = make()
    with torch.no_grad():
        network.output.bias.fill_(7.0)
    assert bool((adam.parameters[:, -2:] == 7.0).all())
    assert network.output.bias.grad is not None
    network.output.bias.grad.fill_(3.0)
    assert bool((adam.gradient[:, -2:] == 3.0).all())
