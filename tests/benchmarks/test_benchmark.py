"""The benchmark from end to end with tiny settings, as a user runs it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.machine import Machine
from soo_marl.storage.records import Record, read_list, read_one

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in this process; returns its exit status, output and errors."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def command(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return command


def names(output: Path) -> set[str]:
    return {record.name for record in read_list(output / "results" / "summary.json", Record)}


def test_short_cases_leave_records_plots_and_a_table(tmp_path: Path, run: Run) -> None:
    status, out, err = run("--quick", "--output", tmp_path, "--only", "env/*", "update/*", "evaluate", "growth/*")
    assert status == 0, err
    assert {
        "env/reference/steps_per_second",
        "env/wrapper/trackable/ratio",
        "env/batched/stock/ratio",
        "env/batched/stock_continuous/ratio",
        "env/batched/paper/ratio",
        "env/batched/trackable/ratio",
        "update/b256/share_of_matmul",
        "update/b1024/share_of_matmul",
        "update/b1024/share_of_square_matmul",
        "update/b256/stack20_vs_separate",
        "update/b1024/stack20_vs_separate",
        "evaluate/pairs_per_second",
    } <= names(tmp_path)
    records = read_list(tmp_path / "results" / "summary.json", Record)
    assert all(record.estimate is not None and record.estimate > 0 for record in records)
    assert all(record.command.startswith("python -m benchmarks --quick") for record in records)
    assert read_one(tmp_path / "results" / "machine.json", Machine).torch_threads == 1
    pictures = {path.name for path in (tmp_path / "figures").glob("*.png")}
    assert pictures == {"growth_worlds.png", "growth_runs.png", "growth_agents.png", "growth_hidden.png"}
    assert "| `env/batched/stock/ratio` |" in (tmp_path / "table.md").read_text()
    assert "env/batched/stock/ratio" in out
    assert not (tmp_path / "scratch").exists()


@pytest.mark.slow
def test_training_and_report(tmp_path: Path, run: Run) -> None:
    status, _, err = run("--quick", "--output", tmp_path, "--only", "train/*", "report")
    assert status == 0, err
    assert {
        "train/stock/paper_settings/ratio",
        "train/paper_baseline/seeds_per_hour",
        "train/two_processes/speedup",
        "report/figures/seconds",
        "report/page/seconds",
    } <= names(tmp_path)
    assert not (tmp_path / "scratch").exists()


def test_a_case_of_its_own_process_has_its_peak_memory(tmp_path: Path) -> None:
    short = ("--repeats", "1", "--seconds", "0.001", "--output", str(tmp_path), "--only", "env/wrapper/trackable")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks", *short]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = {record.name: record for record in read_list(tmp_path / "results" / "summary.json", Record)}
    peak = found["env/wrapper/trackable/peak_memory"]
    # Python with torch loaded takes hundreds of MiB: this catches a wrong unit.
    assert peak.unit == "MiB" and peak.estimate is not None and 50 < peak.estimate < 5_000


def test_a_peer_that_fails_is_named_and_the_rest_is_kept(tmp_path: Path, run: Run) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no such library >&2\nexit 1\n")
    python.chmod(0o755)
    only = ("--only", "env/wrapper/*", "peers/*", "--peers", f"xuance={python}")
    status, out, err = run("--quick", "--output", tmp_path / "bench", *only)
    assert status == 2
    assert err == "benchmarks: these cases failed and are missing: peers/xuance\n"
    assert "no such library" in out
    assert "env/wrapper/trackable/ratio" in names(tmp_path / "bench")


def test_a_peer_is_given_as_a_ratio(tmp_path: Path, run: Run) -> None:
    result = {
        "environment_steps_per_second": [100.0, 300.0],
        "reference_steps_per_second": [1000.0, 1000.0],
        "text": "1",
    }
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho noise\necho '{json.dumps(result)}'\n")
    python.chmod(0o755)
    status, _, err = run("--quick", "--output", tmp_path / "bench", "--only", "peers/*", "--peers", f"agilerl={python}")
    assert status == 0, err
    (ratio,) = (
        record
        for record in read_list(tmp_path / "bench" / "results" / "summary.json", Record)
        if record.name == "peers/agilerl/ratio"
    )
    assert ratio.estimate == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--only", "nothing/*"), "no case fits --only nothing/*"),
        (("--peers", "xuance"), "--peers takes name=interpreter"),
        (("--peers", "rllib=/usr/bin/python3"), "one of the names agilerl, benchmarl, xuance"),
        (("--peers", "xuance=/nowhere/python"), "there is no interpreter /nowhere/python"),
        (("--repeats", "0"), "repeats must be at least 1"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    status, _, err = run("--output", tmp_path / "bench", *arguments)
    assert (status, err.count("\n")) == (2, 1)
    assert sentence in err
    assert not (tmp_path / "bench").exists()
