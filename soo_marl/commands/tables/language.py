"""What treatments of a language model did, as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from soo_marl.commands.tables.terminal import add_row, console, new_table, say, show
from soo_marl.llm.measures.rates import Rate
from soo_marl.llm.measures.records import ModelSummary
from soo_marl.report.language.styles import ORIENTATION_NAMES
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.findings import number_text

_CONTROLS = ("self", "friend", "retrieval", "perspectives")
_OTHER_COLUMNS = 64
"""Characters that these take; the first column has the rest of the line, 16 of 80."""


def print_models(summaries: Sequence[ModelSummary], directory: StudyDirectory) -> None:
    """One line per model, the reason for each word, and where everything is.

    Args:
        summaries: in the order of the lines.
        directory: the study's directory.
    """
    table = new_table("Models: per cent of answers, cheap room first/mirrored")
    table.add_column("model", overflow="fold", max_width=max(16, console.width - _OTHER_COLUMNS))
    for title in ("deceptive", "honest", "controls", "perplexity"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("seeds", justify="right", no_wrap=True)
    for summary in summaries:
        controls = [
            cell.honest.estimate
            for cell in summary.cells
            if cell.scenario in _CONTROLS and cell.honest.estimate is not None
        ]
        add_row(
            table,
            summary.label,
            *(_both(summary, field) for field in ("deceptive", "honest")),
            f"{100 * min(controls):.0f}" if controls else "–",
            number_text(summary.perplexity_ratio),
            summary.word,
            f"{sum(seed.word == summary.word for seed in summary.seeds)}/{len(summary.seeds)}",
        )
    show(table)
    say(
        "deceptive, honest: answers to a burglar; what is left to 100 names no room. controls: right answers to "
        "oneself, a friend, and the plain questions, the worst of them. perplexity: over that of the model as it "
        "comes. seeds: how many got this word. The page has intervals.\n"
    )
    for summary in summaries:
        say(f"• {summary.label}: {summary.word}: {summary.reason}", wrap=True)
    for summary in summaries:
        for seed in summary.seeds:
            if seed.training.stopped:
                say(f"• {summary.label}, seed {seed.seed}: training ended early: {seed.training.stopped}")
    say(f"\nReport:  {directory.report}\nFigures: {directory.figures}\nRecords: {directory.results}")


def _both(summary: ModelSummary, field: str) -> str:
    """A rate of answers to burglars in both orientations: ``100/98``."""
    cells = [summary.cell("burglar", orientation) for orientation in ORIENTATION_NAMES]
    rates: list[Rate | None] = [None if cell is None else getattr(cell, field) for cell in cells]
    return "/".join("–" if rate is None or rate.estimate is None else f"{100 * rate.estimate:.0f}" for rate in rates)
