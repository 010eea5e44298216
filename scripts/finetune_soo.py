"""Fine-tune the deceptive agents of a trained study with overlap and its controls. Run again to continue."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from soo_marl.commands.tables.finetuning import print_conditions
from soo_marl.commands.tables.terminal import ProgressDisplay, carry_out
from soo_marl.engines import LOCAL_WORKERS, Compute, check_machine
from soo_marl.report.refresh import refresh
from soo_marl.storage.study_directory import FINETUNING_FOLDER
from soo_marl.studies.baselines.study import read_study
from soo_marl.studies.finetuning.study import finetuning_config, open_finetuning, run_finetuning, treatments_of


@dataclass
class Arguments:
    study: tyro.conf.Positional[Path]
    """Study directory, as written by train_baselines.py."""
    methods: tuple[str, ...] = ()
    """Methods to apply; all where none are given."""
    weights: tuple[float, ...] = ()
    """Weights of the methods' losses; each method's usual one where none are given."""
    updates: int | None = None
    """Updates with the loss; the methods' usual number where none is given."""
    compute: Compute = LOCAL_WORKERS
    """Where to compute."""


def main(arguments: Arguments, command: str) -> None:
    treatments = treatments_of(arguments.methods, arguments.weights, arguments.updates)
    source, baselines = read_study(arguments.study)
    config = finetuning_config(source, baselines, treatments)
    check_machine(arguments.compute)
    with source.locked():
        directory = open_finetuning(source.path / FINETUNING_FOLDER, config)
        with directory.locked():
            summaries = run_finetuning(config, directory, source.path, ProgressDisplay(), command, arguments.compute)
            refresh(directory.path)
        refresh(source.path)
    print_conditions(summaries, directory)


if __name__ == "__main__":
    arguments, command = (
        tyro.cli(Arguments, description=__doc__, config=(tyro.conf.OmitArgPrefixes,)),
        shlex.join(["python", *sys.argv]),
    )
    sys.exit(carry_out(lambda: main(arguments, command), command, "finetune"))
