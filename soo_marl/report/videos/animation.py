"""One episode of Physical Deception as an animated picture, drawn by the environment's own renderer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pygame
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from soo_marl.envs.configuration import PhysicalDeceptionConfig
from soo_marl.envs.rendering import draw
from soo_marl.envs.state import PhysicalDeceptionState
from soo_marl.report.figures.style import COLOURS, INK
from soo_marl.storage.files import write_bytes

SIZE = 360
"""Width of a frame in pixels; a frame is as much higher as its header and its legend."""

HEADER, LEGEND = 30, 24
TRAIL = 10
"""How many past positions of each agent stay visible."""

FRAMES_PER_SECOND = 10
LAST_FRAME_SECONDS = 1.5

BLUE, RED, GREEN, FAKE = *COLOURS[:3], "#6E6E6E"


@dataclass(frozen=True)
class Episode:
    """What happened in one episode of T steps, T + 1 states, in world units.

    Positions are ``[T+1, 2]``, red's are ignored where blue is alone; the two landmarks are ``[2, 2]``, of which the
    goal is number 0 or 1 and the other one the fake. ``trapped`` is ``[T+1]``, true from the state on in which red is
    trapped. The sight radius is how far blue sees, the other radii are those of bodies as drawn.

    Raises:
        ValueError: the arrays' shapes do not fit together, or the goal is not 0 or 1.
    """

    blue_position: ArrayLike
    red_position: ArrayLike
    landmarks: ArrayLike
    goal: int
    trapped: ArrayLike
    alone: bool
    sight_radius: float
    agent_radius: float = 0.15
    landmark_radius: float = 0.08

    def __post_init__(self) -> None:
        states = np.shape(self.blue_position)[0]
        shapes = {"blue_position": (states, 2), "red_position": (states, 2), "landmarks": (2, 2), "trapped": (states,)}
        for name, shape in shapes.items():
            if np.shape(getattr(self, name)) != shape:
                raise ValueError(f"{name} must have shape {list(shape)}, not {list(np.shape(getattr(self, name)))}")
        if self.goal not in (0, 1):
            raise ValueError(f"goal must be 0 or 1, not {self.goal}")


class Canvas:
    """A white picture for texts, lines and marks, in pixels; drawn twice as large and reduced, which smooths edges."""

    def __init__(self, width: int, height: int) -> None:
        self._image = Image.new("RGB", (2 * width, 2 * height), "white")
        self._draw = ImageDraw.Draw(self._image)

    def picture(self) -> Image.Image:
        """What was drawn."""
        return self._image.reduce(2)

    def text(self, place: tuple[float, float], text: str, size: int, colour: str = INK, anchor: str = "lm") -> float:
        """Write a text, and return where it ends to the right; anchors are Pillow's."""
        x, y = place
        self._draw.text((2 * x, 2 * y), text, fill=colour, font=_font(2 * size), anchor=anchor)
        return x + text_width(text, size)

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: int = 1) -> None:
        """Join points."""
        self._draw.line([(2 * x, 2 * y) for x, y in points], fill=colour, width=2 * width)

    def mark(self, marker: str, centre: tuple[float, float], radius: float, colour: str) -> None:
        """Draw matplotlib's marker o, s, ^ or D, and a cross for any other."""
        (x, y), r = (2 * centre[0], 2 * centre[1]), 2 * radius
        corners = {
            "s": [(-r, -r), (r, -r), (r, r), (-r, r)],
            "^": [(0, -r), (r, r), (-r, r)],
            "D": [(0, -r), (r, 0), (0, r), (-r, 0)],
        }
        if marker == "o":
            self._draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        elif marker in corners:
            self._draw.polygon([(x + dx, y + dy) for dx, dy in corners[marker]], fill=colour)
        else:
            for sign in (-1, 1):
                self._draw.line((x - r, y - sign * r, x + r, y + sign * r), fill=colour, width=int(r))


def world_frames(episode: Episode, size: int) -> list[Image.Image]:
    """Return one square RGB picture of the world per state, ``size`` pixels wide; bodies have their true size."""
    config = PhysicalDeceptionConfig().replace(
        blue_sight_radius=episode.sight_radius, agent_size=episode.agent_radius, landmark_size=episode.landmark_radius
    )
    positions = np.stack([episode.red_position, episode.blue_position]).astype(np.float64)
    trapped = np.asarray(episode.trapped, dtype=bool) & (not episode.alone)
    surface = pygame.Surface((size, size), depth=32)
    frames = []
    for step in range(positions.shape[1]):
        state = PhysicalDeceptionState(
            positions=positions[:, step].clip(-1, 1),
            velocities=np.zeros((2, 2)),
            landmarks=np.asarray(episode.landmarks, dtype=np.float64),
            goal=episode.goal,
            trapped=bool(trapped[step]),
            alone=episode.alone,
        )
        draw(surface, state, config, trails=positions[:, max(0, step - TRAIL) : step], all_rings=False)
        frames.append(Image.frombytes("RGB", (size, size), pygame.image.tobytes(surface, "RGB")))
    return frames


def episode_frames(episode: Episode, title: str = "") -> list[Image.Image]:
    """Return one RGB picture per state of an episode.

    Above the world the title and the step's number, below it what is what.
    """
    worlds = world_frames(episode, SIZE)
    frames = []
    for step, world in enumerate(worlds):
        canvas = Canvas(SIZE, HEADER + SIZE + LEGEND)
        canvas.text((12, HEADER // 2), title, 14)
        canvas.text((SIZE - 12, HEADER // 2), f"step {step}/{len(worlds) - 1}", 11, anchor="rm")
        red = ("alone", INK) if episode.alone else ("red trapped" if np.asarray(episode.trapped)[step] else "red", RED)
        left, line = 12.0, HEADER + SIZE + LEGEND // 2
        for text, colour in (("blue", BLUE), red, ("goal (star)", GREEN), ("fake (cross)", FAKE)):
            left = canvas.text((left, line), text, 11, colour) + 18
        frame = canvas.picture()
        frame.paste(world, (0, HEADER))
        frames.append(frame)
    return frames


def save_gif(frames: Sequence[Image.Image], path: Path) -> None:
    """Write frames as an endlessly repeating GIF, atomically; all are of one size, and the last stays for a while.

    Raises:
        RunDirectoryError: the file cannot be written.
        ValueError: there are no frames.
    """
    if not frames:
        raise ValueError("an animation needs at least one frame")
    # One palette for all frames: no flicker, and small differences between frames.
    sample = Image.new("RGB", (frames[0].width, 3 * frames[0].height))
    for row, frame in enumerate((frames[0], frames[len(frames) // 2], frames[-1])):
        sample.paste(frame, (0, row * frame.height))
    palette = sample.quantize(128, dither=Image.Dither.NONE)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    indexed[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=indexed[1:],
        duration=[1000 // FRAMES_PER_SECOND] * (len(indexed) - 1) + [int(1000 * LAST_FRAME_SECONDS)],
        loop=0,
        # Frames hold only what changes; nothing is lost.
        optimize=True,
    )
    write_bytes(path, buffer.getvalue())


def text_width(text: str, size: int) -> float:
    """How many pixels a text takes across."""
    return _font(2 * size).getlength(text) / 2


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
