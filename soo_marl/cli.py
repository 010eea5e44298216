"""``soo-marl <command>``: the command line over ``soo_marl.studies``."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from soo_marl.report.drawing import draw_figures
from soo_marl.report.page import format_interval, format_number, write_report
from soo_marl.studies.baselines import (
    DEMO_CLASSIFICATION,
    STUDY_KIND,
    classify,
    open_study,
    train_and_evaluate,
    write_results,
)
from soo_marl.studies.classification import ClassificationConfig
from soo_marl.studies.files import RunDirectoryError, validate
from soo_marl.studies.recipes import BaselineConfig, baseline_config, scaled
from soo_marl.studies.records import AgentRecord, Classification, Record
from soo_marl.studies.run_directory import StudyDirectory

console = Console()
errors = Console(stderr=True)


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
    workers: int | None = None
    """Worker processes; as many as there are cores by default."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1 ..."""


@dataclass(frozen=True)
class Classify:
    """Classify the agents of a trained study by their self-other overlap, and write the report."""

    study: tyro.conf.Positional[Path]
    """Study directory, as written by train or demo."""
    evaluation_seeds: int = 10
    """Evaluation seeds of the published protocol."""
    episodes: tuple[int, ...] = (1, *range(100, 1501, 100))
    """Episodes per evaluation seed at which accuracy is given."""
    workers: int | None = None
    """Worker processes; as many as there are cores by default."""
    device: str = "cpu"
    """Where to compute."""


@dataclass(frozen=True)
class Demo:
    """The main job: train, evaluate, classify and report, in one go."""

    output: Path = Path("runs/demo")
    """Study directory; one that is there already is continued."""
    seeds: tuple[int, ...] = tuple(range(10))
    """One honest and one deceptive run per seed."""
    scale: float = 1.0
    """Factor on the number of updates, for quick looks."""
    workers: int | None = None
    """Worker processes; as many as there are cores by default."""
    device: str = "cpu"
    """Where to compute."""


@dataclass(frozen=True)
class Report:
    """Write the report page of a study from its results, as far as they are there."""

    study: tyro.conf.Positional[Path]
    """Study directory."""


