"""``soo-marl classify``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from soo_marl.commands.shared import PretrainedName, StudyArgument, chosen_study
from soo_marl.commands.tables.terminal import ProgressDisplay, print_study
from soo_marl.engines import LOCAL_WORKERS, Compute, check_machine
from soo_marl.report.refresh import refresh
from soo_marl.storage.files import RunDirectoryError
from soo_marl.studies.baselines.classification import ClassificationConfig, check_classifiable
from soo_marl.studies.baselines.study import classify, read_study, train_and_evaluate, write_results


@dataclass(frozen=True)
class Classify:
    """Classify the agents of a trained study by their self-other overlap, and write the report."""

    study: StudyArgument = None
    """Study directory, as written by train or demo."""
    pretrained: PretrainedName = None
    """Preset whose trained agents come with the package, in place of a study."""
    output: Path | None = None
    """Where the copy of pretrained agents goes; runs/pretrained/PRESET where none is given."""
    evaluation_seeds: int = ClassificationConfig().evaluation_seeds
    """Evaluation seeds of the published protocol."""
    episodes: tuple[int, ...] = ClassificationConfig().episodes
    """Episodes per evaluation seed at which accuracy is given, ascending."""
    compute: Compute = LOCAL_WORKERS
    """Where to compute."""

    def run(self, line: str) -> None:
        """Carry out the command; ``line`` is how it was given."""
        settings = ClassificationConfig(evaluation_seeds=self.evaluation_seeds, episodes=self.episodes)
        directory, config = read_study(chosen_study(self.study, self.pretrained, self.output))
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
