"""Output that cannot be written any more: the work goes on."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from soo_marl.commands.tables.output import unbreakable_output

WORK = """
import sys
from pathlib import Path
from soo_marl.commands.tables.output import unbreakable_output
with unbreakable_output():
    for number in range(20_000):
        print("line", number)
    print("the end", file=sys.stderr, flush=True)
    Path(sys.argv[1]).touch()
"""


def work(done: Path, **streams: Any) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run([sys.executable, "-c", WORK, str(done)], check=False, **streams)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_log_on_a_full_disk(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = work(tmp_path / "done", stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == 0 and (tmp_path / "done").exists()
        lost, end = done.stderr.decode().splitlines()
        assert (
            lost == ("soo-marl: standard output is lost (No space left on device); the work goes on without it")
            and end == "the end"
        )
        assert work(tmp_path / "both", stdout=full, stderr=full).returncode == 0 and (tmp_path / "both").exists()
        done = work(tmp_path / "errors", stdout=subprocess.PIPE, stderr=full)
        assert done.returncode == 0 and done.stdout.decode().endswith("line 19999\n")


def test_a_reader_that_is_gone(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = work(tmp_path / "done", stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert done.returncode == 0 and (tmp_path / "done").exists()
    assert done.stderr.count(b"standard output is lost (Broken pipe)") == 1


def test_streams_are_what_they_were_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with unbreakable_output(), unbreakable_output():
        print("within")
        assert sys.stdout.isatty() is False
    assert sys.stdout is stream and stream.getvalue() == "within\n"


def test_no_streams_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with unbreakable_output():
        print("nowhere")
    assert sys.stdout is None
