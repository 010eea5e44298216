"""Shards as tasks of a Ray cluster: one CPU each, or one GPU, and one torch thread.

Ray's own retries are off: how often a shard may lose its worker is judged as for local workers, by how far it got.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from soo_marl.engines.compute import Compute, one_torch_thread
from soo_marl.engines.interrupts import interrupts_asking
from soo_marl.engines.shards import Attempts, OnFailure, Outcome, WorkerLostError, answer, pass_on

_MOMENT = 0.2
_SECONDS_TO_ANSWER = 10.0


def run_on_ray(
    function: Callable[..., Any],
    shards: Sequence[tuple[Any, ...]],
    compute: Compute,
    on_progress: Callable[[int, float], None],
    on_failure: OnFailure | None = None,
) -> list[Any]:
    """As :func:`soo_marl.engines.run_shards`, over a Ray cluster."""
    with connection(compute):
        resource = "GPU" if compute.device.startswith("cuda") else "CPU"
        tasks = _Tasks(function, shards, resource, compute.workers, on_progress, on_failure)
        with interrupts_asking() as interrupted:
            try:
                tasks.work(interrupted)
            except BaseException:
                tasks.stop()
                raise
            finally:
                tasks.dismiss()
    return [tasks.results[index] for index in range(len(shards))]


class _Tasks:
    """The tasks of one call, seen from the process that began the work."""

    def __init__(
        self,
        function: Callable[..., Any],
        shards: Sequence[tuple[Any, ...]],
        resource: str,
        limit: int | None,
        on_progress: Callable[[int, float], None],
        on_failure: OnFailure | None,
    ) -> None:
        if _units(resource) == 0:
            raise ValueError(f"no node of the Ray cluster has a {resource}")
        self.results: dict[int, Any] = {}
        self._calls = [pickle.dumps((function, shard)) for shard in shards]
        self._resource, self._limit = resource, limit
        self._on_progress, self._on_failure = on_progress, on_failure
        self._waiting = deque(range(len(shards)))
        self._attempts = [Attempts() for _ in shards]
        self._running: dict[Any, int] = {}
        # On this node: were it on one that is lost, the others could not go on.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        lasting = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
        self._board = ray.remote(_Board).options(**lasting).remote()
        self._task = ray.remote(max_retries=0, num_cpus=1, num_gpus=int(resource == "GPU"))(_attempt)

    def work(self, interrupted: Callable[[], bool]) -> None:
        """Go through all shards.

        Raises:
            KeyboardInterrupt: ``interrupted()`` became true.
            WorkerLostError: a shard lost its worker again and again.
            ValueError: a node cannot run soo-marl.
            Exception: whatever the first failing shard raised.
        """
        while len(self.results) < len(self._calls):
            self._hand_out()
            ended = self._wait()
            self._pass_reports_on()
            for task in ended:
                self._take(task)
            if interrupted():
                raise KeyboardInterrupt

    def stop(self) -> None:
        """Ask all tasks to stop, and wait until they have."""
        while self._running:
            self._board.stop.remote()  # again: an actor that died meanwhile was started anew
            for task in self._wait():
                del self._running[task]

    def dismiss(self) -> None:
        """Kill what is still at work, after a second Ctrl-C."""
        for task in self._running:
            ray.cancel(task, force=True)
        ray.kill(self._board)

    def _hand_out(self) -> None:
        # Nodes come and go. More tasks than there is room for would only keep others waiting when all must stop.
        room = _units(self._resource)
        while self._waiting and len(self._running) < min(room, self._limit or room):
            shard = self._waiting.popleft()
            attempt = self._attempts[shard]
            attempt.start()
            task = self._task.remote(self._calls[shard], os.getcwd(), self._board, shard, attempt.number)
            self._running[task] = shard

    def _wait(self) -> list[Any]:
        """Tasks that have ended; after a moment none."""
        if not self._running:  # no node is left
            time.sleep(_MOMENT)
            return []
        ended: list[Any] = ray.wait(list(self._running), timeout=_MOMENT)[0]
        return ended

    def _take(self, task: Any) -> None:
        shard = self._running.pop(task)
        try:
            outcome: Outcome = pickle.loads(ray.get(task))
        except RayTaskError as error:
            reason = str(error.cause).strip().rpartition("\n")[2]
            raise ValueError(
                f"a node of the Ray cluster cannot run soo-marl ({reason}); all nodes need the same Python and packages"
            ) from error
        except RayError as error:
            how = type(error).__name__
            try:
                self._attempts[shard].lose(how)
            except WorkerLostError as lost:
                self._fail(shard, lost)
            else:
                self._waiting.appendleft(shard)
            return
        try:
            self.results[shard] = outcome.get()
        except Exception as error:
            self._fail(shard, error)

    def _fail(self, shard: int, error: Exception) -> None:
        pass_on(error, shard, self._on_failure)
        self.results[shard] = None

    def _pass_reports_on(self) -> None:
        for shard, number, done in ray.get(self._board.take.remote()):
            if number == self._attempts[shard].number:
                self._attempts[shard].report(done)
                self._on_progress(shard, done)


class _Board:
    """Actor on which tasks write how far they are, and read whether they must stop."""

    def __init__(self) -> None:
        self._reports: list[tuple[int, int, float]] = []
        self._stopping = False

    def report(self, shard: int, attempt: int, done: float) -> None:
        """Write how many units of work an attempt at a shard has done."""
        self._reports.append((shard, attempt, done))

    def take(self) -> list[tuple[int, int, float]]:
        """What was written since the last time."""
        reports, self._reports = self._reports, []
        return reports

    def stop(self) -> None:
        """All tasks must stop."""
        self._stopping = True

    def stopping(self) -> bool:
        """Whether all tasks must stop."""
        return self._stopping


def _attempt(call: bytes, folder: str, board: Any, shard: int, number: int) -> bytes:
    """What a worker of Ray does: carry out a pickled call in the given working directory."""
    answer_to_come = board.stopping.remote()

    def stop() -> bool:
        # Never waits for the actor: to a task that waits, Ray adds another on the same CPU.
        nonlocal answer_to_come
        if not ray.wait([answer_to_come], timeout=0)[0]:
            return False
        try:
            stopping: bool = ray.get(answer_to_come)
        except RayError:
            return True  # the process that began the work is gone
        if not stopping:
            answer_to_come = board.stopping.remote()
        return stopping

    def report(done: float) -> None:
        board.report.remote(shard, number, float(done))

    with one_torch_thread():
        # Relative paths mean the same as there.
        with suppress(OSError):
            os.chdir(folder)
        return answer(call, report, stop)


def _units(resource: str) -> int:
    return int(ray.cluster_resources().get(resource, 0))


@contextmanager
def connection(compute: Compute) -> Iterator[None]:
    """Be connected to Ray within the block; a connection that is there already is used, and left.

    Raises:
        ValueError: the cluster cannot be reached.
    """
    if ray.is_initialized():
        yield
        return
    assert compute.address is not None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with _same_handler_after(signal.SIGTERM):
        try:
            _check_reachable(compute.address)
            ray.init(compute.address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, RayError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")
            if compute.address == "auto":
                # There Ray notes which cluster this machine belongs to.
                folder = f"{tempfile.gettempdir()}/ray"
                reason += f"; it is looked for in {folder}: give host:port, or the TMPDIR that it was started with"
            raise ValueError(f"cannot use the Ray cluster {compute.address}: {reason}") from error
        try:
            yield
        finally:
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """Find out at once what takes Ray minutes.

    Raises:
        OSError: nobody answers.
    """
    host, _, port = address.rpartition(":")
    if host:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_ANSWER).close()


@contextmanager
def _same_handler_after(number: int) -> Iterator[None]:
    """Undo what Ray does to the handler of a signal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(number)
    try:
        yield
    finally:
        signal.signal(number, before)
