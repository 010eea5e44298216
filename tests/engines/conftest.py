"""Engines under test: two local workers, and a Ray of two cores that belongs to this test process alone."""

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from soo_marl.engines import Compute

FOLDER = str(Path(__file__).parent)
# For shard_work. Local workers are told where the process that starts them looks for modules.
sys.path.insert(0, FOLDER)


@pytest.fixture(scope="session")
def ray() -> Iterator[Compute]:
    """Connected once for many tests; starting Ray takes seconds."""
    library = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((FOLDER, os.environ.get("PYTHONPATH", ""))))
        # Nobody else can use it: without a token in the home folder, and on this machine alone.
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        library.init("local", num_cpus=2, include_dashboard=False, object_store_memory=128 * 2**20, log_to_driver=False)
        yield Compute(engine="ray", address="auto", workers=2)
        library.shutdown()


@pytest.fixture(params=["local", "ray"])
def engine(request: pytest.FixtureRequest) -> Compute:
    """Each engine, with two workers."""
    return Compute(workers=2) if request.param == "local" else request.getfixturevalue("ray")


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Waits until a condition holds."""

    def until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 100.0
        while not condition():
            assert time.monotonic() < deadline, "it never happened"
            time.sleep(0.02)

    return until
