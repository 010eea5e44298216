"""The full state of one Physical Deception world: as a record, and as one vector with named fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from soo_marl.envs.configuration import PhysicalDeceptionConfig


class StateFields(NamedTuple):
    """Where each field lies in the state vector of 16 or 18 numbers; ``physical_deception`` says what they mean."""

    red_position: slice = slice(0, 2)
    blue_position: slice = slice(2, 4)
    red_velocity: slice = slice(4, 6)
    blue_velocity: slice = slice(6, 8)
    landmark_0: slice = slice(8, 10)
    landmark_1: slice = slice(10, 12)
    goal: slice = slice(12, 14)
    trapped: slice = slice(14, 15)
    alone: slice = slice(15, 16)
    red_speed_limit: slice = slice(16, 17)
    pause_left: slice = slice(17, 18)
    size: int = 16
    """Of the vector in games that draw neither; see :func:`state_size`."""

    def space(self, size: int = 16) -> spaces.Box:
        """Return the space of a state vector of 16 or 18 numbers: positions in [-1, 1], velocities unbounded, flags in
        [0, 1], speed limit and pause from 0."""
        low, high = np.full(size, -1.0, np.float32), np.full(size, 1.0, np.float32)
        for velocity in (self.red_velocity, self.blue_velocity):
            low[velocity], high[velocity] = -np.inf, np.inf
        low[self.goal.start :] = 0.0
        high[self.red_speed_limit.start :] = np.inf
        return spaces.Box(low, high, dtype=np.float32)


STATE = StateFields()


def state_size(config: PhysicalDeceptionConfig) -> int:
    """How many numbers the state vector of a game has: 18 where red's speed limit or pauses are drawn, else 16."""
    drawn = config.red_speed_range is not None or config.red_pause_chance > 0
    return STATE.pause_left.stop if drawn else STATE.size


@dataclass(frozen=True, eq=False)
class PhysicalDeceptionState:
    """One state of the world, read-only; arrays given are copied. Agent 0 is red, agent 1 is blue.

    Raises:
        ValueError: a field has the wrong shape, is not finite, lies outside the walls, contradicts ``alone``, or is a
            speed limit of 0 or less.
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
    red_speed_limit: float | None = None
    """Red's speed limit in this episode, in games that draw it (``red_speed_range``); None in others."""
    red_pauses: NDArray[np.bool_] | None = None
    """Whether red pauses in each of the steps to come, the next one first, and not in later ones; None in games without
    pauses."""

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
        if self.red_speed_limit is not None:
            object.__setattr__(self, "red_speed_limit", float(self.red_speed_limit))
            if not 0 < self.red_speed_limit < np.inf:
                raise ValueError(f"red_speed_limit must be a finite number above 0, not {self.red_speed_limit:g}")
        if self.red_pauses is not None:
            object.__setattr__(self, "red_pauses", _frozen_flags("red_pauses", self.red_pauses))

    @property
    def fake(self) -> int:
        """Which landmark is the fake, 0 or 1."""
        return 1 - self.goal

    @property
    def pause_left(self) -> int:
        """For how many steps from now on red pauses."""
        if self.red_pauses is None:
            return 0
        # A last False ends a pause that goes on to the end.
        return int(np.append(self.red_pauses, False).argmin())

    def to_vector(self) -> NDArray[np.float32]:
        """Return the state vector, laid out as :data:`STATE` says: ``[18]`` where red's speed limit or pauses are part
        of the state, else ``[16]``."""
        drawn = self.red_speed_limit is not None or self.red_pauses is not None
        vector = np.zeros(STATE.pause_left.stop if drawn else STATE.size, dtype=np.float32)
        vector[STATE.red_position], vector[STATE.blue_position] = self.positions
        vector[STATE.red_velocity], vector[STATE.blue_velocity] = self.velocities
        vector[STATE.landmark_0], vector[STATE.landmark_1] = self.landmarks
        vector[STATE.goal.start + self.goal] = 1.0
        vector[STATE.trapped] = self.trapped
        vector[STATE.alone] = self.alone
        if drawn:
            vector[STATE.red_speed_limit] = self.red_speed_limit or 0.0
            vector[STATE.pause_left] = self.pause_left
        return vector


def _frozen_points(name: str, values: ArrayLike) -> NDArray[np.float64]:
    points = np.array(values, dtype=np.float64)
    if points.shape != (2, 2) or not np.isfinite(points).all():
        raise ValueError(f"{name} must be finite numbers of shape (2, 2), got shape {points.shape}")
    points.setflags(write=False)
    return points


def _frozen_flags(name: str, values: ArrayLike) -> NDArray[np.bool_]:
    flags = np.array(values)
    if flags.ndim != 1 or (flags.size and flags.dtype != np.bool_):
        raise ValueError(f"{name} must be a row of booleans, got shape {flags.shape} of {flags.dtype}")
    flags = flags.astype(np.bool_)
    flags.setflags(write=False)
    return flags
