"""Shards killed with SIGKILL at any moment and continued end with what one never interrupted ends with, bit for bit.

Each session is a forked process that counts the points at which it could die: before every operation on a file of the
study, every update, and every entry of an event file.
"""

import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from safetensors.torch import load
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from soo_marl.agents.maddpg import MADDPG
from soo_marl.storage.files import PARTIAL_SUFFIX
from soo_marl.storage.tensor_files import write_tensors
from soo_marl.studies.baselines.study import open_study
from soo_marl.studies.baselines.training import train_shard
from soo_marl.studies.learning import phases
from soo_marl.studies.learning.curves import EventFile
from soo_marl.studies.learning.recipes import BaselineConfig

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="sessions are forked processes")

AUDITED = {"open": 0, "os.rename": 1, "os.remove": 0, "os.mkdir": 0}
"""Operations on files, and which argument is the file."""


class DeathWatch:
    """Counts points at which a session could die, kills it at one of them, and keeps what it would delete.

    Args:
        study: the directory of the study.
        die_at: number of the point, from 0; None to live.
        tear: where to cut a temporary file that is whole but not flushed to disk yet, as a share of its bytes.
    """

    def __init__(self, study: Path, die_at: int | None, tear: float | None) -> None:
        self.study, self.die_at, self.tear = study, die_at, tear
        self.points, self.busy = 0, False

    def watch(self) -> None:
        """Watch this process from now on."""
        sys.addaudithook(self.audit)
        for owner, name in ((MADDPG, "update"), (EventFile, "add")):
            setattr(owner, name, self.counted(getattr(owner, name), name))
        # A checkpoint after every log interval.
        phases._CHECKPOINT_SECONDS = -1.0

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.busy or event not in AUDITED or not isinstance(arguments[AUDITED[event]], str | os.PathLike):
            return
        path = Path(arguments[AUDITED[event]])
        if self.study in (path, *path.parents):
            self.busy = True
            if event == "os.rename" and path.parent.parent == self.study / "steps" / "train":
                self.keep_checkpoint(path.stem)
            if self.points == self.die_at and self.tear is not None and path.name.endswith(PARTIAL_SUFFIX):
                self.cut(path)
            self.point(f"{event} {path.relative_to(self.study)}")
            self.busy = False

    def keep_checkpoint(self, phase: str) -> None:
        kept = beside(self.study, "kept")
        kept.mkdir(exist_ok=True)
        (checkpoint,) = (self.study / "checkpoints").glob("seeds_*.safetensors")
        shutil.copy(checkpoint, kept / f"{phase}.safetensors")

    def cut(self, path: Path) -> None:
        if path.exists():
            os.truncate(path, int(path.stat().st_size * (self.tear or 0.0)))

    def counted(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.point(name)
            return function(*arguments)

        return call

    def point(self, what: str) -> None:
        if self.points == self.die_at:
            with beside(self.study, "deaths").open("a") as deaths:
                deaths.write(f"before {what}\n")
            os.kill(os.getpid(), signal.SIGKILL)
        self.points += 1


def beside(study: Path, name: str) -> Path:
    """Something that a session leaves outside its study."""
    return study.with_name(f"{study.name}.{name}")


def live(config: BaselineConfig, study: Path, die_at: int | None, tear: float | None) -> NoReturn:
    """What a session does; it knows no other end than that of its process."""
    try:
        signal.alarm(300)  # rather than to hang for ever
        death = DeathWatch(study, die_at, tear)
        death.watch()
        open_study(study, config)
        train_shard(config, study, config.seeds, "cpu", report=lambda done: None, stop=lambda: False)
        beside(study, "points").write_text(str(death.points))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def lives(process: int) -> bool:
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def session(
    config: BaselineConfig,
    study: Path,
    die_at: int | None = None,
    *,
    tear: float | None = None,
    seconds: float | None = None,
) -> bool:
    """Train or continue in a process of its own that dies at a point, or after so many seconds; whether it was done."""
    process = os.fork()
    if process == 0:
        live(config, study, die_at, tear)
    if seconds is not None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and lives(process):
            time.sleep(0.001)
        os.kill(process, signal.SIGKILL)  # not waited for yet, so the number is still its own
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code == 0


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads in a run's folder: steps and values by tag."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]
    }


def content(study: Path) -> dict[str, Any]:
    """All that a shard leaves, by file; of TensorBoard's files the names and the wall times are left out."""
    found: dict[str, Any] = {}
    for root in (study, beside(study, "kept")):
        for path in sorted(root.rglob("*")):
            name = str(path.relative_to(root))
            if path.is_dir():
                found[name] = scalars(path) if name.startswith("tensorboard/") else None
            elif path.name != "study.json" and "tfevents" not in path.name:
                found[name] = path.read_bytes()
    events = sorted(path.name.rpartition(".")[2] for path in (study / "tensorboard").rglob("*tfevents*"))
    return found | {"event files": events}


def same(study: Path, expected: dict[str, Any]) -> None:
    deaths = beside(study, "deaths").read_text() if beside(study, "deaths").exists() else "by the clock"
    found = content(study)
    assert found.keys() == expected.keys(), deaths
    for name in expected:
        assert found[name] == expected[name], f"{name} after {deaths}"


