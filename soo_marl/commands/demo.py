"""``soo-marl demo``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from soo_marl.commands.shared import Baselines, Output, ScaleFactor, Seeds, Where, following, given, options_of
from soo_marl.commands.tables.baselines import print_study
from soo_marl.commands.tables.finetuning import print_conditions
from soo_marl.commands.tables.terminal import ProgressDisplay
from soo_marl.engines import LOCAL_WORKERS, check_machine
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
    """Its options, and what is done with them."""

    output: Output = Path("runs/demo")
    seeds: Seeds = tuple(range(10))
    scale: ScaleFactor = 1.0
    protocol: BaseModel = options_of(ClassificationConfig, "evaluation_seeds", episodes=DEMO_CLASSIFICATION.episodes)
    compute: Where = LOCAL_WORKERS

    def run(self, line: str) -> str:
        """Carry out the command that was given as ``line``; returns the one that follows."""
        config = Baselines(seeds=self.seeds, scale=self.scale).config()
        check_classifiable(config)
        settings = ClassificationConfig(**given(self.protocol))
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
        return following(directory.path)
