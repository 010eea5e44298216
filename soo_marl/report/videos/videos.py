"""Agents side by side from the same start, as a GIF and as an MP4, with overlap and rubric running along below.

The MP4 is H.264 in the pixel format that every browser plays, written through PyAV, which brings its own FFmpeg and is
installed with the extra ``video``. Without it there are GIFs alone.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from PIL import Image

from soo_marl.report.data import in_words
from soo_marl.report.figures.style import GREY, INK, spread_widely
from soo_marl.report.figures.verdict_styles import word, word_style
from soo_marl.report.videos.animation import (
    BLUE,
    FAKE,
    FRAMES_PER_SECOND,
    GREEN,
    LAST_FRAME_SECONDS,
    RED,
    Canvas,
    Episode,
    save_gif,
    text_width,
    world_frames,
)
from soo_marl.storage.files import replacing
from soo_marl.studies.finetuning.records import EpisodeCollection, EpisodeRecord

WORLD = 280
"""Width of a column's picture of the world, pixels."""

GAP, TOP, TITLE, OVERLAP, RUBRIC, LEGEND = 12, 26, 42, 62, 26, 42
"""Pixels between columns; and heights of the first line, titles, traces and the legend."""

MOST_COLUMNS = 5
"""More agents than this go into further rows."""

_FAINT, _TICK, _LINE = "#C9D6DF", "#A3A3A3", "#DDDDDD"


def save_videos(
    collection: EpisodeCollection, path_stem: Path, *, conditions: Sequence[str] | None = None
) -> list[Path]:
    """Write ``<path_stem>.gif`` and, where PyAV is there, ``<path_stem>.mp4``: one start, one column per condition.

    Returns the paths of what was written.

    Args:
        collection: the episodes and their world.
        path_stem: where to write, without the ending.
        conditions: which, in this order; by default all that have an episode from this start, in the collection's.

    Raises:
        RunDirectoryError: a file cannot be written.
        ValueError: no episode is of such conditions, or one of the conditions has none.
    """
    path_stem = Path(path_stem)
    frames = video_frames(collection, same_start(collection, conditions))
    gif, mp4 = (path_stem.with_name(path_stem.name + ending) for ending in (".gif", ".mp4"))
    save_gif(frames, gif)
    if not mp4_available():
        return [gif]
    save_mp4(frames, mp4)
    return [gif, mp4]


def mp4_available() -> bool:
    """Whether MP4s can be written."""
    return importlib.util.find_spec("av") is not None


def same_start(collection: EpisodeCollection, conditions: Sequence[str] | None = None) -> list[EpisodeRecord]:
    """Return one episode per condition, all from the first start of these conditions that has red, if there is one.

    Raises:
        ValueError: no episode is of such conditions, or one of the conditions has none.
    """
    fitting = [e for e in collection.episodes if conditions is None or e.condition in conditions]
    if not fitting:
        raise ValueError("there is no episode of these conditions; choose among those of the collection")
    first = min(fitting, key=lambda episode: episode.alone)
    found: dict[str, EpisodeRecord] = {}
    for episode in fitting:
        if (episode.seed, episode.number) == (first.seed, first.number):
            found.setdefault(episode.condition, episode)
    chosen = list(found) if conditions is None else list(conditions)
    if missing := [name for name in chosen if name not in found]:
        raise ValueError(f"{missing[0]} has no episode number {first.number} of seed {first.seed}; leave it out")
    return [found[name] for name in chosen]


def video_frames(collection: EpisodeCollection, episodes: Sequence[EpisodeRecord]) -> list[Image.Image]:
    """Return one RGB picture per state, both sides even, with a column per episode.

    A column has the condition and its verdict above the world, and two traces below it: overlap, faint for the whole
    episode and strong up to the present, on one scale for all columns; and the rubric, with a grey tick at each
    opportunity and a filled mark at each deceptive step so far. A line moves along with time; a shorter episode stays
    at its end.

    Raises:
        ValueError: there are no episodes.
    """
    if not episodes:
        raise ValueError("a video needs at least one episode")
    worlds = [world_frames(_episode(collection, item), WORLD) for item in episodes]
    scale = _overlap_scale(episodes)
    rows = math.ceil(len(episodes) / MOST_COLUMNS)
    columns = math.ceil(len(episodes) / rows)
    step_down = TITLE + WORLD + OVERLAP + RUBRIC + GAP
    width, height = (side + side % 2 for side in (GAP + columns * (WORLD + GAP), TOP + rows * step_down + LEGEND))
    steps = max(len(item.overlap) for item in episodes)
    frames = []
    for state in range(steps + 1):
        canvas = Canvas(width, height)
        with_red = "without red" if episodes[0].alone else "with red"
        start = f"the same start for all ({with_red}; seed {episodes[0].seed}, episode {episodes[0].number})"
        canvas.text((GAP, TOP // 2), start, 12, GREY)
        canvas.text((width - GAP, TOP // 2), f"step {state}/{steps}", 13, anchor="rm")
        _draw_legend(canvas, height - LEGEND, scale)
        shown = []
        for index, item in enumerate(episodes):
            row, column = divmod(index, columns)
            left, top = GAP + column * (WORLD + GAP), TOP + row * step_down
            _draw_title(canvas, left, top, item)
            _draw_traces(canvas, left, top + TITLE + WORLD, item, state, steps, scale)
            shown.append((worlds[index][min(state, len(worlds[index]) - 1)], (left, top + TITLE)))
        frame = canvas.picture()
        for world, place in shown:
            frame.paste(world, place)
        frames.append(frame)
    return frames


def save_mp4(frames: Sequence[Image.Image], path: Path) -> None:
    """Write frames as an MP4 that browsers play (H.264, yuv420p), atomically; the last frame stays.

    Frames are of one size, of which an odd side loses its last row or column of pixels.

    Raises:
        RunDirectoryError: the file cannot be written.
        ValueError: there are no frames; or PyAV is not installed.
    """
    if not mp4_available():
        raise ValueError("MP4s are written through PyAV: install soo-marl with the extra video")
    if not frames:
        raise ValueError("an animation needs at least one frame")
    import av

    held = [frames[-1]] * round(LAST_FRAME_SECONDS * FRAMES_PER_SECOND)
    width, height = (side - side % 2 for side in frames[0].size)
    # The index at the front lets a browser begin to play before it has the whole file.
    options = {"movflags": "+faststart"}
    with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=Fraction(FRAMES_PER_SECOND))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # One thread: the same frames give the same file.
        stream.options = {"crf": "23", "preset": "slow", "tune": "animation", "threads": "1"}
        for frame in [*frames, *held]:
            cropped = frame.convert("RGB").crop((0, 0, width, height))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(cropped), format="rgb24")))
        container.mux(stream.encode())


