"""One episode of Physical Deception as an animated picture."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from soo_marl.storage.files import write_bytes

SIZE = 360
"""Width of a frame in pixels; a frame is as much higher as its header and its legend."""

HEADER = 30
LEGEND = 24
SCALE = 2
"""Frames are drawn this many times larger and reduced, which smooths edges."""

VIEW = 1.1
"""The picture shows the square from -VIEW to VIEW in world units."""

WALL_WIDTH = 0.1
AGENT_RADIUS = 0.15
LANDMARK_RADIUS = 0.08
TRAIL = 10
"""How many past positions of each agent stay visible."""

PAPER, FLOOR, WALL, INK = "#FFFFFF", "#F7F7F5", "#5B5B5B", "#222222"
BLUE, RED, GREEN, FAKE = "#0072B2", "#D55E00", "#009E73", "#9A9A9A"
TRANSLUCENT = "C8"
"""Opacity of the bodies, hexadecimal: agents pass through one another, and both stay visible."""


@dataclass(frozen=True)
class Episode:
    """What happened in one episode of T steps; T + 1 states.

    Raises:
        ValueError: the arrays' shapes do not fit together, or the goal is not 0 or 1.
    """

    blue_position: ArrayLike
    """[T+1, 2], world units."""
    red_position: ArrayLike
    """[T+1, 2], world units; ignored where blue is alone."""
    landmarks: ArrayLike
    """[2, 2], world units."""
    goal: int
    """Which landmark is the goal: 0 or 1; the other is the fake."""
    trapped: ArrayLike
    """[T+1], true from the state on in which red is trapped."""
    alone: bool
    """Whether blue is alone, so that red is not drawn."""
    sight_radius: float
    """How far blue sees, world units."""
    agent_radius: float = AGENT_RADIUS
    """Of both agents, world units."""
    landmark_radius: float = LANDMARK_RADIUS
    """Of both landmarks as drawn, world units."""

    def __post_init__(self) -> None:
        states = np.asarray(self.blue_position).shape[0]
        for name, shape in (
            ("blue_position", (states, 2)),
            ("red_position", (states, 2)),
            ("landmarks", (2, 2)),
            ("trapped", (states,)),
        ):
            if np.asarray(getattr(self, name)).shape != shape:
                raise ValueError(
                    f"{name} must have shape {list(shape)}, not {list(np.asarray(getattr(self, name)).shape)}"
                )
        if self.goal not in (0, 1):
            raise ValueError(f"goal must be 0 or 1, not {self.goal}")


def episode_frames(episode: Episode, title: str = "") -> list[Image.Image]:
    """Return one RGB picture per state of an episode.

    Walls, the goal (green disc with a star), the fake landmark (grey cross), blue with the disc that it sees, red,
    and a ring around a trapped red; the step's number in the header. Bodies have their true size.
    """
    blue = np.asarray(episode.blue_position, dtype=np.float64)
    red = np.asarray(episode.red_position, dtype=np.float64)
    trapped = np.asarray(episode.trapped, dtype=bool)
    return [_frame(episode, blue, red, bool(trapped[step]), step, title) for step in range(len(blue))]


def save_gif(frames: list[Image.Image], path: Path, milliseconds: int = 110) -> None:
    """Write frames as an endlessly repeating GIF, atomically; the last frame stays for a second and a half.

    Args:
        frames: At least one picture, all of one size.
        path: Where to write.
        milliseconds: How long each frame stays.

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
        duration=[milliseconds] * (len(indexed) - 1) + [1500],
        loop=0,
        # Frames hold only what changes; nothing is lost.
        optimize=True,
    )
    write_bytes(path, buffer.getvalue())


def _frame(
    episode: Episode, blue: NDArray[np.float64], red: NDArray[np.float64], trapped: bool, step: int, title: str
) -> Image.Image:
    image = Image.new("RGB", (SIZE * SCALE, (SIZE + HEADER + LEGEND) * SCALE), PAPER)
    draw = ImageDraw.Draw(image, "RGBA")
    _draw_walls(draw)
    _disc(draw, blue[step], episode.sight_radius, fill=BLUE + "20", outline=BLUE + "60")
    for index in range(max(0, step - TRAIL), step):
        if not episode.alone:
            _disc(draw, red[index], 0.02, fill=RED + "80")
        _disc(draw, blue[index], 0.02, fill=BLUE + "80")
    if not episode.alone:
        _disc(draw, red[step], episode.agent_radius, fill=RED + TRANSLUCENT, outline=RED)
    _disc(draw, blue[step], episode.agent_radius, fill=BLUE + TRANSLUCENT, outline=BLUE)
    _draw_landmarks(draw, episode)
    if trapped and not episode.alone:
        _disc(draw, red[step], episode.agent_radius + 0.04, outline=INK, width=3)
    _draw_texts(draw, title, f"step {step}/{len(blue) - 1}", trapped, episode.alone)
    return image.resize((SIZE, SIZE + HEADER + LEGEND), Image.Resampling.LANCZOS)


