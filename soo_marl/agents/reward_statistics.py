"""Running statistics of rewards, for stacks of independent runs."""

from __future__ import annotations

import torch
from torch import Tensor


class RewardStatistics:
    """Running mean and standard deviation of the rewards of each run and agent.

    Args:
        runs, agents: sizes.
        device: where the sums lie.
    """

    def __init__(self, runs: int, agents: int, device: torch.device) -> None:
        self.sums = torch.zeros(3, runs, agents, dtype=torch.float64, device=device)
        """Count, sum and sum of squares: ``[3, R, agents]``."""

    def add(self, rewards: Tensor) -> None:
        """Count rewards ``[R, n, agents]``."""
        values = rewards.double()
        count = torch.full_like(self.sums[0], rewards.shape[1])
        self.sums += torch.stack((count, values.sum(dim=1), values.square().sum(dim=1)))

    def standardise(self, rewards: Tensor) -> Tensor:
        """Rewards ``[R, B, agents]`` less their mean, over their standard deviation (1 where all were the same)."""
        count, total, squares = self.sums
        mean = total / count.clamp(min=1)
        deviation = (squares / count.clamp(min=1) - mean.square()).clamp(min=0).sqrt()
        deviation = torch.where(deviation > 1e-6, deviation, 1.0)
        standardised: Tensor = (rewards - mean[:, None]) / deviation[:, None]
        return standardised.to(rewards.dtype)
