"""``demo``, ``finetune`` and ``profile``: what is done with agents that are competent."""

import json
from pathlib import Path

import pytest
from command_lines import Run, contents, records_of, refuse
from ready_study import ready_config

from soo_marl.cli import main
from soo_marl.commands.shared import Baselines
from soo_marl.studies.learning.recipes import BaselineConfig

READY = ["--workers", "0", "--evaluation-seeds", "1", "--episodes", "1", "20"]
"""Options of a classification of a moment."""


def shorter_demo(monkeypatch: pytest.MonkeyPatch, config: BaselineConfig, scales: list[float]) -> None:
    """Let the demo train such agents, notes its scale, and fine-tune them for a moment."""

    def shorter(baselines: Baselines) -> BaselineConfig:
        scales.append(baselines.scale)
        return config

    monkeypatch.setattr(Baselines, "config", shorter)
    monkeypatch.setattr("soo_marl.commands.demo.DEMO_METHODS", ("soo", "blank"))


def test_demo_fine_tunes_what_is_competent(
    run: Run, good: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scales: list[float] = []
    shorter_demo(monkeypatch, ready_config(seeds=(0, 1)), scales)
    command = ["demo", "--output", str(good), "--scale", "0.003", *READY]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert scales == [0.003]
    assert said.endswith(f"\nNext:    soo-marl profile {good}\n")
    assert "fine-tuning" in said and "measurement" in said and "soo.updates-3" in said
    records = records_of(good)
    rates = ("trap_rate", "goal_rate", "goal_rate_alone", "rubric_rate", "sensitivity", "verdict")
    for name in (*rates, "behavioural_difference_to_honest"):
        for condition in ("deceptive", "soo.updates-3", "soo.updates-3/after", "blank", "honest"):
            assert f"finetune/{condition}/{name}" in records
    assert records["finetune/blank/verdict"]["text"] == "blind"
    assert str(records["finetune/blank/trap_rate"]["command"]).startswith("soo-marl demo --output")
    assert "note/competent_seeds" not in records and "classification/auroc/kept" in records
    manifest = json.loads((good / "finetune" / "study.json").read_text())["configuration"]
    assert [chosen["updates"] for chosen in manifest["treatments"]] == [3, 0] and manifest["after_updates"] == 4
    page = (good / "report.html").read_text()
    assert "Treated agents" in page and "Fine-tuning" in page

    # Neither again, nor later commands, lose what was found or do it twice.
    before = contents(good)
    monkeypatch.setattr("soo_marl.studies.finetuning.study.finetune", lambda *_, **__: pytest.fail("done twice"))
    assert main(command) == 0
    assert contents(good) == before
    assert run("classify", good, "--evaluation-seeds", 1, "--episodes", 3, "--workers", 0) == (0, "")
    assert run("report", good) == (0, "")
    assert {name for name in records if name.startswith("finetune/")} == {
        name for name in records_of(good) if name.startswith("finetune/")
    }


def test_fine_tuning_by_itself_is_part_of_the_study_too(
    run: Run, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", str(good), *READY]) == 0
    assert capsys.readouterr().out.endswith(f"\nNext:    soo-marl finetune {good}\n")
    options = ["--methods", "soo", "blank", "--updates", 3, "--after-updates", 0, "--episodes", 60, "--workers", 0]
    assert run("finetune", good, *options) == (0, "")
    assert records_of(good)["finetune/blank/verdict"]["text"] == "blind"
    assert "Treated agents" in (good / "report.html").read_text()
    refuse(run("finetune", good, *options, "--kind", "honest"), "belongs to another study: configuration.kind")
    before = contents(good)
    assert run("finetune", good, "--methods", "blank", "--output", tmp_path / "other", "--workers", 0) == (0, "")
    assert contents(good) == before and (tmp_path / "other" / "report.html").exists()
    page = good / "finetune" / "report.html"
    page.unlink()
    capsys.readouterr()
    assert main(["report", str(good / "finetune")]) == 0
    assert capsys.readouterr().out == f"Report: {page}\nNext:    soo-marl profile {good}\n"
    assert "Treated agents" in page.read_text()


def test_profile_of_a_study(run: Run, good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(good), "--episodes", "30", "--workers", "0"]) == 0
    said = capsys.readouterr().out
    assert "Deception profiles: difference to honest agents" in said and "deceptive" in said
    found = json.loads((good / "results" / "profiles.json").read_text())
    assert found["command"] == f"soo-marl profile {good} --episodes 30 --workers 0" and found["episodes"] == 30
    assert "profiles/deceptive/difference_to_honest" in records_of(good)
    refuse(run("profile", good, "--episodes", 0), "a profile needs at least one episode, not 0")
