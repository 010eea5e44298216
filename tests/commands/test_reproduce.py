"""``reproduce``: the plan, a whole reproduction of agents that are there at once, and bad input."""

import shutil
from pathlib import Path

import pytest
from command_lines import Run, records_of, refuse
from ready_study import HONEST, draw_nothing, make_ready, ready_config

from soo_marl.cli import main
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.classification import ClassificationConfig
from soo_marl.studies.reproduction import plan as reproduction_plan
from soo_marl.studies.reproduction.plan import SCALES, Scale


@pytest.fixture
def tiny_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scale of a moment, about agents that are there at once."""
    scale = Scale(
        name="tiny",
        seeds=(0, 1),
        evaluation_episodes=60,
        classification=ClassificationConfig(evaluation_seeds=1, episodes=(1, 2)),
        methods=("blank",),
        finetuning_episodes=60,
        profile_episodes=20,
        remark="a tiny look: it means nothing",
    )
    monkeypatch.setitem(SCALES, "tiny", scale)
    monkeypatch.setattr(
        reproduction_plan,
        "baseline_config",
        lambda name, regime, seeds, **fields: ready_config(
            seeds=seeds, regime="joint" if name == "paper" else "staged"
        ),
    )
    draw_nothing(monkeypatch)


@pytest.mark.usefixtures("tiny_scale")
def test_reproduction(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "all"
    make_ready(output / "trackable", ready_config(seeds=(0, 1)))
    make_ready(output / "paper", ready_config(seeds=(0, 1), regime="joint"), deceptive=HONEST)
    (output / "study.json").unlink(missing_ok=True)
    command = ["reproduce", "--output", str(output), "--scale", "tiny", "--workers", "0", "--presets"]
    refuse(run(*command, "trackable"), "holds files (paper) but no study.json")
    StudyDirectory.open(tmp_path / "new", "reproduction", SCALES["tiny"], (0, 1))
    shutil.copy(tmp_path / "new" / "study.json", output)
    capsys.readouterr()

    assert main([*command, "trackable", "paper"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Plan: about how long each step takes" in said
    assert "nothing was fine-tuned: an interval needs at least 2 seeds whose agents play well enough" in said
    assert "Reproduction:" in said and said.endswith("Next: soo-marl reproduce --scale quick")
    page = (output / "report.html").read_text()
    assert ": a tiny look</title>" in page and 'id="study-trackable"' in page and 'id="study-paper"' in page
    assert "nothing was fine-tuned" in page and "Treated agents" in page
    assert "finetune/blank/verdict" in records_of(output / "trackable")
    assert "note/competent_seeds" in records_of(output / "paper")

    assert main([*command, "trackable", "watch", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.count("done") == 6, "all but the pages"
    assert said.endswith(f"Next:    soo-marl {' '.join([*command, 'trackable', 'watch'])}\n")
    (output / "report.html").unlink()
    assert run("report", output) == (0, "")
    assert 'id="study-paper"' in (output / "report.html").read_text()
    refuse(run("classify", output), "holds a study of kind reproduction, not of baselines")
    refuse(run("reproduce", "--output", output, "--scale", "quick"), "belongs to another study: configuration.")

    (output / "paper" / "results" / "agents.json").write_text("{")
    (output / "trackable" / "report.html").unlink()
    refuse(run(*command, "paper", "trackable"), "not everything could be done of: paper;")
    assert (output / "trackable" / "report.html").exists(), "one preset keeps no other from being done"


def test_a_dry_run_does_nothing(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--output", str(tmp_path / "all"), "--scale", "full", "--dry-run"]) == 0
    said = capsys.readouterr().out
    for word in ("trackable", "paper", "watch", "train", "fine-tune", "20 seeds", "MB", "min"):
        assert word in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scale", "huge"], "there is no scale 'huge'; choose one of quick, standard, full"),
        (["--presets", "trakable"], "there is no preset 'trakable'; did you mean trackable?"),
        (["--presets", "paper", "paper"], "each preset may be given only once, but paper is repeated"),
        (["--workers", "-1"], "workers must be 0 (this process alone) or more, not -1"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_bad_options_of_reproduce(options: list[str], message: str, dry: list[str], run: Run, tmp_path: Path) -> None:
    refuse(run("reproduce", "--output", tmp_path / "all", *options, *dry), message)
    assert not list(tmp_path.iterdir())


def test_a_reproduction_in_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for dry in ([], ["--dry-run"]):
        refuse(run("reproduce", "--output", tmp_path / "file", *dry), "is a file, not a folder; name another output")
