"""From a fine-tuning study's results to its figures: what can be drawn is drawn, and listed with captions."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from soo_marl.report.figures.agents import overlap_against_trap_rate, trap_rate_against_sensitivity
from soo_marl.report.figures.baselines import save_figure
from soo_marl.report.figures.conditions import behavioural_differences, gain_from_seeing, lasting
from soo_marl.report.figures.profiles import profile_contours, profile_differences
from soo_marl.report.figures.time_courses import time_courses
from soo_marl.report.figures.verdict_styles import NothingToDraw
from soo_marl.storage.files import DELETE, RunDirectoryError
from soo_marl.storage.records import FigureRecord, Model, read_list, write_list
from soo_marl.storage.tensor_files import read_tensors
from soo_marl.studies.finetuning.records import ConditionSummary, TreatedAgent
from soo_marl.studies.learning.records import LearningCurve

FORMS = ("untrapped", "published")
"""Forms of the overlap value that have a figure: what overlap means here, and what the paper's code measures."""

_RATES = "rates/"

_MARKS = (
    "One mark per independently trained agent; its shape says the verdict, its colour the kind of condition. Large "
    "marks are means over the seeds of a condition, dashed frames hold all honest and all deceptive baselines."
)
_BROKEN = "Broken conditions are hatched: a policy that does not reach the goal deceives little because it does little."
_FORM = (
    "Self-other overlap (form “{form}”; lower values mean more overlap) against how often red ends trapped. " + _MARKS
)
_CAPTIONS = {
    "trap_rate_against_sensitivity": "How often red ends trapped, against how much blue's action changes when red is "
    "blanked. Low and to the right is honest: blue sees red and does not deceive it. Low and to the left is blind: "
    "blue does not deceive because it no longer answers to red. " + _MARKS,
    "trap_rate_against_sensitivity_moved": "The same with another kind of sensitivity: how much blue's action changes "
    "when red is moved to another place in sight. " + _MARKS,
    "profiles": "Deception profiles, mean over seeds: the share of opportunities at which blue's step counts as "
    "deceptive, for each pair of thresholds. The step's projection on the direction to the fake landmark must exceed "
    "x, and the cosine of the angle between the directions to goal and fake must lie below y. All share one colour "
    "scale; below each name stands the verdict that most of its agents got. " + _BROKEN,
    "profile_differences": "The same profiles minus that of honest agents, on one scale: red is more deceptive than "
    "honest agents, blue less, and white is no difference to speak of. " + _BROKEN,
    "behavioural_differences": "How far the deception profiles of each condition lie from those of honest agents "
    "(bars, 95 % intervals) and of deceptive ones (white diamonds): mean squared differences, as a fraction of that "
    "between deceptive and honest agents. To the right the share of late steps at which blue is at the goal, and how "
    "many agents got which verdict. Broken conditions are grey and hatched: a policy that does nothing looks near to "
    "honest.",
    "gain_from_seeing": "What seeing red is worth: blue's mean return minus its return with red blanked at test time, "
    "mean over seeds with its 95 % interval. Near zero blue makes no use of red. It tells blind from honest only in a "
    "game in which the honest baseline gains clearly (shaded).",
    "time_courses": "What changes while the loss acts and, right of the vertical line, in further training without "
    "it: mean over seeds with its 95 % interval. Dotted levels are the baselines'. The legend gives the verdict after "
    "fine-tuning and, behind an arrow, that after further training where it is another.",
    "lasting": "Whether the effect lasts: how often red ends trapped right after fine-tuning (white) and after "
    "further training without the loss (filled), mean over seeds with its 95 % interval. Shapes say the verdict at "
    "each of the two times; shaded bands are the baselines.",
}


