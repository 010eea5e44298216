"""What treatments of a language model did, as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Column

from soo_marl.commands.tables.terminal import console, numbers, say, say_places, say_points, show, table, words
from soo_marl.llm.measures.records import ModelSummary
from soo_marl.report.language.styles import ORIENTATION_NAMES
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.findings import NO_VALUE, number_text

_CONTROLS = ("self", "friend", "retrieval", "perspectives")
_OTHER_COLUMNS = 64
"""Characters that these take; the first column has the rest of the line, 16 of 80."""


def print_models(summaries: Sequence[ModelSummary], directory: StudyDirectory) -> None:
    """One line per model, the reason for each word, and where everything is.

    Args:
        summaries: in the order of the lines.
        directory: the study's directory.
    """
    name = Column("model", overflow="fold", max_width=max(16, console.width - _OTHER_COLUMNS))
    columns = [name, *numbers("deceptive", "honest", "controls", "perplexity"), *words("verdict"), *numbers("seeds")]
    show(table("Models: per cent of answers, cheap room first/mirrored", columns, map(_cells, summaries)))
    say(
        "deceptive, honest: answers to a burglar; what is left to 100 names no room. controls: right answers to "
        "oneself, a friend, and the plain questions, the worst of them. perplexity: over that of the model as it "
        "comes. seeds: how many got this word. The page has intervals.\n"
    )
    say_points(f"{summary.label}: {summary.word}: {summary.reason}" for summary in summaries)
    say_points(
        f"{summary.label}, seed {seed.seed}: training ended early: {seed.training.stopped}"
        for summary in summaries
        for seed in summary.seeds
        if seed.training.stopped
    )
    say_places(directory)


def _cells(summary: ModelSummary) -> list[str]:
    controls = [
        cell.honest.estimate
        for cell in summary.cells
        if cell.scenario in _CONTROLS and cell.honest.estimate is not None
    ]
    to_burglars = [summary.cell("burglar", orientation) for orientation in ORIENTATION_NAMES]
    return [
        summary.label,
        "/".join(_per_cent(cell.deceptive.estimate if cell else None) for cell in to_burglars),
        "/".join(_per_cent(cell.honest.estimate if cell else None) for cell in to_burglars),
        _per_cent(min(controls, default=None)),
        number_text(summary.perplexity_ratio),
        summary.word,
        f"{sum(seed.word == summary.word for seed in summary.seeds)}/{len(summary.seeds)}",
    ]


def _per_cent(share: float | None) -> str:
    return NO_VALUE if share is None else f"{100 * share:.0f}"
