"""Shards over local worker processes, each with one torch thread.

Two processes with one thread each use two cores better than one process with two threads for networks this small.

Every worker has a pipe of its own and shares no lock with anyone, so one that is killed at any moment hurts no other;
queues and events of ``multiprocessing`` would stay locked for ever. The pipe's end of file tells of a death, on either
side.
"""

from __future__ import annotations

import multiprocessing
import pickle
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from typing import Any

import torch

from soo_marl.engines.interrupts import interrupts_asking, interrupts_kept_from_children
from soo_marl.engines.shards import Attempts, OnFailure, Outcome, WorkerLostError, answer, pass_on

_STOP = b""
"""Message to a worker: stop at the next safe point. Every other message is a pickled call."""

_HOW_TO_START = (
    "a worker process could not start ({}): a script that computes over worker processes must be a file, with what it "
    'does under if __name__ == "__main__":, since every worker imports it; or compute in one process, with workers=0'
)


def run_in_workers(
    function: Callable[..., Any],
    shards: Sequence[tuple[Any, ...]],
    workers: int,
    on_progress: Callable[[int, float], None],
    on_failure: OnFailure | None = None,
) -> list[Any]:
    """As :func:`soo_marl.engines.run_shards`, over so many worker processes."""
    crew = _Crew(function, shards, on_progress, on_failure)
    with interrupts_asking() as interrupted:
        try:
            crew.work(workers, interrupted)
        except BaseException:
            crew.stop()
            raise
        finally:
            crew.dismiss()
    return [crew.results[index] for index in range(len(shards))]


class _Crew:
    """The workers of one call, seen from the process that began the work."""

    def __init__(
        self,
        function: Callable[..., Any],
        shards: Sequence[tuple[Any, ...]],
        on_progress: Callable[[int, float], None],
        on_failure: OnFailure | None,
    ) -> None:
        self.function, self.shards = function, shards
        self.on_progress, self.on_failure = on_progress, on_failure
        self.results: dict[int, Any] = {}
        self._context = multiprocessing.get_context("spawn")
        self._waiting = deque(range(len(shards)))
        self._attempts = [Attempts() for _ in shards]
        self._workers: list[_Worker] = []

    def work(self, workers: int, interrupted: Callable[[], bool]) -> None:
        """Go through all shards.

        Raises:
            KeyboardInterrupt: ``interrupted()`` became true.
            WorkerLostError: a shard lost its worker again and again, or workers cannot start.
            Exception: whatever the first failing shard raised.
        """
        while len(self.results) < len(self.shards):
            self._hand_out(workers)
            for worker in self._wait():
                shard = worker.shard
                assert shard is not None
                try:
                    message = worker.receive()
                except (EOFError, OSError):
                    self._bury(worker)
                    if worker.could_not_start:
                        raise WorkerLostError(_HOW_TO_START.format(worker.end)) from None
                    try:
                        self._attempts[shard].lose(worker.end)
                    except WorkerLostError as error:
                        self._fail(shard, error)
                    else:
                        self._waiting.appendleft(shard)
                    continue
                if isinstance(message, Outcome):
                    try:
                        self.results[shard] = message.get()
                    except Exception as error:
                        self._fail(shard, error)
                elif message is not None:
                    self._attempts[shard].report(message)
                    self.on_progress(shard, message)
            if interrupted():
                raise KeyboardInterrupt

    def _fail(self, shard: int, error: Exception) -> None:
        pass_on(error, shard, self.on_failure)
        self.results[shard] = None

    def stop(self) -> None:
        """Ask all workers to stop, and wait until they have."""
        for worker in self._busy():
            worker.send(_STOP)
        while self._busy():
            for worker in self._wait():
                try:
                    worker.receive()
                except (EOFError, OSError):
                    self._bury(worker)

    def dismiss(self) -> None:
        """Let idle workers leave; those still at work, after a second Ctrl-C, are killed."""
        for worker in self._workers:
            worker.let_go()
        for worker in self._workers:
            worker.join()

    def _hand_out(self, workers: int) -> None:
        idle = [worker for worker in self._workers if worker.shard is None]
        while self._waiting and (idle or len(self._workers) < workers):
            shard = self._waiting.popleft()
            self._attempts[shard].start()
            call = pickle.dumps((self.function, self.shards[shard]))
            if not idle:
                idle.append(_Worker(self._context))
                self._workers += idle
            worker = idle.pop()
            worker.shard = shard
            worker.send(call)

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.shard is not None]

    def _wait(self) -> list[_Worker]:
        """Busy workers that have said something or have died; after a moment none."""
        busy = {worker.connection: worker for worker in self._busy()}
        return [busy[connection] for connection in wait(list(busy), timeout=0.2)]  # type: ignore[index]

    def _bury(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        if not worker.started:
            worker.join()  # killed now, it could not tell why it ended
        worker.let_go()
        worker.join()


class _Worker:
    """A worker process, seen from the process that began the work."""

    def __init__(self, context: SpawnContext) -> None:
        self.connection, theirs = context.Pipe()
        self.shard: int | None = None
        """What it works on."""
        self.started = False
        """It has said something."""
        self._process = context.Process(target=_work, args=(theirs,))
        with interrupts_kept_from_children():
            self._process.start()
        theirs.close()

    def send(self, message: bytes) -> None:
        """Send a call or _STOP; one to a dead worker is lost, and its pipe tells so when it is read."""
        with suppress(OSError):
            self.connection.send_bytes(message)

    def receive(self) -> float | Outcome | None:
        """The next message; None is a worker's first, and an outcome makes it idle.

        Raises:
            EOFError, OSError: the worker is dead, perhaps in the middle of a message.
        """
        message: float | Outcome | None = pickle.loads(self.connection.recv_bytes())
        self.started = True
        if isinstance(message, Outcome):
            self.shard = None
        return message

    def let_go(self) -> None:
        """Make the process end: one that is idle by itself."""
        if self.shard is not None:
            self._process.kill()
        self.connection.close()

    def join(self) -> None:
        """Wait until the process has ended."""
        self._process.join()

    @property
    def could_not_start(self) -> bool:
        """Whether a process that is over gave up, rather than being killed, before it could take up any work."""
        return not self.started and (self._process.exitcode or 0) >= 0

    @property
    def end(self) -> str:
        """How a process that is over ended."""
        code = self._process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _work(connection: Connection) -> None:
    """Compute shards until the other side closes the pipe or is gone: what a worker process does."""
    # Ctrl-C reaches every process of the group: the parent decides, and workers stop at the next safe point.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)  # a user's script, which every worker imports, may have set another
    stop = threading.Event()
    calls: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, calls, stop), daemon=True).start()

    def tell(message: bytes) -> None:
        # Nobody may listen any more: then the work stops at the next safe point.
        with suppress(OSError):
            connection.send_bytes(message)

    tell(pickle.dumps(None))
    while (call := calls.get()) is not None:
        tell(answer(call, lambda done: tell(pickle.dumps(float(done))), stop.is_set))


def _listen(connection: Connection, calls: queue.SimpleQueue[bytes | None], stop: threading.Event) -> None:
    """Take what the parent says. Once it is gone the work stops.

    Otherwise a worker would go on for hours, and get into the way of the command that continues the work.
    """
    with suppress(EOFError, OSError):
        while True:
            message = connection.recv_bytes()
            if message == _STOP:
                stop.set()
            else:
                calls.put(message)
    stop.set()
    calls.put(None)
