"""Runs that were stopped because their training broke down, and how that is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Stop:
    """Where a run was stopped; its networks are those of then."""

    stage: str
    """Stage in which it happened; a blue whose red was stopped has red's."""
    updates: int
    """Updates of that stage after which the run was last in order."""

    def __str__(self) -> str:
        return f"{self.stage}, after {self.updates:,} updates: values exploded or were not finite"


def to_tensor(stops: Sequence[Stop | None], stages: Sequence[str]) -> Tensor:
    """Stops of a stack as int64 ``[R, 2]``: number of the stage among ``stages``, and updates; -1 for None."""
    return torch.tensor([(-1, -1) if stop is None else (stages.index(stop.stage), stop.updates) for stop in stops])


def from_tensor(stored: Tensor, stages: Sequence[str]) -> list[Stop | None]:
    """The inverse of :func:`to_tensor`.

    Raises:
        IndexError, ValueError: the tensor is no such thing.
    """
    return [None if stage < 0 else Stop(stages[stage], updates) for stage, updates in stored.tolist()]
