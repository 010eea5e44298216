"""What tests of the command line have in common."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from soo_marl.cli import main

Run = Callable[..., tuple[int, str]]


def run_command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Run a command in this process; return its exit status and what it wrote to stderr."""
    capsys.readouterr()
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    return status, capsys.readouterr().err


def refuse(result: tuple[int, str], *words: str) -> None:
    """One sentence, no traceback, a status that is not 0."""
    status, stderr = result
    assert status == 2
    assert stderr.startswith("soo-marl: ") and stderr.count("\n") == 1, stderr
    assert "Traceback" not in stderr
    for word in words:
        assert word in stderr


def contents(folder: Path) -> dict[str, bytes]:
    """Everything in a folder but events, whose names hold the time."""
    files = (path for path in folder.rglob("*") if path.is_file() and "tensorboard" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def records_of(study: Path) -> dict[str, dict[str, object]]:
    """The summary of a study by name."""
    return {record["name"]: record for record in json.loads((study / "results" / "summary.json").read_text())}
