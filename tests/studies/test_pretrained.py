"""Agents that come with the package: made from a study, copied to a study, and never mixed up."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))

from ready_study import draw_nothing, make_ready, ready_config

from soo_marl.engines import Compute
from soo_marl.storage.files import RunDirectoryError, write_bytes
from soo_marl.storage.records import read_list
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines import pretrained as module
from soo_marl.studies.baselines.classification import ClassificationConfig
from soo_marl.studies.baselines.pretrained import export_pretrained, pretrained_presets, pretrained_study
from soo_marl.studies.baselines.study import classify, read_study, train_and_evaluate, write_results
from soo_marl.studies.finetuning.study import finetuning_config, treatments_of
from soo_marl.studies.learning.records import AgentRecord, LearningCurve
from soo_marl.studies.profiles.study import profile_study

HERE = Compute(workers=0)


class NothingToDo:
    """Fails where something is trained or evaluated."""

    def __init__(self, *allowed: str) -> None:
        self.allowed = allowed

    @contextmanager
    def task(self, name: str, total: float, shards: int) -> Iterator[Callable[[int, float], None]]:
        assert name in self.allowed
        yield lambda shard, units: None


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of three seeds. Not to be changed."""
    with pytest.MonkeyPatch.context() as context:
        draw_nothing(context)
        directory, config = make_ready(tmp_path_factory.mktemp("study") / "study")
        agents = train_and_evaluate(config, directory, NothingToDo("evaluation"), HERE)
        write_results(directory, agents, None, "soo-marl train")
    return directory.path


