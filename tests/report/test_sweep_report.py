"""Tables and pictures of a sweep."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from soo_marl.commands.tables.sweep import MOST_ROWS, axes_table, points_table, print_sweep, short_names
from soo_marl.report.figures.sweep import draw_sweep, what_mattered
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.learning.recipes import baseline_config
from soo_marl.studies.learning.records import AgentRecord
from soo_marl.studies.sweep.axes import Axis
from soo_marl.studies.sweep.records import SweepResult
from soo_marl.studies.sweep.study import compare_points, read_metrics, sweep_config

METRIC = "deceptive/trap_rate"
GRID = ["maddpg.tau=0.01,0.05", "stages.1.training.learning_rate_end=0.1,0.5,1"]
RANDOM = [
    "maddpg.actor_learning_rate=log:0.0005:0.01",
    "stages.2.training.learning_rate_end=uniform:0.1:1",
    "maddpg.hidden_units=choice:32,64",
]


def result(
    grid: list[str], random: list[str], draws: int = 1, metric: str = METRIC
) -> tuple[SweepResult, tuple[Axis, ...]]:
    """A sweep in which tau alone matters."""
    config = sweep_config(baseline_config(seeds=(0, 1, 2)), grid, random, draws)
    generator = np.random.default_rng(0)
    agents = {
        point.number: [
            AgentRecord(
                kind=kind,
                seed=seed,
                trap_rate=0.3 + 0.4 * (point.values.get("maddpg.tau") == 0.05) + 0.1 * generator.random(),
                competent=seed > 0,
            )
            for kind in ("honest", "deceptive")
            for seed in (0, 1, 2)
        ]
        for point in config.points
    }
    return compare_points(config, agents, read_metrics([metric, "both/competent"], config)), config.axes


def text(*tables: Table) -> str:
    console = Console(width=80, record=True)
    for table in tables:
        console.print(table)
    return console.export_text()


@pytest.mark.parametrize("axes", [2, 3, 5])
def test_tables_fit_80_columns_and_lose_nothing(axes: int) -> None:
    found, _ = result(GRID[: min(axes, 2)], RANDOM[: axes - 2], draws=4)
    shown = text(points_table(found), *(axes_table(found, metric) for metric in found.metrics))
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "…" not in shown
    first = found.points[0]
    interval = first.metrics[METRIC].mean
    assert f"{interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}]" in shown
    shown = text(points_table(found))
    assert shown.count("0.67") == len(found.points[:MOST_ROWS]), "every point's share of competent agents"
    rate = found.points[0].values["stages.1.training.learning_rate_end"]
    assert (f"end={rate}" if axes > 4 else f" {rate} ") in shown


def test_what_is_said_of_an_axis() -> None:
    found, _ = result(GRID, [])
    (tau,) = [line for line in text(axes_table(found, METRIC)).splitlines() if "maddpg.tau" in line]
    assert " yes " in tau and tau.split()[-2] == "0.05"
    (other,) = [line for line in text(axes_table(found, METRIC)).splitlines() if "stages.1" in line]
    assert other.rstrip().endswith("not shown")
    few, _ = result([], RANDOM, draws=3)
    assert text(axes_table(few, METRIC)).count("too few runs") == 3


def test_long_lists_are_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, _ = result([], RANDOM[:2], draws=25)
    print_sweep(found, StudyDirectory.open(tmp_path, "sweep", {}, [0]))
    assert "… and 5 more in" in capsys.readouterr().out


def test_stopped_agents_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, _ = result(GRID, [])
    points = (found.points[0].model_copy(update={"stopped": 2}), *found.points[1:])
    print_sweep(found.model_copy(update={"points": points}), StudyDirectory.open(tmp_path, "sweep", {}, [0]))
    assert f"training was stopped, and how many: {points[0].number} (2)\n" in capsys.readouterr().out


def test_short_names_tell_fields_apart() -> None:
    fields = ["maddpg.tau", "stages.1.training.updates", "stages.2.training.updates", "a.tau_end", "kinds"]
    assert short_names(fields) == ["tau", "1.training.updates", "2.training.updates", "tau_end", "kinds"]


def test_a_panel_per_axis_with_every_point() -> None:
    found, axes = result(GRID, RANDOM, draws=3)
    figure = what_mattered(found, axes, METRIC)
    panels = [panel for panel in figure.axes if panel.axison]
    titles = [panel.get_title() for panel in panels]
    assert titles[0].startswith("maddpg.tau\n") and len(titles) == 5
    for panel in panels:
        dots = sum(len(line.get_xdata()) for line in panel.lines if line.get_marker() == "o")
        assert dots == len(found.points) == 18
    scales = {title.split("\n")[0]: panel.get_xscale() for title, panel in zip(titles, panels, strict=True)}
    assert scales["maddpg.actor_learning_rate"] == "log"
    assert scales["stages.2.training.learning_rate_end"] == "linear"
    assert [label.get_text() for label in panels[0].get_xticklabels()] == ["0.01", "0.05"]


def test_metrics_without_values_are_not_drawn(tmp_path: Path) -> None:
    found, axes = result(GRID, [], metric="honest/goal_rate")
    assert [path.name for path in draw_sweep(tmp_path, found, axes)] == ["what_mattered_both_competent.png"]
    assert draw_sweep(tmp_path, found.model_copy(update={"points": ()}), axes) == []
