"""Take the deception profiles of a trained study and draw them. What was measured before is kept."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from soo_marl.commands.tables.profiles import print_profiles
from soo_marl.commands.tables.terminal import ProgressDisplay, carry_out
from soo_marl.engines import LOCAL_WORKERS, Compute, check_machine
from soo_marl.report.refresh import refresh
from soo_marl.studies.baselines.study import read_study
from soo_marl.studies.profiles.study import EPISODES, profile_study


@dataclass
class Arguments:
    study: tyro.conf.Positional[Path]
    """Study directory, as written by train_baselines.py; its fine-tuned agents are taken along."""
    episodes: int = EPISODES
    """Greedy episodes per agent."""
    compute: Compute = LOCAL_WORKERS
    """Where to compute."""


def main(arguments: Arguments, command: str) -> None:
    directory, config = read_study(arguments.study)
    check_machine(arguments.compute)
    with directory.locked():
        result = profile_study(
            config, directory, ProgressDisplay(), command, episodes=arguments.episodes, compute=arguments.compute
        )
        refresh(directory.path)
    print_profiles(result, directory)


if __name__ == "__main__":
    arguments, command = (
        tyro.cli(Arguments, description=__doc__, config=(tyro.conf.OmitArgPrefixes,)),
        shlex.join(["python", *sys.argv]),
    )
    sys.exit(carry_out(lambda: main(arguments, command), command, "plot_profiles"))
