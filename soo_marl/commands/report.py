"""``soo-marl report``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from soo_marl.commands.shared import StudyArgument, chosen_study
from soo_marl.commands.tables.terminal import say
from soo_marl.report.refresh import refresh, unfinished


@dataclass(frozen=True)
class Report:
    """Write the report page of a study, or of a whole reproduction, from its results, as far as they are there."""

    study: StudyArgument = None
    """Directory of a study of any kind, or of a reproduction."""
    pretrained: str | None = None
    """Preset whose trained agents come with the package, in place of a study."""
    output: Path | None = None
    """Where the copy of pretrained agents goes; runs/pretrained/PRESET where none is given."""

    def run(self, line: str) -> None:
        """Carry out the command."""
        path, problems = chosen_study(self.study, self.pretrained, self.output), list[str]()
        page = refresh(path, problems)
        for problem in problems:
            say(f"Left out: {problem}")
        if missing := unfinished(path):
            say(f"Not done yet: {', '.join(missing)}; the page shows what is there")
        say(f"Report: {page}")
