"""What every engine does alike. Workers import torch, which takes seconds, so each test does as much as it can."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import shard_work
import torch
import torch_work

from soo_marl.engines import Compute, Interrupted, WorkerLostError, run_shards, threads_per_shard

HERE = Compute(workers=0)
Until = Callable[[Callable[[], bool]], None]


def test_results_come_in_order_and_progress_is_passed_on(engine: Compute) -> None:
    progress: dict[int, float] = {}
    results = run_shards(shard_work.square, [(1, 0.6), (2, 0.0), (3, 0.3)], engine, progress.__setitem__)
    assert [square for square, _ in results] == [1, 4, 9]
    assert os.getpid() not in {process for _, process in results}
    assert progress.items() <= {0: 1.0, 1: 2.0, 2: 3.0}.items() and progress


def test_workers_use_one_torch_thread_and_single_precision(engine: Compute) -> None:
    assert run_shards(torch_work.threads, [()], engine) == [(1, torch.float32)]


def test_nothing_to_do(engine: Compute) -> None:
    assert run_shards(shard_work.square, [], engine) == []


def test_a_failure_stops_the_others_and_comes_through(engine: Compute, tmp_path: Path) -> None:
    begun, stopped = tmp_path / "begun", tmp_path / "stopped"
    shards = [("wait", begun, stopped), ("fail", "value", begun), ("square", 1, 0.0), ("square", 2, 0.0)]
    with pytest.raises(ValueError, match="the reason"):
        run_shards(shard_work.either, shards, engine)
    assert stopped.exists(), "the other shard was asked to stop, and waited for"


@pytest.mark.parametrize("here", [False, True])
def test_a_failure_that_somebody_wants_to_hear_of_stops_nobody(
    here: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Neither an error nor, where other processes work, a worker that dies again and again."""
    heard: dict[int, Exception] = {}
    shards = [("fail", "value"), ("square", 2, 0.0), ("fail", "strange"), ("square", 3, 0.0)]
    if here:
        results = run_shards(shard_work.either, shards, HERE, None, heard.__setitem__)
        assert results == [None, (4, os.getpid()), None, (9, os.getpid())]
    else:
        results = run_shards(shard_work.either, [*shards, ("die",)], Compute(workers=2), None, heard.__setitem__)
        assert [result and result[0] for result in results] == [None, 4, None, 9, None]
        assert isinstance(heard.pop(4), WorkerLostError)
    assert {shard: type(error) for shard, error in heard.items()} == {0: ValueError, 2: shard_work.StrangeError}


UNGUARDED = """
import sys
from soo_marl.engines import Compute, run_shards
from soo_marl.engines.compute import check_settings
run_shards(check_settings, [()], Compute(workers=1))
"""


