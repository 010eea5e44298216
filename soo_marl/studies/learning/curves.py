"""Learning curves of one training stage: in memory, in TensorBoard's event files, and in ``curves.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from pydantic import FiniteFloat, TypeAdapter
from torch import Tensor

from soo_marl.storage.files import DELETE, RunDirectoryError, quoted, read_json, validate, write_json
from soo_marl.studies.learning.event_file import EventFile

Curves = dict[str, dict[str, list[FiniteFloat | None]]]
"""By stage and metric the values at every log entry, None where there is none."""

_CURVES: TypeAdapter[Curves] = TypeAdapter(Curves)


def read_curves(path: Path) -> Curves:
    """The curves of one run; none where there is no file.

    Raises:
        RunDirectoryError: the file cannot be read, or does not hold curves.
    """
    if not path.exists():
        return {}
    curves = validate(_CURVES, read_json(path), path)
    for stage, metrics in curves.items():
        if len({len(values) for values in metrics.values()}) > 1 or None in metrics.get("updates", ()):
            raise RunDirectoryError(
                f"{path} does not fit: {quoted(stage)} needs every metric at each of its updates; {DELETE}"
            )
    return curves


class StageCurves:
    """Metrics of a stack of runs at every log entry of a stage.

    Args:
        stage: the stage's name.
        runs: ``R``.
    """

    def __init__(self, stage: str, runs: int) -> None:
        self.stage, self.runs = stage, runs
        self.entries: dict[str, list[Tensor]] = {}
        """By metric one ``[R]`` per log entry, on the CPU; ``updates`` among them."""
        self.files: list[EventFile] = []
        self.updates_before = 0

    def open_events(self, folders: Sequence[Path], updates_before: int) -> None:
        """Write the event files of all runs anew, with the entries so far, and add what comes from now on.

        Wall times are those of writing.

        Args:
            folders: one per run.
            updates_before: where the stage begins on the axis of steps, which all stages of a run share.

        Raises:
            RunDirectoryError: a file cannot be written.
        """
        self.updates_before = updates_before
        for run, folder in enumerate(folders):
            self.files.append(EventFile(folder, self.stage))
            for entry in range(len(self.entries.get("updates", ()))):
                self._add_event(run, entry)

    def add(self, updates: int, metrics: Mapping[str, Tensor]) -> None:
        """Append an entry of metrics ``[R]`` to all curves, NaN to those that it lacks (no episode ended, say).

        Raises:
            RunDirectoryError: an event file cannot be written.
        """
        before = len(self.entries.get("updates", ()))
        entry = dict(metrics) | {"updates": torch.full((self.runs,), float(updates))}
        nothing = torch.full((self.runs,), torch.nan)
        for name in [*self.entries, *(name for name in entry if name not in self.entries)]:
            self.entries.setdefault(name, [nothing] * before).append(entry.get(name, nothing).cpu())
        for run in range(len(self.files)):
            self._add_event(run, before)

    def state(self) -> dict[str, Tensor]:
        """All curves ``[U, R]`` by metric, with ``U`` log entries."""
        return {name: torch.stack(values) for name, values in self.entries.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned."""
        self.entries = {name: list(values.cpu()) for name, values in state.items()}

    def save(self, paths: Sequence[Path]) -> None:
        """Put this stage into the file of each run, beside the other stages there.

        Raises:
            RunDirectoryError: a file cannot be read or written.
        """
        for run, path in enumerate(paths):
            stages = read_curves(path)
            stages[self.stage] = {
                name: [_finite(value[run]) for value in values] for name, values in sorted(self.entries.items())
            }
            write_json(path, stages, durable=False)

    def _add_event(self, run: int, entry: int) -> None:
        scalars = {name: _finite(values[entry][run]) for name, values in self.entries.items() if name != "updates"}
        step = self.updates_before + int(self.entries["updates"][entry][run])
        self.files[run].add(step, {name: value for name, value in scalars.items() if value is not None})


def _finite(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
