"""``soo-marl report``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from soo_marl.commands.shared import StudyArgument, chosen_study
from soo_marl.commands.tables.terminal import say
from soo_marl.llm.study import study as language
from soo_marl.report.figures.drawing import draw_finetuning
from soo_marl.report.language.drawing import draw_language
from soo_marl.report.language.page import write_language_report
from soo_marl.report.page.page import write_report
from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.study import read_study, refresh_report, unfinished_steps
from soo_marl.studies.finetuning import study as finetuning
from soo_marl.studies.reproduction import study as reproduction


@dataclass(frozen=True)
class Report:
    """Write the report page of a study, or of a whole reproduction, from its results, as far as they are there."""

    study: StudyArgument = None
    """Directory of a baseline study, a fine-tuning study or a reproduction."""
    pretrained: str | None = None
    """Preset whose trained agents come with the package, in place of a study."""
    output: Path | None = None
    """Where the copy of pretrained agents goes; runs/pretrained/PRESET where none is given."""

    def run(self, line: str) -> None:
        """Carry out the command."""
        path = chosen_study(self.study, self.pretrained, self.output)
        directory = StudyDirectory.read(path)
        kind = directory.manifest.kind
        if kind == reproduction.STUDY_KIND:
            scale = reproduction.read_reproduction(directory)
            with directory.locked():
                say(f"Report: {reproduction.write_reproduction_page(directory, scale)}")
            return
        if kind == language.STUDY_KIND:
            _, config = language.read_language_study(path)
            with directory.locked():
                problems = _draw_and_write(directory, draw_language, write_language_report)
            missing = [
                f"{label} {seed}" for label, seed in config.models if not directory.done(f"models/{label}/{seed}")
            ]
        elif kind == finetuning.STUDY_KIND:
            finetuning.read_finetuning(path)
            with directory.locked():
                problems = _draw_and_write(directory, draw_finetuning, write_report)
                missing = [
                    name
                    for name, step in (("treatment", "finetune"), ("measurement", "measure"))
                    if not directory.done(step)
                ]
        else:
            read_study(path)
            with directory.locked():
                problems, missing = refresh_report(directory), unfinished_steps(directory)
        for problem in problems:
            say(f"Left out: {problem}")
        if missing:
            say(f"Not done yet: {', '.join(missing)}; the page shows what is there")
        say(f"Report: {directory.report}")


def _draw_and_write(
    directory: StudyDirectory, draw: Callable[[Path], object], write: Callable[[Path], object]
) -> list[str]:
    """Draw the figures of a study and write its page; return what was in the way."""
    problems = []
    try:
        draw(directory.path)
    except RunDirectoryError as error:
        problems.append(str(error))
    write(directory.path)
    return problems
