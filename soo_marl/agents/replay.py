"""Replay buffer for stacks of independent runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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

    def of_runs(self, runs: slice) -> Transitions:
        """The transitions of some runs, as views."""
        parts: dict[str, Any] = {
            name: tuple(part[runs] for part in field) if isinstance(field, tuple) else field[runs]
            for name, field in vars(self).items()
        }
        return Transitions(**parts)


class ReplayBuffer:
    """Holds the last ``capacity`` transitions of each run, one row of floats per transition.

    A row holds everything of one transition, so that a minibatch is one gather of whole rows.

    Args:
        capacity: transitions kept per run.
        observation_sizes, action_sizes: feature sizes per agent.
        random: one stream per run, for the minibatches.
        device: where the transitions lie; the same as that of ``random``.

    Raises:
        ValueError: the capacity is below 1, or the agents of observations and actions are not as many.
    """

    def __init__(
        self,
        capacity: int,
        observation_sizes: Sequence[int],
        action_sizes: Sequence[int],
        random: RandomStreams,
        device: torch.device | str = "cpu",
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a replay buffer holds at least one transition, not {capacity}")
        if len(observation_sizes) != len(action_sizes):
            raise ValueError(f"{len(observation_sizes)} observation sizes and {len(action_sizes)} action sizes differ")
        self.capacity = capacity
        self.random = random
        self.widths = [*observation_sizes, *action_sizes, len(observation_sizes), *observation_sizes, 1, 1, 1]
        self.agents = len(observation_sizes)
        self.runs = len(random.seeds)
        self.rows = torch.empty(self.runs, capacity, sum(self.widths), dtype=torch.float32, device=device)
        """``[R, capacity, row]``; rows from ``size`` on are not filled yet."""
        self.size = 0
        """How many transitions each run holds."""
        self.position = 0
        """Where the next transition goes: the oldest one, once the buffer is full."""
        self._first_row = torch.arange(self.runs, device=device)[:, None] * capacity

    def add(self, transitions: Transitions) -> None:
        """Store copies of transitions with leading axes ``[R, n]``, dropping the oldest where the buffer is full.

        Raises:
            ValueError: more transitions at once than the buffer holds, or of other sizes or another number of runs.
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
        # Without this check, the transitions of one run would be stored for every run.
        if (rows.shape[0], rows.shape[2]) != (self.runs, self.rows.shape[2]):
            raise ValueError(
                f"the replay buffer holds {self.runs} runs with {self.rows.shape[2]} numbers per transition, "
                f"these transitions are of {rows.shape[0]} runs with {rows.shape[2]} numbers"
            )
        before_end = min(count, self.capacity - self.position)
        self.rows[:, self.position : self.position + before_end] = rows[:, :before_end]
        self.rows[:, : count - before_end] = rows[:, before_end:]
        self.position = (self.position + count) % self.capacity
        self.size = min(self.size + count, self.capacity)

    def sample(self, batch_size: int) -> Transitions:
        """Draw a minibatch ``[R, batch_size]``, uniformly with replacement.

        Each run draws from its own stream and its own data. The tensors are copies.

        Raises:
            ValueError: the buffer is empty.
        """
        if self.size == 0:
            raise ValueError("the replay buffer is empty: collect transitions before sampling")
        indices = self.random.integers(self.size, batch_size) + self._first_row
        rows = self.rows.view(-1, self.rows.shape[-1]).index_select(0, indices.flatten())
        fields = torch.split(rows.view(self.runs, batch_size, -1), self.widths, dim=-1)
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

    def latest_observations(self, count: int) -> tuple[Tensor, ...]:
        """Observations per agent ``[R, n, observation size]`` of the last ``n <= count`` transitions, newest first."""
        newest = torch.arange(self.position - 1, self.position - 1 - min(count, self.size), -1, device=self.rows.device)
        rows = self.rows[:, newest % self.capacity]
        return torch.split(rows, self.widths, dim=-1)[: self.agents]

    def state(self) -> dict[str, Tensor]:
        """Return a copy of what the buffer holds and of where it stands, as named tensors."""
        return {
            "rows": self.rows[:, : self.size].clone(memory_format=torch.contiguous_format),
            "counters": torch.tensor([self.position, self.capacity, self.random.counter]),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned.

        Raises:
            KeyError: an entry is missing.
            ValueError: the state is of another capacity, other sizes or another number of runs.
        """
        rows = state["rows"]
        position, capacity, counter = (int(value) for value in state["counters"])
        if (capacity, rows.shape[0], rows.shape[2]) != (self.capacity, self.runs, self.rows.shape[2]):
            raise ValueError(
                f"the stored replay buffer is of capacity {capacity} with {rows.shape[0]} runs and {rows.shape[2]} "
                f"numbers per transition, this one of {self.capacity} with {self.runs} and {self.rows.shape[2]}"
            )
        size = rows.shape[1]
        # While it fills, the next transition goes after the last one.
        if size > capacity or not (0 <= position < capacity if size == capacity else position == size):
            raise ValueError(f"the stored replay buffer of capacity {capacity} holds {size} transitions at {position}")
        self.size, self.position, self.random.counter = size, position, counter
        self.rows[:, : self.size] = rows
