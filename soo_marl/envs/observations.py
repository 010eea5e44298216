"""Named observation fields, and the pairs of self and other observations that self-other overlap compares."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from soo_marl.envs.configuration import PhysicalDeceptionConfig
from soo_marl.random_streams import RandomStreams


class BlueFields(NamedTuple):
    """Where each field lies in blue's observation (10 numbers, 11 with the visible bit; all positions relative to
    blue)."""

    goal: slice = slice(0, 2)
    landmark_0: slice = slice(2, 4)
    landmark_1: slice = slice(4, 6)
    red_position: slice = slice(6, 8)
    """Zeros when red is farther than blue's sight radius, or absent."""
    trapped: slice = slice(8, 10)
    """Twice 1 while red is trapped, else twice 0."""
    visible: slice = slice(10, 11)
    """1 while blue sees red, else 0. Only in games with ``visible_bit``; empty in an observation of 10 numbers."""
    size: int = 10
    """Without the visible bit; see :func:`blue_size`."""


class RedFields(NamedTuple):
    """Where each field lies in red's observation (6 numbers, all positions relative to red; zeros when red is
    absent)."""

    landmark_0: slice = slice(0, 2)
    landmark_1: slice = slice(2, 4)
    blue_position: slice = slice(4, 6)
    """Zeros when blue is farther than red's sight radius."""
    size: int = 6


BLUE = BlueFields()
RED = RedFields()
"""Fields of observations, not agents."""

RED_AGENT, BLUE_AGENT = 0, 1
"""Indices of the two agents on every axis and in every list of agents."""


def blue_size(config: PhysicalDeceptionConfig) -> int:
    """How many numbers blue observes in a game: 10, or 11 with the visible bit."""
    return BLUE.visible.stop if config.visible_bit else BLUE.size


@dataclass(frozen=True)
class ObservationPairs:
    """Matching self and other observations of blue, ``[R, ..., 10]`` (or 11, with the visible bit) each."""

    self_observation: Tensor
    other_observation: Tensor
    valid: Tensor
    """``[R, ...]`` bool: where the pair means what it should; elsewhere its values are to be ignored."""


Pairing = Callable[[Tensor, Tensor, RandomStreams], ObservationPairs]
"""Called as ``pairing(red observations [R, ..., 6], blue observations [R, ..., 10 or 11], random)``."""


def imagined_red(sight_radius: float, zero_flag: bool = False) -> Pairing:
    """The paper's pairing: the other observation is the self observation with red somewhere in the sight disc.

    A self observation is one in which blue does not see red: its field of red is zero. Angle and radius of the
    imagined red are both uniform, so points near blue are denser, as in the authors' ``evaluate-deception.py``; that
    code draws up to a radius of 0.1 where the game's sight radius is 0.125, this draws up to ``sight_radius``.

    Args:
        sight_radius: how far blue sees, world units.
        zero_flag: set the trapped flag of the other observation to zero, and of that one only, as the authors' code
            does. Where red is trapped, self and other then differ by the flag, too.
    """

    def pair(red: Tensor, blue: Tensor, random: RandomStreams) -> ObservationPairs:
        other = with_red(blue, point_in_sight(blue, sight_radius, random))
        if zero_flag:
            other[..., BLUE.trapped] = 0.0
        return ObservationPairs(blue, other, red_unseen(blue))

    return pair


def moved_red(sight_radius: float) -> Pairing:
    """A control without a self: both observations show red, at two points drawn independently in the sight disc.

    Valid where :func:`imagined_red` is, and drawn in the same way, so that nothing but the self differs. Not in the
    paper.
    """

    def pair(red: Tensor, blue: Tensor, random: RandomStreams) -> ObservationPairs:
        one, other = (with_red(blue, point_in_sight(blue, sight_radius, random)) for _ in range(2))
        return ObservationPairs(one, other, red_unseen(blue))

    return pair


def every_red(sight_radius: float) -> Pairing:
    """Self and other observations of every state with an untrapped or absent red, seen or not. Not in the paper.

    The self observation is what blue sees with red's field blanked. The other one is what it sees, where it sees red,
    and the same with red imagined as by :func:`imagined_red`, where it does not.
    """

    def pair(red: Tensor, blue: Tensor, random: RandomStreams) -> ObservationPairs:
        imagined = with_red(blue, point_in_sight(blue, sight_radius, random))
        other = torch.where(red_unseen(blue)[..., None], imagined, blue)
        return ObservationPairs(without_red(blue), other, untrapped(blue))

    return pair


