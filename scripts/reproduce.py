"""Reproduce the paper preset by preset: train, classify, fine-tune, take profiles, one page. Run again to continue."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from soo_marl.report.reproduction_tables import print_plan, print_preset
from soo_marl.report.terminal import ProgressDisplay, carry_out, say
from soo_marl.studies.engines import LOCAL_WORKERS, Compute, check_machine
from soo_marl.studies.reproduction import open_reproduction, reproduce_preset, write_reproduction_page
from soo_marl.studies.reproduction_plan import (
    REGIMES,
    checkpoint_megabytes,
    planned_steps,
    reproduction_plan,
    scale_named,
)


@dataclass
class Arguments:
    output: Path = Path("runs/reproduce")
    """Folder of the reproduction; one that is there already is continued."""
    scale: str = "standard"
    """quick, standard or full."""
    presets: tuple[str, ...] = tuple(REGIMES)
    """Presets of the game, in order."""
    dry_run: bool = False
    """Say what would be done, and do nothing."""
    compute: Compute = LOCAL_WORKERS
    """Where to compute."""


def main(arguments: Arguments, command: str) -> None:
    scale, compute = scale_named(arguments.scale), arguments.compute
    plans = reproduction_plan(arguments.output, scale, arguments.presets)
    check_machine(compute)
    print_plan(
        [step for plan in plans for step in planned_steps(plan, compute)],
        max(checkpoint_megabytes(plan, compute) for plan in plans),
    )
    if arguments.dry_run:
        return
    directory = open_reproduction(arguments.output, scale)
    with directory.locked():
        page = write_reproduction_page(directory, scale, arguments.presets)
        for plan in plans:
            print_preset(plan.preset, reproduce_preset(plan, scale, ProgressDisplay(), command, compute))
            write_reproduction_page(directory, scale, arguments.presets)
    say(f"\nReproduction: {page}")


if __name__ == "__main__":
    arguments, command = (
        tyro.cli(Arguments, description=__doc__, config=(tyro.conf.OmitArgPrefixes,)),
        shlex.join(["python", *sys.argv]),
    )
    sys.exit(carry_out(lambda: main(arguments, command), command, "reproduce"))
