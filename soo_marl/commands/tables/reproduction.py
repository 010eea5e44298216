"""What ``soo-marl reproduce`` shows on the terminal: what it is about to do, and what came of each preset."""

from __future__ import annotations

from collections.abc import Sequence

from soo_marl.commands.tables.finetuning import print_conditions
from soo_marl.commands.tables.terminal import add_row, duration_text, new_table, print_findings, say, show
from soo_marl.studies.reproduction.plan import PlannedStep
from soo_marl.studies.reproduction.study import PresetResult


def print_plan(steps: Sequence[PlannedStep], checkpoints: float) -> None:
    """One line per step with about what it takes, and the sums.

    Args:
        steps: all steps, in order.
        checkpoints: MB that checkpoints take at most, while it goes on.
    """
    table = new_table("Plan: about how long each step takes, and what it leaves on the disk")
    for title in ("preset", "step", "amount"):
        table.add_column(title, no_wrap=title != "amount")
    for title in ("time", "disk"):
        table.add_column(title, justify="right", no_wrap=True)
    before = ""
    for step in steps:
        name = step.preset if step.preset != before else ""
        time = "done" if step.done else duration_text(step.seconds)
        add_row(table, name, step.step, step.amount, time, f"{step.megabytes:,.0f} MB")
        before = step.preset
    seconds = sum(step.seconds for step in steps if not step.done)
    megabytes = sum(step.megabytes for step in steps)
    table.add_section()
    add_row(table, "all", "", "", duration_text(seconds), f"{megabytes:,.0f} MB")
    show(table)
    say(
        "Times are those of cores with nothing else to do, measured on two cores of 2026. Agents that do not play well "
        "enough are not fine-tuned, which then takes no time. Checkpoints take up to "
        f"{checkpoints:,.0f} MB more while it goes on."
    )


def print_preset(name: str, result: PresetResult) -> None:
    """What a classification found, and what fine-tuning did, or why there was none."""
    say(f"\n{name}")
    print_findings(result.classification)
    finetuned = result.finetuned
    if finetuned.directory is None:
        say(f"• {finetuned.why_not}")
        say(f"\nReport:  {result.directory.report}")
    else:
        print_conditions(finetuned.summaries, finetuned.directory)
