"""Replay buffer for stacks of independent runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from soo_marl.random_streams import RandomStreams


@dataclass(frozen=True)
class Transitions:
    """Transitions of all agents, with leading axes ``[R, B]``."""

    observations: tuple[Tensor, ...]
    """Per agent ``[R, B, observation size]``."""
    actions: tuple[Tensor, ...]
    """Per agent ``[R, B, action size]``."""
    rewards: Tensor
    """``[R, B, agents]``."""
    next_observations: tuple[Tensor, ...]
    """Per agent, the true next observation, also where the episode was truncated."""
    terminated: Tensor
    """``[R, B]``, 1 where the episode truly ended; a truncated episode holds 0 and bootstraps."""
    context: Tensor
    """``[R, B]`` int64, the context of the state (see ``ContextCritic``)."""
    next_context: Tensor
    """``[R, B]`` int64, the context of the next state."""


class ReplayBuffer:
    """Holds the last ``capacity`` transitions of each run, one row of floats per transition.

    A row holds everything of one transition, so that a minibatch is one gather of whole rows.

    Args:
        capacity: transitions kept per run.
        observation_sizes, action_sizes: feature sizes per agent.
        random: one stream per run, for the minibatches.
        device: where the transitions lie.
    """

    def __init__(
        self,
        capacity: int,
        observation_sizes: Sequence[int],
        action_sizes: Sequence[int],
        random: RandomStreams,
        device: torch.device | str = "cpu",
    ) -> None:
        self.capacity = capacity
        self.random = random
        self.widths = (*observation_sizes, *action_sizes, len(observation_sizes), *observation_sizes, 1, 1, 1)
        self.agents = len(observation_sizes)
        self.runs = len(random.seeds)
        self.rows = torch.empty(self.runs, capacity, sum(self.widths), device=device)
        self.size = 0
        self.position = 0
        self._first_row = torch.arange(self.runs, device=device)[:, None] * capacity

    def add(self, transitions: Transitions) -> None:
        """Store transitions with leading axes ``[R, n]``, dropping the oldest where the buffer is full.

        Raises:
            ValueError: more transitions at once than the buffer holds.
        """
        rows = torch.cat(
            (
                *transitions.observations,
                *transitions.actions,
                transitions.rewards,
                *transitions.next_observations,
                transitions.terminated[..., None].float(),
                transitions.context[..., None].float(),
                transitions.next_context[..., None].float(),
            ),
            dim=-1,
        )
        count = rows.shape[1]
        if count > self.capacity:
            raise ValueError(f"{count} transitions at once do not fit a replay buffer of {self.capacity}")
        before_end = min(count, self.capacity - self.position)
        self.rows[:, self.position : self.position + before_end] = rows[:, :before_end]
        self.rows[:, : count - before_end] = rows[:, before_end:]
        self.position = (self.position + count) % self.capacity
        self.size = min(self.size + count, self.capacity)

    def sample(self, batch_size: int) -> Transitions:
        """Draw a minibatch ``[R, batch_size]``, uniformly with replacement, each run from its own stream and its own data.

        Raises:
            ValueError: the buffer is empty.
        """
        if self.size == 0:
            raise ValueError("the replay buffer is empty: collect transitions before sampling")
        indices = self.random.integers(self.size, batch_size) + self._first_row
        rows = self.rows.view(-1, self.rows.shape[-1]).index_select(0, indices.flatten())
        fields = rows.view(self.runs, batch_size, -1).split(self.widths, dim=-1)
        count = self.agents
        return Transitions(
            observations=fields[:count],
            actions=fields[count : 2 * count],
            rewards=fields[2 * count],
            next_observations=fields[2 * count + 1 : 3 * count + 1],
            terminated=fields[3 * count + 1][..., 0],
            context=fields[3 * count + 2][..., 0].long(),
            next_context=fields[3 * count + 3][..., 0].long(),
        )