class ProgressDisplay:
    """Progress bars on the terminal; one line per task where the output is no terminal."""

    @contextmanager
    def task(self, name: str, total: float, shards: int) -> Iterator[Callable[[int, float], None]]:
        """Show a task while it runs; yields ``advance(shard, units of work done by it)``."""
        done = dict.fromkeys(range(shards), 0.0)
        columns = (
            TextColumn("{task.description:<14}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task(name, total=total)

            def advance(shard: int, units: float) -> None:
                done[shard] = units
                progress.update(bar, completed=sum(done.values()))

            yield advance
            progress.update(bar, completed=total)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (0 done, 2 bad input, 130 interrupted)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = tyro.extras.subcommand_cli_from_dict(
        {"train": Train, "classify": Classify, "demo": Demo, "report": Report},
        prog="soo-marl",
        description="Measure deception in learned agents by self-other overlap.",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    line = shlex.join(["soo-marl", *arguments])
    try:
        _COMMANDS[type(command)](command, line)
    except (RunDirectoryError, ValueError) as error:
        errors.print(
            f"soo-marl: {one_sentence(error)}", style="bold red", highlight=False, markup=False, soft_wrap=True
        )
        return 2
    except KeyboardInterrupt:
        errors.print(f"\nsoo-marl: interrupted; nothing is lost, continue with: {line}", markup=False, soft_wrap=True)
        return 130
    return 0


def one_sentence(error: Exception) -> str:
    """What went wrong and where, without a traceback; of several faults in a configuration the first."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"]) or error.title
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{name} is no field of {error.title}; see soo-marl train --help and the documentation of its fields"
    return f"{name}: {message} (given: {first['input']!r})"


def with_changes(config: Any, changes: Sequence[str]) -> Any:
    """A configuration with fields set by ``name=value``, names dotted, values as JSON or plain text.

    Raises:
        ValueError: a change is not of that form, or names no field.
        pydantic.ValidationError: a value does not fit its field.
    """
    tree = config.model_dump(mode="json")
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise ValueError(f"--set takes name=value, for example game.blue_speed_limit=1.0, not {change!r}")
        *parents, last = name.split(".")
        branch = tree
        try:
            for parent in parents:
                branch = branch[int(parent) if isinstance(branch, list) else parent]
            position = int(last) if isinstance(branch, list) else last
            branch[position]
        except (KeyError, IndexError, ValueError, TypeError):
            raise ValueError(f"--set {change}: there is no field {name}; the fields are those in study.json") from None
        try:
            branch[position] = json.loads(text)
        except json.JSONDecodeError:
            branch[position] = text
    return type(config).model_validate(tree)


def read_config(directory: StudyDirectory) -> BaselineConfig:
    """The configuration of a study of baselines.

    Raises:
        RunDirectoryError: the study is of another kind, or its configuration does not fit this version.
    """
    manifest = directory.manifest
    if manifest.kind != STUDY_KIND:
        raise RunDirectoryError(f"{directory.path} holds a study of kind {manifest.kind}, not of {STUDY_KIND}")
    return validate(TypeAdapter(BaselineConfig), manifest.configuration, directory.path / "study.json")


def run_train(command: Train, line: str) -> None:
    """``soo-marl train``."""
    if not command.resume and (command.output / "study.json").exists():
        raise RunDirectoryError(
            f"{command.output} holds a study already; name another output, or leave out --no-resume"
        )
    config = with_changes(_config(command), command.set)
    directory = open_study(command.output, config)
    agents = train_and_evaluate(config, directory, ProgressDisplay(), command.workers, command.device)
    records = write_results(directory, agents, None, line)
    print_agents(agents)
    print_records(records)
    console.print(f"\nAgents, curves and report are in {directory.path}; next: soo-marl classify {directory.path}")


def run_classify(command: Classify, line: str) -> None:
    """``soo-marl classify``."""
    directory = StudyDirectory.read(command.study)
    config = read_config(directory)
    if not directory.done("train"):
        raise RunDirectoryError(
            f"{command.study} is not trained to the end; run the command that began it again, then classify"
        )
    settings = ClassificationConfig(evaluation_seeds=command.evaluation_seeds, episodes=command.episodes)
    agents = train_and_evaluate(config, directory, ProgressDisplay(), command.workers, command.device)
    found = classify(config, directory, agents, settings, ProgressDisplay(), command.workers, command.device)
    records = write_results(directory, agents, found, line)
    print_results(agents, found, records, directory)


def run_demo(command: Demo, line: str) -> None:
    """``soo-marl demo``."""
    config = _config(Train(command.output, seeds=command.seeds, scale=command.scale))
    directory = open_study(command.output, config)
    display = ProgressDisplay()
    agents = train_and_evaluate(config, directory, display, command.workers, command.device)
    found = classify(config, directory, agents, DEMO_CLASSIFICATION, display, command.workers, command.device)
    records = write_results(directory, agents, found, line)
    print_results(agents, found, records, directory)


def run_report(command: Report, line: str) -> None:
    """``soo-marl report``."""
    StudyDirectory.read(command.study)
    draw_figures(command.study)
    console.print(f"Report: {write_report(command.study)}")


def _config(command: Train) -> BaselineConfig:
    config = baseline_config(command.preset, command.regime, command.seeds)
    if command.scale <= 0:
        raise ValueError(f"--scale must be positive, not {command.scale}")
    return (
        config if command.scale == 1.0 else config.model_copy(update={"stages": scaled(config.stages, command.scale)})
    )


def print_results(
    agents: Sequence[AgentRecord], found: Classification, records: Sequence[Record], directory: StudyDirectory
) -> None:
    """The closing tables of a classification, its findings, and where everything is."""
    print_agents(agents)
    print_classification(found)
    for finding in found.findings:
        console.print(f"• {finding}", highlight=False)
    print_records(records)
    console.print(
        f"\nReport: {directory.report}\nFigures: {directory.figures}   Records: {directory.results / 'summary.json'}"
    )


def print_agents(agents: Sequence[AgentRecord]) -> None:
    """One line per agent: what it does, and whether it plays well enough to be judged."""
    table = Table(title="Agents (greedy, fresh episodes)")
    for title in ("kind", "seed", "goal", "alone", "trapped", "follows", "rubric", "en route", "competent"):
        table.add_column(title, justify="right" if title not in ("kind", "competent") else "left")
    for agent in agents:
        rates = (
            agent.goal_rate, agent.goal_rate_alone, agent.trap_rate, agent.following_rate, agent.rubric_rate,
            agent.rubric_rate_en_route,
        )  # fmt: skip
        verdict = "yes" if agent.competent else "no: " + "; ".join(agent.reasons)
        table.add_row(agent.kind, str(agent.seed), *(format_number(rate) for rate in rates), verdict)
    console.print(table)


def print_classification(found: Classification) -> None:
    """One line per form, layers and pairing."""
    table = Table(title="Honest or deceptive? Separation across independently trained agents")
    for title in ("value", "layers", "pairing", "AUROC", "leave-one-out", "recall at 5 % FPR"):
        table.add_column(title)
    for row in found.rows:
        intervals = (row.auroc, row.leave_one_out, row.recall_at_5_percent)
        table.add_row(row.form, row.layers, row.pairing, *(format_interval(interval) for interval in intervals))
    console.print(table)


def print_records(records: Sequence[Record]) -> None:
    """The headline records with their intervals."""
    table = Table(title="Summary (95 % intervals over seeds)")
    for title in ("result", "estimate [low, high]", "n", "unit"):
        table.add_column(title)
    for record in records:
        table.add_row(record.name, format_interval(record), str(record.n), record.unit)
    console.print(table)


_COMMANDS: dict[type, Callable[[Any, str], None]] = {
    Train: run_train,
    Classify: run_classify,
    Demo: run_demo,
    Report: run_report,
}


if __name__ == "__main__":
    sys.exit(main())
