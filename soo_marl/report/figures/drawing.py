"""From the results of a study of agents to its figures: what can be drawn is drawn, and listed with captions.

Each function reads the files of ``results/`` that are there, draws into ``figures/`` as PNG and SVG, and returns the
new list in ``results/figures.json``, in which other pictures and films stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soo_marl.report.data import in_words, list_if_there
from soo_marl.report.figures.agents import overlap_against_trap_rate, trap_rate_against_sensitivity
from soo_marl.report.figures.baselines import learning_curves, overlap_values, protocol_accuracy, roc_curves
from soo_marl.report.figures.conditions import behavioural_differences, gain_from_seeing, lasting
from soo_marl.report.figures.profiles import profile_contours, profile_differences
from soo_marl.report.figures.style import Picture, draw_pictures, mean_of_present, picture
from soo_marl.report.figures.time_courses import time_courses
from soo_marl.storage.files import DELETE, RunDirectoryError
from soo_marl.storage.records import FigureRecord, read_one
from soo_marl.storage.tensor_files import read_tensors
from soo_marl.studies.finetuning.records import ConditionSummary, TreatedAgent
from soo_marl.studies.learning.records import Classification, LearningCurve

FORMS = ("untrapped", "published")
"""Forms of the overlap value that have a figure: what overlap means here, and what the paper's code measures."""

Grid = NDArray[np.float64]


def draw_figures(study_directory: Path) -> list[FigureRecord]:
    """Draw every figure that ``curves.json`` and ``classification.json`` of a study of baselines give rise to.

    Raises:
        RunDirectoryError: a results file is unreadable, or a figure cannot be written.
    """
    results = Path(study_directory) / "results"
    found = Classification()
    if (results / "classification.json").exists():
        found = read_one(results / "classification.json", Classification)
    pictures = [
        picture("baselines", "overlap_values", lambda: overlap_values(found.values)),
        picture("baselines", "roc", lambda: roc_curves(found.roc)),
        picture("baselines", "protocol", lambda: protocol_accuracy(found.protocol)),
    ]
    curves = list_if_there(results / "curves.json", LearningCurve)
    for stage in dict.fromkeys(curve.stage for curve in curves):
        of_stage, words = [curve for curve in curves if curve.stage == stage], in_words(stage)
        draw = partial(learning_curves, of_stage, f"Learning curves: {words}")
        pictures.append(picture("baselines", "curves", draw, stage, stage=words))
    return draw_pictures(Path(study_directory), pictures)


def draw_profiles(study_directory: Path) -> list[FigureRecord]:
    """Draw the profiles of a study's baselines from ``profiles.safetensors``; listed after all other pictures.

    The profiles of fine-tuned agents are among the pictures of their own study.

    Raises:
        RunDirectoryError: a results file is unreadable or does not fit, or a figure cannot be written.
    """
    file = Path(study_directory) / "results" / "profiles.safetensors"
    tensors, _ = read_tensors(file, finite=False)
    try:
        x, y = (tensors[name].numpy() for name in ("projection_thresholds", "cosine_thresholds"))
        counts = {name.split("/")[1]: counts for name, counts in tensors.items() if name.startswith("counts/")}
        rates = {
            kind: mean_of_present((count.double() / tensors[f"total_opportunities/{kind}"][:, None, None]).numpy())
            for kind, count in counts.items()
        }
        return draw_pictures(Path(study_directory), _profile_pictures("profiles", rates, x, y, {}), before_others=False)
    except (KeyError, ValueError, IndexError, RuntimeError) as error:
        raise RunDirectoryError(f"{file} does not fit: {error}; {DELETE}") from error


def draw_finetuning(study_directory: Path) -> list[FigureRecord]:
    """Draw every figure that a fine-tuning study gives rise to.

    From ``treated_agents.json``, ``conditions.json``, ``curves.json`` and ``profiles.safetensors``.

    Raises:
        RunDirectoryError: a results file is unreadable or does not fit, or a figure cannot be written.
    """
    results = Path(study_directory) / "results"
    agents = list_if_there(results / "treated_agents.json", TreatedAgent)
    conditions = list_if_there(results / "conditions.json", ConditionSummary)
    curves = list_if_there(results / "curves.json", LearningCurve)
    finetuning = partial(picture, "finetuning")
    moved = partial(trap_rate_against_sensitivity, agents, "sensitivity_moved")
    pictures = [
        finetuning("trap_rate_against_sensitivity", lambda: trap_rate_against_sensitivity(agents)),
        finetuning("trap_rate_against_sensitivity_moved", moved),
        finetuning("behavioural_differences", lambda: behavioural_differences(conditions)),
    ]
    if (profiles := _read_profiles(results / "profiles.safetensors", conditions)) is not None:
        verdicts = {item.condition: item.verdict for item in conditions if not item.after}
        pictures += _profile_pictures("finetuning", *profiles, verdicts)
    pictures.append(finetuning("gain_from_seeing", lambda: gain_from_seeing(conditions)))
    for form in _forms(agents):
        draw = partial(overlap_against_trap_rate, agents, form)
        pictures.append(finetuning("overlap_against_trap_rate", draw, form, form=in_words(form)))
    pictures.append(finetuning("time_courses", lambda: time_courses(curves, conditions)))
    pictures.append(finetuning("lasting", lambda: lasting(conditions)))
    return draw_pictures(Path(study_directory), pictures)


def _profile_pictures(
    section: str, rates: Mapping[str, Grid], x: Grid, y: Grid, verdicts: Mapping[str, str | None]
) -> list[Picture]:
    """Both pictures of mean profiles ``[X, Y]`` by condition, over thresholds ``[X]`` and ``[Y]``."""
    return [
        picture(section, "profiles", lambda: profile_contours(rates, x, y, verdicts)),
        picture(section, "profile_differences", lambda: profile_differences(rates, x, y, verdicts)),
    ]


def _read_profiles(path: Path, conditions: Sequence[ConditionSummary]) -> tuple[dict[str, Grid], Grid, Grid] | None:
    """Mean profiles of the conditions in their order, and of those that are not listed after them; and thresholds."""
    if not path.exists():
        return None
    # A run without an opportunity to deceive has no rates.
    tensors, _ = read_tensors(path, finite=False)
    thresholds = []
    for name in ("projection_thresholds", "cosine_thresholds"):
        if name not in tensors:
            raise RunDirectoryError(f"{path} lacks the tensor {name}; {DELETE}")
        thresholds.append(tensors.pop(name).double().numpy())
    x, y = thresholds
    grids = {name.removeprefix("rates/"): grid for name, grid in tensors.items() if name.startswith("rates/")}
    for name, grid in grids.items():
        if grid.ndim != 3 or tuple(grid.shape[1:]) != (len(x), len(y)) or not len(grid):
            expected = f"[runs, {len(x)}, {len(y)}]"
            raise RunDirectoryError(
                f"{path} does not fit: rates/{name} has shape {list(grid.shape)}, expected {expected}; {DELETE}"
            )
    listed = [item.condition for item in conditions if not item.after and item.condition in grids]
    order = dict.fromkeys((*listed, *grids))
    return {name: mean_of_present(grids[name].double().numpy()) for name in order}, x, y


def _forms(agents: Sequence[TreatedAgent]) -> list[str]:
    """Those of FORMS that were measured; any other form where none of them was."""
    present = sorted({form for agent in agents for form in agent.overlap})
    return [form for form in FORMS if form in present] or present[:1]
