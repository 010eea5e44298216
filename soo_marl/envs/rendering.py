"""Pictures of Physical Deception, drawn with pygame on any surface; no display is needed.

The camera is fixed. Colours are from the palette of Okabe and Ito, which colour-blind readers can tell apart, and every
role has a shape as well (:mod:`soo_marl.envs.physical_deception` lists them). A thin ring around an agent is its sight
radius, one around a landmark the radius within which an agent is at it. An absent red is not drawn.
"""

from __future__ import annotations

import math

import numpy as np
import pygame
from numpy.typing import NDArray

from soo_marl.envs.configuration import PhysicalDeceptionConfig
from soo_marl.envs.state import PhysicalDeceptionState

CAMERA_HALF_WIDTH = 1.1
"""A picture shows [-1.1, 1.1] along both axes, in world units."""

Colour = tuple[int, int, int]
Points = NDArray[np.float64]

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
GOAL_COLOUR: Colour = (0, 158, 115)
FAKE_COLOUR: Colour = (120, 120, 120)
BLUE_COLOUR: Colour = (0, 114, 178)
RED_COLOUR: Colour = (213, 94, 0)
WALL_COLOUR: Colour = (70, 70, 70)

_SUPERSAMPLING = 2
_BODY_OPACITY = 130
_LINE = 0.006
"""Width of thin lines, in world units."""
_TRAIL = 0.018
"""Radius of the dots of a trail, in world units."""


def draw(
    surface: pygame.Surface,
    state: PhysicalDeceptionState,
    config: PhysicalDeceptionConfig,
    *,
    trails: Points | None = None,
    all_rings: bool = True,
) -> None:
    """Draw a state over the whole of a square surface of 24 or 32 bits per pixel.

    Args:
        surface: what to draw on.
        state: what the world looks like.
        config: the game, for sizes and radii.
        trails: where red and blue were before, ``[2, T, 2]``; drawn as dots.
        all_rings: whether the radii of red's sight and of the landmarks are drawn, besides that of blue's sight.
    """
    # Drawn larger and then scaled down: pygame draws hard edges, this smooths them.
    width = surface.get_width() * _SUPERSAMPLING
    canvas = _Canvas(pygame.Surface((width, width), depth=32))
    canvas.walls(config.wall_width)

    goal, fake = state.landmarks[state.goal], state.landmarks[state.fake]
    size = config.landmark_size
    if all_rings:
        canvas.ring(fake, config.landmark_radius, FAKE_COLOUR, _LINE)
        canvas.ring(goal, config.landmark_radius, GOAL_COLOUR, _LINE)
    canvas.disc(fake, size, FAKE_COLOUR)
    for arm in 0.5 * size * np.array([[1, 1], [1, -1]]):
        canvas.line(fake - arm, fake + arm, 0.25 * size, WHITE)
    canvas.disc(goal, size, GOAL_COLOUR)
    canvas.polygon(goal + _star(0.8 * size), WHITE)
    if trails is not None:
        for agent, colour in ((1, BLUE_COLOUR),) if state.alone else ((0, RED_COLOUR), (1, BLUE_COLOUR)):
            for point in trails[agent]:
                canvas.disc(point, _TRAIL, colour)

    red, blue = state.positions
    if not state.alone:
        canvas.body(red, config.agent_size, RED_COLOUR)
        if all_rings:
            canvas.ring(red, config.red_sight_radius, RED_COLOUR, _LINE)
        if state.trapped:
            canvas.bars(red, config.agent_size)
    canvas.body(blue, config.agent_size, BLUE_COLOUR)
    if not config.blind:
        canvas.ring(blue, config.blue_sight_radius, BLUE_COLOUR, _LINE)
    # The centres are what counts in the game: they stay visible where the agents overlap.
    if not state.alone and state.pause_left:
        size = 0.3 * config.agent_size
        for corner in size * np.array([[-0.5, 1.0], [0.5, 1.0]]):
            canvas.line(red + corner * (1, -1), red + corner, 0.5 * size, RED_COLOUR)
    elif not state.alone:
        canvas.polygon(red + _triangle(0.3 * config.agent_size), RED_COLOUR)
    canvas.disc(blue, 0.2 * config.agent_size, BLUE_COLOUR)

    # Scaled straight onto a surface of another depth, memory would be damaged.
    surface.blit(pygame.transform.smoothscale(canvas.surface, surface.get_size()), (0, 0))


def _triangle(radius: float) -> Points:
    """Return the ``[3, 2]`` corners of a triangle around the origin that points up."""
    angles = np.deg2rad([90, 210, 330])
    return np.asarray(radius * np.stack([np.cos(angles), np.sin(angles)], axis=1))


def _star(radius: float) -> Points:
    """Return the ``[10, 2]`` corners of a five-pointed star around the origin that points up."""
    angles = np.pi / 2 + np.arange(10) * np.pi / 5
    reach = np.where(np.arange(10) % 2 == 0, radius, 0.45 * radius)
    return np.asarray(reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1))


class _Canvas:
    """A square white surface on which shapes are drawn in world units."""

    def __init__(self, surface: pygame.Surface) -> None:
        self.surface = surface
        self.scale = surface.get_width() / (2 * CAMERA_HALF_WIDTH)
        surface.fill(WHITE)

    def pixel(self, point: Points) -> tuple[float, float]:
        """Return where a point lies; the second axis points up in the world and down on a surface."""
        return (float(point[0]) + CAMERA_HALF_WIDTH) * self.scale, (CAMERA_HALF_WIDTH - float(point[1])) * self.scale

    def length(self, length: float) -> int:
        return max(1, round(length * self.scale))

    def disc(self, centre: Points, radius: float, colour: Colour) -> None:
        pygame.draw.circle(self.surface, colour, self.pixel(centre), self.length(radius))

    def ring(self, centre: Points, radius: float, colour: Colour, width: float) -> None:
        pygame.draw.circle(self.surface, colour, self.pixel(centre), self.length(radius), self.length(width))

    def line(self, start: Points, end: Points, width: float, colour: Colour) -> None:
        pygame.draw.line(self.surface, colour, self.pixel(start), self.pixel(end), self.length(width))

    def polygon(self, corners: Points, colour: Colour) -> None:
        pygame.draw.polygon(self.surface, colour, [self.pixel(corner) for corner in corners])

    def body(self, centre: Points, radius: float, colour: Colour) -> None:
        """Draw an agent: see-through, since the landmark under it matters."""
        layer = pygame.Surface(self.surface.get_size(), pygame.SRCALPHA, 32)
        pygame.draw.circle(layer, (*colour, _BODY_OPACITY), self.pixel(centre), self.length(radius))
        self.surface.blit(layer, (0, 0))
        self.ring(centre, radius, colour, 2 * _LINE)

    def bars(self, centre: Points, radius: float) -> None:
        """Draw the bars of the trap across an agent."""
        self.ring(centre, radius, BLACK, 2 * _LINE)
        for x in np.linspace(-0.75, 0.75, 4) * radius:
            top = np.array([x, math.sqrt(radius**2 - x**2)])
            self.line(centre + top * (1, -1), centre + top, 2 * _LINE, BLACK)

    def walls(self, width: float) -> None:
        """Draw the four walls, whose mid-lines are at -1 and 1."""
        left, top = self.pixel(np.array([-1 - width / 2, 1 + width / 2]))
        side = self.length(2 + width)
        pygame.draw.rect(self.surface, WALL_COLOUR, (left, top, side, side), self.length(width))
