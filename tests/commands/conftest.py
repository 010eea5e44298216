"""Commands on agents whose weights are set by hand, which are competent at once."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))

from command_lines import Run, run_command
from ready_study import draw_nothing, make_ready, ready_config


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process; returns its exit status and what it wrote to stderr."""
    return lambda *arguments: run_command(capsys, *arguments)


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a study, trained. Not to be changed."""
    return make_ready(tmp_path_factory.mktemp("ready") / "study", ready_config(seeds=(0, 1)))[0].path


@pytest.fixture
def good(ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, and no pictures."""
    draw_nothing(monkeypatch)
    return Path(shutil.copytree(ready, tmp_path / "good"))
