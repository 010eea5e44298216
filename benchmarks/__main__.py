"""Measure speed and memory, print the table, and write records, plots and the machine's facts.

Run it from the repository root, on a machine that does nothing else: python -m benchmarks
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
import tyro

from benchmarks import environments, evaluation, growth, peers, training, updates
from benchmarks.cases import Case, carry_out
from benchmarks.machine import load, machine
from benchmarks.measurements import Measurement, merged
from benchmarks.settings import Settings, quick_settings
from benchmarks.table import markdown, print_headlines
from soo_marl.commands.tables import terminal
from soo_marl.storage.files import write_text
from soo_marl.storage.records import write_list, write_one

_DEFAULTS = Settings(Path())


@dataclass(frozen=True)
class Benchmark:
    """Speed and memory of soo-marl, as ratios against references timed in the same run."""

    output: Path = Path("runs/bench")
    """Folder for results/summary.json, results/machine.json, figures/ and table.md; what is there is replaced."""
    repeats: int = _DEFAULTS.repeats
    """Repeats of every short measurement."""
    seconds: float = _DEFAULTS.seconds
    """Least duration of one short timing."""
    training_repeats: int = _DEFAULTS.training_repeats
    """Repeats of training end to end."""
    training_seconds: float = _DEFAULTS.training_seconds
    """Duration of one timing of training end to end."""
    quick: bool = False
    """Small sizes and hardly any timing, for tests: the figures mean nothing."""
    only: tuple[str, ...] = ()
    """Measure only cases whose names fit one of these patterns, for example 'update/*'; --list-cases shows them."""
    list_cases: bool = False
    """Print the names of the cases and measure nothing."""
    peers: tuple[str, ...] = ()
    """Other libraries, as name=interpreter: agilerl, benchmarl, xuance, each with the Python of its own environment."""

    def run(self, line: str) -> None:
        """Carry out the command; ``line`` is how it was given.

        Raises:
            ValueError: an option is out of its range, nothing is to be measured, a case failed, or Ctrl-C was pressed.
            RunDirectoryError: a file cannot be written.
        """
        chosen = self._cases()
        if self.list_cases:
            print("\n".join(case.name for case in chosen))
            return
        start, load_before = time.monotonic(), load()
        settings = self._settings()
        settings.scratch.mkdir(parents=True, exist_ok=True)
        try:
            found, failed = _measure(chosen, settings)
        except KeyboardInterrupt:
            raise ValueError("interrupted before the end, so no figure was written") from None
        finally:
            shutil.rmtree(settings.scratch)
        self._write(found, line, load_before, (time.monotonic() - start) / 60.0)
        if failed:
            raise ValueError(f"these cases failed and are missing: {', '.join(failed)}")

    def _cases(self) -> list[Case]:
        every = [
            case
            for module in (environments, updates, training, evaluation, growth)
            for case in module.cases(self.quick)
        ] + peers.cases(self.peers)
        chosen = [case for case in every if not self.only or any(fnmatchcase(case.name, one) for one in self.only)]
        if not chosen:
            raise ValueError(f"no case fits --only {' '.join(self.only)}; --list-cases shows their names")
        return chosen

    def _settings(self) -> Settings:
        if min(self.repeats, self.training_repeats) < 1 or min(self.seconds, self.training_seconds) <= 0:
            raise ValueError("repeats must be at least 1, and seconds more than 0")
        scratch = self.output / "scratch"
        if self.quick:
            return quick_settings(scratch)
        return Settings(scratch, self.repeats, self.seconds, self.training_repeats, self.training_seconds)

    def _write(self, found: Sequence[Measurement], line: str, load_before: float | None, minutes: float) -> None:
        together = merged(found)
        together += [*environments.headlines(together), *updates.headlines(together)]
        records = [measured.record(line) for measured in together]
        facts = machine(load_before, minutes)
        write_list(self.output / "results" / "summary.json", records)
        write_one(self.output / "results" / "machine.json", facts)
        growth.draw(together, self.output / "figures")
        write_text(self.output / "table.md", markdown(records, facts))
        print_headlines(records, terminal.console)
        terminal.say(
            f"All else: {self.output / 'table.md'}\nRecords:  {self.output / 'results'}\n"
            f"Plots:    {self.output / 'figures'}"
        )


def _measure(chosen: Sequence[Case], settings: Settings) -> tuple[list[Measurement], list[str]]:
    """What was found, and the names of the cases that failed."""
    found: list[Measurement] = []
    failed = []
    for number, case in enumerate(chosen, start=1):
        start = time.monotonic()
        try:
            found += carry_out(case, settings)
            outcome = f"{time.monotonic() - start:.0f} s"
        # One case that fails, for want of memory perhaps, must not cost the figures of all others.
        except Exception as error:
            failed.append(case.name)
            outcome = f"failed: {error}"
        terminal.say(f"[{number}/{len(chosen)}] {case.name}: {outcome}")
    return found, failed


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark and return the exit status."""
    # Before any process is started: each is to compute with one thread.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    benchmark = tyro.cli(Benchmark, args=arguments, prog="python -m benchmarks", description=__doc__)
    line = shlex.join(["python", "-m", "benchmarks", *arguments])
    return terminal.carry_out(lambda: benchmark.run(line), line, "benchmarks")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