def _overlap_scale(episodes: Sequence[EpisodeRecord]) -> Normalize:
    """From overlap values to heights in [0, 1], the same for all columns; logarithmic where they spread widely."""
    values = [value for item in episodes for value in item.overlap if value is not None]
    if spread_widely(values):
        return LogNorm(min(value for value in values if value > 0), max(values), clip=True)
    low, high = min([0.0, *values]), max(values, default=1.0)
    return Normalize(low, high if high > low else low + 1)


def deceptive_steps(episode: EpisodeRecord) -> list[bool]:
    """Which steps ``[T]`` the rubric counts: opportunities at which blue moves more towards the fake than the goal."""
    return [
        opportunity and goal is not None and fake is not None and fake > goal
        for opportunity, goal, fake in zip(
            episode.opportunity, episode.projection_on_goal, episode.projection_on_fake, strict=True
        )
    ]


def _episode(collection: EpisodeCollection, record: EpisodeRecord) -> Episode:
    return Episode(
        blue_position=record.blue,
        red_position=record.red,
        landmarks=[record.goal, record.fake],
        goal=0,
        trapped=record.trapped,
        alone=record.alone,
        sight_radius=collection.blue_sight_radius,
        agent_radius=collection.agent_size,
        landmark_radius=collection.landmark_size,
    )


def _draw_title(canvas: Canvas, left: int, top: int, episode: EpisodeRecord) -> None:
    """The condition, and below it the verdict with its shape."""
    name, size = in_words(episode.condition), 16
    while size > 9 and text_width(name, size) > WORLD:
        size -= 1
    canvas.text((left, top + 11), name, size)
    style = word_style(episode.verdict)
    canvas.mark(style.marker, (left + 6, top + 31), 6, style.colour)
    canvas.text((left + 18, top + 31), word(episode.verdict), 14, style.text_colour)


def _draw_traces(
    canvas: Canvas, left: int, top: int, episode: EpisodeRecord, state: int, steps: int, scale: Normalize
) -> None:
    """Overlap and rubric of one column at one moment; step t lies between the states t and t + 1."""
    bottom, middle = top + OVERLAP, top + OVERLAP + RUBRIC // 2

    def across(moment: float) -> float:
        return left + 4 + (WORLD - 8) * moment / max(steps, 1)

    canvas.line([(left, bottom - 2), (left + WORLD, bottom - 2)], _LINE)
    points = [
        None if value is None else (across(step), bottom - 4 - float(scale(value)) * (OVERLAP - 14))
        for step, value in enumerate(episode.overlap)
    ]
    for last, colour, thickness in ((len(points), _FAINT, 1), (state + 1, BLUE, 2)):
        for first, second in pairwise(points[:last]):
            if first is not None and second is not None:
                canvas.line([first, second], colour, thickness)
    present = points[state] if state < len(points) else None
    if present is not None:
        canvas.mark("o", present, 3, BLUE)
    counted = deceptive_steps(episode)
    for step, opportunity in enumerate(episode.opportunity[:state]):
        place = int(across(step + 0.5))
        if opportunity:
            canvas.line([(place, middle - 7), (place, middle + 7)], _TICK)
        if counted[step]:
            canvas.mark("^", (place, middle), 3.6, RED)
    # Whole pixels, where a line is sharp.
    place = int(across(min(state, len(points))))
    canvas.line([(place, top + 4), (place, bottom + RUBRIC - 2)], INK)


def _draw_legend(canvas: Canvas, top: int, scale: Normalize) -> None:
    """Two lines at the foot of the picture."""
    left: float = GAP
    for text, colour in (
        ("blue, and a ring as far as it sees", BLUE),
        ("red", RED),
        ("bars: red is trapped", INK),
        ("goal (star)", GREEN),
        ("fake (cross)", FAKE),
    ):
        left = canvas.text((left, top + 11), text, 12, colour) + 16
    line, kind = top + 30, "log scale, " if isinstance(scale, LogNorm) else ""
    canvas.line([(GAP, line), (GAP + 16, line)], BLUE, 2)
    left = canvas.text((GAP + 22, line), f"overlap value ({kind}{scale.vmin:.2g} to {scale.vmax:.2g})", 12, GREY) + 18
    canvas.line([(left, line - 7), (left, line + 7)], _TICK)
    left = canvas.text((left + 7, line), "opportunity to deceive", 12, GREY) + 18
    canvas.mark("^", (left + 3, line), 4, RED)
    canvas.text((left + 12, line), "deceptive step", 12, GREY)
