"""``soo-marl sweep``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from soo_marl.commands.shared import Baselines, Output, Repeated, Where, command_line
from soo_marl.commands.tables.sweep import print_sweep
from soo_marl.commands.tables.terminal import ProgressDisplay
from soo_marl.engines import LOCAL_WORKERS, check_machine
from soo_marl.report.refresh import refresh
from soo_marl.storage.files import RunDirectoryError
from soo_marl.studies.sweep.study import (
    DEFAULT_METRICS,
    open_sweep,
    read_metrics,
    sweep_config,
    train_points,
    write_sweep_results,
)


@dataclass(frozen=True)
class Sweep:
    """Its options, and what is done with them."""

    output: Output = Path("runs/sweep")
    baselines: Baselines = Baselines(seeds=(0, 1, 2))
    grid: Repeated = ()  # A field to vary as name=value,value,...: every combination is a point.
    random: Repeated = ()  # A field to draw as name=uniform:low:high, name=log:low:high or name=choice:value,value,...
    points: int = 16  # Random draws of all --random fields together, the same in every cell of a grid.
    search_seed: int = 0  # Seed of the random draws.
    metric: tuple[str, ...] = DEFAULT_METRICS  # What points are compared by, the first before all: KIND/MEASURE.
    compute: Where = LOCAL_WORKERS

    def run(self, line: str) -> str:
        """Carry out the command that was given as ``line``; returns the one that follows."""
        config = sweep_config(self.baselines.config(), self.grid, self.random, self.points, self.search_seed)
        metrics = read_metrics(self.metric, config)
        check_machine(self.compute)
        directory = open_sweep(self.output, config)
        with directory.locked():
            try:
                failed = train_points(config, directory, ProgressDisplay(), self.compute, line)
            except KeyboardInterrupt:
                result = write_sweep_results(config, directory, metrics, line)
                refresh(directory.path)
                print_sweep(result, directory)
                raise
            result = write_sweep_results(config, directory, metrics, line, failed)
            refresh(directory.path)
            print_sweep(result, directory)
            if not result.points:
                raise RunDirectoryError(f"no point of {directory.path} could be trained; the reasons stand above")
        return command_line("classify", directory.path / "points" / str(result.points[0].number))
