"""``soo-marl classify``."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from soo_marl.commands.shared import Agents, CopyOutput, Where, following, given, options_of
from soo_marl.commands.tables.baselines import print_study
from soo_marl.commands.tables.terminal import ProgressDisplay
from soo_marl.engines import LOCAL_WORKERS, check_machine
from soo_marl.report.refresh import refresh
from soo_marl.storage.files import RunDirectoryError
from soo_marl.studies.baselines.classification import ClassificationConfig, check_classifiable
from soo_marl.studies.baselines.study import classify, read_study, train_and_evaluate, write_results


@dataclass(frozen=True)
class Classify:
    """Its options, and what is done with them."""

    agents: Agents = Agents()
    output: CopyOutput = None
    protocol: BaseModel = options_of(ClassificationConfig, "evaluation_seeds", "episodes")
    compute: Where = LOCAL_WORKERS

    def run(self, line: str) -> str:
        """Carry out the command that was given as ``line``; returns the one that follows."""
        settings = ClassificationConfig(**given(self.protocol))
        directory, config = read_study(self.agents.path(self.output))
        check_classifiable(config)
        check_machine(self.compute)
        if not directory.done("train"):
            raise RunDirectoryError(
                f"{directory.path} is not trained to the end; run the command that began it again, then classify"
            )
        display = ProgressDisplay()
        with directory.locked():
            agents = train_and_evaluate(config, directory, display, self.compute)
            found = classify(config, directory, agents, settings, display, self.compute)
            records = write_results(directory, agents, found, line)
            refresh(directory.path)
        print_study(agents, found, records, directory)
        return following(directory.path)
