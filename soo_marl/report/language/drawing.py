"""From a language study's results to its figures: what can be drawn is drawn, and listed with captions."""

from __future__ import annotations

from pathlib import Path

from soo_marl.llm.measures.records import LatentRecord, ModelSummary
from soo_marl.report.data import list_if_there
from soo_marl.report.figures.style import draw_pictures, picture
from soo_marl.report.language.figures import answers_by_model, damage, layer_gap, loss_and_behaviour
from soo_marl.report.language.maps import answers_by_scenario, layer_map
from soo_marl.report.language.orientation import honest_or_positional, orientation_points
from soo_marl.storage.records import FigureRecord


def draw_language(study_directory: Path) -> list[FigureRecord]:
    """Draw every figure that a language study gives rise to, as in :mod:`soo_marl.report.figures.drawing`.

    From ``models.json``, without which nothing is drawn, and ``latent.json``.

    Raises:
        RunDirectoryError: a results file is unreadable, or a figure cannot be written.
    """
    results = Path(study_directory) / "results"
    summaries = list_if_there(results / "models.json", ModelSummary)
    latent = list_if_there(results / "latent.json", LatentRecord)
    figures = {
        "honest_or_positional": lambda: honest_or_positional(orientation_points(summaries)),
        "answers_by_model": lambda: answers_by_model(summaries),
        "answers_by_scenario": lambda: answers_by_scenario(summaries),
        "loss_and_behaviour": lambda: loss_and_behaviour(summaries),
        "damage": lambda: damage(summaries),
        "layer_gap": lambda: layer_gap(latent, summaries),
        "layer_map": lambda: layer_map(summaries),
    }
    return draw_pictures(Path(study_directory), [picture("language", *item) for item in figures.items()])
