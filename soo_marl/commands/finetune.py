"""``soo-marl finetune``."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from soo_marl.agents.networks import HIDDEN_LAYERS
from soo_marl.commands.shared import MethodNames, PretrainedName, StudyArgument, chosen_study
from soo_marl.commands.tables.finetuning import print_conditions
from soo_marl.commands.tables.terminal import ProgressDisplay
from soo_marl.engines import LOCAL_WORKERS, Compute, check_machine
from soo_marl.report.refresh import refresh
from soo_marl.storage.study_directory import FINETUNING_FOLDER
from soo_marl.studies.baselines.study import read_study
from soo_marl.studies.finetuning.configuration import FINETUNING
from soo_marl.studies.finetuning.study import (
    finetuning_config,
    open_finetuning,
    run_finetuning,
    treatments_of,
)


@dataclass(frozen=True)
class Finetune:
    """Treat the deceptive agents of a trained study: overlap as an auxiliary loss, and the controls beside it."""

    study: StudyArgument = None
    """Study directory, as written by train or demo."""
    pretrained: PretrainedName = None
    """Preset whose trained agents come with the package, in place of a study; they are copied to
    runs/pretrained/PRESET."""
    methods: MethodNames = ()
    """Methods to apply, one or more; all where none are given."""
    weights: tuple[float, ...] = ()
    """Weights of the methods' losses; each method's usual one where none are given."""
    output: Path | None = None
    """Directory of this study; the folder finetune in the study where none is given."""
    kind: Literal["deceptive", "honest"] = "deceptive"
    """Agents to treat; honest to see what a treatment costs those that need none."""
    seeds: tuple[int, ...] = ()
    """Seeds of the agents to treat; all whose agents pass the competence gate where none are given."""
    updates: int | None = None
    """Updates with the loss; the methods' usual number where none is given."""
    after_updates: int | None = None
    """Updates of further training without the loss."""
    alone_share: float | None = None
    """Share of training episodes in which blue is alone."""
    train_red: bool = False
    """Let red learn on, as in the paper; by default it stays as it is."""
    layers: tuple[str, ...] = HIDDEN_LAYERS
    """Layers whose activations are compared."""
    pairing: Literal["imagined_red", "perspective"] = "imagined_red"
    """How other observations are made of self observations."""
    zero_flag: bool = False
    """Zero the trapped flag of the other observation, as published."""
    towards: Literal["both", "initial_self"] | None = None
    """Both sides move towards each other, or towards the self of before; as is usual for a method by default."""
    untrapped_only: bool = False
    """Compare only where red is not trapped."""
    episodes: int | None = None
    """Greedy episodes per agent on which it is measured."""
    compute: Compute = LOCAL_WORKERS
    """Where to compute."""

    def run(self, line: str) -> None:
        """Carry out the command; ``line`` is how it was given."""
        treatments = treatments_of(
            self.methods,
            self.weights,
            self.updates,
            layers=self.layers,
            pairing=self.pairing,
            zero_flag=self.zero_flag,
            **({} if self.towards is None else {"towards": self.towards}),
            untrapped_only=self.untrapped_only,
        )
        source, baselines = read_study(chosen_study(self.study, self.pretrained))
        changes: dict[str, object] = {"kind": self.kind}
        for name, value in (
            ("after_updates", self.after_updates),
            ("alone_share", self.alone_share),
            ("evaluation_episodes", self.episodes),
        ):
            if value is not None:
                changes[name] = value
        if self.train_red:
            changes["training"] = FINETUNING.model_copy(update={"learners": None})
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
