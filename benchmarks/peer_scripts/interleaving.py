"""What the scripts of all peers share: time training and the reference R in turn, and print both as JSON.

Needs NumPy and mpe2, and the repository root on PYTHONPATH.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata

from benchmarks.reference import reference_work
from benchmarks.timing import Work, interleaved


def arguments() -> tuple[int, float]:
    """Repeats, and seconds of each timing, from the command line."""
    repeats, seconds = sys.argv[1:]
    return int(repeats), float(seconds)


def measure(training: Work, packages: tuple[str, ...], remark: str) -> None:
    """Time a piece of training, which returns its environment steps, and the reference in turn; print both."""
    rates = interleaved({"training": training, "reference": reference_work()}, *arguments())
    print_result(list(rates["training"]), list(rates["reference"]), packages, remark)


def print_result(training: list[float], reference: list[float], packages: tuple[str, ...], remark: str) -> None:
    """Print steps per second, one per repeat, with the versions of the packages, as the last line."""
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in packages)
    result = {
        "environment_steps_per_second": training,
        "reference_steps_per_second": reference,
        "text": f"{versions}; {remark}",
    }
    print(json.dumps(result))
