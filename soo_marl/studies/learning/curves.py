"""Learning curves of one training stage: in memory, in TensorBoard's event files, and in ``curves.json``."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from pydantic import FiniteFloat, TypeAdapter
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor

from soo_marl.storage.files import DELETE, RunDirectoryError, cannot_write, quoted, read_json, validate, write_json
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.learning.agents_on_disk import curves_file
from soo_marl.studies.learning.records import LearningCurve, finite, learning_curve

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


def gathered_curves(
    directory: StudyDirectory,
    condition: str,
    stage: str,
    kind: str,
    metrics: Sequence[str],
    generator: np.random.Generator,
) -> list[LearningCurve]:
    """The curves of all seeds of a condition in one stage, by metric; none of a stage without a log entry.

    Raises:
        RunDirectoryError: a seed's curves are missing, unreadable, or of other updates than the first seed's.
    """
    seeds = directory.manifest.seeds
    per_seed = []
    for seed in seeds:
        file = curves_file(directory, condition, seed)
        if not file.exists():
            raise RunDirectoryError(f"{file} is missing; run the command that trained the agents again")
        per_seed.append(read_curves(file).get(stage, {}))
        first, last = per_seed[0], per_seed[-1]
        if last.keys() != first.keys() or last.get("updates") != first.get("updates"):
            raise RunDirectoryError(
                f"{file} does not fit: {stage} has other metrics or updates there than with seed {seeds[0]}; {DELETE}"
            )
    updates = np.array(per_seed[0].get("updates", ()), dtype=np.int64).tolist()
    return [
        learning_curve(stage, kind, metric, updates, np.array([of[metric] for of in per_seed], np.float64), generator)
        for metric in metrics
        if metric in per_seed[0]
    ]


class StageCurves:
    """Metrics of a stack of ``runs`` runs at every log entry of a stage."""

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
                name: [finite(value[run]) for value in values] for name, values in sorted(self.entries.items())
            }
            write_json(path, stages, durable=False)

    def _add_event(self, run: int, entry: int) -> None:
        scalars = {name: finite(values[entry][run]) for name, values in self.entries.items() if name != "updates"}
        step = self.updates_before + int(self.entries["updates"][entry][run])
        self.files[run].add(step, {name: value for name, value in scalars.items() if value is not None})


class EventFile:
    """TensorBoard's scalars of one stage of one run, alone in one file that replaces those of earlier sessions.

    ``SummaryWriter`` adds a file per session instead, and entries of a killed session stay that its successor writes
    again. It also writes in a thread, whose errors reach the terminal as tracebacks.

    Args:
        folder: where TensorBoard looks for the run.
        stage: what the file's name ends in, and all of its tags begin with.

    Raises:
        RunDirectoryError: a file cannot be removed or written.
    """

    def __init__(self, folder: Path, stage: str) -> None:
        # A new name each time: a TensorBoard that is running follows new files, not ones that shrink.
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{stage}"
        self.path, self.stage = folder / name, stage
        with self._errors_told():
            folder.mkdir(parents=True, exist_ok=True)
            for older in folder.glob(f"events.out.tfevents.*.{stage}"):
                older.unlink()
            self._append(Event(wall_time=time.time(), file_version="brain.Event:2"), os.O_CREAT | os.O_EXCL)

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Append one entry. Raises RunDirectoryError: the file cannot be written."""
        values = [Summary.Value(tag=f"{self.stage}/{name}", simple_value=value) for name, value in scalars.items()]
        with self._errors_told():
            self._append(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _append(self, event: Event, flags: int = 0) -> None:
        # Opened each time: a thousand runs at once would need more open files than systems allow.
        content = io.BytesIO()
        RecordWriter(content).write(event.SerializeToString())
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | flags, 0o666)
        with open(descriptor, "wb") as file:
            file.write(content.getvalue())

    @contextmanager
    def _errors_told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot_write(self.path, error) from error
