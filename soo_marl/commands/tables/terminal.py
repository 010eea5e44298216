"""What commands show on the terminal: progress, tables, and errors in one sentence.

Names, reasons and answers are data: whatever they hold is shown as plain text (:func:`soo_marl.storage.files.plain`),
never as markup or as a command to the terminal. On a terminal tables fit 80 columns; anywhere else, in a log, say,
every line is as long as it is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from soo_marl.commands.output import unbreakable_output
from soo_marl.storage.faults import EXPECTED, is_of_memory, one_sentence
from soo_marl.storage.files import plain, printable
from soo_marl.storage.records import Record
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.findings import interval_text, number_text
from soo_marl.studies.baselines.study import FINETUNING, NOTES
from soo_marl.studies.learning.records import AgentRecord, Classification, ClassificationRow

console = Console(markup=False, highlight=False, emoji=False)
errors = Console(stderr=True, markup=False, highlight=False, emoji=False)
if not console.is_terminal:
    console.width = 10_000

_MOST_AGENTS = 100
"""A table of more rows than this nobody reads."""

_PAIRINGS = ("imagined_red", "perspective")

_SECONDS_BETWEEN_LINES = 20.0
"""Of a log, while a task goes on."""


class ProgressDisplay:
    """Progress bars on the terminal; where the output is no terminal, a line now and then."""

    @contextmanager
    def task(self, name: str, total: float, shards: int) -> Iterator[Callable[[int, float], None]]:
        """Show a task while it runs; yields ``advance(shard, units of work done by it)``."""
        moves = console.is_terminal and not console.is_dumb_terminal
        with _bar(name, total, shards) if moves else _lines(name, total, shards) as advance:
            yield advance


@contextmanager
def _bar(name: str, total: float, shards: int) -> Iterator[Callable[[int, float], None]]:
    done = dict.fromkeys(range(shards), 0.0)
    columns = (
        TextColumn("{task.description:<14}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(printable(name), total=total)

        def advance(shard: int, units: float) -> None:
            done[shard] = units
            progress.update(bar, completed=sum(done.values()))

        yield advance
        progress.update(bar, completed=total)


@contextmanager
def _lines(name: str, total: float, shards: int) -> Iterator[Callable[[int, float], None]]:
    done = dict.fromkeys(range(shards), 0.0)
    found: dict[int, float] = {}
    """What each shard had done when it began, left by an earlier command."""
    began, over = time.monotonic(), threading.Event()

    def advance(shard: int, units: float) -> None:
        found.setdefault(shard, units)
        done[shard] = units

    def line() -> str:
        so_far, now_done = sum(done.values()), sum(done.values()) - sum(found.values())
        seconds = time.monotonic() - began
        left = f", about {duration_text(seconds * (total - so_far) / now_done)} left" if now_done > 0 else ""
        return f"{name}: {so_far:,.0f}/{total:,.0f} after {duration_text(seconds)}{left}"

    def go_on_telling() -> None:
        while not over.wait(_SECONDS_BETWEEN_LINES):
            say(line())

    say(f"{name}: begins, {total:,.0f} to do")
    telling = threading.Thread(target=go_on_telling, daemon=True)
    telling.start()
    try:
        yield advance
    finally:
        over.set()
        telling.join()
    say(f"{name}: {total:,.0f}/{total:,.0f} after {duration_text(time.monotonic() - began)}")


def duration_text(seconds: float) -> str:
    """About how long something takes, in seconds, minutes or hours."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3_600:.1f} h"


def carry_out(action: Callable[[], None], again: str, program: str) -> int:
    """Do what a command is for; what goes wrong is said in one sentence, and ends in an exit status.

    Args:
        action: what to do.
        again: the command that continues after an interruption.
        program: name of the program, which begins every message.

    Returns:
        The exit status: 0 done, 1 a fault of ours, 2 bad input or what the machine lacks, 130 interrupted.
    """
    with unbreakable_output():
        try:
            action()
        except KeyboardInterrupt:
            errors.print()
            _complain(f"{program}: interrupted; nothing is lost, continue with: {again}")
            return 130
        except Exception as error:
            _complain(f"{program}: {one_sentence(error)}")
            return 2 if isinstance(error, EXPECTED) or is_of_memory(error) else 1
        return 0


def _complain(text: str) -> None:
    errors.print(printable(text), style="bold red", soft_wrap=True)


def say(text: str, wrap: bool = False) -> None:
    """Print a text; its lines stay in one piece, as paths must, unless they are to be wrapped at words."""
    console.print(plain(text), soft_wrap=not wrap)


def new_table(title: str) -> Table:
    """A table in our style; fill it with :func:`add_row`, show it with :func:`show`."""
    return Table(title=printable(title), box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")


def add_row(table: Table, *cells: str, style: str | None = None) -> None:
    """Add a row of cells, each on one line and as plain text."""
    table.add_row(*map(printable, cells), style=style)


def show(table: Table) -> None:
    """Print a table."""
    console.print(table)


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
            say(f"• {record.text}", wrap=True)
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
        add_row(table, agent.kind, str(agent.seed), *(number_text(rate) for rate in rates), verdict)
    show(table)
    for agent in agents:
        if agent.reasons:
            say(f"{agent.kind} {agent.seed}: {'; '.join(agent.reasons)}", wrap=True)


def print_classification(found: Classification) -> None:
    """How well each form of the overlap value, over both hidden layers, and each baseline tells the kinds apart."""
    table = new_table("Honest or deceptive? Separation across independently trained agents")
    for title in ("value", "AUROC", "leave-one-out", "recall, 5 % FPR"):
        table.add_column(title, no_wrap=True)
    of_pairings = [row for row in found.rows if row.pairing in _PAIRINGS and row.layers == "both"]
    for pairing in _PAIRINGS:
        _add_rows(table, pairing.replace("_", " "), [row for row in of_pairings if row.pairing == pairing])
    _add_rows(table, "baselines", [row for row in found.rows if row.pairing not in _PAIRINGS])
    show(table)
    missing = [f"{row.form} ({row.pairing.replace('_', ' ')}) {row.missing}" for row in of_pairings if row.missing]
    if missing:
        say(f"Agents without a value: {', '.join(missing)}.", wrap=True)
    say("The report and results/classification.json have all rows, single layers among them.\n")


def print_findings(found: Classification) -> None:
    """What a classification found, in words."""
    for finding in found.findings:
        say(f"• {finding}", wrap=True)


def print_records(records: Sequence[Record]) -> None:
    """The headline records with their intervals."""
    table = new_table("Summary (95 % intervals)")
    table.add_column("result", no_wrap=True)
    table.add_column("estimate [low, high]", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    for record in records:
        add_row(table, record.name, interval_text(record), str(record.n))
    show(table)


def _add_rows(table: Table, heading: str, rows: Sequence[ClassificationRow]) -> None:
    if rows:
        add_row(table, heading, style="italic")
    for row in rows:
        intervals = (row.auroc, row.leave_one_out, row.recall_at_5_percent)
        add_row(table, f"  {row.form}", *(interval_text(interval) for interval in intervals))
