"""Ornstein-Uhlenbeck noise against its recursion and its stationary moments."""

from __future__ import annotations

import pytest
import torch

from soo_marl.agents.noise import OrnsteinUhlenbeckNoise
from soo_marl.random_streams import RandomStreams


def make(
    seeds: tuple[int, ...] = (0, 1), theta: float = 0.15, shape: tuple[int, ...] = (3, 2)
) -> OrnsteinUhlenbeckNoise:
    return OrnsteinUhlenbeckNoise(shape, theta, 0.2, RandomStreams(seeds, "noise"))


def test_noise_follows_its_recursion() -> None:
    noise, random = make(), RandomStreams((0, 1), "noise")
    first, second = noise.sample(), noise.sample()
    one, two = random.normal(3, 2), random.normal(3, 2)
    torch.testing.assert_close(first, 0.2 * one)
    torch.testing.assert_close(second, 0.85 * 0.2 * one + 0.2 * two)


def test_noise_has_its_stationary_deviation_and_correlation() -> None:
    noise = make(shape=(500, 2))
    samples = torch.stack([noise.sample() for _ in range(300)])[50:].double()
    # Variance sigma^2 / (1 - (1 - theta)^2), correlation 1 - theta from step to step.
    assert float(samples.std()) == pytest.approx(0.2 / (1 - 0.85**2) ** 0.5, rel=0.02)
    assert float((samples[1:] * samples[:-1]).mean() / samples.square().mean()) == pytest.approx(0.85, abs=0.01)


def test_theta_one_is_white() -> None:
    noise, random = make(theta=1.0), RandomStreams((0, 1), "noise")
    for _ in range(3):
        torch.testing.assert_close(noise.sample(), 0.2 * random.normal(3, 2))


def test_a_new_episode_starts_from_zero_and_leaves_handed_out_noise_alone() -> None:
    noise = make()
    first = noise.sample()
    before = first.clone()
    noise.reset()
    assert torch.equal(first, before)
    assert not bool(noise.state.any())


def test_a_runs_noise_is_its_own() -> None:
    noise, alone = make((5, 9)), make((9,))
    for _ in range(3):
        torch.testing.assert_close(noise.sample()[1], alone.sample()[0])


def test_making_noise_draws_nothing_from_its_stream() -> None:
    random = RandomStreams((0,), "noise")
    random.uniform(4)
    assert OrnsteinUhlenbeckNoise((2,), 0.15, 0.2, random).random.counter == 4


def test_noise_continues_from_a_state_without_sharing_it() -> None:
    noise = make()
    noise.sample()
    again = make()
    stored = noise.state.clone()
    again.load_state(stored, noise.random.counter)
    stored.zero_()
    assert torch.equal(noise.sample(), again.sample())
    with pytest.raises(ValueError, match=r"shape \[1, 3, 2\], expected \[2, 3, 2\]"):
        again.load_state(torch.zeros(1, 3, 2), 0)
