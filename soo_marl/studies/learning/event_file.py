"""TensorBoard event files, one per stage of a run."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from soo_marl.storage.files import cannot_write


class EventFile:
    """The scalars of one stage of one run, alone in one file that replaces those of earlier sessions.

    ``SummaryWriter`` adds a file per session instead, and keeps it open: a thousand runs at once would need more open
    files than systems allow. It also writes in a thread, whose errors reach the terminal as tracebacks.

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
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for older in folder.glob(f"events.out.tfevents.*.{stage}"):
                older.unlink()
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self._append(Event(wall_time=time.time(), file_version="brain.Event:2"), os.O_CREAT | os.O_EXCL)

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Append one entry.

        Raises:
            RunDirectoryError: the file cannot be written.
        """
        values = [Summary.Value(tag=f"{self.stage}/{name}", simple_value=value) for name, value in scalars.items()]
        self._append(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _append(self, event: Event, flags: int = 0) -> None:
        content = io.BytesIO()
        RecordWriter(content).write(event.SerializeToString())
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | flags, 0o666)
            with open(descriptor, "wb") as file:
                file.write(content.getvalue())
        except OSError as error:
            raise cannot_write(self.path, error) from error
