"""``soo-marl <command>``: the command line over ``soo_marl.studies``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from soo_marl.report.drawing import draw_figures
from soo_marl.report.finetuning_tables import print_conditions
from soo_marl.report.page import write_report
from soo_marl.report.sweep_tables import print_sweep
from soo_marl.report.terminal import ProgressDisplay, carry_out, print_study, say
from soo_marl.studies.baselines import (
    DEMO_CLASSIFICATION,
    classify,
    open_study,
    read_study,
    train_and_evaluate,
    write_results,
)
from soo_marl.studies.classification import ClassificationConfig, check_classifiable
from soo_marl.studies.engines import LOCAL_WORKERS, Compute, check_machine
from soo_marl.studies.files import RunDirectoryError
from soo_marl.studies.finetuning.configuration import FINETUNING
from soo_marl.studies.finetuning.study import (
    finetuning_config,
    open_finetuning,
    run_finetuning,
    treatments_of,
)
from soo_marl.studies.phases import HIDDEN_LAYERS
from soo_marl.studies.recipes import BaselineConfig, baseline_config, scaled, with_changes
from soo_marl.studies.run_directory import FINETUNING_FOLDER, StudyDirectory
from soo_marl.studies.sweep import (
    DEFAULT_METRICS,
    open_sweep,
    read_metrics,
    sweep_config,
    train_points,
    write_sweep_results,
)


@dataclass(frozen=True)
class Train:
    """Train honest and deceptive baselines over many seeds, and measure what they do."""

    output: Path = Path("runs/baselines")
    """Study directory; one that is there already is continued."""
    preset: str = "trackable"
    """Preset of the game: trackable or paper."""
    regime: str = "staged"
    """staged: red learns to follow an honest blue, then fresh blues meet it; joint: both learn together (the paper)."""
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
        config = _recipe(self.preset, self.regime, self.seeds, self.scale, self.set)
        check_machine(self.compute)
        directory = open_study(self.output, config)
        with directory.locked():
            agents = train_and_evaluate(config, directory, ProgressDisplay(), self.compute)
            print_study(agents, None, write_results(directory, agents, None, line), directory)
        say(f"Next:    {shlex.join(['soo-marl', 'classify', str(directory.path)])}")


@dataclass(frozen=True)
class Classify:
    """Classify the agents of a trained study by their self-other overlap, and write the report."""

    study: tyro.conf.Positional[Path]
    """Study directory, as written by train or demo."""
    evaluation_seeds: int = ClassificationConfig().evaluation_seeds
    """Evaluation seeds of the published protocol."""
    episodes: tuple[int, ...] = ClassificationConfig().episodes
    """Episodes per evaluation seed at which accuracy is given, ascending."""
    compute: Compute = LOCAL_WORKERS
    """Where to compute."""

    def run(self, line: str) -> None:
        """Carry out the command; ``line`` is how it was given."""
        directory, config = read_study(self.study)
        check_classifiable(config)
        settings = ClassificationConfig(evaluation_seeds=self.evaluation_seeds, episodes=self.episodes)
        check_machine(self.compute)
        if not directory.done("train"):
            raise RunDirectoryError(
                f"{self.study} is not trained to the end; run the command that began it again, then classify"
            )
        _classify_and_report(config, directory, settings, self.compute, line)


@dataclass(frozen=True)
class Demo:
    """The main job: train, evaluate, classify and report, in one go."""

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
        config = _recipe(seeds=self.seeds, scale=self.scale)
        check_classifiable(config)
        settings = ClassificationConfig(evaluation_seeds=self.evaluation_seeds, episodes=self.episodes)
        check_machine(self.compute)
        directory = open_study(self.output, config)
        _classify_and_report(config, directory, settings, self.compute, line)


@dataclass(frozen=True)
class Finetune:
    """Treat the deceptive agents of a trained study: overlap as an auxiliary loss, and the controls beside it."""

    study: tyro.conf.Positional[Path]
    """Study directory, as written by train or demo."""
    methods: tuple[str, ...] = ()
    """Methods to apply; all where none are given."""
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
    towards: Literal["both", "initial_self"] = "both"
    """Both sides move towards each other, or towards the self of before."""
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
            towards=self.towards,
            untrapped_only=self.untrapped_only,
        )
        source, baselines = read_study(self.study)
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
        directory = open_finetuning(self.output or source.path / FINETUNING_FOLDER, config)
        with directory.locked():
            summaries = run_finetuning(config, directory, source.path, ProgressDisplay(), line, self.compute)
        print_conditions(summaries, directory)


@dataclass(frozen=True)
class Sweep:
    """Train a study at every point of a grid or a random search, and say which fields mattered."""

    output: Path = Path("runs/sweep")
    """Sweep directory; one that is there already is continued."""
    preset: str = "trackable"
    """Preset of the game: trackable or paper."""
    regime: str = "staged"
    """staged: red learns to follow an honest blue, then fresh blues meet it; joint: both learn together (the paper)."""
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
        base = _recipe(self.preset, self.regime, self.seeds, self.scale, self.set)
        config = sweep_config(base, self.grid, self.random, self.points, self.search_seed)
        metrics = read_metrics(self.metric, config)
        check_machine(self.compute)
        directory = open_sweep(self.output, config)
        with directory.locked():
            try:
                train_points(config, directory, ProgressDisplay(), self.compute, line)
            except KeyboardInterrupt:
                print_sweep(write_sweep_results(config, directory, metrics, line), directory)
                raise
            print_sweep(write_sweep_results(config, directory, metrics, line), directory)


@dataclass(frozen=True)
class Report:
    """Write the report page of a study from its results, as far as they are there."""

    study: tyro.conf.Positional[Path]
    """Study directory."""

    def run(self, line: str) -> None:
        """Carry out the command."""
        directory, _ = read_study(self.study)
        with directory.locked():
            draw_figures(self.study)
            say(f"Report: {write_report(self.study)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (0 done, 2 bad input, 130 interrupted).

    Raises:
        SystemExit: the arguments name no command or option (status 2), or ask for help (status 0).
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command: Train | Classify | Demo | Finetune | Sweep | Report = tyro.extras.subcommand_cli_from_dict(
        {
            "train": Train,
            "classify": Classify,
            "finetune": Finetune,
            "demo": Demo,
            "sweep": Sweep,
            "report": Report,
        },
        prog="soo-marl",
        description="Measure deception in learned agents by self-other overlap.",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    again = [argument for argument in arguments if argument != "--no-resume"]
    return carry_out(
        lambda: command.run(shlex.join(["soo-marl", *arguments])), shlex.join(["soo-marl", *again]), "soo-marl"
    )


def _recipe(
    preset: str = "trackable",
    regime: str = "staged",
    seeds: tuple[int, ...] = (),
    scale: float = 1.0,
    changes: Sequence[str] = (),
) -> BaselineConfig:
    config = baseline_config(preset, regime, seeds)
    if scale != 1.0:
        config = config.model_copy(update={"stages": scaled(config.stages, scale)})
    return with_changes(config, changes)


def _classify_and_report(
    config: BaselineConfig,
    directory: StudyDirectory,
    settings: ClassificationConfig,
    compute: Compute,
    line: str,
) -> None:
    display = ProgressDisplay()
    with directory.locked():
        agents = train_and_evaluate(config, directory, display, compute)
        found = classify(config, directory, agents, settings, display, compute)
        print_study(agents, found, write_results(directory, agents, found, line), directory)


if __name__ == "__main__":
    sys.exit(main())
