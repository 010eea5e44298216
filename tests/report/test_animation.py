from pathlib import Path

import numpy as np
import pygame
import pytest
from PIL import Image

from soo_marl.envs.configuration import PhysicalDeceptionConfig
from soo_marl.envs.rendering import CAMERA_HALF_WIDTH as VIEW
from soo_marl.envs.rendering import draw
from soo_marl.envs.state import PhysicalDeceptionState
from soo_marl.report.videos.animation import HEADER, LEGEND, SIZE, Episode, episode_frames, save_gif


def episode(steps: int = 4, alone: bool = False, goal: int = 0) -> Episode:
    line = np.linspace(-0.5, 0.5, steps + 1)
    return Episode(
        blue_position=np.stack([line, np.full(steps + 1, -0.6)], axis=1),
        red_position=np.stack([line, np.full(steps + 1, 0.6)], axis=1),
        landmarks=[[-0.7, 0.0], [0.7, 0.0]],
        goal=goal,
        trapped=np.arange(steps + 1) >= steps,
        alone=alone,
        sight_radius=0.2,
    )


def colour(frame: Image.Image, x: float, y: float) -> tuple[int, int, int]:
    unit = SIZE / (2 * VIEW)
    pixel = frame.getpixel((round((x + VIEW) * unit), round(HEADER + (VIEW - y) * unit)))
    assert isinstance(pixel, tuple)
    return pixel[0], pixel[1], pixel[2]


def test_bodies_and_landmarks_are_where_they_belong() -> None:
    frames = episode_frames(episode(), "title")
    assert len(frames) == 5
    assert frames[0].size == (SIZE, SIZE + HEADER + LEGEND)
    for frame, x in ((frames[0], -0.5), (frames[4], 0.5)):
        red, green, blue = colour(frame, x, -0.6)
        assert blue > 150 > red, "blue stands below, and up is up"
        red, green, blue = colour(frame, x, 0.6)
        assert red > 180 > blue
    red, green, blue = colour(frames[0], -0.7, -0.065)
    assert green > red + 40, "the goal is green"
    assert max(colour(frames[0], 0.7, 0.0)) - min(colour(frames[0], 0.7, 0.0)) < 10, "the fake is grey"
    wall = colour(frames[0], 1.0, 0.0)
    assert max(wall) < 120


def test_goal_index_moves_the_goal() -> None:
    frame = episode_frames(episode(goal=1))[0]
    red, green, _ = colour(frame, 0.7, -0.065)
    assert green > red + 40


def test_trapped_red_is_barred_and_an_absent_red_is_not_drawn() -> None:
    frames = episode_frames(episode())
    ring = (0.5 + 0.144, 0.6)
    assert max(colour(frames[4], *ring)) < 120
    assert min(colour(episode_frames(episode(alone=True))[4], *ring)) > 200
    assert min(colour(episode_frames(episode(alone=True))[4], 0.5, 0.6)) > 200


def test_gif_has_a_frame_per_state_and_is_light(tmp_path: Path) -> None:
    path = tmp_path / "figures" / "episode.gif"
    save_gif(episode_frames(episode(steps=50), "An episode"), path)
    with Image.open(path) as image:
        assert (image.format, image.n_frames, image.width) == ("GIF", 51, SIZE)
    assert path.stat().st_size < 1_000_000


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"red_position must have shape \[2, 2\], not \[3, 2\]"):
        Episode(np.zeros((2, 2)), np.zeros((3, 2)), np.zeros((2, 2)), 0, np.zeros(2), False, 0.3)
    with pytest.raises(ValueError, match="goal must be 0 or 1"):
        Episode(np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, 2)), 2, np.zeros(2), False, 0.3)
    with pytest.raises(ValueError, match="at least one frame"):
        save_gif([], tmp_path / "x.gif")


def test_surfaces_of_both_depths_show_the_same() -> None:
    state = PhysicalDeceptionState(np.zeros((2, 2)), np.zeros((2, 2)), np.array([[0.5, 0.5], [-0.5, 0.5]]), 0)
    pictures = []
    for depth in (24, 32):
        surface = pygame.Surface((97, 97), depth=depth)
        draw(surface, state, PhysicalDeceptionConfig())
        pictures.append(pygame.image.tobytes(surface, "RGB"))
    assert pictures[0] == pictures[1]