class Uninterrupted:
    """What a shard that nobody killed left, the points that it passed, and the time that it took."""

    def __init__(self, config: BaselineConfig, study: Path) -> None:
        begun = time.monotonic()
        assert session(config, study)
        self.seconds = time.monotonic() - begun
        self.config, self.points = config, int(beside(study, "points").read_text())
        self.content = content(study)


@pytest.fixture(scope="module")
def uninterrupted(trained: tuple[BaselineConfig, object], tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    config = trained[0].model_copy(update={"seeds": (0, 1)})
    return Uninterrupted(config, tmp_path_factory.mktemp("uninterrupted") / "study")


def test_what_is_compared_is_everything(uninterrupted: Uninterrupted) -> None:
    assert uninterrupted.points > 200
    kept = [name for name in uninterrupted.content if name[0].isdigit()]
    assert len(kept) == 5, "the last checkpoint of every phase"
    names = load(uninterrupted.content[kept[-1]]).keys()
    for part in ("actor_adam", "critic_adam", "replay/rows", "noise/", "worlds/", "curves/", "updates"):
        assert any(part in name for name in names), part
    assert uninterrupted.content["event files"] == sorted(2 * ["follow", "lure", "settle", "lure", "settle"])
    assert "settle/return_blue" in uninterrupted.content["tensorboard/deceptive/seed_1"]


def kill_at(points: list[int], uninterrupted: Uninterrupted, folder: Path, random_numbers: random.Random) -> None:
    """Kill a study at each of some points, continue it, and compare."""
    for point in points:
        study = folder / f"killed_at_{point}"
        tear = random_numbers.choice((None, 0.0, random_numbers.random()))
        assert not session(uninterrupted.config, study, point, tear=tear)
        assert session(uninterrupted.config, study)
        same(study, uninterrupted.content)
        shutil.rmtree(study)


def test_unfinished_files_are_cleaned_up(uninterrupted: Uninterrupted, tmp_path: Path) -> None:
    """Killed while it writes a large file, whatever the temporary files of the library that writes it are called."""
    study = tmp_path / "study"
    open_study(study, uninterrupted.config)
    target = study / "checkpoints" / "large.safetensors"
    for _ in range(20):
        process = os.fork()
        if process == 0:
            try:
                signal.alarm(60)
                while True:
                    write_tensors(target, {"large": torch.zeros(4_000_000)})
            finally:
                os._exit(1)
        while not target.parent.exists() or not set(os.listdir(target.parent)) - {target.name}:
            assert lives(process)
            time.sleep(0.001)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        open_study(study, uninterrupted.config)
        assert set(os.listdir(target.parent)) <= {target.name}


def spread(count: int, points: int, random_numbers: random.Random) -> list[int]:
    """Random points, one from each of ``count`` equal parts of all of them."""
    return [int((part + random_numbers.random()) * points / count) for part in range(count)]


def test_killed_once(uninterrupted: Uninterrupted, tmp_path: Path) -> None:
    random_numbers = random.Random(0)
    kill_at(spread(16, uninterrupted.points, random_numbers), uninterrupted, tmp_path, random_numbers)


@pytest.mark.slow
def test_killed_once_at_any_point(uninterrupted: Uninterrupted, tmp_path: Path) -> None:
    kill_at(list(range(uninterrupted.points)), uninterrupted, tmp_path, random.Random(1))


def killed_again_and_again(uninterrupted: Uninterrupted, folder: Path, kills: int, die: Callable[[Path], bool]) -> None:
    """Kill studies until they are done, each many times, and compare."""
    killed = 0
    for number in range(10 * kills):
        study = folder / f"study_{number}"
        while not die(study):
            killed += 1
        same(study, uninterrupted.content)
        shutil.rmtree(study)
        if killed >= kills:
            return
    raise AssertionError(f"only {killed} sessions were killed")


def at_random_points(uninterrupted: Uninterrupted, random_numbers: random.Random) -> Callable[[Path], bool]:
    return lambda study: session(
        uninterrupted.config, study, random_numbers.randrange(5, 100), tear=random_numbers.random()
    )


def at_random_times(uninterrupted: Uninterrupted, random_numbers: random.Random) -> Callable[[Path], bool]:
    longest = uninterrupted.seconds

    def die(study: Path) -> bool:
        nonlocal longest
        fresh, begun = not study.exists(), time.monotonic()
        done = session(uninterrupted.config, study, seconds=random_numbers.uniform(0.1, 1.0) * longest)
        if done and fresh:
            longest = time.monotonic() - begun  # the machine is faster than it was
        return done

    return die


def test_killed_again_and_again(uninterrupted: Uninterrupted, tmp_path: Path) -> None:
    killed_again_and_again(uninterrupted, tmp_path, 12, at_random_points(uninterrupted, random.Random(2)))


def test_killed_at_random_times(uninterrupted: Uninterrupted, tmp_path: Path) -> None:
    killed_again_and_again(uninterrupted, tmp_path, 10, at_random_times(uninterrupted, random.Random(3)))


@pytest.mark.slow
def test_killed_at_many_random_times(uninterrupted: Uninterrupted, tmp_path: Path) -> None:
    killed_again_and_again(uninterrupted, tmp_path, 200, at_random_times(uninterrupted, random.Random(4)))
