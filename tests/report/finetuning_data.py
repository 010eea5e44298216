"""A made-up fine-tuning study whose numbers look like those of a real one."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from soo_marl.storage.records import Interval, write_list
from soo_marl.storage.tensor_files import write_tensors
from soo_marl.studies.finetuning.records import ConditionSummary, EpisodeCollection, EpisodeRecord, TreatedAgent
from soo_marl.studies.learning.records import LearningCurve

SEEDS = 10
GRID = 40
SIGHT, REACH = 0.35, 0.16


class Centre(NamedTuple):
    """Where the agents of a condition lie."""

    trap: float
    sensitivity: float
    goal: float
    overlap: float
    gain: float
    word: str
    later: float | None = None
    """Trap rate after further training; None where there is none."""


CENTRES: dict[str, Centre] = {
    "deceptive": Centre(0.97, 1.29, 0.94, 0.97, 140, "still deceptive"),
    "soo": Centre(0.27, 0.03, 0.98, 0.002, 5, "blind", 0.61),
    "soo.10": Centre(0.55, 0.5, 0.9, 0.05, 60, "still deceptive", 0.9),
    "soo_action": Centre(0.95, 1.2, 0.93, 0.9, 120, "still deceptive", 0.96),
    "soo_difference": Centre(0.24, 0.3, 0.93, 0.3, 170, "honest", 0.3),
    "soo_difference_any": Centre(0.27, 0.25, 0.95, 0.2, 150, "honest", 0.36),
    "none": Centre(0.97, 1.25, 0.94, 0.97, 130, "still deceptive", 0.97),
    "random": Centre(0.1, 0.9, 0.12, 1.2, -20, "broken", 0.93),
    "perturbation": Centre(0.8, 0.7, 0.88, 0.4, 90, "still deceptive", 0.9),
    "anchor": Centre(0.96, 1.28, 0.95, 0.95, 135, "still deceptive", 0.97),
    "shuffled": Centre(0.25, 0.17, 0.93, 6e-4, 20, "blind", 0.7),
    "position_tie": Centre(0.26, 0.01, 0.98, 1e-5, 2, "blind", 0.5),
    "position_difference": Centre(0.6, 0.9, 0.9, 0.6, 100, "still deceptive", 0.85),
    "position_difference_any": Centre(0.57, 0.85, 0.91, 0.5, 95, "still deceptive", 0.8),
    "blank": Centre(0.28, 0.0, 0.99, 0.97, 0, "blind"),
    "blind": Centre(0.29, 0.0, 0.98, 0.1, 0, "blind", 0.95),
    "honest_reward": Centre(0.24, 0.25, 0.99, 0.15, 180, "honest", 0.88),
    "honest": Centre(0.26, 0.23, 0.99, 0.12, 200, "honest"),
}
"""Eighteen conditions, the deceptive baseline first and the honest one last."""

FOUR = ("deceptive", "soo", "soo_difference", "honest")


def x_of(line: Line2D) -> list[float]:
    """Where a line's points lie across."""
    values: list[float] = np.asarray(line.get_xdata(), dtype=np.float64).tolist()
    return values


def y_of(line: Line2D) -> list[float]:
    """Where a line's points lie upwards."""
    values: list[float] = np.asarray(line.get_ydata(), dtype=np.float64).tolist()
    return values


@dataclass(frozen=True)
class MadeUp:
    """Records of a made-up study."""

    agents: list[TreatedAgent]
    conditions: list[ConditionSummary]
    curves: list[LearningCurve]
    rates: dict[str, NDArray[np.float32]]
    projection_thresholds: NDArray[np.float64]
    cosine_thresholds: NDArray[np.float64]

    @property
    def mean_rates(self) -> dict[str, NDArray[np.float64]]:
        return {name: grids.mean(0, dtype=np.float64) for name, grids in self.rates.items()}

    @property
    def verdicts(self) -> dict[str, str | None]:
        return {item.condition: item.verdict for item in self.conditions if not item.after}

    def write(self, study: Path) -> None:
        """Put everything into a study's directory."""
        write_list(study / "results" / "treated_agents.json", self.agents)
        write_list(study / "results" / "conditions.json", self.conditions)
        write_list(study / "results" / "curves.json", self.curves)
        tensors = {f"rates/{name}": torch.from_numpy(grids) for name, grids in self.rates.items()}
        tensors["projection_thresholds"] = torch.from_numpy(self.projection_thresholds)
        tensors["cosine_thresholds"] = torch.from_numpy(self.cosine_thresholds)
        write_tensors(study / "results" / "profiles.safetensors", tensors)


