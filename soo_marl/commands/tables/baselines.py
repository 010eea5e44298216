"""What baselines do, and how well they are told apart, as tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from soo_marl.commands.tables.terminal import numbers, say, say_places, say_points, show, table, words
from soo_marl.report.data import in_words
from soo_marl.storage.records import Record
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.findings import interval_text, number_text
from soo_marl.studies.baselines.study import FINETUNING, NOTES
from soo_marl.studies.learning.records import AgentRecord, Classification, ClassificationRow

_MOST_AGENTS = 100
"""A table of more rows than this nobody reads."""

_PAIRINGS = ("imagined_red", "perspective")


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
        say_points(found.findings)
    print_records([record for record in records if not record.name.startswith(FINETUNING)])
    say_points(record.text for record in records if record.name.startswith(NOTES) and record.text)
    say_places(directory)


def print_agents(agents: Sequence[AgentRecord]) -> None:
    """One line per agent: what it does, and whether it plays well enough to be judged; below, what fails whom."""
    if len(agents) > _MOST_AGENTS:
        competent = sum(agent.competent for agent in agents)
        say(f"{len(agents):,} agents, {competent:,} of them competent; results/agents.json has every one.\n")
        return
    rates = {
        "goal": "goal_rate",
        "alone": "goal_rate_alone",
        "trapped": "trap_rate",
        "follows": "following_rate",
        "rubric": "rubric_rate",
        "en route": "rubric_rate_en_route",
    }
    columns = [*words("kind"), *numbers("seed", *rates), *words("competent")]
    rows = []
    for agent in agents:
        verdict = "yes" if agent.competent else "no" if agent.stopped is None else "stopped"
        shown = [number_text(getattr(agent, rate)) for rate in rates.values()]
        rows.append([agent.kind, str(agent.seed), *shown, verdict])
    show(table("Agents (greedy, fresh episodes)", columns, rows))
    for agent in agents:
        if agent.reasons:
            say(f"{agent.kind} {agent.seed}: {'; '.join(agent.reasons)}", wrap=True)


def print_classification(found: Classification) -> None:
    """How well each form of the overlap value, over both hidden layers, and each baseline tells the kinds apart."""
    of_pairings = [row for row in found.rows if row.pairing in _PAIRINGS and row.layers == "both"]
    groups = {pairing: [row for row in of_pairings if row.pairing == pairing] for pairing in _PAIRINGS}
    groups["baselines"] = [row for row in found.rows if row.pairing not in _PAIRINGS]
    rows = []
    for heading, members in groups.items():
        if members:
            rows += [[in_words(heading)], *map(_cells, members)]
    columns = words("value", "AUROC", "leave-one-out", "recall, 5 % FPR")
    show(table("Honest or deceptive? Separation across independently trained agents", columns, rows))
    missing = [f"{row.form} ({in_words(row.pairing)}) {row.missing}" for row in of_pairings if row.missing]
    if missing:
        say(f"Agents without a value: {', '.join(missing)}.", wrap=True)
    say("The report and results/classification.json have all rows, single layers among them.\n")


def print_records(records: Sequence[Record]) -> None:
    """The headline records with their intervals."""
    columns = [*words("result", "estimate [low, high]"), *numbers("n")]
    show(table("Summary (95 % intervals)", columns, [[r.name, interval_text(r), str(r.n)] for r in records]))


def _cells(row: ClassificationRow) -> list[str]:
    intervals = (row.auroc, row.leave_one_out, row.recall_at_5_percent)
    return [f"  {row.form}", *(interval_text(interval) for interval in intervals)]