def _draw_walls(draw: ImageDraw.ImageDraw) -> None:
    outer, inner = 1 + WALL_WIDTH / 2, 1 - WALL_WIDTH / 2
    draw.rectangle((*_pixel(-outer, outer), *_pixel(outer, -outer)), fill=WALL)
    draw.rectangle((*_pixel(-inner, inner), *_pixel(inner, -inner)), fill=FLOOR)


def _draw_landmarks(draw: ImageDraw.ImageDraw, episode: Episode) -> None:
    landmarks = np.asarray(episode.landmarks, dtype=np.float64)
    goal, fake = landmarks[episode.goal], landmarks[1 - episode.goal]
    radius = episode.landmark_radius
    arm = radius * 0.75
    _disc(draw, fake, radius, fill=PAPER, outline=FAKE, width=2)
    for sign in (-1, 1):
        ends = (*_pixel(fake[0] - arm, fake[1] - sign * arm), *_pixel(fake[0] + arm, fake[1] + sign * arm))
        draw.line(ends, fill=FAKE, width=4 * SCALE)
    _disc(draw, goal, radius, fill=GREEN)
    draw.polygon(_star(goal, radius * 0.9), fill=PAPER)


def _draw_texts(draw: ImageDraw.ImageDraw, title: str, counter: str, trapped: bool, alone: bool) -> None:
    large, small = ImageFont.load_default(14 * SCALE), ImageFont.load_default(11 * SCALE)
    # Over whatever of blue's sight reaches beyond the picture of the world.
    draw.rectangle((0, 0, SIZE * SCALE, HEADER * SCALE), fill=PAPER)
    draw.rectangle((0, (HEADER + SIZE) * SCALE, SIZE * SCALE, (HEADER + SIZE + LEGEND) * SCALE), fill=PAPER)
    middle = HEADER * SCALE // 2
    draw.text((12 * SCALE, middle), title, fill=INK, font=large, anchor="lm")
    draw.text(((SIZE - 12) * SCALE, middle), counter, fill=INK, font=small, anchor="rm")
    red = "red trapped" if trapped else "red"
    entries = [("blue", BLUE), ("alone", INK)] if alone else [("blue", BLUE), (red, RED)]
    left, line = 12 * SCALE, (HEADER + SIZE + LEGEND // 2) * SCALE
    for text, colour in [*entries, ("goal (star)", GREEN), ("fake (cross)", "#6E6E6E")]:
        draw.text((left, line), text, fill=colour, font=small, anchor="lm")
        left += int(draw.textlength(text, font=small)) + 18 * SCALE


def _pixel(x: float, y: float) -> tuple[float, float]:
    """World to picture: x to the right, y upwards."""
    unit = SIZE * SCALE / (2 * VIEW)
    return (x + VIEW) * unit, HEADER * SCALE + (VIEW - y) * unit


def _disc(
    draw: ImageDraw.ImageDraw,
    centre: NDArray[np.float64],
    radius: float,
    fill: str | None = None,
    outline: str | None = None,
    width: int = 1,
) -> None:
    x, y = float(centre[0]), float(centre[1])
    box = (*_pixel(x - radius, y + radius), *_pixel(x + radius, y - radius))
    draw.ellipse(box, fill=fill, outline=outline, width=width * SCALE)


def _star(centre: NDArray[np.float64], radius: float) -> list[tuple[float, float]]:
    corners = []
    for index in range(10):
        angle = math.pi / 2 + index * math.pi / 5
        reach = radius * (1.0 if index % 2 == 0 else 0.42)
        corners.append(_pixel(float(centre[0]) + reach * math.cos(angle), float(centre[1]) + reach * math.sin(angle)))
    return corners
