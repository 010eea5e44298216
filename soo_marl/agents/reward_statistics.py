"""Running statistics of rewards, for stacks of independent runs."""

from __future__ import annotations

import torch
from torch import Tensor


class RewardStatistics:
    """Running mean, standard deviation and largest size of the rewards of each run and agent.

    Args:
        runs, agents: sizes.
        device: where the statistics lie.
    """

    def __init__(self, runs: int, agents: int, device: torch.device) -> None:
        self.values = torch.zeros(4, runs, agents, dtype=torch.float64, device=device)
        """Count, sum, sum of squares, and largest size: ``[4, R, agents]``."""

    def add(self, rewards: Tensor) -> None:
        """Count rewards ``[R, n, agents]``."""
        values = rewards.double()
        count = torch.full_like(self.values[0], rewards.shape[1])
        self.values[:3] += torch.stack((count, values.sum(dim=1), values.square().sum(dim=1)))
        torch.maximum(self.values[3], values.abs().amax(dim=1), out=self.values[3])

    def standardise(self, rewards: Tensor) -> Tensor:
        """Rewards ``[R, B, agents]`` less their mean, over their standard deviation (1 where all were the same)."""
        mean, deviation = self._mean_and_deviation()
        standardised: Tensor = (rewards - mean[:, None]) / deviation[:, None]
        return standardised.to(rewards.dtype)

    def largest(self, standardised: bool) -> Tensor:
        """The largest size of a reward ``[R, agents]`` seen so far; of standardised ones an upper bound."""
        if not standardised:
            return self.values[3]
        mean, deviation = self._mean_and_deviation()
        return (self.values[3] + mean.abs()) / deviation

    def _mean_and_deviation(self) -> tuple[Tensor, Tensor]:
        count, total, squares, _ = self.values
        mean = total / count.clamp(min=1)
        deviation = (squares / count.clamp(min=1) - mean.square()).clamp(min=0).sqrt()
        return mean, torch.where(deviation > 1e-6, deviation, 1.0)
