"""What fine-tuning did, as tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Column

from soo_marl.commands.tables.terminal import numbers, say, say_places, say_points, show, table
from soo_marl.statistics import Interval
from soo_marl.storage.records import read_list
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.findings import interval_text, number_text
from soo_marl.studies.finetuning.records import Claim, ConditionSummary

_COLUMNS = {
    "trapped": "trap_rate",
    "goal": "goal_rate",
    "alone": "goal_rate_alone",
    "sees": "relative_sensitivity",
    "gain": "relative_seeing_gain",
    "away": "relative_difference_to_honest",
}

_WIDEST_NAME, _VERDICTS = 22, 18
"""Characters of the first column at most, and of the last at least: all fit 80 columns."""


def print_conditions(summaries: Sequence[ConditionSummary], directory: StudyDirectory) -> None:
    """One line per condition, the table of claims, and where everything is."""
    name = Column("condition", overflow="fold", max_width=_WIDEST_NAME)
    columns = [name, *numbers(*_COLUMNS), Column("verdicts", min_width=_VERDICTS)]
    title = "Conditions: means over seeds; the page has intervals, and everything else"
    show(table(title, columns, map(_cells, summaries)))
    say(
        "sees: sensitivity of blue's action to red; gain: what seeing red is worth in return; both as fractions of the "
        "honest baselines'. away: how far deception profiles lie from the honest baselines', as a fraction of how far "
        "the deceptive ones' do.\n"
    )
    say_points(map(_claim_text, read_list(directory.results / "claims.json", Claim)))
    say_places(directory)


def _cells(summary: ConditionSummary) -> list[str]:
    name = f"{summary.condition}, later" if summary.after else summary.condition
    values = [summary.measures.get(measure, Interval(estimate=None, n=0)) for measure in _COLUMNS.values()]
    verdicts = ", ".join(f"{count} {word}" for word, count in summary.verdicts.items())
    return [name, *(number_text(value.estimate) for value in values), verdicts]


def _claim_text(claim: Claim) -> str:
    estimate = f": {interval_text(claim.estimate)}" if claim.estimate is not None else ""
    return f"{claim.holds:9s} {claim.claim} ({claim.measured}{estimate})"
