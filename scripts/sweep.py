"""Train a baseline study at every point of a grid or a random search, and say what mattered. Run again to continue."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from soo_marl.report.sweep_tables import print_sweep
from soo_marl.report.terminal import ProgressDisplay, carry_out
from soo_marl.studies.engines import LOCAL_WORKERS, Compute, check_machine
from soo_marl.studies.recipes import baseline_config, with_changes
from soo_marl.studies.sweep import (
    DEFAULT_METRICS,
    open_sweep,
    read_metrics,
    sweep_config,
    train_points,
    write_sweep_results,
)

Several = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]


@dataclass
class Arguments:
    output: Path = Path("runs/sweep")
    """Sweep directory; one that is there already is continued."""
    preset: str = "trackable"
    """Preset of the game: trackable, paper or watch."""
    regime: str = "staged"
    """staged: red learns first, then fresh blues meet it; joint: both together, as in the paper; scripted: watch."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One honest and one deceptive run per seed, at every point."""
    set: Several = ()
    """Any field of the configuration as name=value, the same at every point."""
    grid: Several = ()
    """A field to vary as name=value,value,...: every combination is a point."""
    random: Several = ()
    """A field to draw as name=uniform:low:high, name=log:low:high or name=choice:value,value,..."""
    points: int = 16
    """Random draws of all --random fields together, the same in every cell of a grid."""
    search_seed: int = 0
    """Seed of the random draws."""
    metric: tuple[str, ...] = DEFAULT_METRICS
    """What points are compared by, the first before all, for example honest/goal_rate or both/competent."""
    compute: Compute = LOCAL_WORKERS
    """Where to compute."""


def main(arguments: Arguments, command: str) -> None:
    base = with_changes(baseline_config(arguments.preset, arguments.regime, arguments.seeds), arguments.set)
    config = sweep_config(base, arguments.grid, arguments.random, arguments.points, arguments.search_seed)
    metrics = read_metrics(arguments.metric, config)
    check_machine(arguments.compute)
    directory = open_sweep(arguments.output, config)
    with directory.locked():
        train_points(config, directory, ProgressDisplay(), arguments.compute, command)
        print_sweep(write_sweep_results(config, directory, metrics, command), directory)


if __name__ == "__main__":
    arguments, command = (
        tyro.cli(Arguments, description=__doc__, config=(tyro.conf.OmitArgPrefixes,)),
        shlex.join(["python", *sys.argv]),
    )
    sys.exit(carry_out(lambda: main(arguments, command), command, "sweep"))
