"""Named observation fields, and the pairs of self and other observations that self-other overlap compares."""

from __future__ import annotations

from typing import NamedTuple


class BlueFields(NamedTuple):
    """Where each field lies in blue's observation (10 numbers, all positions relative to blue)."""

    goal: slice = slice(0, 2)
    landmark_0: slice = slice(2, 4)
    landmark_1: slice = slice(4, 6)
    red_position: slice = slice(6, 8)
    """Zeros when red is farther than blue's sight radius, or absent."""
    trapped: slice = slice(8, 10)
    """Twice 1 while red is trapped, else twice 0."""
    size: int = 10


class RedFields(NamedTuple):
    """Where each field lies in red's observation (6 numbers, all positions relative to red; zeros when red is absent)."""

    landmark_0: slice = slice(0, 2)
    landmark_1: slice = slice(2, 4)
    blue_position: slice = slice(4, 6)
    """Zeros when blue is farther than red's sight radius."""
    size: int = 6


BLUE = BlueFields()
RED = RedFields()
