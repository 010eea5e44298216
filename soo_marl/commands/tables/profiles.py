"""Deception profiles as a table in the terminal."""

from __future__ import annotations

from soo_marl.commands.tables.terminal import add_row, new_table, say, show
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.findings import interval_text, number_text
from soo_marl.studies.profiles.records import ProfileResult


def print_profiles(result: ProfileResult, directory: StudyDirectory) -> None:
    """One line per condition: how it plays, and how far its profiles lie from those of honest agents."""
    table = new_table("Deception profiles: difference to honest agents (95 % intervals)")
    table.add_column("condition", overflow="fold")
    for title in ("agents", "goal", "shares", "fraction", "counts"):
        table.add_column(title, justify="right", no_wrap=True)
    for found in result.conditions:
        difference = found.to_honest
        share = "–" if found.competent_share is None else f"{round(found.competent_share * found.agents)}"
        published = difference.published.estimate
        add_row(
            table,
            found.condition,
            f"{share}/{found.agents}",
            number_text(found.goal_rate.estimate),
            "–" if difference.rate_based.estimate is None else f"{difference.rate_based.estimate:.4f}",
            interval_text(difference.relative),
            "–" if published is None else f"{published:,.0f}",
        )
    show(table)
    say(
        "agents: how many reach the goal often enough, of all. shares: mean squared difference between shares of "
        "opportunities; fraction: the same as a fraction of that between deceptive and honest agents, for honest "
        "ones how far they lie from one another. counts: mean squared difference between counts, as published. A "
        "policy that does nothing looks near to honest: read the goal rate beside it.\n"
    )
    if result.remark is not None:
        say(f"{result.remark}\n")
    say(f"Report:  {directory.report}\nFigures: {directory.figures}\nRecords: {directory.results / 'profiles.json'}")
