"""Shards as tasks of a Ray cluster: one CPU each, or one GPU, and one torch thread.

Ray's own retries are off: how often a shard may lose its worker is judged as for local workers, by how far it got.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from soo_marl.engines.compute import Compute
from soo_marl.engines.shards import Lost, Outcome, WorkerLostError, answer

_MOMENT = 0.2
_SECONDS_TO_ANSWER = 10.0


class RayCrew:
    """A :class:`soo_marl.engines.run.Crew` of tasks, within :func:`connection`.

    Raises:
        ValueError: no node of the cluster has what is needed.
    """

    def __init__(self, compute: Compute) -> None:
        self._resource = "GPU" if compute.device.startswith("cuda") else "CPU"
        self._limit = compute.workers
        if self._units() == 0:
            raise ValueError(f"no node of the Ray cluster has a {self._resource}")
        self._attempts: dict[Any, int] = {}
        """By task."""
        # On this node: were it on one that is lost, the others could not go on.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        lasting = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
        self._board = ray.remote(_Board).options(**lasting).remote()
        self._task = ray.remote(max_retries=0, num_cpus=1, num_gpus=int(self._resource == "GPU"))(_attempt)

    def _units(self) -> int:
        return int(ray.cluster_resources().get(self._resource, 0))

    def has_room(self) -> bool:
        # Nodes come and go. More attempts than can run would only keep others waiting when all must stop.
        units = self._units()
        return len(self._attempts) < min(units, self._limit or units)

    def start(self, attempt: int, call: bytes) -> None:
        self._attempts[self._task.remote(call, os.getcwd(), self._board, attempt)] = attempt

    def messages(self) -> Iterator[tuple[int, float | Outcome | Lost | WorkerLostError]]:
        ended: list[Any] = []
        if self._attempts:
            ended = ray.wait(list(self._attempts), timeout=_MOMENT)[0]
        else:  # no node is left
            time.sleep(_MOMENT)
        under_way = set(self._attempts.values())
        yield from ((attempt, done) for attempt, done in ray.get(self._board.take.remote()) if attempt in under_way)
        for task in ended:
            yield self._attempts.pop(task), _end(task)

    def stop(self) -> None:
        while self._attempts:
            self._board.stop.remote()  # again: an actor that died meanwhile was started anew
            for _ in self.messages():
                pass

    def dismiss(self) -> None:
        for task in self._attempts:
            ray.cancel(task, force=True)
        ray.kill(self._board)


def _end(task: Any) -> Outcome | Lost | WorkerLostError:
    """How a task ended."""
    try:
        outcome: Outcome = ray.get(task)
    except RayTaskError as error:
        reason = str(error.cause).strip().rpartition("\n")[2]
        return WorkerLostError(
            f"a node of the Ray cluster cannot run soo-marl ({reason}); all nodes need the same Python and packages"
        )
    except RayError as error:
        return Lost(type(error).__name__)
    return outcome


class _Board:
    """Actor on which tasks write how far they are, and read whether they must stop."""

    def __init__(self) -> None:
        self._reports: list[tuple[int, float]] = []
        self._stopping = False

    def report(self, attempt: int, done: float) -> None:
        self._reports.append((attempt, done))

    def take(self) -> list[tuple[int, float]]:
        reports, self._reports = self._reports, []
        return reports

    def stop(self) -> None:
        self._stopping = True

    def stopping(self) -> bool:
        return self._stopping


def _attempt(call: bytes, folder: str, board: Any, attempt: int) -> Outcome:
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

    # Relative paths mean the same as there.
    with suppress(OSError):
        os.chdir(folder)
    return answer(call, lambda done: board.report.remote(attempt, float(done)), stop)


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
