"""Train honest and deceptive baselines, measure what they do, and write the report. Run again to continue."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from soo_marl.commands.tables.terminal import ProgressDisplay, carry_out, print_study
from soo_marl.engines import LOCAL_WORKERS, Compute, check_machine
from soo_marl.report.refresh import refresh
from soo_marl.studies.baselines.study import open_study, train_and_evaluate, write_results
from soo_marl.studies.learning.recipes import baseline_config, with_changes


@dataclass
class Arguments:
    output: Path = Path("runs/baselines")
    """Study directory; one that is there already is continued."""
    preset: str = "trackable"
    """Preset of the game: trackable, paper or watch."""
    regime: str = "staged"
    """staged: red learns first, then fresh blues meet it; joint: both together, as in the paper; scripted: watch."""
    seeds: tuple[int, ...] = tuple(range(10))
    """One honest and one deceptive run per seed."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Any field of the configuration as name=value, for example stages.1.training.updates=4000."""
    compute: Compute = LOCAL_WORKERS
    """Where to compute."""


def main(arguments: Arguments, command: str) -> None:
    config = with_changes(baseline_config(arguments.preset, arguments.regime, arguments.seeds), arguments.set)
    check_machine(arguments.compute)
    directory = open_study(arguments.output, config)
    with directory.locked():
        agents = train_and_evaluate(config, directory, ProgressDisplay(), arguments.compute)
        records = write_results(directory, agents, None, command)
        refresh(directory.path)
    print_study(agents, None, records, directory)


if __name__ == "__main__":
    arguments, command = (
        tyro.cli(Arguments, description=__doc__, config=(tyro.conf.OmitArgPrefixes,)),
        shlex.join(["python", *sys.argv]),
    )
    sys.exit(carry_out(lambda: main(arguments, command), command, "train_baselines"))
