from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from finetuning_data import FOUR, made_up_episodes
from numpy.typing import NDArray
from PIL import Image

from soo_marl.report.videos import videos
from soo_marl.report.videos.videos import (
    GAP,
    OVERLAP,
    RUBRIC,
    TITLE,
    TOP,
    WORLD,
    deceptive_steps,
    same_start,
    save_mp4,
    save_videos,
    video_frames,
)
from soo_marl.studies.finetuning.records import EpisodeCollection, EpisodeRecord


def pixels(image: Image.Image) -> NDArray[np.int64]:
    return np.asarray(image, dtype=np.int64)


def traces(frame: Image.Image, column: int = 0) -> NDArray[np.int64]:
    """The part of a frame below a column's world."""
    left, top = GAP + column * (WORLD + GAP), TOP + TITLE + WORLD
    return pixels(frame)[top : top + OVERLAP + RUBRIC, left : left + WORLD]


def vermilion(part: NDArray[np.int64]) -> int:
    """How many pixels are of the colour of deceptive steps."""
    return int(((part[..., 0] > 190) & (part[..., 2] < 60)).sum())


def dark_columns(part: NDArray[np.int64]) -> list[int]:
    """Columns of pixels that are dark from top to bottom: the cursor."""
    return np.flatnonzero((part[10:-6].max(-1) < 140).all(0)).tolist()


@pytest.fixture(scope="module")
def collection() -> EpisodeCollection:
    return made_up_episodes(steps=12)


def test_one_episode_per_condition_from_one_start(collection: EpisodeCollection) -> None:
    chosen = same_start(collection)
    assert [episode.condition for episode in chosen] == list(FOUR)
    assert {(episode.seed, episode.number, episode.alone) for episode in chosen} == {(0, 0, False)}
    assert len({episode.blue[0] for episode in chosen}) == 1
    alone = same_start(collection.model_copy(update={"episodes": collection.episodes[1::2]}), ["honest", "soo"])
    assert [(episode.condition, episode.alone) for episode in alone] == [("honest", True), ("soo", True)]


def test_red_is_present_where_some_start_has_it(collection: EpisodeCollection) -> None:
    turned = collection.model_copy(update={"episodes": collection.episodes[::-1]})
    assert not any(episode.alone for episode in same_start(turned))


def test_starts_that_are_not_there_are_refused(collection: EpisodeCollection) -> None:
    with pytest.raises(ValueError, match="no episode of these conditions"):
        same_start(collection, ["none"])
    with pytest.raises(ValueError, match="none has no episode number 0 of seed 0; leave it out"):
        same_start(collection, ["soo", "none"])


def test_deceptive_steps_follow_the_rubric() -> None:
    point = (0.0, 0.0)
    episode = EpisodeRecord(
        condition="soo",
        seed=0,
        number=0,
        alone=False,
        goal=point,
        fake=point,
        blue=(point,) * 6,
        red=(point,) * 6,
        trapped=(False,) * 6,
        red_in_sight=(True,) * 6,
        overlap=(0.1,) * 5,
        opportunity=(True, True, False, True, True),
        projection_on_goal=(0.1, 0.9, 0.1, 0.5, None),
        projection_on_fake=(0.9, 0.1, 0.9, 0.5, 0.9),
        cosine_between=(0.0,) * 5,
    )
    assert deceptive_steps(episode) == [True, False, False, False, False]