@pytest.fixture
def package(tmp_path: Path, study: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with the agents of that study, of two of its seeds; returns the folder of its agents."""
    monkeypatch.setattr(module, "PRETRAINED", tmp_path / "package")
    monkeypatch.chdir(tmp_path)
    draw_nothing(monkeypatch)
    return export_pretrained(study, tmp_path / "package", seeds=(2, 0))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_an_export_holds(package: Path, study: Path) -> None:
    assert package.name == "trackable"
    assert set(contents(package)) == {
        "study.json",
        *(f"{kind}/seed_{seed}/agent.safetensors" for kind in ("honest", "deceptive") for seed in (0, 2)),
        "results/agents.json",
        "results/curves.json",
        "steps/train.json",
        "steps/evaluate.json",
    }
    directory, config = read_study(package)
    assert config == ready_config(seeds=(2, 0)) and directory.manifest.seeds == (2, 0)
    assert directory.manifest.created == StudyDirectory.read(study).manifest.created
    assert directory.done("train") and directory.done("evaluate")
    for seed in (0, 2):
        name = f"deceptive/seed_{seed}/agent.safetensors"
        assert (package / name).read_bytes() == (study / name).read_bytes()
    everyone = read_list(study / "results" / "agents.json", AgentRecord)
    kept = read_list(package / "results" / "agents.json", AgentRecord)
    assert kept == [agent for agent in everyone if agent.seed != 1] and len(kept) == 4


def test_curves_are_those_of_the_seeds_that_are_kept(package: Path, study: Path) -> None:
    whole = read_list(study / "results" / "curves.json", LearningCurve)
    kept = read_list(package / "results" / "curves.json", LearningCurve)
    assert [curve.metric for curve in kept] == [curve.metric for curve in whole] and whole
    for ours, theirs in zip(kept, whole, strict=True):
        assert ours.values == (theirs.values[2], theirs.values[0]), "in the order asked for"
        assert ours.mean == pytest.approx(np.array(ours.values, dtype=np.float64).mean(axis=0))


def test_everything_works_with_a_copy(package: Path, tmp_path: Path) -> None:
    path = pretrained_study("trackable")
    assert path == Path("runs/pretrained/trackable")
    assert {name: content for name, content in contents(path).items() if "lock" not in name} == contents(package)
    directory, config = read_study(path)
    agents = train_and_evaluate(config, directory, NothingToDo(), HERE)
    assert {agent.seed for agent in agents} == {0, 2}
    settings = ClassificationConfig(evaluation_seeds=1, episodes=(1,), probe_steps=10)
    found = classify(config, directory, agents, settings, NothingToDo("classification"), HERE)
    write_results(directory, agents, found, "soo-marl classify --pretrained trackable")
    profile_study(config, directory, NothingToDo("profiles"), "soo-marl profile", episodes=10, compute=HERE)
    assert finetuning_config(directory, config, treatments_of(("soo",))).seeds == (2, 0)
    before = contents(path)
    assert pretrained_study("trackable") == path and contents(path) == before, "it is left as it is"


def test_what_is_missing_is_copied_again(package: Path, tmp_path: Path) -> None:
    path = pretrained_study("trackable", tmp_path / "copy")
    agent = path / "honest" / "seed_2" / "agent.safetensors"
    before = load_file(agent)
    agent.unlink()
    (path / "results" / "agents.json").unlink()
    assert not read_study(path)[0].done("train")
    pretrained_study("trackable", path)
    after = load_file(agent)
    assert read_study(path)[0].done("train") and all(torch.equal(after[name], before[name]) for name in before)


def test_a_copy_that_was_cut_off_is_no_study_and_is_finished(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []

    def killed(path: Path, content: bytes) -> None:
        calls.append(path)
        if len(calls) == 4:
            raise KeyboardInterrupt
        write_bytes(path, content)

    with monkeypatch.context() as context:
        context.setattr(module, "write_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            pretrained_study("trackable", tmp_path / "copy")
    assert not (tmp_path / "copy" / "study.json").exists() and len(contents(tmp_path / "copy")) > 3
    (tmp_path / "copy" / ".x.0123456789abcdef.soo-marl-partial").write_text("")
    path = pretrained_study("trackable", tmp_path / "copy")
    assert read_study(path)[0].done("evaluate")


def test_other_folders_are_left_alone(package: Path, study: Path, tmp_path: Path) -> None:
    message = "holds something else than the trained agents that come with soo-marl; name another output"
    other = Path(shutil.copytree(study, tmp_path / "other"))
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "thesis.tex").write_text("x")
    for folder in (other, thesis):
        before = contents(folder)
        with pytest.raises(RunDirectoryError, match=message):
            pretrained_study("trackable", folder)
        assert contents(folder) == before
    with pytest.raises(RunDirectoryError, match="is a file, not a folder; name another output folder"):
        pretrained_study("trackable", thesis / "thesis.tex")
    with pytest.raises(RunDirectoryError, match="cannot write"):
        pretrained_study("trackable", thesis / "thesis.tex" / "below")


def test_newer_agents_are_not_mixed_with_older_ones(package: Path, study: Path, tmp_path: Path) -> None:
    path = pretrained_study("trackable")
    shutil.rmtree(package)
    export_pretrained(study, package.parent, seeds=(0, 1))
    with pytest.raises(RunDirectoryError, match="holds something else"):
        pretrained_study("trackable", path)


def test_presets_without_agents(package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert pretrained_presets() == ("trackable",)
    with pytest.raises(
        RunDirectoryError,
        match="no trained agents of the preset paper come with this version, only for trackable; train some with: "
        "soo-marl train --preset paper",
    ):
        pretrained_study("paper")
    with pytest.raises(ValueError, match="there is no preset 'traceable'; choose one of"):
        pretrained_study("traceable")
    monkeypatch.setattr(module, "PRETRAINED", tmp_path / "nothing")
    assert pretrained_presets() == ()
    with pytest.raises(RunDirectoryError, match="no trained agents of the preset trackable come with this version; tr"):
        pretrained_study("trackable")
    assert not (tmp_path / "runs").exists()


def test_exports_that_cannot_be(package: Path, study: Path, tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="is there already; delete it first"):
        export_pretrained(study, package.parent)
    with pytest.raises(ValueError, match=r"there are no agents with the seed 7 in .*; its seeds are \(0, 1, 2\)"):
        export_pretrained(study, tmp_path / "new", seeds=(7,))
    unfinished, _ = make_ready(tmp_path / "unfinished")
    with pytest.raises(RunDirectoryError, match="is not trained to the end; run the command that began it again, then"):
        export_pretrained(unfinished.path, tmp_path / "new")
    damaged = Path(shutil.copytree(study, tmp_path / "damaged"))
    agent = damaged / "honest" / "seed_1" / "agent.safetensors"
    agent.write_bytes(agent.read_bytes()[:-10])
    with pytest.raises(RunDirectoryError, match=r"agent\.safetensors"):
        export_pretrained(damaged, tmp_path / "new")
    shutil.copy(study / "honest" / "seed_1" / "agent.safetensors", agent)
    (damaged / "results" / "curves.json").write_text("[")
    with pytest.raises(RunDirectoryError, match="curves"):
        export_pretrained(damaged, tmp_path / "new", seeds=(0, 2))
    assert not (tmp_path / "new" / "trackable").exists(), "nothing half is left behind"
    assert export_pretrained(study, tmp_path / "new", name="mine").name == "mine"
