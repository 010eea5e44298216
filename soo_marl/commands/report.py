"""``soo-marl report``."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from soo_marl.commands import llm
from soo_marl.commands.shared import Agents, CopyOutput, command_line, following
from soo_marl.commands.tables.terminal import say
from soo_marl.llm.study.study import LANGUAGE
from soo_marl.report.refresh import refresh, unfinished
from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.records import read_one
from soo_marl.storage.study_directory import MANIFEST_NAME, StudyDirectory
from soo_marl.studies.sweep.records import SweepResult
from soo_marl.studies.sweep.study import SWEEP


@dataclass(frozen=True)
class Report:
    """Its options, and what is done with them."""

    agents: Agents = Agents()
    output: CopyOutput = None

    def run(self, line: str) -> str:
        """Carry out the command; returns the one that follows."""
        path, problems = self.agents.path(self.output), list[str]()
        page = refresh(path, problems)
        for problem in problems:
            say(f"Left out: {problem}")
        if missing := unfinished(path):
            say(f"Not done yet: {', '.join(missing)}; the page shows what is there")
        say(f"{'Figures' if page.is_dir() else 'Report'}: {page}")
        directory = StudyDirectory.read(path)
        if directory.manifest.kind == LANGUAGE.name:
            return llm.following(path)
        if directory.manifest.kind == SWEEP.name:
            for best in read_one(directory.results / "sweep.json", SweepResult).points:
                return command_line("classify", path / "points" / str(best.number))
        for study in (path, path.parent, *(file.parent for file in sorted(path.rglob(MANIFEST_NAME)))):
            with suppress(RunDirectoryError):
                return following(study)
        return command_line("reproduce", "--scale", "quick")
