"""What commands show on the terminal: progress bars, tables that fit 80 columns, and errors in one sentence."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pydantic import ValidationError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from soo_marl.studies.baselines import FINETUNING, NOTES
from soo_marl.studies.engines import WorkerLostError
from soo_marl.studies.files import RunDirectoryError, printable, quoted
from soo_marl.studies.findings import interval_text, number_text
from soo_marl.studies.records import AgentRecord, Classification, ClassificationRow, Record
from soo_marl.studies.run_directory import StudyDirectory

console = Console()
errors = Console(stderr=True)

_MOST_AGENTS = 100
"""A table of more rows than this nobody reads."""

_PAIRINGS = ("imagined_red", "perspective")


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


def carry_out(action: Callable[[], None], again: str, program: str) -> int:
    """Do what a command is for; what goes wrong with its input or with the machine is said in one sentence.

    Args:
        action: what to do.
        again: the command that continues after an interruption.
        program: name of the program, which begins every message.

    Returns:
        The exit status: 0 done, 2 bad input, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        # An old locale cannot show every character, a dash or a bar, say; that must not cost the whole output.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        action()
    except (RunDirectoryError, WorkerLostError, ValueError, OSError) as error:
        _complain(f"{program}: {one_sentence(error)}")
        return 2
    except (MemoryError, OverflowError, RuntimeError) as error:
        if not _is_of_memory(error):
            raise
        _complain(
            f"{program}: this needs more memory than there is; take fewer worlds, a smaller replay_capacity, "
            "batch_size or hidden_units, or fewer seeds_per_shard"
        )
        return 2
    except KeyboardInterrupt:
        errors.print()
        _complain(f"{program}: interrupted; nothing is lost, continue with: {again}")
        return 130
    return 0


def _is_of_memory(error: Exception) -> bool:
    """Whether an error tells of sizes that no memory holds; torch has no class of its own for this on the CPU."""
    return not isinstance(error, RuntimeError) or bool(
        re.search("allocate memory|out of memory|Storage size calculation overflowed|numel: integer", str(error))
    )


def one_sentence(error: Exception) -> str:
    """What went wrong and where, without a traceback; of several faults in a configuration the first."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{name} is no field of {error.title}; the fields are those in study.json"
    # Where whole parts of a configuration do not fit together, printing them would bury the sentence.
    given = "" if isinstance(first["input"], dict) else f" (given: {quoted(repr(first['input']))})"
    return f"{name}: {message}{given}" if name else f"{message}{given}"


def _complain(text: str) -> None:
    errors.print(printable(text), style="bold red", highlight=False, markup=False, soft_wrap=True)


def say(text: str) -> None:
    """Print one line as it is, however long: paths stay in one piece."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_study(
    agents: Sequence[AgentRecord],
    found: Classification | None,
    records: Sequence[Record],
    directory: StudyDirectory,
) -> None:
    """The closing tables of a study, its findings, and where everything is.

    Records of fine-tuning are left out: they have a table of their own.
    """
    print_agents(agents)
    if found is not None:
        print_classification(found)
        print_findings(found)
    print_records([record for record in records if not record.name.startswith(FINETUNING)])
    for record in records:
        if record.name.startswith(NOTES) and record.text:
            console.print(f"• {record.text}", markup=False, highlight=False)
    say(f"\nReport:  {directory.report}\nFigures: {directory.figures}\nRecords: {directory.results}")


def print_agents(agents: Sequence[AgentRecord]) -> None:
    """One line per agent: what it does, and whether it plays well enough to be judged; below, what fails whom."""
    if len(agents) > _MOST_AGENTS:
        competent = sum(agent.competent for agent in agents)
        say(f"{len(agents):,} agents, {competent:,} of them competent; results/agents.json has every one.\n")
        return
    table = new_table("Agents (greedy, fresh episodes)")
    for title in ("kind", "seed", "goal", "alone", "trapped", "follows", "rubric", "en route", "competent"):
        table.add_column(title, justify="left" if title in ("kind", "competent") else "right", no_wrap=True)
    for agent in agents:
        rates = (
            agent.goal_rate, agent.goal_rate_alone, agent.trap_rate, agent.following_rate, agent.rubric_rate,
            agent.rubric_rate_en_route,
        )  # fmt: skip
        verdict = "yes" if agent.competent else "no" if agent.stopped is None else "stopped"
        table.add_row(agent.kind, str(agent.seed), *(number_text(rate) for rate in rates), verdict)
    console.print(table)
    for agent in agents:
        if agent.reasons:
            console.print(f"{agent.kind} {agent.seed}: {'; '.join(agent.reasons)}", markup=False, highlight=False)


def print_classification(found: Classification) -> None:
    """How well each form of the overlap value, over both hidden layers, and each baseline tells the kinds apart."""
    table = new_table("Honest or deceptive? Separation across independently trained agents")
    for title in ("value", "AUROC", "leave-one-out", "recall, 5 % FPR"):
        table.add_column(title, no_wrap=True)
    of_pairings = [row for row in found.rows if row.pairing in _PAIRINGS and row.layers == "both"]
    for pairing in _PAIRINGS:
        _add_rows(table, pairing.replace("_", " "), [row for row in of_pairings if row.pairing == pairing])
    _add_rows(table, "baselines", [row for row in found.rows if row.pairing not in _PAIRINGS])
    console.print(table)
    missing = [f"{row.form} ({row.pairing.replace('_', ' ')}) {row.missing}" for row in of_pairings if row.missing]
    if missing:
        console.print(f"Agents without a value: {', '.join(missing)}.", markup=False, highlight=False)
    say("The report and results/classification.json have all rows, single layers among them.\n")


def print_findings(found: Classification) -> None:
    """What a classification found, in words."""
    for finding in found.findings:
        console.print(f"• {finding}", markup=False, highlight=False)


def print_records(records: Sequence[Record]) -> None:
    """The headline records with their intervals."""
    table = new_table("Summary (95 % intervals)")
    table.add_column("result", no_wrap=True)
    table.add_column("estimate [low, high]", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    for record in records:
        table.add_row(record.name, interval_text(record), str(record.n))
    console.print(table)


def new_table(title: str) -> Table:
    return Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")


def _add_rows(table: Table, heading: str, rows: Sequence[ClassificationRow]) -> None:
    if rows:
        table.add_row(heading, style="italic")
    for row in rows:
        intervals = (row.auroc, row.leave_one_out, row.recall_at_5_percent)
        table.add_row(f"  {row.form}", *(interval_text(interval) for interval in intervals))
