"""``soo-marl sweep``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from soo_marl.commands.shared import PresetName, RegimeName, recipe
from soo_marl.commands.tables.sweep import print_sweep
from soo_marl.commands.tables.terminal import ProgressDisplay
from soo_marl.engines import LOCAL_WORKERS, Compute, check_machine
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
    """Train a study at every point of a grid or a random search, and say which fields mattered."""

    output: Path = Path("runs/sweep")
    """Sweep directory; one that is there already is continued."""
    preset: PresetName = "trackable"
    """Preset of the game."""
    regime: RegimeName = "staged"
    """staged: red learns to follow an honest blue, then fresh blues meet it; joint: both learn together (the paper);
    scripted: red follows a rule (preset watch)."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One honest and one deceptive run per seed, at every point."""
    scale: float = 1.0
    """Factor on the number of updates, for quick looks."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Any field of the configuration as name=value, the same at every point."""
    grid: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A field to vary as name=value,value,...: every combination is a point."""
    random: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A field to draw as name=uniform:low:high, name=log:low:high or name=choice:value,value,..."""
    points: int = 16
    """Random draws of all --random fields together, the same in every cell of a grid."""
    search_seed: int = 0
    """Seed of the random draws."""
    metric: tuple[str, ...] = DEFAULT_METRICS
    """What points are compared by, the first before all: KIND/MEASURE with a kind, or both, and a rate, return or
    competent."""
    compute: Compute = LOCAL_WORKERS
    """Where to compute."""

    def run(self, line: str) -> None:
        """Carry out the command; ``line`` is how it was given."""
        base = recipe(self.preset, self.regime, self.seeds, self.scale, self.set)
        config = sweep_config(base, self.grid, self.random, self.points, self.search_seed)
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
