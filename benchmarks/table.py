"""The benchmark's records as tables: on the terminal, and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.machine import Machine
from soo_marl.storage.records import Record

HEADLINES = (
    "env/reference/steps_per_second",
    "env/wrapper/trackable/ratio",
    "env/batched/stock/ratio",
    "env/batched/stock_continuous/ratio",
    "env/batched/paper/ratio",
    "env/batched/trackable/ratio",
    "update/b256/share_of_matmul",
    "update/b1024/share_of_matmul",
    "update/b256/share_of_square_matmul",
    "update/b1024/share_of_square_matmul",
    "update/b256/stack20_vs_separate",
    "update/b1024/stack20_vs_separate",
    "train/stock/paper_settings/ratio",
    "train/paper_baseline/seeds_per_hour",
    "train/paper_baseline/minutes_for_20_seeds",
    "train/two_processes/speedup",
    "evaluate/pairs_per_second",
    "report/figures/seconds",
    "report/page/seconds",
)
"""Names of the records that come first."""

_PEAK = "/peak_memory"


def print_headlines(records: Sequence[Record], console: Console) -> None:
    """Print the headlines and the peers; all of them where there are no headlines."""
    title, first = _parts(records)[0]
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")
    table.add_column("measurement", no_wrap=True)
    table.add_column("median [95 % interval]", justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for record in first:
        table.add_row(record.name, _interval(record), record.unit)
    console.print(table)


def markdown(records: Sequence[Record], machine: Machine) -> str:
    """The same in Markdown, with the machine."""
    caches = ", ".join(f"{name} {size}" for name, size in machine.caches.items())
    facts = [
        f"{machine.processor}, {machine.cores} cores, {machine.memory_gib:g} GiB" + (f" ({caches})" if caches else ""),
        f"{machine.system}, Python {machine.python}, torch {machine.packages['torch']} ({machine.blas}, "
        f"{machine.torch_instructions}), one thread per process",
        f"{machine.date}; {machine.minutes:g} minutes"
        + ("" if machine.load_before is None else f"; load before: {machine.load_before:.1f}"),
    ]
    lines = [f"* {fact}" for fact in facts]
    if records:
        lines += ["", f"Command: `{records[0].command}`"]
    for title, part in _parts(records):
        lines += ["", f"**{title}**", "", "| measurement | median [95 % interval] | unit | n | remark |"]
        lines.append("| --- | ---: | --- | ---: | --- |")
        for record in part:
            cells = (f"`{record.name}`", _interval(record), record.unit, str(record.n), record.text or "")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _parts(records: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    """Titles and records of the tables; those without records are left out, and at least one is not."""
    by_name = {record.name: record for record in records}
    first = [by_name[name] for name in HEADLINES if name in by_name]
    first += [record for record in records if record.name.startswith("peers/") and record.name.endswith("/ratio")]
    memory = [record for record in records if record.name.endswith(_PEAK)]
    rest = [record for record in records if record not in first and record not in memory]
    parts = [("Headlines", first), ("All else", rest), ("Peak memory", memory)]
    return [(title, part) for title, part in parts if part]


def _interval(record: Record) -> str:
    estimate = number(record.estimate)
    if record.low is None or record.high is None:
        return estimate
    return f"{estimate} [{number(record.low)}, {number(record.high)}]"


def number(value: float | None) -> str:
    """A number with three significant digits, and no fewer than its whole part has."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