def every_red_moved(sight_radius: float) -> Pairing:
    """The control of :func:`every_red` without a self: its place is taken by red at a point drawn in the sight disc."""
    pair_with_self = every_red(sight_radius)

    def pair(red: Tensor, blue: Tensor, random: RandomStreams) -> ObservationPairs:
        pairs = pair_with_self(red, blue, random)
        moved = with_red(blue, point_in_sight(blue, sight_radius, random))
        return ObservationPairs(moved, pairs.other_observation, pairs.valid)

    return pair


def perspective(zero_flag: bool = False) -> Pairing:
    """A second pairing: the other observation is the same state as seen from red's place, in blue's layout.

    Everything blue observes is moved to where red stands, the goal included (red does not know it, but a field
    without a goal would be an input blue never met), and blue takes red's place in the field of the other agent, if
    red sees it. Valid wherever red is present, whether blue sees it or not. Not in the paper.

    Args:
        zero_flag: as for :func:`imagined_red`.
    """

    def pair(red: Tensor, blue: Tensor, random: RandomStreams) -> ObservationPairs:
        blue_from_red = red[..., RED.landmark_0] - blue[..., BLUE.landmark_0]
        fields = [
            blue[..., BLUE.goal] + blue_from_red,
            red[..., RED.landmark_0],
            red[..., RED.landmark_1],
            red[..., RED.blue_position],
            torch.zeros_like(blue[..., BLUE.trapped]) if zero_flag else blue[..., BLUE.trapped],
        ]
        if _has_visible_bit(blue):
            # Red has no such bit, and sees a blue exactly where it stands as zeros, too.
            seen = (red[..., RED.blue_position] != 0.0).any(dim=-1) | (blue_from_red == 0.0).all(dim=-1)
            fields.append(seen[..., None].to(blue.dtype))
        other = torch.cat(fields, dim=-1)
        # An absent red observes nothing but zeros, which no present red does.
        return ObservationPairs(blue, other, (red != 0.0).any(dim=-1))

    return pair


def with_red(blue: Tensor, position: Tensor) -> Tensor:
    """A copy of blue's observations ``[..., 10 or 11]`` in which it sees red ``position`` ``[..., 2]`` away."""
    seeing = blue.clone()
    seeing[..., BLUE.red_position] = position
    seeing[..., BLUE.visible] = 1.0
    return seeing


def without_red(blue: Tensor) -> Tensor:
    """A copy of blue's observations ``[..., 10 or 11]`` in which blue does not see red."""
    unseeing = blue.clone()
    unseeing[..., BLUE.red_position] = 0.0
    unseeing[..., BLUE.visible] = 0.0
    return unseeing


def exchanged_goal(blue: Tensor) -> Tensor:
    """A copy of blue's observations ``[..., 10 or 11]`` in which goal and fake are exchanged.

    The field of the goal gets the position of the landmark that it is not; the goal is the landmark nearer to what the
    field says, and nothing else changes. Not in the paper.
    """
    goal, first, second = blue[..., BLUE.goal], blue[..., BLUE.landmark_0], blue[..., BLUE.landmark_1]
    first_is_goal = (goal - first).square().sum(-1, keepdim=True) <= (goal - second).square().sum(-1, keepdim=True)
    exchanged = blue.clone()
    exchanged[..., BLUE.goal] = torch.where(first_is_goal, second, first)
    return exchanged


def red_unseen(blue: Tensor) -> Tensor:
    """Where blue's observations ``[..., 10 or 11]`` show no red, which makes them self observations: bool ``[...]``.

    The visible bit says so; where there is none, the field of red is zero.
    """
    if _has_visible_bit(blue):
        return blue[..., BLUE.visible.start] == 0.0
    return (blue[..., BLUE.red_position] == 0.0).all(dim=-1)


def untrapped(blue: Tensor) -> Tensor:
    """Where blue's observations ``[..., 10 or 11]`` say that red is not trapped: bool ``[...]``."""
    return blue[..., BLUE.trapped.start] == 0.0


def _has_visible_bit(blue: Tensor) -> bool:
    return bool(blue.shape[-1] > BLUE.visible.start)


def point_in_sight(blue: Tensor, sight_radius: float, random: RandomStreams) -> Tensor:
    """Points ``[R, ..., 2]``, one per observation, of uniform angle and uniform radius up to ``sight_radius``."""
    angle, radius = random.uniform(2, *blue.shape[1:-1]).unbind(dim=1)
    direction = torch.stack((torch.cos(angle * 2.0 * math.pi), torch.sin(angle * 2.0 * math.pi)), dim=-1)
    return direction * (radius * sight_radius)[..., None]
