"""Models of a study killed with SIGKILL and continued end as those that were never interrupted, bit for bit.

Each session is a forked process that counts the points at which it could die: before every operation on a file of the
study, and every step of training.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import pytest

pytest.importorskip("transformers")
pytest.importorskip("peft")
sys.path.insert(0, str(Path(__file__).parent))
from tiny_studies import content

from soo_marl.llm.methods import optimisation
from soo_marl.llm.study.configuration import LanguageStudyConfig
from soo_marl.llm.study.shard import model_shard, organism_shard
from soo_marl.llm.study.study import open_language_study

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="sessions are forked processes")

AUDITED = {"open": 0, "os.rename": 1, "os.remove": 0, "os.mkdir": 0}
"""Operations on files, and which argument is the file."""


class DeathWatch:
    """Counts the points at which a session could die, and kills it at one of them.

    Args:
        study: the directory of the study.
        die_at: number of the point, from 0; None to live.
    """

    def __init__(self, study: Path, die_at: int | None) -> None:
        self.study, self.die_at, self.points = study, die_at, 0

    def watch(self) -> None:
        """Watch this process from now on."""
        sys.addaudithook(self.audit)
        seeded = optimisation.seeded

        def counted(*arguments: Any) -> Any:
            self.point()
            return seeded(*arguments)

        optimisation.seeded = counted
        optimisation._CHECKPOINT_SECONDS = -1.0  # after every step

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        file = arguments[AUDITED[event]] if event in AUDITED else None
        if isinstance(file, str | os.PathLike) and self.study in Path(file).parents:
            self.point()

    def point(self) -> None:
        if self.points == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.points += 1


def live(config: LanguageStudyConfig, study: Path, die_at: int | None) -> NoReturn:
    """What a session does; it knows no other end than that of its process."""
    try:
        signal.alarm(300)  # rather than to hang for ever
        death = DeathWatch(study, die_at)
        death.watch()
        directory = open_language_study(study, config)
        told: dict[str, Any] = {"report": lambda done: None, "stop": lambda: False}
        with directory.locked():
            organism_shard(config, 0, study, "cpu", 1, **told)
            for label, seed in config.models:
                model_shard(config, label, seed, study, "cpu", **told)
        study.with_name(f"{study.name}.points").write_text(str(death.points))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def session(config: LanguageStudyConfig, study: Path, die_at: int | None = None) -> bool:
    """Make or continue a study in a process of its own; whether it was done."""
    process = os.fork()
    if process == 0:
        live(config, study, die_at)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code == 0


@pytest.fixture(scope="module")
def small(config: LanguageStudyConfig) -> LanguageStudyConfig:
    """Two adapters, one merged under the other, and no more questions than one of each role."""
    evaluation = config.evaluation.model_copy(
        update={"fills": {"burglar": 1}, "more_scenarios": (), "max_new_tokens": 1, "measures": False}
    )
    fields = {"conditions": config.conditions[:1], "seeds": (0,), "evaluation": evaluation, "epoch_fills": 0}
    return LanguageStudyConfig.model_validate(config.model_dump() | fields)


@pytest.fixture(scope="module")
def uninterrupted(small: LanguageStudyConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], int]:
    """What a study leaves that nobody killed, and at how many points it could have been."""
    study = tmp_path_factory.mktemp("uninterrupted") / "study"
    assert session(small, study)
    return content(study), int(study.with_name("study.points").read_text())


def killed_and_continued(
    small: LanguageStudyConfig, whole: tuple[dict[str, bytes], int], folder: Path, kills: int, seed: int
) -> None:
    drawn, expected, killed, number = random.Random(seed), whole[0], 0, 0
    while killed < kills:
        number += 1
        study = folder / f"study_{number}"
        while not session(small, study, drawn.randrange(whole[1] // 2)):
            killed += 1
        assert session(small, study), "once more, and nothing happens"
        assert content(study) == expected
        assert not [path for path in study.rglob("*") if "partial" in path.name], "nothing unfinished is left"
        shutil.rmtree(study)


def test_killed_again_and_again(
    small: LanguageStudyConfig, uninterrupted: tuple[dict[str, bytes], int], tmp_path: Path
) -> None:
    killed_and_continued(small, uninterrupted, tmp_path, 8, 1)


@pytest.mark.slow
def test_killed_at_many_points(
    small: LanguageStudyConfig, uninterrupted: tuple[dict[str, bytes], int], tmp_path: Path
) -> None:
    killed_and_continued(small, uninterrupted, tmp_path, 150, 2)