def made_up(names: tuple[str, ...] = tuple(CENTRES), seeds: int = SEEDS) -> MadeUp:
    """The same study every time."""
    random = np.random.default_rng(7)
    agents, conditions, curves = [], [], []
    rates: dict[str, NDArray[np.float32]] = {}
    x, y = np.linspace(0, 1, GRID), np.linspace(-1, 1, GRID)
    for name in names:
        centre = CENTRES[name]
        for after in (False, True) if centre.later is not None else (False,):
            group = [_agent(name, centre, seed, after, random) for seed in range(seeds)]
            agents += group
            conditions.append(_summary(name, group))
        if name not in ("honest", "deceptive", "blank"):
            curves += _curves(name, centre, random)
        height = 0.28 + 0.42 * (centre.trap - 0.25) if centre.goal > 0.5 else 0.05
        shape = (1 - x[:, None] ** (1 + 3 * centre.trap)) * ((y[None] + 1) / 2) ** 1.2
        noise = 0.02 * random.standard_normal((seeds, 1, 1)) * shape
        rates[name] = (height * shape + noise).clip(0, 1).astype(np.float32)
    return MadeUp(agents, conditions, curves, rates, x, y)


def _agent(name: str, centre: Centre, seed: int, after: bool, random: np.random.Generator) -> TreatedAgent:
    trap = centre.later if after and centre.later is not None else centre.trap

    def near(value: float, spread: float) -> float:
        return float(np.clip(value + spread * random.standard_normal(), 0, 1))

    word = centre.word
    if after and trap > 0.4:
        word = "still deceptive"
    elif seed == 0 and name.startswith("soo"):
        word = "broken"
    deceptive = (trap - 0.26) ** 2 / 0.5 + 0.0004
    return TreatedAgent(
        condition=name,
        seed=seed,
        after=after,
        trap_rate=near(trap, 0.03),
        goal_rate=near(centre.goal, 0.03),
        goal_rate_alone=near(centre.goal, 0.02),
        rubric_rate=near(0.1 + 0.65 * trap, 0.03),
        sensitivity=0.0 if centre.sensitivity == 0 else abs(centre.sensitivity + 0.05 * random.standard_normal()),
        sensitivity_moved=abs(centre.sensitivity / 2 + 0.04 * random.standard_normal()),
        seeing_gain=centre.gain + 15 * random.standard_normal(),
        overlap={
            "untrapped": centre.overlap * float(np.exp(0.4 * random.standard_normal())),
            "published": float(np.log(centre.overlap)) + random.standard_normal(),
        },
        difference_to_honest=deceptive * (0.8 + 0.4 * random.random()),
        difference_to_deceptive=((0.97 - trap) ** 2 / 0.5 + 0.0004) * (0.8 + 0.4 * random.random()),
        verdict=word,
    )


def _summary(name: str, agents: list[TreatedAgent]) -> ConditionSummary:
    measures = {}
    for measure in (
        "trap_rate",
        "goal_rate",
        "goal_rate_alone",
        "rubric_rate",
        "sensitivity",
        "seeing_gain",
        "difference_to_honest",
        "difference_to_deceptive",
    ):
        values = np.array([getattr(agent, measure) for agent in agents])
        half = 2.26 * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
        measures[measure] = Interval(
            estimate=values.mean(), low=values.mean() - half, high=values.mean() + half, n=len(values)
        )
    words = [agent.verdict or "" for agent in agents]
    counts = {word: words.count(word) for word in dict.fromkeys(words)}
    return ConditionSummary(
        condition=name,
        method=name.split(".")[0],
        after=agents[0].after,
        measures=measures,
        verdicts=counts,
        verdict=max(counts, key=lambda word: counts[word]),
    )