@pytest.mark.parametrize("from_standard_input", [False, True])
def test_a_script_that_workers_cannot_import_is_told_so(from_standard_input: bool, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    command = [sys.executable, "-" if from_standard_input else str(script)]
    done = subprocess.run(command, input=UNGUARDED, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "WorkerLostError: a worker process could not start (exit status 1): a script that" in last
    assert 'if __name__ == "__main__":' in last and "memory" not in last


def test_errors_come_through_as_themselves(engine: Compute) -> None:
    with pytest.raises(shard_work.StrangeError, match="code 7 at home") as raised:
        run_shards(shard_work.fail, [("strange",)], engine)
    assert type(raised.value) is shard_work.StrangeError and raised.value.code == 7
    assert "shard_work.py" in raised.value.__notes__[0], "where it was raised"


def test_a_killed_worker_has_its_shard_taken_up_again_while_the_others_go_on(engine: Compute, tmp_path: Path) -> None:
    progress: list[tuple[int, float]] = []
    shards = [(tmp_path / "a", (3, 6, 7, 8), 10), (tmp_path / "b", (), 300), (tmp_path / "c", (1,), 2)]
    attempts = run_shards(shard_work.count, shards, engine, lambda *event: progress.append(event))
    assert attempts == [5, 1, 2]
    assert [done for shard, done in progress if shard == 1] == list(range(301)), "it was never disturbed"


def test_a_shard_that_gets_no_further_ends_the_work_with_a_sentence(engine: Compute, tmp_path: Path) -> None:
    begun, stopped = tmp_path / "begun", tmp_path / "stopped"
    with pytest.raises(
        WorkerLostError,
        match=r"^a worker process was killed, perhaps for lack of memory, 3 times without getting further \(\w+\); "
        r"run the same command again to go on, with fewer --workers",
    ):
        run_shards(shard_work.either, [("wait", begun, stopped), ("die",)], engine)
    assert stopped.exists(), "the other shard was asked to stop, and waited for"


@pytest.mark.parametrize(
    ("name", "again"),
    [("local", False), ("local", True), ("ray", False), pytest.param("ray", True, marks=pytest.mark.slow)],
)
def test_interrupts_ask_first_and_do_not_wait_the_second_time(
    name: str, again: bool, tmp_path: Path, until: Until
) -> None:
    begun, stopped = tmp_path / "begun", tmp_path / "stopped"
    process = script(name, "heedless", begun) if again else script(name, "wait", begun, stopped)
    until(begun.exists)
    # To the whole group, as Ctrl-C in a terminal.
    os.killpg(process.pid, signal.SIGINT)
    if again:
        time.sleep(1.0)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate()
    assert stderr.endswith("KeyboardInterrupt\n"), stderr
    assert stderr.count("During handling of the above") == again, "nobody but the parent says anything"
    assert stopped.exists() != again
    until(lambda: group_is_empty(process.pid))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["local", "ray"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_leave_when_their_parent_is_killed(name: str, how: int, tmp_path: Path, until: Until) -> None:
    begun, stopped = tmp_path / "begun", tmp_path / "stopped"
    process = script(name, "wait", begun, stopped)
    until(lambda: begun.exists() and begun.read_text().endswith("\n"))
    process.send_signal(how)
    process.communicate()
    if name == "local":
        until(stopped.exists)
        until(lambda: group_is_empty(process.pid))
    else:  # Ray kills its workers; other processes of its own live on for a minute
        until(lambda: is_gone(int(begun.read_text())))


def script(engine: str, name: str, *paths: Path) -> "subprocess.Popen[str]":
    """A process that lets one worker of an engine do something, in a process group of its own."""
    if engine == "ray":
        pytest.importorskip("ray")
    line = [sys.executable, shard_work.__file__, name, engine, *map(str, paths)]
    return subprocess.Popen(line, start_new_session=True, stderr=subprocess.PIPE, text=True)


def group_is_empty(group: int) -> bool:
    return is_gone(-group)


def is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def test_without_workers_everything_happens_here() -> None:
    progress: list[tuple[int, float]] = []
    results = run_shards(shard_work.square, [(1, 0), (2, 0)], HERE, lambda *event: progress.append(event))
    assert results == [(1, os.getpid()), (4, os.getpid())]
    assert progress == [(0, 1.0), (1, 2.0)]


def test_work_here_uses_one_torch_thread_and_leaves_the_setting_alone() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        counts = run_shards(lambda report, stop: torch.get_num_threads(), [()], HERE)
        assert (counts, torch.get_num_threads()) == ([1], 3)
    finally:
        torch.set_num_threads(before)


def test_interrupt_here_asks_to_stop_first_and_is_raised_after(tmp_path: Path, until: Until) -> None:
    def interrupt_itself(raises: bool, *, report: Any, stop: Callable[[], bool]) -> None:
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        until(stop)
        (tmp_path / "checkpoint").touch()
        if raises:
            raise Interrupted

    before = signal.getsignal(signal.SIGINT)
    for raises in (True, False):
        with pytest.raises(KeyboardInterrupt):
            run_shards(interrupt_itself, [(raises,)], HERE)
        assert (tmp_path / "checkpoint").exists()
        assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interrupt_here_does_not_wait() -> None:
    def stubborn(*, report: Any, stop: Any) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
        raise AssertionError("not reached")

    with pytest.raises(KeyboardInterrupt):
        run_shards(stubborn, [()], HERE)


def test_few_shards_have_several_threads_each() -> None:
    assert [threads_per_shard(Compute(workers=8), shards) for shards in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]
    assert threads_per_shard(Compute(workers=0), 1) == 1
    assert threads_per_shard(Compute(workers=8, engine="ray"), 1) == 1


STARTS_ONE = """
import multiprocessing, signal
from soo_marl.engines.local import interrupts_kept_from_children

if __name__ == "__main__":
    with interrupts_kept_from_children():
        for _ in range(2):
            process = multiprocessing.get_context("spawn").Process(target=print)
            process.start()
            assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
            process.join()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
"""


def test_the_first_worker_is_kept_from_interrupts_as_the_others_are(tmp_path: Path) -> None:
    # In a fresh interpreter: what multiprocessing starts with the first process would lift the block.
    (tmp_path / "starts_one.py").write_text(STARTS_ONE, encoding="utf-8")
    subprocess.run([sys.executable, tmp_path / "starts_one.py"], check=True, timeout=120)
