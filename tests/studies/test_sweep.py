"""Sweeps from end to end, with agents that learn nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from soo_marl.cli import main
from soo_marl.commands.tables.sweep import print_sweep
from soo_marl.engines import Compute, Interrupted
from soo_marl.report.refresh import refresh
from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.records import Record, read_list, read_one
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.study import open_study, read_study
from soo_marl.studies.baselines.training import train_baselines
from soo_marl.studies.learning.recipes import BaselineConfig
from soo_marl.studies.learning.records import AgentRecord
from soo_marl.studies.sweep import study as module
from soo_marl.studies.sweep.records import SweepResult
from soo_marl.studies.sweep.study import (
    DEFAULT_METRICS,
    SweepConfig,
    compare_points,
    open_sweep,
    read_metrics,
    read_sweep,
    sweep_config,
    sweep_summary,
    train_points,
    write_sweep_results,
)

HERE = Compute(workers=0)
GRID = ["maddpg.tau=0.01,0.05"]
Tiny = Callable[..., BaselineConfig]


class Totals:
    """Takes down how many shards each task has."""

    def __init__(self) -> None:
        self.shards: list[int] = []

    @contextmanager
    def task(self, name: str, total: float, shards: int) -> Iterator[Callable[[int, float], None]]:
        self.shards.append(shards)
        done: dict[int, float] = {}
        yield done.__setitem__
        assert sum(done.values()) == total


class Anything:
    """A display that shows nothing, and asks for nothing."""

    @contextmanager
    def task(self, name: str, total: float, shards: int) -> Iterator[Callable[[int, float], None]]:
        yield lambda shard, units: None


@pytest.fixture
def base(tiny: Tiny) -> BaselineConfig:
    """A study of one short stage, in two shards of one seed each."""
    config = tiny(evaluation_episodes=10, seeds_per_shard=1)
    return config.model_copy(update={"regime": "joint", "stages": config.stages[:1]})


def train(config: SweepConfig, path: Path, display: Totals) -> StudyDirectory:
    directory = open_sweep(path, config)
    train_points(config, directory, display, HERE, "soo-marl sweep")
    return directory


def same_agents(one: Path, other: Path) -> bool:
    names = sorted(path.relative_to(one) for path in one.rglob("agent.safetensors"))
    assert names == sorted(path.relative_to(other) for path in other.rglob("agent.safetensors")) != []
    pairs = [(load_file(one / name), load_file(other / name)) for name in names]
    return all(torch.equal(ours[key], theirs[key]) for ours, theirs in pairs for key in ours | theirs)


def test_a_point_is_the_study_that_train_makes(base: BaselineConfig, tmp_path: Path) -> None:
    config, display = sweep_config(base, GRID), Totals()
    directory = train(config, tmp_path / "sweep", display)
    assert display.shards == [4], "all shards of all points in one go"

    study, of_point = read_study(directory.path / "points" / "1")
    assert of_point == base.model_copy(update={"maddpg": base.maddpg.model_copy(update={"tau": 0.05})})
    assert study.done("train") and study.done("evaluate")
    alone = open_study(tmp_path / "alone", of_point)
    train_baselines(of_point, alone, compute=HERE)
    assert same_agents(study.path, alone.path)
    assert not same_agents(study.path, directory.path / "points" / "0")

    result = write_sweep_results(config, directory, read_metrics(DEFAULT_METRICS, config), "soo-marl sweep")
    assert read_one(directory.results / "sweep.json", SweepResult) == result
    assert {point.number: point.values for point in result.points} == {0: {"maddpg.tau": 0.01}, 1: {"maddpg.tau": 0.05}}
    agents = read_list(study.results / "agents.json", AgentRecord)
    (point,) = [point for point in result.points if point.number == 1]
    rates = tuple(agent.trap_rate for agent in agents if agent.kind == "deceptive")
    assert point.metrics["deceptive/trap_rate"].values == rates and result.unfinished == 0
    names = [record.name for record in read_list(directory.results / "summary.json", Record)]
    assert names[0] == "best/deceptive/trap_rate" and names[2] == "matters/deceptive/trap_rate/maddpg.tau"
    assert refresh(directory.path) == directory.figures
    assert (directory.figures / "what_mattered_deceptive_trap_rate.png").exists()
    assert read_sweep(directory.path)[1] == config


def test_nothing_is_done_twice(base: BaselineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = sweep_config(base, GRID)
    reference = train(config, tmp_path / "reference", Totals())

    calls = 0

    def interrupted(*arguments: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            options["stop"] = lambda: True
        train_shard(*arguments, **options)

    train_shard = module.train_shard
    monkeypatch.setattr(module, "train_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "sweep", Totals())
    monkeypatch.undo()
    directory = open_sweep(tmp_path / "sweep", config)
    finished = {path: path.stat().st_mtime_ns for path in (directory.path / "points" / "0").rglob("[!.]*.*")}
    metrics = read_metrics(DEFAULT_METRICS, config)
    partial = write_sweep_results(config, directory, metrics, "soo-marl sweep")
    assert ([point.number for point in partial.points], partial.unfinished) == ([0], 1)

    display = Totals()
    train(config, directory.path, display)
    assert display.shards == [2], "those of the point that was not finished"
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    train(config, directory.path, display)
    assert display.shards == [2], "nothing is left to do"
    for number in ("0", "1"):
        assert same_agents(directory.path / "points" / number, reference.path / "points" / number)
    results = [write_sweep_results(config, study, metrics, "soo-marl sweep") for study in (directory, reference)]
    assert results[0] == results[1]

    (directory.path / "points" / "1" / "honest" / "seed_0" / "agent.safetensors").unlink()
    train(config, directory.path, display)
    assert same_agents(directory.path / "points" / "1", reference.path / "points" / "1")


def test_a_point_killed_before_its_agents_were_measured(
    base: BaselineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = sweep_config(base, GRID)

    def fail(*_: object) -> None:
        raise Interrupted

    monkeypatch.setattr(module, "train_and_evaluate", fail)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "sweep", Totals())
    monkeypatch.undo()
    directory = train(config, tmp_path / "sweep", Totals())
    assert all(len(read_list(path, AgentRecord)) == 4 for path in directory.path.glob("points/*/results/agents.json"))


def test_another_sweep_in_the_same_directory_is_refused(base: BaselineConfig, tmp_path: Path) -> None:
    open_sweep(tmp_path, sweep_config(base, GRID))
    with pytest.raises(
        RunDirectoryError, match=r"configuration.points.1.values.maddpg.tau is 0.05 there and 0.1 here|axes"
    ):
        open_sweep(tmp_path, sweep_config(base, ["maddpg.tau=0.01,0.1"]))
    with pytest.raises(RunDirectoryError, match="holds a study of kind sweep, not of baselines"):
        read_study(tmp_path)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "at least one --metric"),
        (["deceptive/trap"], "no metric 'deceptive/trap'; did you mean deceptive/trap_rate?"),
        (["wealth"], "no metric 'wealth'; choose KIND/MEASURE, for example deceptive/trap_rate"),
    ],
)
def test_metrics_that_nobody_knows(names: list[str], words: str, base: BaselineConfig) -> None:
    with pytest.raises(ValueError, match=words.replace("?", r"\?")):
        read_metrics(names, sweep_config(base, GRID))


def test_metrics_that_a_point_cannot_have(base: BaselineConfig) -> None:
    config = sweep_config(base, ['kinds=["honest","deceptive"],["honest"]'])
    for name in ("deceptive/trap_rate", "both/goal_rate", "honest/competent"):
        with pytest.raises(ValueError, match=f"the metric {name} needs deceptive agents, which this study does not"):
            read_metrics([name], config)
    assert [metric.name for metric in read_metrics(["honest/return"] * 2, config)] == ["honest/return"]


def agents(rate: float | None, competent: bool = True) -> list[AgentRecord]:
    return [
        AgentRecord.model_validate(
            {"kind": kind, "seed": seed, "trap_rate": rate if kind == "deceptive" else 0.0, "competent": competent}
        )
        for kind in ("honest", "deceptive")
        for seed in (0, 1)
    ]


def test_points_are_compared_by_the_first_metric(base: BaselineConfig) -> None:
    config = sweep_config(base, ["maddpg.tau=0.01,0.02,0.05,0.1"])
    metrics = read_metrics(["both/trap_rate", "both/competent"], config)
    result = compare_points(config, {0: agents(None), 1: agents(0.4), 3: agents(0.8, competent=False)}, metrics)
    assert [point.number for point in result.points] == [3, 1, 0], "a missing value comes last"
    assert result.unfinished == 1
    assert [point.metrics["both/trap_rate"].mean.estimate for point in result.points] == [0.4, 0.2, None]
    assert result.points[0].metrics["both/competent"].values == (0.0, 0.0)

    best, competent, *axes = sweep_summary(result, "soo-marl sweep")
    assert (best.name, best.estimate, best.n) == ("best/both/trap_rate", pytest.approx(0.4), 2)
    assert best.text == "point 3: maddpg.tau=0.1; the best of 3 points, so it flatters"
    assert competent.estimate == 0
    assert [record.text for record in axes] == ["too few runs to tell; n counts points"] * 2
    nothing = compare_points(config, {}, metrics)
    assert (nothing.points, nothing.unfinished) == ((), 4)
    assert [record.estimate for record in sweep_summary(nothing, "")] == [None, None]


def test_what_mattered_is_found_over_points_and_seeds(base: BaselineConfig) -> None:
    config = sweep_config(base.model_copy(update={"seeds": (0, 1)}), [*GRID, "maddpg.gamma=0.9,0.95,0.99"])
    measured = {point.number: agents(float(np.float64(point.values["maddpg.tau"]) > 0.02)) for point in config.points}
    result = compare_points(config, measured, read_metrics(DEFAULT_METRICS, config))
    matters = {(record.metric, record.field): record.matters for record in result.axes}
    assert [key for key, value in matters.items() if value] == [("deceptive/trap_rate", "maddpg.tau")]


OPTIONS = [
    *("--seeds", "0", "--workers", "0", "--regime", "joint", "--set", "evaluation_episodes=20"),
    *("--set", "stages.0.training.updates=4", "--set", "stages.0.training.log_every=2"),
    *("--set", "stages.0.training.warm_up=64", "--set", "stages.0.training.batch_size=16"),
]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sweep", "--output", str(tmp_path), *OPTIONS, "--random", "maddpg.tau=log:0.01:0.1", "--points", "2"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "Points by deceptive/trap_rate" in shown and "too few runs" in shown
    assert main(["classify", str(tmp_path / "points" / "1"), "--workers", "0"]) == 2, "one seed is too few"
    assert "at least two seeds" in capsys.readouterr().err
    # Another metric is another question about the same agents.
    assert main([*command, "--metric", "honest/goal_rate"]) == 0
    assert "Points by honest/goal_rate" in capsys.readouterr().out
    result = read_one(tmp_path / "results" / "sweep.json", SweepResult)
    assert result.metrics == ("honest/goal_rate",)
    assert main(["report", str(tmp_path)]) == 0
    best = tmp_path / "points" / str(result.points[0].number)
    assert capsys.readouterr().out == f"Figures: {tmp_path / 'figures'}\nNext:    soo-marl classify {best}\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "nothing to sweep over"),
        (["--grid", "maddpg.tau=0.1,2"], "maddpg.tau: Input should be less than or equal to 1 (given: 2)"),
        (["--grid", "maddpg.taw=0.1,0.2"], "there is no field maddpg.taw; did you mean maddpg.tau?"),
        (["--random", "maddpg.tau=0.1"], "--random takes field=uniform:low:high"),
        ([*("--grid", "maddpg.tau=0.1,0.2"), "--metric", "trap_rate"], "there is no metric 'trap_rate'"),
        ([*("--grid", "maddpg.tau=0.1,0.2"), "--device", "abacus"], "cannot compute on the device 'abacus'"),
        (
            ["--grid", "game.red_goal_reward=NaN,1"],
            "game.red_goal_reward: Input should be a finite number",
        ),
    ],
)
def test_bad_options_are_refused_before_anything_begins(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "--output", str(tmp_path / "sweep"), *OPTIONS, *options]) == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith("soo-marl: ") and stderr.count("\n") == 1 and words in stderr
    assert not (tmp_path / "sweep" / "study.json").exists()


def test_after_ctrl_c_the_finished_points_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run_shards", interrupt)
    assert main(["sweep", "--output", str(tmp_path), *OPTIONS, "--grid", "maddpg.tau=0.1,0.2"]) == 130
    shown = capsys.readouterr()
    assert "2 of 2 points are not finished." in shown.out
    assert "interrupted; nothing is lost, continue with: soo-marl sweep" in shown.err


def test_a_bad_point_keeps_no_other_from_the_table(
    base: BaselineConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One can never fit into memory, one breaks down while it trains, and one has a file that cannot be read."""

    def train_shard(config: BaselineConfig, *arguments: Any, **options: Any) -> None:
        if config.maddpg.hidden_units == 9:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:1] can't allocate memory: you tried 9 bytes")
        undisturbed(config, *arguments, **options)

    undisturbed = module.train_shard
    monkeypatch.setattr(module, "train_shard", train_shard)
    config = sweep_config(base, ["maddpg.hidden_units=8,9,1000000000,16,24"])
    directory = open_sweep(tmp_path / "sweep", config)
    damaged = directory.path / "points" / "4" / "study.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    for _ in range(2):
        failed = train_points(config, directory, Anything(), HERE, "soo-marl sweep")
        assert list(failed) == [2, 4, 1]
        result = write_sweep_results(config, directory, read_metrics(DEFAULT_METRICS, config), "soo-marl sweep", failed)
        assert sorted(point.number for point in result.points) == [0, 3] and result.unfinished == 3
        assert read_one(directory.results / "sweep.json", SweepResult) == result
    assert not (directory.path / "points" / "2").exists()
    print_sweep(result, directory)
    shown = capsys.readouterr().out
    assert "3 of 5 points are not finished." in shown
    assert "• Point 1 failed: this needs more memory than there is" in shown
    assert "• Point 2 failed: maddpg.hidden_units is too large for this machine" in shown
    assert f"• Point 4 failed: {damaged} is not readable JSON" in shown


