"""``--pretrained``: commands on the agents that come with the package."""

from pathlib import Path

import pytest
from command_lines import Run, records_of, refuse
from ready_study import make_ready, ready_config

from soo_marl.studies.baselines import pretrained
from soo_marl.studies.baselines.pretrained import export_pretrained

READY = ["--workers", "0", "--evaluation-seeds", "1", "--episodes", "1", "20"]
"""Options of a classification of a moment."""


def test_pretrained_agents(run: Run, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "PRETRAINED", tmp_path / "package")
    monkeypatch.chdir(tmp_path)
    refuse(run("classify", "--pretrained", "trackable"), "no trained agents of the preset trackable come with this")
    assert run("classify", good, *READY) == (0, "")
    export_pretrained(good, tmp_path / "package")
    assert run("classify", "--pretrained", "trackable", *READY) == (0, "")
    study = tmp_path / "runs" / "pretrained" / "trackable"
    assert "classification/auroc/kept" in records_of(study)
    assert run("profile", "--pretrained", "trackable", "--episodes", 20, "--workers", 0) == (0, "")
    options = ["--methods", "blank", "--episodes", 60, "--workers", 0]
    assert run("finetune", "--pretrained", "trackable", *options) == (0, "")
    assert {"profiles/deceptive/difference_to_honest", "finetune/blank/verdict"} <= set(records_of(study))
    assert run("report", "--pretrained", "trackable", "--output", tmp_path / "copy") == (0, "")
    assert (tmp_path / "copy" / "report.html").exists()
    other = make_ready(tmp_path / "other", ready_config(seeds=(5, 6)))[0].path
    refuse(
        run("report", "--pretrained", "trackable", "--output", other), "holds something else than the trained agents"
    )
    refuse(run("report", "--pretrained", "traceable"), "there is no preset 'traceable'")
    refuse(run("classify", "--pretrained", "paper"), "come with this version, only for trackable")
    refuse(run("classify"), "name one study: a directory, or a preset with --pretrained")
    refuse(run("classify", good, "--pretrained", "trackable"), "name one study")
    refuse(run("classify", good, "--output", tmp_path / "copy"), "--output is the place of a copy, so it needs --pre")
