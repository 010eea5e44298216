"""What commands show on the terminal: progress, tables, and errors in one sentence.

Names, reasons and answers are data: whatever they hold is shown as plain text (:func:`soo_marl.storage.files.plain`),
never as markup or as a command to the terminal. On a terminal tables fit 80 columns; anywhere else, in a log, say,
every line is as long as it is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table

from soo_marl.commands.tables.output import unbreakable_output
from soo_marl.storage.faults import EXPECTED, is_of_memory, one_sentence
from soo_marl.storage.files import plain, printable
from soo_marl.storage.study_directory import StudyDirectory

console = Console(markup=False, highlight=False, emoji=False)
errors = Console(stderr=True, markup=False, highlight=False, emoji=False)
if not console.is_terminal:
    console.width = 10_000

_SECONDS_BETWEEN_LINES = 20.0
"""Of a log, while a task goes on."""


class ProgressDisplay:
    """Progress bars on the terminal; where the output is no terminal, a line now and then."""

    @contextmanager
    def task(self, name: str, total: float, shards: int) -> Iterator[Callable[[int, float], None]]:
        """Show a task while it runs; yields ``advance(shard, units of work done by it)``."""
        done = dict.fromkeys(range(shards), 0.0)
        moves = console.is_terminal and not console.is_dumb_terminal
        with (_bar if moves else _lines)(name, total, done) as show_progress:

            def advance(shard: int, units: float) -> None:
                done[shard] = units
                show_progress(shard)

            yield advance


@contextmanager
def _bar(name: str, total: float, done: dict[int, float]) -> Iterator[Callable[[int], None]]:
    title = TextColumn("{task.description:<14}", markup=False)
    columns = (title, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(printable(name), total=total)
        yield lambda shard: progress.update(bar, completed=sum(done.values()))
        progress.update(bar, completed=total)


@contextmanager
def _lines(name: str, total: float, done: dict[int, float]) -> Iterator[Callable[[int], None]]:
    found: dict[int, float] = {}
    """What each shard had done when it began, left by an earlier command."""
    began, over = time.monotonic(), threading.Event()

    def show_progress(shard: int) -> None:
        found.setdefault(shard, done[shard])

    def go_on_telling() -> None:
        while not over.wait(_SECONDS_BETWEEN_LINES):
            so_far, seconds = sum(done.values()), time.monotonic() - began
            now_done = so_far - sum(found.values())
            left = f", about {duration_text(seconds * (total - so_far) / now_done)} left" if now_done > 0 else ""
            say(f"{name}: {so_far:,.0f}/{total:,.0f} after {duration_text(seconds)}{left}")

    say(f"{name}: begins, {total:,.0f} to do")
    telling = threading.Thread(target=go_on_telling, daemon=True)
    telling.start()
    try:
        yield show_progress
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


def say_points(points: Iterable[str]) -> None:
    """Print sentences as a list, wrapped at words."""
    for point in points:
        say(f"• {point}", wrap=True)


def say_places(directory: StudyDirectory) -> None:
    """Where everything of a study is."""
    say(f"\nReport:  {directory.report}\nFigures: {directory.figures}\nRecords: {directory.results}")


def numbers(*titles: str) -> list[Column]:
    """Columns of numbers, which are not broken."""
    return [Column(title, justify="right", no_wrap=True) for title in titles]


def words(*titles: str) -> list[Column]:
    """Columns of words that are not broken."""
    return [Column(title, no_wrap=True) for title in titles]


def table(title: str, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> Table:
    """A table in our style.

    Args:
        title: what it shows.
        columns: from left to right; ``overflow="fold"`` in one whose words may be broken.
        rows: cells, each on one line and as plain text; a row of one cell is the heading of what follows.
    """
    made = Table(*columns, title=printable(title), box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")
    for row in rows:
        made.add_row(*map(printable, row), style="italic" if len(row) == 1 < len(columns) else None)
    return made


def show(made: Table) -> None:
    """Print a table."""
    console.print(made)
