"""Recorded episodes of Physical Deception, as tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Trajectories:
    """What happened in a batch of episodes of T steps each.

    Index t is the state before action t; step t leads from state t to state t + 1, so there are T + 1 states. The
    leading shape ``[...]`` is any; usually ``[R, N]``, runs and their episodes. Positions are in world units.

    Attributes:
        blue_position: ``[..., T+1, 2]``, floating point.
        red_position: ``[..., T+1, 2]``; of no meaning where blue is alone.
        landmarks: ``[..., 2, 2]``, landmark and coordinate; landmarks do not move.
        goal: ``[...]`` int64, which landmark is the goal, 0 or 1; the other one is the fake.
        trapped: ``[..., T+1]`` bool, whether red is trapped.
        alone: ``[...]`` bool, whether red is absent from the episode.
        red_in_sight: ``[..., T+1]`` bool, whether blue sees red.
        blue_in_sight: ``[..., T+1]`` bool, whether red sees blue.

    Raises:
        ValueError: a shape or type does not fit, there is no step, or a goal is neither 0 nor 1.
    """

    blue_position: Tensor
    red_position: Tensor
    landmarks: Tensor
    goal: Tensor
    trapped: Tensor
    alone: Tensor
    red_in_sight: Tensor
    blue_in_sight: Tensor

    def __post_init__(self) -> None:
        shape = self.blue_position.shape
        if len(shape) < 2 or shape[-1] != 2 or shape[-2] < 2:
            raise ValueError(f"blue_position must be [..., T+1, 2] with at least one step, not {tuple(shape)}")
        leading, states = shape[:-2], shape[-2]
        for name, trailing in _trailing_shapes(states).items():
            expected, found = (*leading, *trailing), tuple(getattr(self, name).shape)
            if found != expected:
                raise ValueError(f"{name} must have the shape {expected} to go with blue_position, not {found}")
        for name in ("trapped", "alone", "red_in_sight", "blue_in_sight"):
            if getattr(self, name).dtype != torch.bool:
                raise ValueError(f"{name} must be of type bool, not {getattr(self, name).dtype}")
        for name in ("blue_position", "red_position", "landmarks"):
            if not getattr(self, name).is_floating_point():
                raise ValueError(f"{name} must be of a floating-point type, not {getattr(self, name).dtype}")
        if self.goal.dtype != torch.int64 or not ((self.goal == 0) | (self.goal == 1)).all():
            raise ValueError("goal must be int64 and hold only 0 and 1, the index of the goal among the landmarks")

    @property
    def leading_shape(self) -> tuple[int, ...]:
        """The shape ``[...]`` that all fields share."""
        return tuple(self.goal.shape)

    @property
    def steps(self) -> int:
        """T, the number of steps per episode."""
        return self.blue_position.shape[-2] - 1

    @property
    def goal_position(self) -> Tensor:
        """``[..., 2]``"""
        return self._landmark(self.goal)

    @property
    def fake_position(self) -> Tensor:
        """``[..., 2]``, the landmark that is not the goal."""
        return self._landmark(1 - self.goal)

    def __getitem__(self, index: Any) -> Trajectories:
        """Select along the leading dimensions only, with anything that indexes a tensor of that shape.

        ``trajectories[0]`` is the first run, ``trajectories[:, :100]`` the first hundred episodes of each run, and
        ``trajectories[trajectories.alone]`` all episodes without red, in one row.

        Raises:
            IndexError: the index does not fit the leading shape.
        """
        count = math.prod(self.leading_shape)
        chosen = torch.arange(count, device=self.goal.device).reshape(self.leading_shape)[index]
        trailing = _trailing_shapes(self.steps + 1)
        return Trajectories(**{name: getattr(self, name).reshape(count, *trailing[name])[chosen] for name in trailing})

    def _landmark(self, which: Tensor) -> Tensor:
        index = which[..., None, None].expand(*which.shape, 1, 2)
        return self.landmarks.gather(-2, index).squeeze(-2)


def _trailing_shapes(states: int) -> dict[str, tuple[int, ...]]:
    return {
        "blue_position": (states, 2),
        "red_position": (states, 2),
        "landmarks": (2, 2),
        "goal": (),
        "trapped": (states,),
        "alone": (),
        "red_in_sight": (states,),
        "blue_in_sight": (states,),
    }
