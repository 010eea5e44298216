"""From a study's deception profiles to their pictures."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from soo_marl.report.figures.baselines import save_figure
from soo_marl.report.figures.profiles import profile_contours, profile_differences
from soo_marl.report.figures.verdict_styles import HONEST
from soo_marl.storage.files import DELETE, RunDirectoryError
from soo_marl.storage.records import FigureRecord, read_list, write_list
from soo_marl.storage.tensor_files import read_tensors

_COUNTS = "counts/"

_CAPTIONS = {
    "profiles": "Deception profiles of the baselines, mean over all seeds: the share of opportunities at which blue's "
    "step counts as deceptive, for each pair of thresholds. The step's projection on the direction to the fake "
    "landmark must exceed x, and the cosine of the angle between the directions to goal and fake must lie below y.",
    "profile_differences": "The deceptive baselines' profile minus the honest ones': red is more deceptive than honest "
    "agents, blue less, and white is no difference to speak of.",
}


def draw_profiles(study_directory: Path) -> list[FigureRecord]:
    """Draw the profiles of a study's baselines from ``results/profiles.safetensors``, and list them for the page.

    Writes PNG and SVG into ``figures/``; what else stands in ``results/figures.json`` stays, before them. Returns the
    new list. The profiles of fine-tuned agents are among the pictures of their own study.

    Raises:
        RunDirectoryError: a results file is unreadable or does not fit, or a figure cannot be written.
    """
    study_directory = Path(study_directory)
    file = study_directory / "results" / "profiles.safetensors"
    tensors, _ = read_tensors(file, finite=False)
    try:
        x, y = (tensors[name].numpy() for name in ("projection_thresholds", "cosine_thresholds"))
        shares = {
            name.removeprefix(_COUNTS): tensors[name].double()
            / tensors[f"total_opportunities/{name.removeprefix(_COUNTS)}"][:, None, None]
            for name in tensors
            if name.startswith(_COUNTS)
        }
        with warnings.catch_warnings():
            # The mean of no agent is NaN, which is what it should be.
            warnings.simplefilter("ignore", RuntimeWarning)
            rates = {kind: np.nanmean(share.numpy(), axis=0) for kind, share in shares.items()}
        figures = {"profiles": profile_contours(rates, x, y, {})}
        if HONEST in rates and len(rates) > 1:
            figures["profile_differences"] = profile_differences(rates, x, y, {})
    except (KeyError, ValueError, IndexError, RuntimeError) as error:
        raise RunDirectoryError(f"{file} does not fit: {error}; {DELETE}") from error
    drawn = [
        FigureRecord(file=save_figure(figure, study_directory / "figures" / name).name, caption=_CAPTIONS[name])
        for name, figure in figures.items()
    ]
    path = study_directory / "results" / "figures.json"
    listed = read_list(path, FigureRecord) if path.exists() else []
    names = {record.file for record in drawn}
    records = [*(record for record in listed if record.file not in names), *drawn]
    write_list(path, records)
    return records
