"""``soo-marl finetune``."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel

from soo_marl.commands.shared import Agents, Where, following, given, option, options_of
from soo_marl.commands.tables.finetuning import print_conditions
from soo_marl.commands.tables.terminal import ProgressDisplay
from soo_marl.engines import LOCAL_WORKERS, check_machine
from soo_marl.report.refresh import refresh
from soo_marl.storage.study_directory import FINETUNING_FOLDER
from soo_marl.studies.baselines.study import read_study
from soo_marl.studies.finetuning.configuration import FINETUNING_TRAINING, FinetuneConfig, Treatment
from soo_marl.studies.finetuning.methods import METHODS
from soo_marl.studies.finetuning.study import finetuning_config, open_finetuning, run_finetuning, treatments_of


@dataclass(frozen=True)
class Finetune:
    """Its options, and what is done with them."""

    agents: Agents = Agents()
    methods: Annotated[tuple[str, ...], option("Methods to apply; all where none are given.", METHODS)] = ()
    weights: tuple[float, ...] = ()  # Weights of the methods' losses; each method's usual one where none are given.
    output: Path | None = None  # Directory of this study; the folder finetune in the study where none is given.
    seeds: tuple[int, ...] = ()  # Seeds to treat; all whose agents pass the competence gate where none are given.
    train_red: bool = False  # Let red learn on, as in the paper; by default it stays as it is.
    treatment: BaseModel = options_of(
        Treatment, "layers", "pairing", "zero_flag", "untrapped_only", updates=None, towards=None
    )
    study: BaseModel = options_of(FinetuneConfig, "kind", "after_updates", "alone_share", "evaluation_episodes")
    compute: Where = LOCAL_WORKERS

    def run(self, line: str) -> str:
        """Carry out the command that was given as ``line``; returns the one that follows."""
        treatments = treatments_of(self.methods, self.weights, **given(self.treatment))
        source, baselines = read_study(self.agents.path())
        changes = given(self.study)
        if self.train_red:
            changes["training"] = FINETUNING_TRAINING.model_copy(update={"learners": None})
        config = finetuning_config(source, baselines, treatments, seeds=self.seeds, **changes)
        check_machine(self.compute)
        inside = self.output is None
        # The study's own summary and page tell of what happens in its folder.
        with source.locked() if inside else nullcontext():
            directory = open_finetuning(self.output or source.path / FINETUNING_FOLDER, config)
            with directory.locked():
                summaries = run_finetuning(config, directory, source.path, ProgressDisplay(), line, self.compute)
                refresh(directory.path)
            if inside:
                refresh(source.path)
        print_conditions(summaries, directory)
        return following(source.path)
