"""``soo-marl demo``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from soo_marl.commands.shared import recipe
from soo_marl.commands.tables.finetuning import print_conditions
from soo_marl.commands.tables.terminal import ProgressDisplay, print_study
from soo_marl.engines import LOCAL_WORKERS, Compute, check_machine
from soo_marl.report.refresh import refresh
from soo_marl.studies.baselines.classification import ClassificationConfig, check_classifiable
from soo_marl.studies.baselines.study import (
    DEMO_CLASSIFICATION,
    classify,
    merge_results,
    open_study,
    train_and_evaluate,
    write_results,
)
from soo_marl.studies.finetuning.study import DEMO_METHODS
from soo_marl.studies.reproduction.study import finetune_competent, finetuning_notes, scaled_finetuning


@dataclass(frozen=True)
class Demo:
    """The main job: train, evaluate, classify, fine-tune and report, in one go."""

    output: Path = Path("runs/demo")
    """Study directory; one that is there already is continued."""
    seeds: tuple[int, ...] = tuple(range(10))
    """One honest and one deceptive run per seed."""
    scale: float = 1.0
    """Factor on the number of updates, for quick looks."""
    evaluation_seeds: int = DEMO_CLASSIFICATION.evaluation_seeds
    """Evaluation seeds of the published protocol."""
    episodes: tuple[int, ...] = DEMO_CLASSIFICATION.episodes
    """Episodes per evaluation seed at which accuracy is given, ascending."""
    compute: Compute = LOCAL_WORKERS
    """Where to compute."""

    def run(self, line: str) -> None:
        """Carry out the command; ``line`` is how it was given."""
        config = recipe(seeds=self.seeds, scale=self.scale)
        check_classifiable(config)
        settings = ClassificationConfig(evaluation_seeds=self.evaluation_seeds, episodes=self.episodes)
        treatments, changes = scaled_finetuning(DEMO_METHODS, self.scale)
        check_machine(self.compute)
        directory = open_study(self.output, config, self.compute)
        display = ProgressDisplay()
        with directory.locked():
            agents = train_and_evaluate(config, directory, display, self.compute)
            found = classify(config, directory, agents, settings, display, self.compute)
            # Also before hours of fine-tuning, which may be stopped.
            write_results(directory, agents, found, line)
            refresh(directory.path)
            finetuned = finetune_competent(config, directory, treatments, changes, display, line, self.compute)
            if finetuned.directory is not None:
                refresh(finetuned.directory.path)
            records = merge_results(directory, finetuning_notes(agents, finetuned, line))
            refresh(directory.path)
        if finetuned.directory is not None:
            print_conditions(finetuned.summaries, finetuned.directory)
        print_study(agents, found, records, directory)