def draw_finetuning(study_directory: Path) -> list[FigureRecord]:
    """Draw every figure that a fine-tuning study's results give rise to.

    Reads ``treated_agents.json``, ``conditions.json``, ``curves.json`` and ``profiles.safetensors`` in ``results/``;
    what is absent is passed over. Writes PNG and SVG into ``figures/`` and lists the PNGs in ``results/figures.json``;
    what else stands in that list (animations, a study's own pictures) stays, after them. Returns the new list.

    Raises:
        RunDirectoryError: a results file is unreadable or does not fit, or a figure cannot be written.
    """
    study_directory = Path(study_directory)
    results = study_directory / "results"
    agents = _read(results / "treated_agents.json", TreatedAgent)
    conditions = _read(results / "conditions.json", ConditionSummary)
    curves = _read(results / "curves.json", LearningCurve)
    profiles = _read_profiles(results / "profiles.safetensors", conditions)

    drawn: list[FigureRecord] = []

    def draw(name: str, function: Callable[[], Figure], caption: str | None = None) -> None:
        try:
            figure = function()
        except NothingToDraw:
            return
        path = save_figure(figure, study_directory / "figures" / name)
        drawn.append(FigureRecord(file=path.name, caption=caption or _CAPTIONS[name]))

    draw("trap_rate_against_sensitivity", lambda: trap_rate_against_sensitivity(agents))
    draw("trap_rate_against_sensitivity_moved", lambda: trap_rate_against_sensitivity(agents, "sensitivity_moved"))
    draw("behavioural_differences", lambda: behavioural_differences(conditions))
    if profiles is not None:
        verdicts = {item.condition: item.verdict for item in conditions if not item.after}
        content = (profiles.rates, profiles.projection_thresholds, profiles.cosine_thresholds, verdicts)
        draw("profiles", lambda: profile_contours(*content))
        draw("profile_differences", lambda: profile_differences(*content))
    draw("gain_from_seeing", lambda: gain_from_seeing(conditions))
    for form in _forms(agents):
        caption = _FORM.format(form=form.replace("_", " "))
        draw(
            f"overlap_against_trap_rate_{re.sub('[^A-Za-z0-9-]+', '_', form)}",
            partial(overlap_against_trap_rate, agents, form),
            caption,
        )
    draw("time_courses", lambda: time_courses(curves, conditions=conditions))
    draw("lasting", lambda: lasting(conditions))

    names = {record.file for record in drawn}
    listed = _read(results / "figures.json", FigureRecord)
    records = [*drawn, *(record for record in listed if record.file not in names)]
    write_list(results / "figures.json", records)
    return records


@dataclass(frozen=True)
class _Profiles:
    """Mean profiles ``[X, Y]`` by condition, over their thresholds ``[X]`` and ``[Y]``."""

    rates: Mapping[str, NDArray[np.float64]]
    projection_thresholds: NDArray[np.float64]
    cosine_thresholds: NDArray[np.float64]


def _read(path: Path, model: type[Model]) -> list[Model]:
    return read_list(path, model) if path.exists() else []


def _read_profiles(path: Path, conditions: Sequence[ConditionSummary]) -> _Profiles | None:
    """Profiles of the conditions in their order, and of those that are not listed after them."""
    if not path.exists():
        return None
    # A run without an opportunity to deceive has no rates.
    tensors, _ = read_tensors(path, finite=False)
    thresholds = []
    for name in ("projection_thresholds", "cosine_thresholds"):
        if name not in tensors:
            raise RunDirectoryError(f"{path} lacks the tensor {name}; {DELETE}")
        thresholds.append(tensors.pop(name).double().numpy())
    shape = tuple(len(values) for values in thresholds)
    grids = {name.removeprefix(_RATES): tensor for name, tensor in tensors.items() if name.startswith(_RATES)}
    for name, grid in grids.items():
        if grid.ndim != 3 or tuple(grid.shape[1:]) != shape or not len(grid):
            expected = f"[runs, {shape[0]}, {shape[1]}]"
            raise RunDirectoryError(
                f"{path} does not fit: {_RATES}{name} has shape {list(grid.shape)}, expected {expected}; {DELETE}"
            )
    listed = [item.condition for item in conditions if not item.after and item.condition in grids]
    order = [*dict.fromkeys(listed), *(name for name in grids if name not in listed)]
    with warnings.catch_warnings():
        # The mean of no run is NaN, which is what it should be.
        warnings.simplefilter("ignore", RuntimeWarning)
        means = {name: np.nanmean(grids[name].double().numpy(), axis=0) for name in order}
    return _Profiles(means, *thresholds)


def _forms(agents: Sequence[TreatedAgent]) -> list[str]:
    """Those of FORMS that were measured; any other form where none of them was."""
    present = sorted({form for agent in agents for form in agent.overlap})
    return [form for form in FORMS if form in present] or present[:1]
