"""Shards over local worker processes, each with one torch thread.

Two processes with one thread each use two cores better than one process with two threads for networks this small.

Every worker has a pipe of its own and shares no lock with anyone, so one that is killed at any moment hurts no other;
queues and events of ``multiprocessing`` would stay locked for ever, and its pools end with their first dead worker.
The pipe's end of file tells of a death, on either side.
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from soo_marl.engines.shards import Lost, Outcome, WorkerLostError, answer

_STOP = b""
"""Message to a worker: stop at the next safe point. Every other message is a pickled call."""

_HOW_TO_START = (
    "a worker process could not start (exit status {}): a script that computes over worker processes must be a file, "
    'with what it does under if __name__ == "__main__":, since every worker imports it; or compute in one process, '
    "with workers=0"
)

_MOMENT = 0.2


class LocalCrew:
    """A :class:`soo_marl.engines.run.Crew` of so many processes; they start when there is something to do."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._processes: dict[Connection, BaseProcess] = {}
        self._attempts: dict[Connection, int] = {}
        """Of those at work."""
        self._silent: set[Connection] = set()
        """Those that have said nothing yet."""

    def has_room(self) -> bool:
        return len(self._attempts) < self._workers

    def start(self, attempt: int, call: bytes) -> None:
        idle = next((connection for connection in self._processes if connection not in self._attempts), None)
        worker = idle or self._new_worker()
        self._attempts[worker] = attempt
        with suppress(OSError):  # of a dead worker, which its pipe tells of when it is read
            worker.send_bytes(call)

    def _new_worker(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs,))
        with interrupts_kept_from_children():
            process.start()
        theirs.close()
        self._processes[ours] = process
        self._silent.add(ours)
        return ours

    def messages(self) -> Iterator[tuple[int, float | Outcome | Lost | WorkerLostError]]:
        for worker in wait(list(self._attempts), _MOMENT):
            assert isinstance(worker, Connection)
            try:
                message: float | Outcome | None = worker.recv()
            except (EOFError, OSError):  # it is dead, perhaps in the middle of a message
                yield self._attempts.pop(worker), self._bury(worker)
                continue
            self._silent.discard(worker)
            if isinstance(message, Outcome):
                yield self._attempts.pop(worker), message
            elif message is not None:
                yield self._attempts[worker], message

    def _bury(self, worker: Connection) -> Lost | WorkerLostError:
        process = self._processes.pop(worker)
        process.join()
        code = process.exitcode or 0
        worker.close()
        if code >= 0 and worker in self._silent:  # it gave up, rather than being killed
            return WorkerLostError(_HOW_TO_START.format(code))
        return Lost(signal.Signals(-code).name if code < 0 else f"exit status {code}")

    def stop(self) -> None:
        for worker in self._attempts:
            with suppress(OSError):
                worker.send_bytes(_STOP)
        while self._attempts:
            for _ in self.messages():
                pass

    def dismiss(self) -> None:
        for worker, process in self._processes.items():
            if worker in self._attempts:
                process.kill()
            worker.close()
        for process in self._processes.values():
            process.join()


@contextmanager
def interrupts_kept_from_children() -> Iterator[None]:
    """Processes started within the block never see Ctrl-C.

    It reaches every process of the terminal's group, and one that comes while a worker still loads its modules would
    end it with a traceback.
    """
    # Started by the first worker otherwise, it would let SIGINT through again before that worker is there.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection) -> None:
    """Compute shards until the other side closes the pipe or is gone: what a worker process does."""
    # Ctrl-C reaches every process of the group: the parent decides, and workers stop at the next safe point.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop = threading.Event()
    calls: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, calls, stop), daemon=True).start()

    def tell(message: float | Outcome | None) -> None:
        # Nobody may listen any more: then the work stops at the next safe point.
        with suppress(OSError):
            connection.send(message)

    tell(None)
    while (call := calls.get()) is not None:
        tell(answer(call, lambda done: tell(float(done)), stop.is_set))


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