def test_points_that_changed_places_are_not_taken_for_one_another(base: BaselineConfig, tmp_path: Path) -> None:
    config = sweep_config(base, ["maddpg.tau=0.01,0.05,0.1"])
    directory = train(config, tmp_path / "sweep", Totals())
    points = directory.path / "points"
    for old, new in (("0", "kept"), ("1", "0"), ("kept", "1")):
        (points / old).rename(points / new)
    metrics = read_metrics(DEFAULT_METRICS, config)
    failed = train_points(config, directory, Anything(), HERE, "soo-marl sweep")
    for known in (failed, None):  # without, as after Ctrl-C
        result = write_sweep_results(config, directory, metrics, "soo-marl sweep", known)
        assert [point.number for point in result.points] == [2] and list(result.failed) == [0, 1]
    assert "delete it to train this point anew" in result.failed[0]


def test_a_sweep_without_any_good_point_has_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    huge = ["--grid", "maddpg.hidden_units=1000000000,2000000000"]
    assert main(["sweep", "--output", str(tmp_path), *OPTIONS, *huge]) == 2
    assert "no point of" in capsys.readouterr().err


def test_the_script(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "scripts" / "sweep.py"
    command = [sys.executable, str(script), "--output", str(tmp_path), *OPTIONS, "--grid", "maddpg.tau=0.1,0.2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Points by deceptive/trap_rate" in done.stdout and (tmp_path / "results" / "sweep.json").exists()
    done = subprocess.run([*command, "--grid", "maddpg.taw=1,2"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and done.stderr.startswith("sweep: maddpg.taw=1: ")
