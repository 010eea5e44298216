"""Two commands on one directory: real processes, some of them killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from soo_marl.cli import main
from soo_marl.storage import lock
from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.lock import COMMAND_LOCK, WORKERS_LOCK, command_lock, worker_lock
from soo_marl.storage.study_directory import StudyDirectory

HOLD = """
import sys
from pathlib import Path
from soo_marl.storage import lock
with getattr(lock, sys.argv[1])(Path(sys.argv[2])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(path: Path, name: str = "command_lock") -> Iterator[subprocess.Popen[str]]:
    """A process that holds a lock until its standard input ends."""
    command = [sys.executable, "-c", HOLD, name, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        try:
            yield process
        finally:
            process.kill()


def free(path: Path) -> None:
    """Nobody holds anything."""
    with command_lock(path):
        pass


def test_a_second_command_is_refused_with_the_holder_and_the_way_out(tmp_path: Path) -> None:
    with held(tmp_path) as process, pytest.raises(RunDirectoryError) as raised, command_lock(tmp_path):
        pass
    message = str(raised.value)
    assert message.startswith(f"another command (process {process.pid} on ") and f"is at work in {tmp_path};" in message
    assert message.endswith("wait until it has ended, or name another folder") and message.isprintable()


@pytest.mark.parametrize("part", ["points/3", "trackable", "finetune"])
def test_a_part_is_locked_with_the_whole(part: str, tmp_path: Path) -> None:
    """A sweep or a reproduction at work comes to this part in the end."""
    inner = tmp_path / "whole" / part
    inner.mkdir(parents=True)
    (tmp_path / "whole" / "study.json").write_text("{}")
    with (
        held(tmp_path / "whole"),
        pytest.raises(RunDirectoryError, match=r"is at work in .*/whole;"),
        command_lock(inner),
    ):
        pass
    with (
        held(inner),
        pytest.raises(RunDirectoryError, match=r"is at work in .*/whole;"),
        command_lock(tmp_path / "whole"),
    ):
        pass
    with command_lock(tmp_path / "whole"), command_lock(inner):
        pass
    free(inner)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_dead_command_holds_nothing(how: signal.Signals, tmp_path: Path) -> None:
    with held(tmp_path) as process:
        process.send_signal(how)
        process.wait()
        free(tmp_path)


def test_a_lock_is_released_at_the_end_and_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), command_lock(tmp_path):
        assert json.loads((tmp_path / COMMAND_LOCK).read_text())["process"] == os.getpid()
        raise KeyboardInterrupt
    assert (tmp_path / COMMAND_LOCK).read_text() == ""
    with held(tmp_path):
        pass


def test_blocks_of_one_thread_nest_whatever_the_path_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    with command_lock(tmp_path), command_lock(Path(".")), command_lock(tmp_path / "link"):
        pass
    with command_lock(tmp_path):
        with command_lock(tmp_path):
            pass
        refused = subprocess.run(
            [sys.executable, "-c", HOLD, "command_lock", str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert "is at work in" in refused.stderr, "the outer block still holds it"


def test_another_thread_is_another_command(tmp_path: Path) -> None:
    found: list[str] = []

    def enter() -> None:
        try:
            free(tmp_path)
        except RunDirectoryError as error:
            found.append(str(error))

    with command_lock(tmp_path):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    assert len(found) == 1 and f"process {os.getpid()}" in found[0]


def test_a_command_waits_for_workers_that_a_dead_one_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(tmp_path, "worker_lock") as one, held(tmp_path, "worker_lock") as another:
        waited: list[str] = []
        real = time.sleep

        def leave(seconds: float) -> None:
            waited.append("")
            for process in (one, another):
                process.kill()
                process.wait()
            real(seconds)

        monkeypatch.setattr(time, "sleep", leave)
        free(tmp_path)
        assert waited


def test_workers_that_do_not_leave_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_SECONDS_TO_LEAVE", 0.0)
    with (
        held(tmp_path, "worker_lock"),
        pytest.raises(RunDirectoryError, match=r"left behind are still at work in .*then run the same command again$"),
    ):
        free(tmp_path)
    free(tmp_path)


def test_workers_do_not_keep_one_another_or_their_command_out(tmp_path: Path) -> None:
    with command_lock(tmp_path), held(tmp_path, "worker_lock"), worker_lock(tmp_path), worker_lock(tmp_path):
        pass


def test_a_child_does_not_inherit_the_lock(tmp_path: Path) -> None:
    with command_lock(tmp_path):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    try:
        with held(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize(
    "content", ["", "[" * 5000, '{"process": "x"}', '{"process": 1}', '{"process": 1, "host": "\\n"}']
)
def test_a_holder_that_is_not_known_is_left_out(content: str, tmp_path: Path) -> None:
    with held(tmp_path):
        (tmp_path / COMMAND_LOCK).write_text(content)
        with pytest.raises(RunDirectoryError, match=r"^another command( \(process 1 on \\n\))? is at work in"):
            free(tmp_path)


def test_a_link_in_place_of_a_lock_file_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    for name in (COMMAND_LOCK, WORKERS_LOCK):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(RunDirectoryError, match=rf"^cannot write .*{name}"):
            free(tmp_path)
        (tmp_path / name).unlink()
    assert target.read_text() == "precious"


def test_a_second_name_in_place_of_a_lock_file_is_not_written_through(tmp_path: Path) -> None:
    targets = [tmp_path / "precious", tmp_path / "dear"]
    for target, name in zip(targets, (COMMAND_LOCK, WORKERS_LOCK), strict=True):
        target.write_text("mine")
        (tmp_path / name).hardlink_to(target)
    with command_lock(tmp_path):
        assert [target.read_text() for target in targets] == ["mine", "mine"]
    assert [target.read_text() for target in targets] == ["mine", "mine"]


@pytest.mark.parametrize("name", [COMMAND_LOCK, WORKERS_LOCK])
def test_a_pipe_in_place_of_a_lock_file_is_refused(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(RunDirectoryError, match=rf"{name} is not a regular file; delete it"):
        free(tmp_path)


def test_a_file_system_without_locks_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with pytest.warns(UserWarning, match="file system without locks: run one command at a time there"):
        free(tmp_path)


def test_opening_a_study_while_a_command_works_there_touches_nothing(tmp_path: Path) -> None:
    study = StudyDirectory.open(tmp_path / "study", "test", {}, [0])
    partial = study.path / ".file.1-2.soo-marl-partial"
    partial.touch()
    with held(study.path):
        with pytest.raises(RunDirectoryError, match="is at work in"):
            StudyDirectory.open(study.path, "test", {}, [0])
        assert partial.exists(), "it belongs to the command that works there"
        assert StudyDirectory.read(study.path) == study, "reading needs no lock"
    StudyDirectory.open(study.path, "test", {}, [0])
    assert not partial.exists()


def test_killed_before_its_first_file_a_study_can_begin_again(tmp_path: Path) -> None:
    free(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [COMMAND_LOCK, WORKERS_LOCK]
    StudyDirectory.open(tmp_path, "test", {}, [0])


OPTIONS = ["--seeds", "0", "1", "--workers", "0", "--scale", "0.001"]


@pytest.mark.parametrize("command", ["train", "demo", "classify", "report"])
def test_commands_are_refused(
    command: str, trained: tuple[object, StudyDirectory], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "study"
    if command in ("train", "demo"):
        path.mkdir()
        arguments = ["--output", str(path), *OPTIONS]
    else:
        shutil.copytree(trained[1].path, path)
        (path / "steps" / "train.json").write_text("[]")
        arguments = [str(path)]
    before = sorted(path.rglob("*"))
    with held(path):
        assert main([command, *arguments]) == 2
    message = capsys.readouterr().err
    assert message.startswith("soo-marl: another command (process") and message.count("\n") == 1
    assert set(path.rglob("*")) - set(before) <= {path / COMMAND_LOCK, path / WORKERS_LOCK}
