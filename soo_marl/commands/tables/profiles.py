"""Deception profiles as a table in the terminal."""

from __future__ import annotations

from rich.table import Column

from soo_marl.commands.tables.terminal import numbers, say, say_places, show, table
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.findings import NO_VALUE, interval_text, number_text
from soo_marl.studies.learning.profile_records import ProfileRecord, ProfileResult


def print_profiles(result: ProfileResult, directory: StudyDirectory) -> None:
    """One line per condition: how it plays, and how far its profiles lie from those of honest agents."""
    columns = [Column("condition", overflow="fold"), *numbers("agents", "goal", "shares", "fraction", "counts")]
    title = "Deception profiles: difference to honest agents (95 % intervals)"
    show(table(title, columns, map(_cells, result.conditions)))
    say(
        "agents: how many reach the goal often enough, of all. shares: mean squared difference between shares of "
        "opportunities; fraction: the same as a fraction of that between deceptive and honest agents, for honest "
        "ones how far they lie from one another. counts: mean squared difference between counts, as published. A "
        "policy that does nothing looks near to honest: read the goal rate beside it."
    )
    if result.remark is not None:
        say(f"\n{result.remark}")
    say_places(directory)


def _cells(found: ProfileRecord) -> list[str]:
    difference = found.to_honest
    competent = NO_VALUE if found.competent_share is None else f"{round(found.competent_share * found.agents)}"
    rate_based, published = difference.rate_based.estimate, difference.published.estimate
    return [
        found.condition,
        f"{competent}/{found.agents}",
        number_text(found.goal_rate.estimate),
        NO_VALUE if rate_based is None else f"{rate_based:.4f}",
        interval_text(difference.relative),
        NO_VALUE if published is None else f"{published:,.0f}",
    ]
