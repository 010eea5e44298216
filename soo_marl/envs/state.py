"""The full state of one Physical Deception world: as a record, and as one vector with named fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray


class StateFields(NamedTuple):
    """Where each field lies in the state vector (16 numbers, positions relative to the centre of the world)."""

    red_position: slice = slice(0, 2)
    blue_position: slice = slice(2, 4)
    red_velocity: slice = slice(4, 6)
    blue_velocity: slice = slice(6, 8)
    landmark_0: slice = slice(8, 10)
    landmark_1: slice = slice(10, 12)
    goal: slice = slice(12, 14)
    """One-hot: which landmark is the goal."""
    trapped: slice = slice(14, 15)
    """1 while red is trapped, else 0."""
    alone: slice = slice(15, 16)
    """1 while red is absent, else 0."""
    size: int = 16

    def space(self) -> spaces.Box:
        """Return the space of the state vector: positions in [-1, 1], velocities unbounded, flags in [0, 1]."""
        low, high = np.full(self.size, -1.0, np.float32), np.full(self.size, 1.0, np.float32)
        for velocity in (self.red_velocity, self.blue_velocity):
            low[velocity], high[velocity] = -np.inf, np.inf
        low[self.goal.start :] = 0.0
        return spaces.Box(low, high, dtype=np.float32)


STATE = StateFields()


@dataclass(frozen=True, eq=False)
class PhysicalDeceptionState:
    """One state of the world, read-only; arrays given are copied. Agent 0 is red, agent 1 is blue.

    Raises:
        ValueError: a field has the wrong shape, is not finite, lies outside the walls, or contradicts ``alone``.
    """

    positions: NDArray[np.float64]
    """``[2, 2]`` positions of red and blue, world units in [-1, 1]."""
    velocities: NDArray[np.float64]
    """``[2, 2]`` velocities of red and blue, world units per unit of time."""
    landmarks: NDArray[np.float64]
    """``[2, 2]`` positions of both landmarks, world units in [-1, 1]."""
    goal: int
    """Which landmark is the goal, 0 or 1; the other one is the fake."""
    trapped: bool = False
    """Red is trapped."""
    alone: bool = False
    """Red is absent; it then has no velocity and is not trapped."""

    def __post_init__(self) -> None:
        for name in ("positions", "velocities", "landmarks"):
            object.__setattr__(self, name, _frozen_points(name, getattr(self, name)))
        for name in ("positions", "landmarks"):
            if np.abs(getattr(self, name)).max() > 1:
                raise ValueError(f"{name} must lie between the walls, in [-1, 1]")
        if self.goal not in (0, 1):
            raise ValueError(f"goal is the index of a landmark, 0 or 1, not {self.goal!r}")
        object.__setattr__(self, "goal", int(self.goal))
        object.__setattr__(self, "trapped", bool(self.trapped))
        object.__setattr__(self, "alone", bool(self.alone))
        if self.alone and (self.trapped or self.velocities[0].any()):
            raise ValueError("an absent red (alone) is neither trapped nor moving: clear trapped and velocities[0]")

    @property
    def fake(self) -> int:
        """Which landmark is the fake, 0 or 1."""
        return 1 - self.goal

    def to_vector(self) -> NDArray[np.float32]:
        """Return the state vector ``[16]``, laid out as :data:`STATE` says."""
        vector = np.zeros(STATE.size, dtype=np.float32)
        vector[STATE.red_position], vector[STATE.blue_position] = self.positions
        vector[STATE.red_velocity], vector[STATE.blue_velocity] = self.velocities
        vector[STATE.landmark_0], vector[STATE.landmark_1] = self.landmarks
        vector[STATE.goal.start + self.goal] = 1.0
        vector[STATE.trapped] = self.trapped
        vector[STATE.alone] = self.alone
        return vector


def _frozen_points(name: str, values: ArrayLike) -> NDArray[np.float64]:
    points = np.array(values, dtype=np.float64)
    if points.shape != (2, 2) or not np.isfinite(points).all():
        raise ValueError(f"{name} must be finite numbers of shape (2, 2), got shape {points.shape}")
    points.setflags(write=False)
    return points
