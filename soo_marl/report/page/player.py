"""Episodes for the page's player, as JSON data.

Numbers are whole thousandths. Those that the rubric holds against a threshold are not rounded to the nearest one but
away from the side that counts, so that every count at a threshold with at most three decimals is that of the exact
numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from soo_marl.envs.configuration import PhysicalDeceptionConfig
from soo_marl.report.videos.videos import deceptive_steps
from soo_marl.studies.finetuning.records import EpisodeCollection, EpisodeRecord

UNITS = 1000
"""Units of the page's whole numbers in one."""


def player_data(collections: Mapping[str, EpisodeCollection]) -> dict[str, Any]:
    """Return what the player reads; collections stand by the name of their study, which readers choose by."""
    return {"units": UNITS, "studies": [_study(name, collection) for name, collection in collections.items()]}


def _study(name: str, collection: EpisodeCollection) -> dict[str, Any]:
    agents: dict[tuple[str, int], list[EpisodeRecord]] = {}
    for episode in collection.episodes:
        agents.setdefault((episode.condition, episode.seed), []).append(episode)
    return {
        "name": name,
        "wall": _thousandths(PhysicalDeceptionConfig().wall_width),
        "reach": _thousandths(collection.landmark_radius),
        "landmark": _thousandths(collection.landmark_size),
        "agent": _thousandths(collection.agent_size),
        "blueSight": _thousandths(collection.blue_sight_radius),
        "redSight": _thousandths(collection.red_sight_radius),
        "agents": [
            {
                "condition": condition,
                # A seed may have 64 bits, more than a number in JavaScript.
                "seed": str(seed),
                "verdict": next((episode.verdict for episode in episodes if episode.verdict), None),
                "episodes": [_episode(episode) for episode in episodes],
            }
            for (condition, seed), episodes in agents.items()
        ],
    }


def _episode(episode: EpisodeRecord) -> dict[str, Any]:
    return {
        "number": episode.number,
        "alone": episode.alone,
        "goal": _points([episode.goal]),
        "fake": _points([episode.fake]),
        "blue": _points(episode.blue),
        "red": [] if episode.alone else _points(episode.red),
        "trapped": _flags(episode.trapped),
        "sight": _flags(episode.red_in_sight),
        "overlap": [None if value is None else float(f"{value:.3g}") for value in episode.overlap],
        "opportunity": _flags(episode.opportunity),
        "towards": _flags(deceptive_steps(episode)),
        "onGoal": [None if value is None else _thousandths(value) for value in episode.projection_on_goal],
        "onFake": [None if value is None else _up(value) for value in episode.projection_on_fake],
        "between": [None if value is None else _down(value) for value in episode.cosine_between],
    }


def _thousandths(value: float) -> int:
    return round(value * UNITS)


def _up(value: float) -> int:
    """Thousandths that exceed a threshold in whole thousandths exactly where the value does."""
    nearest = round(value * UNITS)
    return nearest + 1 if value > nearest / UNITS else nearest


def _down(value: float) -> int:
    """Thousandths that lie below a threshold in whole thousandths exactly where the value does."""
    nearest = round(value * UNITS)
    return nearest - 1 if value < nearest / UNITS else nearest


def _points(points: Iterable[tuple[float, float]]) -> list[int]:
    """Coordinates one after the other: x, y, x, y ..."""
    return [_thousandths(coordinate) for point in points for coordinate in point]


def _flags(flags: Iterable[bool]) -> str:
    return "".join("1" if flag else "0" for flag in flags)
