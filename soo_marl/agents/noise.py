"""Exploration noise for stacks of independent runs."""

from __future__ import annotations

import torch
from torch import Tensor

from soo_marl.random_streams import RandomStreams


class OrnsteinUhlenbeckNoise:
    """Temporally correlated noise ``x <- x - theta x + sigma n`` with ``n`` standard normal (Lillicrap et al. 2016).

    ``theta = 1`` gives independent Gaussian noise. The paper's code uses ``theta = 0.15`` and ``sigma = 0.2`` and multiplies
    the result by a scale that falls over training.

    Args:
        shape: shape of one run's noise, for example ``(worlds, action size)``.
        theta: pull towards zero, in (0, 1].
        sigma: standard deviation of the innovation.
        random: one stream per run.
    """

    def __init__(self, shape: tuple[int, ...], theta: float, sigma: float, random: RandomStreams) -> None:
        self.shape = shape
        self.theta = theta
        self.sigma = sigma
        self.random = random
        self.state = torch.zeros_like(random.uniform(*shape))
        random.counter = 0

    def reset(self) -> None:
        """Start a new episode in every world."""
        self.state.zero_()

    def sample(self) -> Tensor:
        """Advance by one step and return the noise ``[R, *shape]``."""
        self.state = self.state * (1.0 - self.theta) + self.random.normal(*self.shape) * self.sigma
        return self.state
