"""Functions of shards for the tests of engines, where worker processes find them; as a script, the process to kill."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from soo_marl.engines import Compute, Interrupted, run_shards
from soo_marl.storage.files import RunDirectoryError

Report = Callable[[float], None]
Stop = Callable[[], bool]


class StrangeError(Exception):
    """Cannot be pickled as it is: ``args`` is not what ``__init__`` takes."""

    def __init__(self, code: int, *, place: str) -> None:
        super().__init__(f"code {code} at {place}")
        self.code = code


class Positive(BaseModel):
    """Something to fail the validation of."""

    number: int


def square(number: int, delay: float, *, report: Report, stop: Stop) -> tuple[int, int]:
    time.sleep(delay)
    report(float(number))
    time.sleep(0.01)
    return number * number, os.getpid()


def fail(kind: str, begun: Path | None = None, *, report: Report, stop: Stop) -> Any:
    while begun is not None and not begun.exists():
        time.sleep(0.01)
    if kind == "strange":
        raise StrangeError(7, place="home")
    if kind == "validation":
        Positive.model_validate({"number": "none"})
    if kind == "result":
        return lambda: None
    raise {"value": ValueError, "directory": RunDirectoryError}[kind]("the reason")


def wait(begun: Path, stopped: Path, *, report: Report, stop: Stop) -> None:
    begun.write_text(f"{os.getpid()}\n")
    while not stop():
        time.sleep(0.01)
    stopped.touch()
    raise Interrupted


def heedless(begun: Path, *, report: Report, stop: Stop) -> None:
    begun.touch()
    while True:
        time.sleep(0.01)


def die(*, report: Report, stop: Stop) -> None:
    report(1.0)
    os.kill(os.getpid(), signal.SIGKILL)


def count(folder: Path, kills_at: tuple[int, ...], until: int, *, report: Report, stop: Stop) -> int:
    """Count up with a checkpoint after each number; die once at each of some numbers. Returns the attempts."""
    folder.mkdir(exist_ok=True)
    with (folder / "attempts").open("a") as attempts:
        attempts.write(f"{os.getpid()}\n")
    checkpoint = folder / "checkpoint"
    done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    report(done)
    while done < until:
        if stop():
            raise Interrupted
        done += 1
        checkpoint.write_text(str(done))
        report(done)
        killed = folder / f"killed_at_{done}"
        if done in kills_at and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
    return len((folder / "attempts").read_text().split())


def train_and_die(killed: Path, *shard: Any, report: Report, stop: Stop) -> None:
    """Train; the first time the process is killed after some reports, with a checkpoint on disk."""
    from soo_marl.studies.baselines.training import train_shard

    reports = 0

    def count_report(done: float) -> None:
        nonlocal reports
        reports += 1
        report(done)

    try:
        train_shard(*shard, report=count_report, stop=lambda: stop() or (reports > 5 and not killed.exists()))
    except Interrupted:
        if not stop():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        raise


def either(name: str, *arguments: Any, report: Report, stop: Stop) -> Any:
    return globals()[name](*arguments, report=report, stop=stop)


if __name__ == "__main__":
    import shard_work  # whatever the engine, workers find the function there

    name, engine, *paths = sys.argv[1:]
    compute = Compute(workers=1)
    if engine == "ray":
        import ray

        ray.init("local", num_cpus=1, include_dashboard=False, object_store_memory=128 * 2**20, log_to_driver=False)
        compute = Compute(workers=1, engine="ray", address="auto")
    run_shards(shard_work.either, [(name, *map(Path, paths))], compute)
