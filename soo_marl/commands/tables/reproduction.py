"""What ``soo-marl reproduce`` shows on the terminal: what it is about to do, and what came of each preset."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Column

from soo_marl.commands.tables.finetuning import print_conditions
from soo_marl.commands.tables.terminal import duration_text, numbers, say, say_points, show, table, words
from soo_marl.studies.reproduction.plan import PlannedStep
from soo_marl.studies.reproduction.study import PresetResult


def print_plan(steps: Sequence[PlannedStep], checkpoints: float) -> None:
    """One line per step with about what it takes, and the sums.

    Args:
        steps: all steps, in order.
        checkpoints: MB that checkpoints take at most, while it goes on.
    """
    rows, before = [], ""
    for step in steps:
        name = step.preset if step.preset != before else ""
        time = "done" if step.done else duration_text(step.seconds)
        rows.append([name, step.step, step.amount, time, f"{step.megabytes:,.0f} MB"])
        before = step.preset
    seconds = sum(step.seconds for step in steps if not step.done)
    megabytes = sum(step.megabytes for step in steps)
    rows += [[""], ["all", "", "", duration_text(seconds), f"{megabytes:,.0f} MB"]]
    columns = [*words("preset", "step"), Column("amount"), *numbers("time", "disk")]
    show(table("Plan: about how long each step takes, and what it leaves on the disk", columns, rows))
    say(
        "Times are those of cores with nothing else to do, measured on two cores of 2026. Agents that do not play well "
        "enough are not fine-tuned, which then takes no time. Checkpoints take up to "
        f"{checkpoints:,.0f} MB more while it goes on."
    )


def print_preset(name: str, result: PresetResult) -> None:
    """What a classification found, and what fine-tuning did, or why there was none."""
    say(f"\n{name}")
    say_points(result.classification.findings)
    finetuned = result.finetuned
    if finetuned.directory is None:
        say(f"• {finetuned.why_not}")
        say(f"\nReport:  {result.directory.report}")
    else:
        print_conditions(finetuned.summaries, finetuned.directory)
