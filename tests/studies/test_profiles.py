"""Deception profiles of a study of hand-made agents, against plain loops."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from ready_study import STILL, draw_nothing, make_ready, ready_config

from soo_marl.deception import DeceptionProfile, behaviour, deception_profile
from soo_marl.engines import Compute
from soo_marl.report.figures.drawing import draw_profiles
from soo_marl.report.refresh import refresh
from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.records import FigureRecord, Interval, Record, read_list, read_one, write_list
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.storage.tensor_files import read_tensors
from soo_marl.studies.baselines.study import open_study
from soo_marl.studies.finetuning.records import ConditionSummary
from soo_marl.studies.finetuning.study import treatments_of
from soo_marl.studies.learning.agents_on_disk import load_agents
from soo_marl.studies.learning.profile_records import ProfileRecord, ProfileResult
from soo_marl.studies.learning.recipes import BaselineConfig
from soo_marl.studies.learning.rollout import roll_out
from soo_marl.studies.profiles import study as module
from soo_marl.studies.profiles.study import STREAM, profile_study
from soo_marl.studies.reproduction.study import finetune_competent

HERE = Compute(workers=0)
EPISODES = 40
Ready = tuple[StudyDirectory, BaselineConfig]


class Tasks:
    """Takes down which tasks ran."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @contextmanager
    def task(self, name: str, total: float, shards: int) -> Iterator[Callable[[int, float], None]]:
        self.names.append(name)
        yield lambda shard, units: None


def take(ready: Ready, tasks: Tasks | None = None, **changes: Any) -> ProfileResult:
    directory, config = ready
    options: dict[str, Any] = {"episodes": EPISODES, "compute": HERE} | changes
    return profile_study(config, directory, tasks or Tasks(), "soo-marl profile it", **options)


@pytest.fixture(autouse=True)
def without_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """But where a test is about the pictures of profiles."""
    draw_nothing(monkeypatch)
    if "pictures" in request.fixturenames:
        monkeypatch.setattr("soo_marl.report.refresh.draw_profiles", draw_profiles)


@pytest.fixture
def pictures() -> None:
    """Draw profiles all the same."""


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    """Trained agents. Not to be changed, but profiles may be taken."""
    return make_ready(tmp_path_factory.mktemp("ready") / "study")


def row(result: ProfileResult, condition: str) -> ProfileRecord:
    (found,) = (record for record in result.conditions if record.condition == condition)
    return found


def number(interval: Interval) -> float:
    assert interval.estimate is not None
    return interval.estimate


def test_numbers_are_those_of_plain_loops(ready: Ready) -> None:
    directory, config = ready
    result = take(ready)
    assert [record.condition for record in result.conditions] == ["honest", "deceptive"]
    counts, rates, totals, goal = {}, {}, {}, {}
    for kind in ("honest", "deceptive"):
        agents = load_agents(directory, kind, config.seeds, config.game, config.maddpg)
        trajectories, _ = roll_out(agents, config.evaluation_game, EPISODES, STREAM)
        profile = deception_profile(trajectories)
        counts[kind] = profile.counts.double().numpy()
        totals[kind] = profile.total_opportunities.double().numpy()
        rates[kind] = counts[kind] / totals[kind][:, None, None]
        goal[kind] = behaviour(trajectories, config.game.landmark_radius).goal_rate.double().numpy()

    deceptive, honest = row(result, "deceptive"), row(result, "honest")
    for grids, measured in ((counts, deceptive.to_honest.published), (rates, deceptive.to_honest.rate_based)):
        per_run = [np.mean((grid - grids["honest"].mean(0)) ** 2) for grid in grids["deceptive"]]
        assert number(measured) == pytest.approx(np.mean(per_run))
        assert measured.n == 3 and measured.low is not None and measured.low < np.mean(per_run)
    scale = np.mean([np.mean((grid - rates["honest"].mean(0)) ** 2) for grid in rates["deceptive"]])
    assert number(deceptive.to_honest.relative) == pytest.approx(1.0)
    others = [np.delete(rates["honest"], run, axis=0).mean(0) for run in range(3)]
    own = [np.mean((rates["honest"][run] - others[run]) ** 2) for run in range(3)]
    assert number(honest.to_honest.relative) == pytest.approx(np.mean(own) / scale)
    assert honest.to_honest.rate_based.estimate is None and deceptive.to_deceptive == type(deceptive.to_deceptive)()
    assert number(honest.to_deceptive.published) > 0 and honest.to_deceptive.relative.estimate is None
    for kind, record in (("honest", honest), ("deceptive", deceptive)):
        assert number(record.goal_rate) == pytest.approx(goal[kind].mean())
        assert number(record.opportunities) == totals[kind].mean()
        assert (record.agents, record.missing, record.finetuned) == (3, 0, False)
        assert record.competent_share == (goal[kind] > config.gate.goal_rate).mean()


