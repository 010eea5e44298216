from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from soo_marl.engines import Compute
from soo_marl.report.refresh import refresh, unfinished
from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.records import Interval, Record, read_list, read_one, write_list, write_one
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.classification import ClassificationConfig
from soo_marl.studies.baselines.study import (
    classify,
    merge_results,
    open_study,
    read_study,
    summary,
    train_and_evaluate,
    write_results,
)
from soo_marl.studies.learning.profile_records import ProfileDifference, ProfileRecord, ProfileResult
from soo_marl.studies.learning.recipes import BaselineConfig
from soo_marl.studies.learning.records import AgentRecord, Classification, ClassificationRow, ProtocolCurve

Tiny = Callable[..., BaselineConfig]
FEW = ClassificationConfig(evaluation_seeds=1, episodes=(1, 2), probe_steps=10)
MORE = ClassificationConfig(evaluation_seeds=1, episodes=(2, 3), probe_steps=10)


class Tasks:
    """Takes down which tasks ran."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.totals: dict[str, float] = {}
        self.done: dict[tuple[str, int], float] = {}

    @contextmanager
    def task(self, name: str, total: float, shards: int) -> Iterator[Callable[[int, float], None]]:
        self.names.append(name)
        self.totals[name] = total

        def advance(shard: int, units: float) -> None:
            assert 0 <= shard < shards
            self.done[name, shard] = units

        yield advance


def agents(**changes: object) -> list[AgentRecord]:
    return [
        AgentRecord.model_validate(
            {"kind": kind, "seed": seed, "goal_rate": 0.5 + seed / 10, "competent": seed > 0} | changes
        )
        for kind in ("honest", "deceptive")
        for seed in range(3)
    ]


def found(*episodes: int) -> Classification:
    interval = Interval(estimate=0.9, low=0.8, high=1.0, n=6)
    rows = [
        ClassificationRow(
            form=form,
            layers=layers,
            pairing=pairing,
            auroc=interval,
            leave_one_out=interval,
            recall_at_5_percent=interval,
        )
        for form in ("published", "kept")
        for layers in ("both", "hidden_1")
        for pairing in ("imagined_red", "perspective")
    ]
    share = tuple(0.5 for _ in episodes)
    curve = ProtocolCurve(episodes=episodes, mean=share, standard_deviation=share, low=share, high=share, pairs=9)
    return Classification(rows=tuple(rows), protocol={"published": curve, "kept": curve})


def test_summary_of_behaviour() -> None:
    records = {record.name: record for record in summary(agents(), None, "soo-marl train")}
    assert list(records) == ["honest/goal_rate", "deceptive/goal_rate", "honest/competent", "deceptive/competent"]
    goal = records["honest/goal_rate"]
    assert goal.estimate == pytest.approx(0.6)
    assert (goal.n, goal.unit, goal.command) == (3, "share", "soo-marl train")
    assert goal.low is not None and goal.high is not None and goal.low < 0.6 < goal.high
    assert records["honest/competent"].estimate == pytest.approx(2 / 3)


def test_rates_that_nobody_has_are_left_out() -> None:
    assert not [record for record in summary(agents(), None, "") if "alone" in record.name]
    assert summary([], None, "") == []


def test_summary_of_a_classification() -> None:
    records = {record.name: record for record in summary(agents(), found(1, 100, 500), "soo-marl demo")}
    assert [name for name in records if name.startswith("classification/")] == [
        "classification/auroc/published",
        "classification/auroc/kept",
        "classification/published_protocol/accuracy_100",
        "classification/published_protocol/accuracy_500",
    ]
    assert records["classification/auroc/kept"].n == 6
    assert records["classification/published_protocol/accuracy_500"].n == 9
    fewer = [record.name for record in summary(agents(), found(1, 99), "soo-marl demo")]
    assert not [name for name in fewer if "accuracy" in name]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, trained: tuple[BaselineConfig, StudyDirectory]) -> BaselineConfig:
    """The configuration of a study of one stage per kind, quick to train."""
    config = trained[0]
    return config.model_copy(
        update={"seeds": (0, 1), "regime": "joint", "stages": config.stages[:1], "evaluation_episodes": 10}
    )


def test_nothing_is_done_twice_and_settings_are_told_apart(small: BaselineConfig, study: Path) -> None:
    directory, tasks = open_study(study, small), Tasks()
    agents = train_and_evaluate(small, directory, tasks, compute=Compute(workers=0))
    assert tasks.names == ["training", "evaluation"]
    assert tasks.done["training", 0] == tasks.totals["training"] == small.updates == 12
    few = classify(small, directory, agents, FEW, tasks, compute=Compute(workers=0))
    assert tasks.names == ["training", "evaluation", "classification"]
    assert tasks.totals["classification"] == sum(
        units for (name, _), units in tasks.done.items() if name == "classification"
    )

    again = Tasks()
    assert train_and_evaluate(small, directory, again, compute=Compute(workers=0)) == agents
    assert classify(small, directory, agents, FEW, again, compute=Compute(workers=0)) == few
    assert again.names == []

    # As many episodes as before, and the same largest number: still other settings.
    more = classify(small, directory, agents, MORE, again, compute=Compute(workers=0))
    assert again.names == ["classification"]
    assert more.protocol["kept"].episodes == (2, 3)
    back = classify(small, directory, agents, FEW, again, compute=Compute(workers=0))
    assert back == few == read_one(directory.results / "classification.json", Classification)


def test_a_damaged_classification_is_made_anew(small: BaselineConfig, study: Path) -> None:
    directory, tasks = open_study(study, small), Tasks()
    agents = train_and_evaluate(small, directory, tasks, compute=Compute(workers=0))
    first = classify(small, directory, agents, FEW, tasks, compute=Compute(workers=0))
    (directory.results / "classification.json").write_text("{")
    assert classify(small, directory, agents, FEW, tasks, compute=Compute(workers=0)) == first


def test_training_again_keeps_what_a_classification_found(small: BaselineConfig, study: Path) -> None:
    directory = open_study(study, small)
    write_results(directory, agents(), found(100), "soo-marl classify")
    write_results(directory, agents(), None, "soo-marl train")
    records = read_list(directory.results / "summary.json", Record)
    assert {record.name: record.command for record in records} == {
        "honest/goal_rate": "soo-marl train",
        "deceptive/goal_rate": "soo-marl train",
        "honest/competent": "soo-marl train",
        "deceptive/competent": "soo-marl train",
        "classification/auroc/published": "soo-marl classify",
        "classification/auroc/kept": "soo-marl classify",
        "classification/published_protocol/accuracy_100": "soo-marl classify",
    }


def record(name: str, command: str = "soo-marl other", text: str | None = None) -> Record:
    return Record(name=name, estimate=0.5, low=0.25, high=0.75, n=4, unit="share", command=command, text=text)


def names(directory: StudyDirectory) -> list[str]:
    return [found.name for found in read_list(directory.results / "summary.json", Record)]


BESIDE = ["finetune/soo/trap_rate", "finetune/soo/verdict"]


@pytest.fixture
def beside(small: BaselineConfig, study: Path) -> StudyDirectory:
    """A study with a fine-tuning study's summary in its folder."""
    directory = open_study(study, small)
    finetuned = [record("soo/trap_rate", "soo-marl finetune x"), record("soo/verdict", text="blind")]
    write_list(study / "finetune" / "results" / "summary.json", finetuned)
    return directory


