"""``soo-marl train``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from soo_marl.commands.shared import PresetName, RegimeName, recipe
from soo_marl.commands.tables.terminal import ProgressDisplay, print_study, say
from soo_marl.engines import LOCAL_WORKERS, Compute, check_machine
from soo_marl.report.refresh import refresh
from soo_marl.storage.files import RunDirectoryError
from soo_marl.studies.baselines.study import open_study, train_and_evaluate, write_results


@dataclass(frozen=True)
class Train:
    """Train honest and deceptive baselines over many seeds, and measure what they do."""

    output: Path = Path("runs/baselines")
    """Study directory; one that is there already is continued."""
    preset: PresetName = "trackable"
    """Preset of the game."""
    regime: RegimeName = "staged"
    """staged: red learns to follow an honest blue, then fresh blues meet it; joint: both learn together (the paper);
    scripted: red follows a rule (preset watch)."""
    seeds: tuple[int, ...] = tuple(range(10))
    """One honest and one deceptive run per seed."""
    scale: float = 1.0
    """Factor on the number of updates, for quick looks."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Any field of the configuration as name=value, for example game.blue_speed_limit=1.0 or maddpg.gamma=0.9."""
    resume: bool = True
    """Continue a study that is there already; with --no-resume it is refused."""
    compute: Compute = LOCAL_WORKERS
    """Where to compute."""

    def run(self, line: str) -> None:
        """Carry out the command; ``line`` is how it was given."""
        if not self.resume and (self.output / "study.json").exists():
            raise RunDirectoryError(
                f"{self.output} holds a study already; name another output, or leave out --no-resume"
            )
        config = recipe(self.preset, self.regime, self.seeds, self.scale, self.set)
        check_machine(self.compute)
        directory = open_study(self.output, config, self.compute)
        with directory.locked():
            agents = train_and_evaluate(config, directory, ProgressDisplay(), self.compute)
            records = write_results(directory, agents, None, line)
            refresh(directory.path)
        print_study(agents, None, records, directory)
        say(f"Next:    {shlex.join(['soo-marl', 'classify', str(directory.path)])}")
