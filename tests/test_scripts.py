"""The scripts, each from end to end with tiny settings, and held to the commands that they call."""

import csv
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from soo_marl.cli import main
from soo_marl.commands.classify import Classify

SCRIPTS = Path(__file__).parents[1] / "scripts"
TINY = [
    *("--regime", "joint", "--seeds", "0", "1", "--workers", "0", "--set", "evaluation_episodes=20"),
    *("--set", "stages.0.training.updates=4", "--set", "stages.0.training.log_every=2"),
]


class Done(NamedTuple):
    """What a script left."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Runs a script in this process."""

    def run(script: str, *arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", [str(SCRIPTS / script), *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            runpy.run_path(sys.argv[0], run_name="__main__")
        return Done(int(leaving.value.code or 0), *capsys.readouterr())

    return run


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.stem)
def test_a_script_is_its_command(script: Path, run: Callable[..., Done], capsys: pytest.CaptureFixture[str]) -> None:
    """At most ten lines, and the help is the command's to the letter, but for how it is called."""
    source = script.read_text()
    assert len(source.splitlines()) <= 10
    (command,) = re.findall(r'script\("(.*)"\)', source)
    done = run(script.name, "--help")
    assert done.returncode == 0 and "--" in done.stdout
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    assert _without_usage(done.stdout) == _without_usage(capsys.readouterr().out)


def _without_usage(text: str) -> str:
    return text.split("\n\n", 1)[1]


def test_an_interrupted_script_says_how_to_go_on(run: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(Classify, "run", interrupt)
    done = run("classify.py", "a study", "--workers", 1)
    again = f"continue with: python {SCRIPTS}/classify.py 'a study' --workers 1"
    assert (done.returncode, done.stderr) == (130, f"\nclassify: interrupted; nothing is lost, {again}\n")


def test_train_baselines_then_everything_else(run: Callable[..., Done], tmp_path: Path) -> None:
    study = tmp_path / "study"
    done = run("train_baselines.py", "--output", study, *TINY)
    assert done.returncode == 0, done.stderr
    assert "honest/goal_rate" in done.stdout and (study / "report.html").exists()
    done = run("classify.py", study, "--evaluation-seeds", 1, "--episodes", 1, 20, "--workers", 0)
    assert done.returncode == 0, done.stderr
    assert "classification/auroc/published" in done.stdout
    assert f"classify.py {study} --evaluation-seeds 1" in (study / "results" / "summary.json").read_text()
    done = run("plot_profiles.py", study, "--episodes", 20, "--workers", 0)
    assert done.returncode == 0, done.stderr
    assert "Deception profiles" in done.stdout and (study / "figures" / "profiles.png").exists()
    done = run("export_pretrained.py", study, "--destination", tmp_path / "package", "--seeds", 1)
    assert done.returncode == 0, done.stderr
    assert "MB" in done.stdout and (tmp_path / "package" / "trackable" / "honest" / "seed_1").is_dir()
    done = run("finetune_soo.py", study, "--methods", "soo")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("finetune_soo: an interval needs at least 2 seeds whose agents play well enough")


def test_the_plan_of_a_reproduction(run: Callable[..., Done], tmp_path: Path) -> None:
    done = run("reproduce.py", "--output", tmp_path / "all", "--scale", "quick", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "Plan" in done.stdout and "fine-tune" in done.stdout and not list(tmp_path.iterdir())


def test_bad_input_is_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "classify.py"), str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("classify: ") and "study.json is missing" in done.stderr


def test_reference_curves_make_their_folder(run: Callable[..., Done], tmp_path: Path) -> None:
    output = tmp_path / "new" / "folder"
    done = run("reference_curves.py", "--output", output, "--seeds", 3, "--episodes", 8, "--window", 8)
    assert done.returncode == 0, done.stderr
    with (output / "simple_adversary_openai.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["episodes"]) for row in rows] == [("3", "8")]
    assert all(float(row["adversary"]) < 0 for row in rows)
    assert (output / "simple_adversary.png").exists()