def test_the_fine_tuning_beside_a_study_is_part_of_its_summary(beside: StudyDirectory) -> None:
    given = write_results(beside, agents(), found(100), "soo-marl demo")
    assert given == read_list(beside.results / "summary.json", Record)
    assert names(beside)[-2:] == BESIDE
    assert given[-1].text == "blind" and given[-2].command == "soo-marl finetune x"

    # Neither another command nor doing it again adds them twice, and what is new there replaces what was.
    write_results(beside, agents(), None, "soo-marl train")
    assert [name for name in names(beside) if name.startswith("finetune/")] == BESIDE
    assert "classification/auroc/kept" in names(beside)
    write_list(beside.path / "finetune" / "results" / "summary.json", [record("none/trap_rate")])
    assert [found.name for found in merge_results(beside)] == names(beside)
    assert [name for name in names(beside) if name.startswith("finetune/")] == ["finetune/none/trap_rate"]
    assert "classification/auroc/kept" in names(beside) and "honest/goal_rate" in names(beside)


def test_a_damaged_summary_beside_a_study_is_left_out_and_named_on_the_page(beside: StudyDirectory) -> None:
    (beside.path / "finetune" / "results" / "summary.json").write_text("[{")
    write_results(beside, agents(), found(100), "soo-marl demo")
    assert not [name for name in names(beside) if name.startswith("finetune/")]
    assert "finetune/results/summary.json is not readable JSON" in refresh(beside.path).read_text()


