"""``soo-marl reproduce``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from soo_marl.commands.shared import Output, Where, following, option
from soo_marl.commands.tables.reproduction import print_plan, print_preset
from soo_marl.commands.tables.terminal import ProgressDisplay, say
from soo_marl.engines import LOCAL_WORKERS, check_machine
from soo_marl.report.refresh import refresh
from soo_marl.storage.faults import one_sentence
from soo_marl.storage.files import RunDirectoryError
from soo_marl.studies.reproduction.plan import (
    REGIMES,
    SCALES,
    checkpoint_megabytes,
    planned_steps,
    reproduction_plan,
    scale_named,
)
from soo_marl.studies.reproduction.study import name_presets, open_reproduction, reproduce_preset


@dataclass(frozen=True)
class Reproduce:
    """Its options, and what is done with them."""

    output: Output = Path("runs/reproduce")
    scale: Annotated[str, option("quick: a look, in minutes; standard: an hour or two; full: 20 seeds.", SCALES)] = (
        "standard"
    )
    presets: Annotated[tuple[str, ...], option("Presets of the game, in order.", REGIMES)] = tuple(REGIMES)
    dry_run: bool = False  # Say what would be done and about how long it takes, and do nothing.
    compute: Where = LOCAL_WORKERS

    def run(self, line: str) -> str:
        """Carry out the command that was given as ``line``; returns the one that follows."""
        scale = scale_named(self.scale)
        plans = reproduction_plan(self.output, scale, self.presets)
        if self.output.exists() and not self.output.is_dir():
            raise RunDirectoryError(f"{self.output} is a file, not a folder; name another output folder")
        check_machine(self.compute)
        print_plan(
            [step for plan in plans for step in planned_steps(plan, self.compute)],
            max(checkpoint_megabytes(plan, self.compute) for plan in plans),
        )
        if self.dry_run:
            return line.replace(" --dry-run", "")
        directory, display = open_reproduction(self.output, scale), ProgressDisplay()
        with directory.locked():
            # At once and after each preset, so that a page is there whenever this is stopped.
            name_presets(directory, self.presets)
            page = refresh(directory.path)
            failed = []
            for plan in plans:
                say(f"\n{plan.preset}, regime {plan.baselines.regime}")
                try:
                    print_preset(plan.preset, reproduce_preset(plan, display, line, self.compute, refresh))
                except Exception as error:
                    # What is in the way of one preset is not in the way of the others.
                    say(f"• {plan.preset} failed: {one_sentence(error)}")
                    failed.append(plan.preset)
                refresh(directory.path)
        say(f"\nReproduction: {page}")
        if failed:
            raise RunDirectoryError(
                f"not everything could be done of: {', '.join(failed)}; the reasons stand above, and the same command "
                "goes on"
            )
        return following(plans[0].path)
