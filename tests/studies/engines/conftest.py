"""Engines under test: two local workers, and a Ray of two cores that belongs to this test process alone."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from soo_marl.studies.engines import Compute

FOLDER = str(Path(__file__).parent)
# For shard_work. Local workers are told where the process that starts them looks for modules.
sys.path.insert(0, FOLDER)


@pytest.fixture(scope="session")
def ray() -> Iterator[Compute]:
    """Connected once for many tests; starting Ray takes seconds."""
    pytest.importorskip("ray")
    from soo_marl.studies.engines.ray_cluster import connection

    compute = Compute(engine="ray", workers=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", FOLDER)
        with connection(compute):
            yield compute


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