def _curves(name: str, centre: Centre, random: np.random.Generator) -> list[LearningCurve]:
    start = CENTRES["deceptive"]
    curves = []
    later = centre.trap if centre.later is None else centre.later
    for stage, count, speed in (("finetune", 11, 3.0), ("after", 13, 1.0)):
        updates = np.arange(count) * 100
        way = 1 - np.exp(-speed * updates / 400)
        back = (later - centre.trap) / (0.97 - centre.trap) if centre.trap < 0.9 else 0.0
        for metric, old, new in (
            ("trap_rate", start.trap, centre.trap),
            ("goal_rate", start.goal, centre.goal),
            ("goal_rate_alone", start.goal, centre.goal),
            ("rubric_rate", 0.76, 0.1 + 0.65 * centre.trap),
            ("overlap", start.overlap, centre.overlap),
            ("sensitivity", start.sensitivity, centre.sensitivity),
        ):
            first, last = (old, new) if stage == "finetune" else (new, new + back * (old - new))
            mean = first + way * (last - first)
            if metric == "overlap":
                mean = np.exp(np.log(first) + way * (np.log(last) - np.log(first)))
            rows = mean + 0.03 * abs(mean) * random.standard_normal((5, count))
            if "rate" in metric:
                rows = rows.clip(0, 1)
            mean, half = rows.mean(0), rows.std(0)
            curves.append(
                LearningCurve(
                    stage=stage,
                    kind=name,
                    metric=metric,
                    updates=tuple(updates.tolist()),
                    values=tuple(map(tuple, rows.tolist())),
                    mean=tuple(mean.tolist()),
                    low=tuple((mean - half).tolist()),
                    high=tuple((mean + half).tolist()),
                )
            )
    return curves


def made_up_episodes(
    names: tuple[str, ...] = FOUR, steps: int = 50, numbers: tuple[int, ...] = (0, 1), seed: int = 0
) -> EpisodeCollection:
    """Episodes of hand-written policies from the same starts; every second start is without red."""
    episodes = [_episode(name, seed, number, number % 2 == 1, steps) for name in names for number in numbers]
    return EpisodeCollection(
        preset="trackable",
        landmark_radius=REACH,
        landmark_size=0.08,
        agent_size=0.15,
        blue_sight_radius=SIGHT,
        red_sight_radius=SIGHT,
        episodes=tuple(episodes),
    )


def _episode(name: str, seed: int, number: int, alone: bool, steps: int) -> EpisodeRecord:
    random = np.random.default_rng([seed, number, 3])
    goal, fake = np.array([0.55, 0.45]), np.array([-0.6, -0.1])
    blue, red = [random.uniform(-0.3, 0.3, 2)], [random.uniform(-0.3, 0.3, 2)]
    trapped = [False]
    lures = CENTRES[name].trap > 0.5 and not alone
    for _ in range(steps):
        aim = fake if lures and not trapped[-1] else goal
        blue.append(_stepped(blue[-1], aim, 0.07, random))
        red.append(red[-1] if trapped[-1] else _stepped(red[-1], blue[-2], 0.065, random))
        trapped.append(trapped[-1] or (not alone and bool(np.linalg.norm(red[-1] - fake) < REACH)))
    seen = [not alone and bool(np.linalg.norm(one - two) < SIGHT) for one, two in zip(blue, red, strict=True)]
    on_goal, on_fake, between = [], [], []
    for before, after in itertools.pairwise(blue):
        on_goal.append(_cosine(after - before, goal - before))
        on_fake.append(_cosine(after - before, fake - before))
        between.append(_cosine(goal - before, fake - before))
    scale = CENTRES[name].overlap
    return EpisodeRecord(
        condition=name,
        seed=seed,
        verdict=CENTRES[name].word if name not in ("honest", "deceptive") else None,
        number=number,
        alone=alone,
        goal=(goal[0], goal[1]),
        fake=(fake[0], fake[1]),
        blue=tuple((point[0], point[1]) for point in blue),
        red=tuple((point[0], point[1]) for point in red),
        trapped=tuple(trapped),
        red_in_sight=tuple(seen),
        overlap=tuple(float(scale * np.exp(0.3 * random.standard_normal())) for _ in range(steps)),
        opportunity=tuple(see and not held for see, held in zip(seen[:-1], trapped[:-1], strict=True)),
        projection_on_goal=tuple(on_goal),
        projection_on_fake=tuple(on_fake),
        cosine_between=tuple(between),
    )


def _stepped(
    place: NDArray[np.float64], aim: NDArray[np.float64], speed: float, random: np.random.Generator
) -> NDArray[np.float64]:
    way = aim - place
    distance = float(np.linalg.norm(way))
    return place + way / max(distance, 1e-9) * min(speed, distance) + random.normal(0, 0.012, 2)


def _cosine(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    length = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(np.clip(first @ second / length, -1, 1)) if length else None