def test_frames_have_even_sides_and_a_column_per_condition(collection: EpisodeCollection) -> None:
    episodes = same_start(collection)
    frames = video_frames(collection, episodes)
    assert len(frames) == 13
    width, height = frames[0].size
    assert (width % 2, height % 2) == (0, 0) and width >= 4 * WORLD
    assert all(frame.size == (width, height) for frame in frames)
    # Every column has walls at its edge; between columns there is white.
    row = pixels(frames[0])[TOP + TITLE + WORLD // 2]
    for column in range(4):
        left = GAP + column * (WORLD + GAP)
        assert row[left + 9].max() < 120 and row[left - GAP // 2].min() == 255


def test_cursor_moves_and_deceptive_steps_add_up(collection: EpisodeCollection) -> None:
    episodes = same_start(collection, ["deceptive"])
    frames = video_frames(collection, episodes)
    places = [float(np.mean(dark_columns(traces(frame)))) for frame in frames]
    assert all(second > first for first, second in pairwise(places))
    marks = [vermilion(traces(frame)[OVERLAP:]) for frame in frames]
    assert marks[0] == 0 and marks == sorted(marks)
    assert sum(deceptive_steps(episodes[0])) > 3
    grown = [second > first for first, second in pairwise(marks)]
    assert grown == deceptive_steps(episodes[0]), "a mark appears when its step is done"


def test_overlap_has_one_scale_for_all_columns(collection: EpisodeCollection) -> None:
    (frame,) = video_frames(collection, same_start(collection, ["deceptive", "soo"]))[-1:]

    def height(column: int) -> float:
        part = traces(frame, column)[: OVERLAP - 6]
        blue = (part[..., 2] > part[..., 0] + 80) & (part[..., 0] < 90)
        return float(np.nonzero(blue)[0].mean())

    assert height(0) + 20 < height(1), "little overlap value lies lower in the picture"


def test_bodies_have_the_game_s_own_size(collection: EpisodeCollection) -> None:
    def blue(world: EpisodeCollection) -> int:
        part = pixels(video_frames(world, same_start(world, ["honest"]))[0])[TOP + TITLE : TOP + TITLE + WORLD]
        return int(((part[..., 2] > 150) & (part[..., 0] < 140)).sum())

    small = collection.model_copy(update={"agent_size": 0.05})
    assert blue(small) < 0.4 * blue(collection)


def test_missing_and_zero_overlap_are_drawn(collection: EpisodeCollection) -> None:
    (episode,) = same_start(collection, ["soo"])
    gaps = episode.model_copy(update={"overlap": (None, 0.0, 1e-4, None, 1.0, *[None] * 7)})
    assert len(video_frames(collection, [gaps])) == 13
    nothing = episode.model_copy(update={"overlap": (None,) * 12})
    short = made_up_episodes(("honest",), steps=4, numbers=(0,)).episodes[0]
    assert len(video_frames(collection, [nothing, short])) == 13, "the shorter one stays at its end"


def test_more_conditions_go_into_rows() -> None:
    world = made_up_episodes(("deceptive", "soo", "none", "random", "anchor", "honest"), steps=2, numbers=(0,))
    frame = video_frames(world, same_start(world))[0]
    assert frame.width < 4 * (WORLD + GAP) and frame.height > 2 * (WORLD + TITLE)


@pytest.mark.parametrize("steps", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_both_files_play_and_are_light(tmp_path: Path, steps: int) -> None:
    world = made_up_episodes(steps=steps, numbers=(0,))
    gif, mp4 = save_videos(world, tmp_path / "figures" / "episodes.v1")
    assert (gif.name, mp4.name) == ("episodes.v1.gif", "episodes.v1.mp4")
    assert sorted(path.name for path in gif.parent.iterdir()) == [gif.name, mp4.name]
    with Image.open(gif) as image:
        assert (image.format, getattr(image, "n_frames", 1), image.info["duration"]) == ("GIF", steps + 1, 100)
        size = image.size
    with av.open(str(mp4)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == size
        assert stream.average_rate == 10
        assert sum(1 for _ in container.decode(stream)) == steps + 1 + 15
    content = mp4.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "plays before it is whole"
    assert max(gif.stat().st_size, mp4.stat().st_size) < 1_000_000


def test_mp4_holds_the_frames_it_was_given(tmp_path: Path) -> None:
    shades = [Image.new("RGB", (65, 33), (shade, shade, shade)) for shade in (40, 120, 200)]
    save_mp4(shades, tmp_path / "a.mp4")
    save_mp4(shades, tmp_path / "b.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    with av.open(str(tmp_path / "a.mp4")) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in decoded] == [(32, 64, 3)] * 18, "an odd side loses a pixel"
    assert [round(float(frame.mean())) for frame in decoded[:3]] == pytest.approx([40, 120, 200], abs=4)
    assert abs(decoded[-1].mean() - decoded[2].mean()) < 2, "the last frame stays"


def test_nothing_to_show_is_refused(tmp_path: Path, collection: EpisodeCollection) -> None:
    with pytest.raises(ValueError, match="at least one episode"):
        video_frames(collection, [])
    with pytest.raises(ValueError, match="at least one frame"):
        save_mp4([], tmp_path / "x.mp4")
    assert list(tmp_path.iterdir()) == []


def test_without_pyav_there_is_a_gif_alone(
    tmp_path: Path, collection: EpisodeCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(videos, "mp4_available", lambda: False)
    assert [path.suffix for path in save_videos(collection, tmp_path / "video")] == [".gif"]
    with pytest.raises(ValueError, match="extra video"):
        videos.save_mp4([Image.new("RGB", (10, 10))], tmp_path / "video.mp4")
