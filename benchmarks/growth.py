"""How cost grows with worlds, runs, agents and hidden units: the measurements that the others lack, and the plots."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.cases import Case
from benchmarks.environments import GAMES, batched_work
from benchmarks.measurements import Measurement, measurement
from benchmarks.settings import Settings
from benchmarks.timing import interleaved
from benchmarks.updates import BATCHES, SPACES, update_work
from soo_marl.agents import AgentSpaces
from soo_marl.envs.batched_simple_adversary import BatchedSimpleAdversary, SimpleAdversaryConfig
from soo_marl.report.figures.style import COLOURS, GREY, LINES, MARKERS, save_figure
from soo_marl.studies.baselines.reference_curves import REFERENCE_MADDPG
from soo_marl.studies.learning.recipes import JOINT_MADDPG

GOOD_AGENTS = (1, 2, 4, 8, 16)
HIDDEN_UNITS = (16, 32, 64, 128, 256, 512)
QUICK = (1, 2)

WORLDS, RUNS, BATCH = 1_024, 4, 256
"""Of what grows in agents or hidden units."""
_CAPACITY = 10_000

Points = list[tuple[float, float]]
"""Size and seconds."""


def cases(quick: bool) -> list[Case]:
    """Agents and hidden units; worlds and runs are measured elsewhere."""
    agents = [Case(f"growth/good_agents_{n}", measure_agents, (n,)) for n in (QUICK if quick else GOOD_AGENTS)]
    return agents + [Case(f"growth/hidden_{n}", measure_hidden, (n,)) for n in (QUICK if quick else HIDDEN_UNITS)]


def measure_agents(settings: Settings, good_agents: int) -> list[Measurement]:
    """Stock simple_adversary with so many good agents, and an adversary: a step of all worlds, an update of all."""
    game = SimpleAdversaryConfig(good_agents=good_agents)
    worlds = BatchedSimpleAdversary(game, (0,), 1)
    spaces = AgentSpaces(worlds.observation_sizes, worlds.action_sizes, discrete=True)
    works = {
        "step": batched_work(game, WORLDS),
        "update": update_work(spaces, REFERENCE_MADDPG, RUNS, BATCH, 500 if settings.quick else _CAPACITY),
    }
    rates = interleaved(works, settings.repeats, settings.seconds)
    name = f"growth/good_agents_{good_agents}"
    return [
        measurement(f"{name}/seconds_per_step", WORLDS / rates["step"], "s", f"of {WORLDS:,} worlds"),
        measurement(f"{name}/seconds_per_update", RUNS / rates["update"], "s", f"of {RUNS} runs, batch {BATCH}"),
    ]


def measure_hidden(settings: Settings, hidden: int) -> list[Measurement]:
    """An update of both agents of our game with so many units per hidden layer."""
    config = JOINT_MADDPG.model_copy(update={"hidden_units": hidden})
    work = update_work(SPACES, config, RUNS, BATCH, 500 if settings.quick else _CAPACITY)
    rates = interleaved({"update": work}, settings.repeats, settings.seconds)
    remark = f"of {RUNS} runs, batch {BATCH}"
    return [measurement(f"growth/hidden_{hidden}/seconds_per_update", RUNS / rates["update"], "s", remark)]


def draw(measurements: Sequence[Measurement], folder: Path) -> list[Path]:
    """Draw each kind of growth that was measured, on logarithmic axes; returns the pictures.

    Raises:
        RunDirectoryError: a picture cannot be written.
    """
    worlds = {game: _points(measurements, rf"env/batched/{game}/worlds_(\d+)/steps_per_second", True) for game in GAMES}
    runs = {
        f"batch {batch:,}": _points(measurements, rf"update/b{batch}/runs_(\d+)/run_updates_per_second", True)
        for batch in BATCHES
    }
    agents = {
        f"a step of {WORLDS:,} worlds": _points(measurements, r"growth/good_agents_(\d+)/seconds_per_step"),
        f"an update of {RUNS} runs, batch {BATCH}": _points(
            measurements, r"growth/good_agents_(\d+)/seconds_per_update"
        ),
    }
    hidden = {
        f"an update of {RUNS} runs, batch {BATCH}": _points(measurements, r"growth/hidden_(\d+)/seconds_per_update")
    }
    plots = (
        ("growth_worlds", "worlds", "seconds per step of all worlds", worlds),
        ("growth_runs", "runs in the stack", "seconds per update of all runs", runs),
        ("growth_agents", "good agents of stock simple_adversary", "seconds", agents),
        ("growth_hidden", "units per hidden layer", "seconds", hidden),
    )
    return [
        save_figure(_figure(across, up, given), folder / name)
        for name, across, up, lines in plots
        if (given := {label: points for label, points in lines.items() if points})
    ]


def _points(measurements: Sequence[Measurement], pattern: str, rates: bool = False) -> Points:
    """Sizes, which the pattern's group matches, and seconds; a rate counts the size's units per second."""
    points = []
    for found in measurements:
        if match := re.fullmatch(pattern, found.name):
            size = float(match[1])
            points.append((size, size / found.median if rates else found.median))
    return sorted(points)


def _figure(across: str, up: str, lines: Mapping[str, Points]) -> Figure:
    figure = Figure(figsize=(5.0, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    for index, (label, points) in enumerate(lines.items()):
        sizes, seconds = np.array(points).T
        axes.loglog(sizes, seconds, color=COLOURS[index], marker=MARKERS[index], linestyle=LINES[index], label=label)
    # Proportional growth, which reaches far below what is measured, is not to set the range.
    axes.set_ylim(axes.get_ylim())
    for points in lines.values():
        sizes, seconds = np.array(points).T
        axes.loglog(sizes, seconds[-1] * sizes / sizes[-1], color=GREY, linewidth=0.8, linestyle=":", zorder=0)
    every = sorted({size for points in lines.values() for size, _ in points})
    axes.set_xticks(every, [f"{size:,.0f}" for size in every])
    axes.minorticks_off()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.legend(fontsize=8, frameon=False, title="dotted: in proportion", title_fontsize=8)
    return figure