def test_what_is_on_disk(ready: Ready) -> None:
    directory = ready[0]
    result = take(ready)
    assert read_one(directory.results / "profiles.json", ProfileResult) == result
    tensors, metadata = read_tensors(directory.results / "profiles.safetensors", finite=False)
    assert metadata["settings"] == f"{EPISODES} episodes" and metadata["study"] == directory.owner
    assert tensors["counts/honest"].shape == (3, 100, 100) and tensors["counts/honest"].dtype == torch.int32
    assert tensors["goal_rate/deceptive"].shape == (3,)
    records = {record.name: record for record in read_list(directory.results / "summary.json", Record)}
    assert set(records) == {
        "profiles/deceptive/difference_to_honest",
        "profiles/deceptive/published_difference_to_honest",
    }
    found = records["profiles/deceptive/difference_to_honest"]
    difference = row(result, "deceptive").to_honest.rate_based
    assert (found.estimate, found.low, found.n) == (difference.estimate, difference.low, 3)
    assert found.command == "soo-marl profile it"


def test_nothing_is_played_twice_but_with_other_settings(ready: Ready) -> None:
    directory, tasks = ready[0], Tasks()
    (directory.results / "profiles.safetensors").unlink(missing_ok=True)
    first = take(ready, tasks)
    assert tasks.names == ["profiles"]
    assert take(ready, tasks) == first and tasks.names == ["profiles"]
    fewer = take(ready, tasks, episodes=EPISODES // 2)
    assert tasks.names == ["profiles"] * 2
    assert number(row(fewer, "honest").opportunities) < number(row(first, "honest").opportunities)


@pytest.mark.slow
def test_workers_give_the_same(ready: Ready) -> None:
    first = take(ready)
    (ready[0].results / "profiles.safetensors").unlink()
    assert take(ready, compute=Compute(workers=2)) == first


def test_a_damaged_file_is_named(ready: Ready) -> None:
    take(ready)
    file = ready[0].results / "profiles.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(RunDirectoryError, match=r"profiles\.safetensors .*; delete it to make it anew"):
        take(ready)
    file.unlink()
    take(ready)


def test_bad_input(tmp_path: Path, ready: Ready) -> None:
    with pytest.raises(ValueError, match="a profile needs at least one episode, not 0"):
        take(ready, episodes=0)
    config = ready_config()
    with pytest.raises(RunDirectoryError, match="is not trained to the end; run the command that began it again, then"):
        take((open_study(tmp_path / "study", config), config))


def test_one_kind_alone_has_no_differences(tmp_path: Path) -> None:
    result = take(make_ready(tmp_path / "study", ready_config(kinds=("deceptive",), seeds=(4,))))
    (found,) = result.conditions
    assert found.condition == "deceptive" and found.to_honest.rate_based.estimate is None
    assert result.records() == []
    assert (found.goal_rate.low, found.goal_rate.n) == (None, 1)


@pytest.mark.parametrize("kind", ["honest", "deceptive"])
def test_agents_without_any_opportunity(
    kind: str, tmp_path: Path, pictures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing_of(original: Any) -> Any:
        def changed(config: Any, path: Any, of: str, *rest: Any, **keywords: Any) -> Any:
            found = original(config, path, of, *rest, **keywords)
            profile: DeceptionProfile = found.profile
            empty = replace(
                profile,
                counts=profile.counts * 0,
                opportunities=profile.opportunities * 0,
                total_opportunities=profile.total_opportunities * 0,
            )
            return replace(found, profile=empty) if of == kind else found

        return changed

    monkeypatch.setattr(module, "profile_shard", nothing_of(module.profile_shard))
    ready = make_ready(tmp_path / "study")
    result = take(ready)
    found = row(result, kind)
    assert (found.missing, number(found.opportunities)) == (3, 0.0)
    for record in result.conditions:
        assert record.to_honest.rate_based.estimate is None and record.to_honest.relative.estimate is None
        assert record.to_deceptive.rate_based.estimate is None
    refresh(ready[0].path)
    assert (ready[0].figures / "profiles.png").exists()


def test_pictures_are_listed_after_what_is_there(tmp_path: Path, pictures: None) -> None:
    ready = make_ready(tmp_path / "study")
    directory = ready[0]
    write_list(directory.results / "figures.json", [FigureRecord(file="roc.png", caption="A curve.")])
    for _ in range(2):
        take(ready)
        refresh(directory.path)
        listed = [record.file for record in read_list(directory.results / "figures.json", FigureRecord)]
        assert listed == ["roc.png", "profiles.png", "profile_differences.png"]
    assert (directory.figures / "profile_differences.svg").exists()
    page = directory.report.read_text()
    assert "Deception profiles of the baselines" in page and "published difference to honest" in page


def test_fine_tuned_agents_are_held_against_the_baselines_measured_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = make_ready(tmp_path / "study")
    directory, config = ready
    monkeypatch.setattr("soo_marl.studies.reproduction.study.competent_seeds", lambda *_: config.seeds)
    monkeypatch.setattr("soo_marl.studies.finetuning.study.competent_seeds", lambda *_: config.seeds)
    changes = {"after_updates": 0, "evaluation_episodes": 60, "monitor_episodes": 0}
    treatments = treatments_of(("soo", "blank"), updates=3)
    assert finetune_competent(config, directory, treatments, changes, Tasks(), "finetune", HERE).why_not is None
    result = take(ready)
    assert [(record.condition, record.finetuned) for record in result.conditions] == [
        ("honest", False),
        ("deceptive", False),
        ("soo.updates-3", True),
        ("blank", True),
    ]
    summaries = read_list(directory.path / "finetune" / "results" / "conditions.json", ConditionSummary)
    for summary in summaries:
        if summary.condition in ("soo.updates-3", "blank"):
            found = row(result, summary.condition)
            for ours, theirs in (
                (found.to_honest.rate_based, "difference_to_honest"),
                (found.to_honest.published, "published_difference_to_honest"),
                (found.to_deceptive.rate_based, "difference_to_deceptive"),
                (found.to_honest.relative, "relative_difference_to_honest"),
                (found.goal_rate, "goal_rate"),
            ):
                assert number(ours) == pytest.approx(summary.measures[theirs].estimate), (summary.condition, theirs)

    retrained = make_ready(tmp_path / "retrained", deceptive=STILL)
    shutil.copytree(directory.path / "finetune", retrained[0].path / "finetune")
    foreign = take(retrained)
    assert [record.condition for record in foreign.conditions] == ["honest", "deceptive"]
    assert foreign.remark is not None and "treated other agents than those here" in foreign.remark

    (directory.path / "finetune" / "measures" / "blank.safetensors").unlink()
    unfinished = take(ready)
    assert [record.condition for record in unfinished.conditions] == ["honest", "deceptive"]
    assert unfinished.remark is not None and "finetune is not finished, so its agents are left out" in unfinished.remark


def test_the_same_agents_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deceptive blues that are the honest ones lie as far from these as they lie from one another."""
    monkeypatch.setattr(module, "load_agents", lambda place, kind, *rest: load_agents(place, "honest", *rest))
    result = take(make_ready(tmp_path / "study", ready_config(seeds=(0, 1))))
    honest, deceptive = row(result, "honest"), row(result, "deceptive")
    # The mean of the other one of two lies twice as far away as the mean of both, which is four times the square.
    assert number(honest.to_honest.relative) == pytest.approx(4.0)
    assert number(deceptive.to_honest.relative) == pytest.approx(1.0)
