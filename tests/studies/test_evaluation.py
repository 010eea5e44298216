import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from soo_marl.agents import MADDPG
from soo_marl.deception import BehaviourRates
from soo_marl.envs import preset
from soo_marl.report.refresh import film_baselines
from soo_marl.storage.files import RunDirectoryError, read_json, write_json
from soo_marl.storage.records import FigureRecord, read_list
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.storage.tensor_files import write_tensors
from soo_marl.studies.baselines.evaluation import EPISODES_FILE, agent_records, collect_curves, evaluate_baselines
from soo_marl.studies.baselines.findings import stopped_count
from soo_marl.studies.baselines.study import open_study, summary
from soo_marl.studies.learning.agents_on_disk import Stop, agent_spaces, save_agents
from soo_marl.studies.learning.recipes import BaselineConfig
from soo_marl.studies.learning.records import AgentRecord, LearningCurve

Tiny = Callable[..., BaselineConfig]
Trained = tuple[BaselineConfig, StudyDirectory]


def rates(**changes: list[float]) -> BehaviourRates:
    """Rates of two competent agents, but for the changes."""
    values = {
        "goal_rate": [0.9, 0.9],
        "goal_rate_alone": [1.0, math.nan],
        "trap_rate": [0.2, 0.2],
        "following_rate": [0.95, 0.95],
        "red_goal_rate": [0.7, 0.7],
        "rubric_rate": [0.3, 0.3],
        "rubric_rate_en_route": [0.1, 0.1],
    }
    return BehaviourRates(**{name: torch.tensor(value) for name, value in (values | changes).items()})


def untrained(config: BaselineConfig, path: Path) -> StudyDirectory:
    """A study with agents on disk that nobody trained."""
    directory = open_study(path, config)
    for kind in config.kinds:
        save_agents(directory, kind, MADDPG(agent_spaces(config.game), config.maddpg, config.seeds, stream=kind))
    return directory


def test_records_of_agents(tiny: Tiny) -> None:
    deceptive = rates(trap_rate=[0.9, 0.4])
    records = agent_records(
        tiny(seeds=(3, 8)),
        {"honest": rates(), "deceptive": deceptive},
        {"honest": [10.0, 11.0], "deceptive": [-1.0, 2.0]},
        {},
    )
    assert [(record.kind, record.seed, record.competent) for record in records] == [
        ("honest", 3, True),
        ("honest", 8, True),
        ("deceptive", 3, True),
        ("deceptive", 8, False),
    ]
    assert records[1].goal_rate_alone is None
    assert records[0].goal_rate == pytest.approx(0.9) and records[2].episode_return == -1.0
    assert records[3].reasons == ("trap rate minus that of the honest agent of the same seed is 0.2, not above 0.3",)


def test_stopped_agents_are_never_competent(tiny: Tiny) -> None:
    records = agent_records(
        tiny(seeds=(3, 8)),
        {"honest": rates(), "deceptive": rates(trap_rate=[0.9, 0.4])},
        {"honest": [10.0, 11.0], "deceptive": [-1.0, 2.0]},
        {("deceptive", 3): Stop("lure", 1250), ("deceptive", 8): Stop("follow", 0)},
    )
    assert [record.competent for record in records] == [True, True, False, False]
    assert [record.stopped for record in records] == [
        None,
        None,
        "lure, after 1,250 updates: values exploded or were not finite",
        "follow, after 0 updates: values exploded or were not finite",
    ]
    assert records[2].reasons == (f"training was stopped in {records[2].stopped}",)
    assert records[3].reasons[0] == f"training was stopped in {records[3].stopped}" and len(records[3].reasons) == 2
    summed = {record.name: record for record in summary(records, None, "")}
    assert summed["deceptive/stopped"].estimate == 1.0 and "honest/stopped" not in summed
    assert stopped_count(records) == [
        "Agents whose training broke down and was stopped: 2 of 2 deceptive; they count among the others, as they were "
        "when they were last in order."
    ]
    assert stopped_count(records[:2]) == []


def test_evaluation_reads_who_was_stopped(tiny: Tiny, study: Path) -> None:
    config = tiny()
    directory = untrained(config, study)
    learner = MADDPG(agent_spaces(config.game), config.maddpg, config.seeds)
    save_agents(directory, "honest", learner, [None, Stop("settle", 4)])
    records = evaluate_baselines(config, directory)
    assert [(record.kind, record.seed) for record in records if record.stopped] == [("honest", 1)]
    assert records == read_list(directory.results / "agents.json", AgentRecord)


