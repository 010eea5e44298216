"""Exploration noise for stacks of independent runs."""

from __future__ import annotations

import torch
from torch import Tensor

from soo_marl.random_streams import RandomStreams


class OrnsteinUhlenbeckNoise:
    """Temporally correlated noise ``x <- x - theta x + sigma n`` with ``n`` standard normal (Lillicrap et al. 2016).

    ``theta = 1`` gives independent Gaussian noise. The paper's code uses ``theta = 0.15`` and ``sigma = 0.2`` and
    multiplies the result by a scale that falls over training.

    Args:
        shape: shape of one run's noise, for example ``(worlds, action size)``.
        theta: pull towards zero per step, in (0, 1].
        sigma: standard deviation of the innovation, in units of the action.
        random: one stream per run.
    """

    def __init__(self, shape: tuple[int, ...], theta: float, sigma: float, random: RandomStreams) -> None:
        self.shape = shape
        self.theta = theta
        self.sigma = sigma
        self.random = random
        self.state = torch.zeros(len(random.seeds), *shape, dtype=torch.float32, device=random.device)
        """The present noise ``[R, *shape]``."""

    def reset(self) -> None:
        """Start from zero again, as at the start of an episode."""
        self.state = torch.zeros_like(self.state)

    def sample(self) -> Tensor:
        """Advance by one step and return the noise ``[R, *shape]``."""
        self.state = self.state * (1.0 - self.theta) + self.random.normal(*self.shape) * self.sigma
        return self.state

    def load_state(self, state: Tensor, counter: int) -> None:
        """Continue from noise ``[R, *shape]`` after ``counter`` draws.

        Raises:
            ValueError: the noise is of another shape.
        """
        if state.shape != self.state.shape:
            raise ValueError(f"the stored noise has shape {list(state.shape)}, expected {list(self.state.shape)}")
        self.state = self.state.new_empty(state.shape).copy_(state)
        self.random.counter = counter
