"""Classify the agents of a study by their self-other overlap, and write the report. Measured values are kept."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from soo_marl.commands.tables.terminal import ProgressDisplay, carry_out, print_study
from soo_marl.engines import LOCAL_WORKERS, Compute, check_machine
from soo_marl.report.refresh import refresh
from soo_marl.studies.baselines.classification import ClassificationConfig, check_classifiable
from soo_marl.studies.baselines.study import classify, read_study, train_and_evaluate, write_results


@dataclass
class Arguments:
    study: tyro.conf.Positional[Path]
    """Study directory, as written by train_baselines.py; what is not trained yet is trained first."""
    evaluation_seeds: int = ClassificationConfig().evaluation_seeds
    """Evaluation seeds of the published protocol."""
    episodes: tuple[int, ...] = ClassificationConfig().episodes
    """Episodes per evaluation seed at which accuracy is given, ascending."""
    compute: Compute = LOCAL_WORKERS
    """Where to compute."""


def main(arguments: Arguments, command: str) -> None:
    directory, config = read_study(arguments.study)
    check_classifiable(config)
    settings = ClassificationConfig(evaluation_seeds=arguments.evaluation_seeds, episodes=arguments.episodes)
    compute, display = arguments.compute, ProgressDisplay()
    check_machine(compute)
    with directory.locked():
        agents = train_and_evaluate(config, directory, display, compute)
        found = classify(config, directory, agents, settings, display, compute)
        records = write_results(directory, agents, found, command)
        refresh(directory.path)
    print_study(agents, found, records, directory)


if __name__ == "__main__":
    arguments, command = (
        tyro.cli(Arguments, description=__doc__, config=(tyro.conf.OmitArgPrefixes,)),
        shlex.join(["python", *sys.argv]),
    )
    sys.exit(carry_out(lambda: main(arguments, command), command, "classify"))