def test_notes_stay_until_they_are_replaced(beside: StudyDirectory) -> None:
    write_results(beside, agents(), found(100), "soo-marl demo")
    note = record("note/competent_seeds", text="nothing was fine-tuned: too few")
    assert merge_results(beside, [note])[-3:] == [note, *read_list(beside.results / "summary.json", Record)[-2:]]
    write_results(beside, agents(), found(500), "soo-marl classify")
    merge_results(beside)
    assert names(beside).count("note/competent_seeds") == 1
    assert "nothing was fine-tuned: too few" in refresh(beside.path).read_text()
    merge_results(beside, [])
    assert "note/competent_seeds" not in names(beside)


def test_profiles_beside_a_study_are_part_of_its_summary(beside: StudyDirectory) -> None:
    interval = Interval(estimate=0.5, low=0.25, high=0.75, n=4)
    profile = ProfileRecord(
        condition="deceptive",
        agents=4,
        opportunities=interval,
        rubric_rate=interval,
        goal_rate=interval,
        goal_rate_alone=interval,
        trap_rate=interval,
        to_honest=ProfileDifference(rate_based=interval),
        to_deceptive=ProfileDifference(),
    )
    result = ProfileResult(command="soo-marl profile x", episodes=10, conditions=(profile,))
    write_one(beside.results / "profiles.json", result)
    write_results(beside, agents(), None, "soo-marl train")
    assert names(beside)[-3:] == ["profiles/deceptive/difference_to_honest", *BESIDE]
    assert merge_results(beside)[-3].command == "soo-marl profile x"
    assert names(beside).count("profiles/deceptive/difference_to_honest") == 1


def test_a_report_of_what_is_there_says_what_was_in_the_way(beside: StudyDirectory) -> None:
    assert refresh(beside.path) == beside.report
    assert names(beside) == BESIDE and beside.report.exists()
    assert unfinished(beside.path) == ["training", "evaluation", "classification"]
    (beside.results / "summary.json").write_text("{")
    beside.report.unlink()
    with pytest.raises(RunDirectoryError, match=r"summary\.json is not readable JSON"):
        refresh(beside.path)
    problems: list[str] = []
    page = refresh(beside.path, problems).read_text()
    (problem,) = problems
    assert "summary.json is not readable JSON" in problem
    assert "summary.json is not readable JSON" in page


def test_steps_that_are_not_done(small: BaselineConfig, study: Path) -> None:
    directory, tasks = open_study(study, small), Tasks()
    train_and_evaluate(small, directory, tasks, compute=Compute(workers=0))
    assert unfinished(directory.path) == ["classification"]
    (directory.results / "agents.json").unlink()
    assert unfinished(directory.path) == ["evaluation", "classification"]


def test_a_deleted_agent_is_trained_again(small: BaselineConfig, study: Path) -> None:
    directory, tasks = open_study(study, small), Tasks()
    train_and_evaluate(small, directory, tasks, compute=Compute(workers=0))
    file = directory.agent_directory("honest", 1) / "agent.safetensors"
    before = load_file(file)
    file.unlink()
    train_and_evaluate(small, directory, tasks, compute=Compute(workers=0))
    assert tasks.names == ["training", "evaluation", "training"]
    after = load_file(file)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_studies_are_read_back(small: BaselineConfig, study: Path) -> None:
    open_study(study, small)
    directory, config = read_study(study)
    assert (directory.path, config) == (study, small)


def test_studies_of_another_kind_or_version_are_refused(small: BaselineConfig, tmp_path: Path) -> None:
    StudyDirectory.open(tmp_path / "other", "profiles", {}, [0])
    with pytest.raises(RunDirectoryError, match="holds a study of kind profiles, not of baselines"):
        read_study(tmp_path / "other")
    StudyDirectory.open(tmp_path / "old", "baselines", {"seeds": [0]}, [0])
    with pytest.raises(RunDirectoryError, match=r"study\.json does not fit: game: "):
        read_study(tmp_path / "old")
