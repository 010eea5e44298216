"""What fine-tuning did, as tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from soo_marl.commands.tables.terminal import add_row, new_table, say, show
from soo_marl.statistics import Interval
from soo_marl.storage.records import read_list
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.findings import interval_text, number_text
from soo_marl.studies.finetuning.records import Claim, ConditionSummary

_COLUMNS = {
    "trap_rate": "trapped",
    "goal_rate": "goal",
    "goal_rate_alone": "alone",
    "relative_sensitivity": "sees",
    "relative_seeing_gain": "gain",
    "relative_difference_to_honest": "away",
}

_WIDEST_NAME, _VERDICTS = 22, 18
"""Characters of the first column at most, and of the last at least: all fit 80 columns."""


def print_conditions(summaries: Sequence[ConditionSummary], directory: StudyDirectory) -> None:
    """One line per condition, the table of claims, and where everything is."""
    table = new_table("Conditions: means over seeds; the page has intervals, and everything else")
    table.add_column("condition", overflow="fold", max_width=_WIDEST_NAME)
    for title in _COLUMNS.values():
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("verdicts", min_width=_VERDICTS)
    for summary in summaries:
        values = [summary.measures.get(name, Interval(estimate=None, n=0)) for name in _COLUMNS]
        words = ", ".join(f"{count} {word}" for word, count in summary.verdicts.items())
        name = f"{summary.condition}, later" if summary.after else summary.condition
        add_row(table, name, *(number_text(value.estimate) for value in values), words)
    show(table)
    say(
        "sees: sensitivity of blue's action to red; gain: what seeing red is worth in return; both as fractions of the "
        "honest baselines'. away: how far deception profiles lie from the honest baselines', as a fraction of how far "
        "the deceptive ones' do.\n"
    )
    for claim in read_list(directory.results / "claims.json", Claim):
        estimate = f": {interval_text(claim.estimate)}" if claim.estimate is not None else ""
        say(f"• {claim.holds:9s} {claim.claim} ({claim.measured}{estimate})", wrap=True)
    say(f"\nReport:  {directory.report}\nFigures: {directory.figures}\nRecords: {directory.results}")