def test_one_kind_alone_is_not_judged(tiny: Tiny) -> None:
    records = agent_records(tiny(kinds=("honest",)), {"honest": rates()}, {"honest": [0.0, 0.0]}, {})
    assert not any(record.competent for record in records)
    assert records[0].reasons == ("the other kind was not trained beside it",)


def test_evaluation_writes_records_and_episodes_to_film(trained: Trained, tmp_path: Path, tiny: Tiny) -> None:
    config = tiny()
    directory = untrained(config, tmp_path / "study")
    records = evaluate_baselines(config, directory)
    assert records == evaluate_baselines(config, directory) == read_list(directory.results / "agents.json", AgentRecord)
    assert [(record.kind, record.seed) for record in records] == [
        (kind, seed) for kind in ("honest", "deceptive") for seed in config.seeds
    ]
    assert all(record.goal_rate is not None and record.goal_rate_alone is not None for record in records)
    for _ in range(2):
        film_baselines(directory)
        figures = read_list(directory.results / "figures.json", FigureRecord)
        assert [figure.file for figure in figures] == ["episode_honest.gif", "episode_deceptive.gif"]
    with Image.open(directory.figures / "episode_honest.gif") as animation:
        assert animation.n_frames > 1  # type: ignore[attr-defined]
    (directory.results / EPISODES_FILE).unlink()
    film_baselines(directory)
    assert read_list(directory.results / "figures.json", FigureRecord) == figures, "films of before stay"
    write_tensors(directory.results / EPISODES_FILE, {"honest/goal": torch.tensor(2)})
    with pytest.raises(RunDirectoryError, match=r"episodes\.safetensors does not fit: .*; delete it"):
        film_baselines(directory)


def test_blues_that_were_never_alone_have_no_rate_alone(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(regime="joint", stages=tiny().stages[:1])
    records = evaluate_baselines(config, untrained(config, tmp_path / "study"))
    assert {record.goal_rate_alone for record in records} == {None}


def test_short_episodes_and_few_of_them_can_be_evaluated(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(
        game=preset("trackable").replace(episode_length=3), evaluation_episodes=2, evaluation_alone_share=0.99
    )
    directory = untrained(config, tmp_path / "study")
    records = evaluate_baselines(config, directory)
    assert {record.trap_rate for record in records} == {None}, "no episode had a red"
    film_baselines(directory)
    assert read_list(directory.results / "figures.json", FigureRecord) == []


def test_curves_of_all_seeds_are_gathered(trained: Trained) -> None:
    config, directory = trained
    curves = collect_curves(config, directory)
    assert curves == read_list(directory.results / "curves.json", LearningCurve)
    by_name = {(curve.stage, curve.kind, curve.metric): curve for curve in curves}
    assert {key[:2] for key in by_name} == {
        ("follow", "honest"),
        ("lure", "honest"),
        ("settle", "honest"),
        ("lure", "deceptive"),
        ("settle", "deceptive"),
    }
    curve = by_name["settle", "deceptive", "return_blue"]
    assert curve.updates == (2, 4, 6)
    for row, seed in zip(curve.values, config.seeds, strict=True):
        stored = read_json(directory.agent_directory("deceptive", seed) / "curves.json")
        assert list(row) == stored["settle"]["return_blue"]
    assert curve.mean == pytest.approx(np.mean(curve.values, axis=0))
    assert ("follow", "honest", "goal_rate_alone") not in by_name, "a metric without any value has no curve"


def test_damaged_curves_are_named(tiny: Tiny, study: Path) -> None:
    config = tiny()
    directory = open_study(study, config)
    with pytest.raises(RunDirectoryError, match=r"red/seed_0/curves\.json is missing"):
        collect_curves(config, directory)
    for seed in config.seeds:
        write_json(directory.agent_directory("red", seed) / "curves.json", {"follow": {"updates": "many"}})
    with pytest.raises(RunDirectoryError, match=r"red/seed_0/curves\.json does not fit: follow\.updates"):
        collect_curves(config, directory)


def test_stages_without_a_log_entry_have_no_curve(tiny: Tiny, study: Path) -> None:
    config = tiny()
    directory = open_study(study, config)
    for condition in ("red", "honest", "deceptive"):
        for seed in config.seeds:
            write_json(directory.agent_directory(condition, seed) / "curves.json", {"lure": {}, "settle": {}})
    assert collect_curves(config, directory) == []
