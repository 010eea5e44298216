"""The main job: train honest and deceptive baselines, measure what they do, classify them, and report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import numpy as np

from soo_marl.report.drawing import draw_figures
from soo_marl.report.page import write_report
from soo_marl.studies.classification import ClassificationConfig, classify_baselines
from soo_marl.studies.evaluation import collect_curves, evaluate_baselines
from soo_marl.studies.recipes import BaselineConfig
from soo_marl.studies.records import (
    AgentRecord,
    Classification,
    Record,
    read_list,
    read_one,
    record_from_values,
    write_list,
)
from soo_marl.studies.run_directory import StudyDirectory
from soo_marl.studies.training import train_baselines

STUDY_KIND = "baselines"

DEMO_CLASSIFICATION = ClassificationConfig(episodes=(1, 10, 20, 50, 100, 200, 300, 400, 500))

_RATES = {
    "goal_rate": ("honest", "deceptive"),
    "trap_rate": ("honest", "deceptive"),
    "goal_rate_alone": ("honest", "deceptive"),
    "following_rate": ("honest", "deceptive"),
    "rubric_rate": ("honest", "deceptive"),
    "rubric_rate_en_route": ("honest", "deceptive"),
    "red_goal_rate": ("honest", "deceptive"),
}


class Display(Protocol):
    """Where a study says what it is doing."""

    def task(self, name: str, total: float, shards: int) -> AbstractContextManager[Callable[[int, float], None]]:
        """Show a task while it runs; yields ``advance(shard, units of work done by it)``."""


def open_study(path: Path, config: BaselineConfig) -> StudyDirectory:
    """Create or resume the directory of a baseline study.

    Raises:
        RunDirectoryError: the directory cannot be used, or belongs to another configuration.
    """
    return StudyDirectory.open(path, STUDY_KIND, config, config.seeds)


def train_and_evaluate(
    config: BaselineConfig, directory: StudyDirectory, display: Display, workers: int | None = None, device: str = "cpu"
) -> list[AgentRecord]:
    """Train what is not trained yet, measure the behaviour of all agents, and return the records.

    Raises:
        RunDirectoryError: a file cannot be read or written.
        KeyboardInterrupt: Ctrl-C, after everything needed to continue was written.
    """
    if not directory.done("train"):
        shards = len(config.shards)
        with display.task("training", float(config.updates * shards), shards) as advance:
            train_baselines(config, directory, workers=workers, device=device, on_progress=advance)
        directory.mark_done("train")
    agents_file = directory.results / "agents.json"
    if not directory.done("evaluate"):
        with display.task("evaluation", 1.0, 1) as advance:
            evaluate_baselines(config, directory, device)
            collect_curves(config, directory)
            advance(0, 1.0)
        directory.mark_done("evaluate", [agents_file, directory.results / "curves.json"])
    return read_list(agents_file, AgentRecord)


def classify(
    config: BaselineConfig,
    directory: StudyDirectory,
    agents: Sequence[AgentRecord],
    settings: ClassificationConfig,
    display: Display,
    workers: int | None = None,
    device: str = "cpu",
) -> Classification:
    """Classify the agents of a study, unless that was done with the same settings before.

    Raises:
        RunDirectoryError: a file cannot be read or written.
        ValueError: there are fewer than two seeds, or only one kind.
        KeyboardInterrupt: Ctrl-C, after everything needed to continue was written.
    """
    step = f"classify/{settings.evaluation_seeds}x{max(settings.episodes)}-{len(settings.episodes)}"
    file = directory.results / "classification.json"
    if not directory.done(step):
        shards = len(config.shards) * len(config.kinds)
        with display.task("classification", float(settings.evaluation_seeds * shards), shards) as advance:
            classify_baselines(config, directory, agents, settings, workers=workers, device=device, on_progress=advance)
        directory.mark_done(step, [file])
    return read_one(file, Classification)


def write_results(
    directory: StudyDirectory, agents: Sequence[AgentRecord], found: Classification | None, command: str
) -> list[Record]:
    """Write ``results/summary.json``, every figure and the report; return the records of the summary.

    Raises:
        RunDirectoryError: a file cannot be read or written.
    """
    records = summary(agents, found, command)
    write_list(directory.results / "summary.json", records)
    draw_figures(directory.path)
    write_report(directory.path)
    return records


def summary(agents: Sequence[AgentRecord], found: Classification | None, command: str) -> list[Record]:
    """The headline records of a baseline study: rates per kind over seeds, and separation by overlap value.

    Args:
        agents: behaviour per agent.
        found: the classification, if there is one.
        command: the command that gives these records.
    """
    generator = np.random.default_rng(0)
    records = []
    for rate, kinds in _RATES.items():
        for kind in kinds:
            values = [getattr(agent, rate) for agent in agents if agent.kind == kind]
            if any(value is not None for value in values):
                numbers = np.array(values, dtype=np.float64)
                records.append(record_from_values(f"{kind}/{rate}", numbers, "share", command, generator))
    for kind in dict.fromkeys(agent.kind for agent in agents):
        competent = [float(agent.competent) for agent in agents if agent.kind == kind]
        records.append(record_from_values(f"{kind}/competent", competent, "share of agents", command, generator))
    if found is None:
        return records
    for row in found.rows:
        if row.layers == "both" and row.pairing == "imagined_red":
            records.append(
                Record(name=f"classification/auroc/{row.form}", unit="AUROC", command=command, **row.auroc.model_dump())
            )
    curve = found.protocol.get("published")
    if curve is not None and curve.low is not None and curve.high is not None:
        for index, episodes in enumerate(curve.episodes):
            if episodes in (100, 500, 1500):
                records.append(
                    Record(
                        name=f"classification/published_protocol/accuracy_{episodes}",
                        estimate=curve.mean[index],
                        low=curve.low[index],
                        high=curve.high[index],
                        n=curve.pairs,
                        unit="share of evaluation seeds",
                        command=command,
                        text="n counts pairs of agents; the interval resamples agents",
                    )
                )
    return records
