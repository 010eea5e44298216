"""What the engines have in common: how the call of a shard ends, and how often one may lose its worker.

Calls and outcomes travel between processes as pickles, through pipes and Ray alone; no file holds one.
"""

from __future__ import annotations

import pickle
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from soo_marl.engines.compute import one_torch_thread

LOSSES = 3
"""So often a shard may lose its worker without getting further in between."""


OnFailure = Callable[[int, Exception], None]
"""Called as ``on_failure(shard index, what it raised)``."""


class Interrupted(Exception):
    """Work stopped on request after everything needed to continue was written."""


class WorkerLostError(Exception):
    """A worker died, and again whenever its shard was taken up; the message is one sentence for the user."""


class Attempts:
    """The attempts at one shard: whether a lost one may be followed by another.

    What counts as getting further is what a new attempt finds done at its start: work after the last checkpoint is
    lost with the worker, and a shard that always dies before its next checkpoint would go on for ever.
    """

    def __init__(self) -> None:
        self._losses = 0
        self._started = False
        self._done_at_start = 0.0

    def start(self) -> None:
        """An attempt begins."""
        self._started = False

    def report(self, done: float) -> None:
        """The attempt has so many units of work done."""
        if not self._started and done > self._done_at_start:
            self._losses, self._done_at_start = 0, done
        self._started = True

    def lose(self, how: str) -> None:
        """The attempt's worker is lost.

        Raises:
            WorkerLostError: for too many times.
        """
        self._losses += 1
        if self._losses >= LOSSES:
            raise WorkerLostError(
                f"a worker process was killed, perhaps for lack of memory, {LOSSES} times without getting further "
                f"({how}); run the same command again to go on, with fewer --workers if it happens again"
            )


@dataclass(frozen=True)
class Lost:
    """The worker of an attempt is gone."""

    how: str
    """In a word."""


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: with a pickled result, or with an error as :func:`packed_error` packs it."""

    result: bytes = b""
    error: bytes | None = None

    def get(self) -> Any:
        """The result.

        Raises:
            Exception: what the shard raised.
        """
        if self.error is None:
            return pickle.loads(self.result)
        raise unpacked_error(self.error)


def answer(call: bytes, report: Callable[[float], None], stop: Callable[[], bool]) -> Outcome:
    """Carry out a pickled call, a function and its arguments, in a worker."""
    try:
        function, arguments = pickle.loads(call)
        if stop():
            raise Interrupted
        # Torch takes seconds to load, which a function whose module does without need not wait for.
        with one_torch_thread() if "torch" in sys.modules else nullcontext():
            return Outcome(pickle.dumps(function(*arguments, report=report, stop=stop)))
    except Exception as error:
        return Outcome(error=packed_error(error))


def packed_error(error: Exception) -> bytes:
    """An exception as bytes for another process, its traceback as a note.

    Exceptions whose ``__init__`` takes something else than ``args`` cannot be pickled as they are; of those the class,
    the arguments and the attributes go.
    """
    error.add_note("".join(traceback.format_exception(error)))
    for content in (error, (type(error), error.args, error.__dict__)):
        try:
            packed = pickle.dumps(content)
            unpacked_error(packed)
            return packed
        except Exception:
            continue
    return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


def unpacked_error(packed: bytes) -> Exception:
    """The exception that :func:`packed_error` packed."""
    content = pickle.loads(packed)
    if isinstance(content, Exception):
        return content
    kind, arguments, attributes = content
    error: Exception = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    return error
