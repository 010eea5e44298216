"""Shards in worker processes. Workers import torch, which takes seconds, so each test does as much as it can."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from soo_marl.studies.workers import Interrupted, WorkerLostError, check_machine, run_shards

WORK = """
import os, time
from pathlib import Path
from soo_marl.studies.workers import Interrupted, run_shards

def square(number, delay, *, report, stop):
    time.sleep(delay)
    report(float(number))
    return number * number, os.getpid()

def fail(begun, message, *, report, stop):
    while not Path(begun).exists():
        time.sleep(0.01)
    raise ValueError(message)

def wait(begun, stopped, *, report, stop):
    Path(begun).touch()
    while not stop():
        time.sleep(0.01)
    Path(stopped).touch()
    raise Interrupted

def die(*, report, stop):
    os._exit(3)

def either(name, *arguments, report, stop):
    return globals()[name](*arguments, report=report, stop=stop)

if __name__ == "__main__":
    import sys
    run_shards(wait, [tuple(sys.argv[1:])], workers=1)
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that worker processes find, too."""
    (tmp_path / "shard_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "shard_work", raising=False)
    import shard_work  # type: ignore[import-not-found]

    return shard_work  # type: ignore[no-any-return]


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def test_results_come_in_order_and_progress_is_passed_on(work: ModuleType) -> None:
    progress: dict[int, float] = {}
    shards = [(1, 0.6), (2, 0.0), (3, 0.3)]
    results = run_shards(work.square, shards, workers=2, on_progress=progress.__setitem__)
    assert [square for square, _ in results] == [1, 4, 9]
    processes = {process for _, process in results}
    assert os.getpid() not in processes
    assert progress.items() <= {0: 1.0, 1: 2.0, 2: 3.0}.items() and progress


def test_without_workers_everything_happens_here(work: ModuleType) -> None:
    progress: list[tuple[int, float]] = []
    results = run_shards(work.square, [(1, 0), (2, 0)], workers=0, on_progress=lambda *event: progress.append(event))
    assert results == [(1, os.getpid()), (4, os.getpid())]
    assert progress == [(0, 1.0), (1, 2.0)]
    assert run_shards(work.square, [], workers=2) == []


def test_work_here_uses_one_torch_thread_and_leaves_the_setting_alone() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        counts = run_shards(lambda report, stop: torch.get_num_threads(), [()], workers=0)
        assert (counts, torch.get_num_threads()) == ([1], 3)
    finally:
        torch.set_num_threads(before)


def test_a_failure_stops_the_others_and_comes_through(work: ModuleType, tmp_path: Path) -> None:
    begun, stopped = str(tmp_path / "begun"), tmp_path / "stopped"
    shards = [("wait", begun, str(stopped)), ("fail", begun, "the reason"), ("square", 1, 0.0), ("square", 2, 0.0)]
    with pytest.raises(ValueError, match="the reason"):
        run_shards(work.either, shards, workers=2)
    assert stopped.exists(), "the other shard was asked to stop, and waited for"


def test_a_killed_worker_is_one_sentence(work: ModuleType) -> None:
    with pytest.raises(WorkerLostError, match=r"^a worker process was killed, .* run the same command again to go on"):
        run_shards(work.die, [()], workers=1)


def test_interrupt_here_asks_to_stop_first_and_is_raised_after(work: ModuleType, tmp_path: Path) -> None:
    def interrupt_itself(*, report: Callable[[float], None], stop: Callable[[], bool]) -> None:
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        until(stop)
        (tmp_path / "checkpoint").touch()
        raise Interrupted

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_shards(interrupt_itself, [(), ()], workers=0)
    assert (tmp_path / "checkpoint").exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interrupt_does_not_wait(work: ModuleType) -> None:
    def stubborn(*, report: Callable[[float], None], stop: Callable[[], bool]) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
        raise AssertionError("not reached")

    with pytest.raises(KeyboardInterrupt):
        run_shards(stubborn, [()], workers=0)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_stop_and_leave_when_their_parent_is_killed(work: ModuleType, tmp_path: Path, how: int) -> None:
    begun, stopped = tmp_path / "begun", tmp_path / "stopped"
    parent = subprocess.Popen([sys.executable, work.__file__ or "", str(begun), str(stopped)], start_new_session=True)
    until(begun.exists)
    parent.send_signal(how)
    parent.wait()
    until(stopped.exists)
    until(lambda: _group_is_empty(parent.pid))


def _group_is_empty(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_machine_is_checked() -> None:
    check_machine(None, "cpu")
    check_machine(0, "cpu")
    with pytest.raises(ValueError, match=r"workers must be 0 \(this process alone\) or more, not -1"):
        check_machine(-1, "cpu")
    with pytest.raises(ValueError, match=r"^cannot compute on the device 'abacus': [^\n]+$"):
        check_machine(1, "abacus")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"^cannot compute on the device 'cuda': [^\n]+$"):
            check_machine(1, "cuda")
    with pytest.raises(ValueError, match="workers must be 0"):
        run_shards(check_machine, [()], workers=-2)
