"""The scripts, each from end to end with tiny settings."""

import csv
import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "scripts"
TINY = [
    *("--regime", "joint", "--seeds", "0", "1", "--workers", "0", "--set", "evaluation_episodes=20"),
    *("--set", "stages.0.training.updates=4", "--set", "stages.0.training.log_every=2"),
]


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )


def test_train_baselines_then_everything_else(tmp_path: Path) -> None:
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


def test_the_plan_of_a_reproduction(tmp_path: Path) -> None:
    done = run("reproduce.py", "--output", tmp_path / "all", "--scale", "quick", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "Plan" in done.stdout and "fine-tune" in done.stdout and not list(tmp_path.iterdir())


def test_bad_input_is_one_sentence(tmp_path: Path) -> None:
    done = run("classify.py", tmp_path / "nowhere")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("classify: ") and "study.json is missing" in done.stderr


def test_reference_curves_make_their_folder(tmp_path: Path) -> None:
    output = tmp_path / "new" / "folder"
    done = run("reference_curves.py", "--output", output, "--seeds", 3, "--episodes", 8, "--window", 8)
    assert done.returncode == 0, done.stderr
    with (output / "simple_adversary_openai.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["episodes"]) for row in rows] == [("3", "8")]
    assert all(float(row["adversary"]) < 0 for row in rows)
    assert (output / "simple_adversary.png").exists()
