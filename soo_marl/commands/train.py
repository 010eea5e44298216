"""``soo-marl train``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from soo_marl.commands.shared import Baselines, Output, Where, following
from soo_marl.commands.tables.baselines import print_study
from soo_marl.commands.tables.terminal import ProgressDisplay
from soo_marl.engines import LOCAL_WORKERS, check_machine
from soo_marl.report.refresh import refresh
from soo_marl.storage.files import RunDirectoryError
from soo_marl.studies.baselines.study import open_study, train_and_evaluate, write_results


@dataclass(frozen=True)
class Train:
    """Its options, and what is done with them."""

    output: Output = Path("runs/baselines")
    baselines: Baselines = Baselines()
    resume: bool = True  # Continue a study that is there already; with --no-resume it is refused.
    compute: Where = LOCAL_WORKERS

    def run(self, line: str) -> str:
        """Carry out the command that was given as ``line``; returns the one that follows."""
        if not self.resume and (self.output / "study.json").exists():
            raise RunDirectoryError(
                f"{self.output} holds a study already; name another output, or leave out --no-resume"
            )
        config = self.baselines.config()
        check_machine(self.compute)
        directory = open_study(self.output, config, self.compute)
        with directory.locked():
            agents = train_and_evaluate(config, directory, ProgressDisplay(), self.compute)
            records = write_results(directory, agents, None, line)
            refresh(directory.path)
        print_study(agents, None, records, directory)
        return following(directory.path)
