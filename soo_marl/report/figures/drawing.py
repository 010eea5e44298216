"""From a study's results to its figures: what can be drawn is drawn, and listed with captions for the page."""

from __future__ import annotations

import re
from pathlib import Path

from matplotlib.figure import Figure

from soo_marl.report.figures.baselines import (
    learning_curves,
    overlap_values,
    protocol_accuracy,
    roc_curves,
    save_figure,
)
from soo_marl.storage.records import FigureRecord, read_list, read_one, write_list
from soo_marl.studies.learning.records import Classification, LearningCurve


def draw_figures(study_directory: Path) -> list[FigureRecord]:
    """Draw every figure that ``results/curves.json`` and ``results/classification.json`` give rise to.

    Writes them into ``figures/`` and lists them in ``results/figures.json``; what else stands in that list (animations,
    a study's own pictures) stays, after them. Returns the new list. A results file that is absent is passed over.

    Raises:
        RunDirectoryError: a results file is unreadable, or a figure cannot be written.
    """
    study_directory = Path(study_directory)
    results = study_directory / "results"
    drawn: list[FigureRecord] = []

    def draw(name: str, caption: str, figure: Figure) -> None:
        path = save_figure(figure, study_directory / "figures" / name)
        drawn.append(FigureRecord(file=path.name, caption=caption))

    if (results / "classification.json").exists():
        found = read_one(results / "classification.json", Classification)
        if found.values:
            draw(
                "overlap_values",
                "Overlap value of each agent, one panel per form. Each mark is one independently trained agent.",
                overlap_values(found.values),
            )
        if found.roc:
            draw(
                "roc",
                "ROC curves over independently trained agents, one line per form; the dotted diagonal is chance.",
                roc_curves(found.roc),
            )
        if found.protocol:
            draw(
                "protocol",
                "The published protocol, which calls the agent of a pair with the lower mean value honest: accuracy "
                "against episodes per evaluation seed, mean and standard deviation over pairs of trained agents.",
                protocol_accuracy(found.protocol),
            )
    if (results / "curves.json").exists():
        curves = read_list(results / "curves.json", LearningCurve)
        for stage in dict.fromkeys(curve.stage for curve in curves):
            of_stage = [curve for curve in curves if curve.stage == stage]
            words = stage.replace("_", " ")
            draw(
                f"curves_{re.sub(r'[^A-Za-z0-9-]+', '_', stage)}",
                f"Learning curves of the stage “{words}”: a thin line per seed, the mean with its 95 % interval.",
                learning_curves(of_stage, f"Learning curves: {words}"),
            )
    names = {record.file for record in drawn}
    listed = read_list(results / "figures.json", FigureRecord) if (results / "figures.json").exists() else []
    records = [*drawn, *(record for record in listed if record.file not in names)]
    write_list(results / "figures.json", records)
    return records
