"""Tables of fine-tuning, profiles and reproductions in the terminal: everything fits 80 columns and nothing is cut."""

from pathlib import Path

import pytest

from soo_marl.commands.tables import terminal
from soo_marl.commands.tables.baselines import print_study
from soo_marl.commands.tables.finetuning import print_conditions
from soo_marl.commands.tables.profiles import print_profiles
from soo_marl.commands.tables.reproduction import print_plan
from soo_marl.storage.records import Interval, Record, write_list
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.finetuning.methods import METHODS
from soo_marl.studies.finetuning.records import Claim, ConditionSummary
from soo_marl.studies.learning.profile_records import ProfileDifference, ProfileRecord, ProfileResult
from soo_marl.studies.reproduction.plan import PlannedStep

SHARE = Interval(estimate=0.123, low=0.1, high=0.2, n=10)
LARGE = Interval(estimate=-123.456, low=-200.0, high=100.0, n=10)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyDirectory:
    """A study's directory, and a terminal of 80 columns."""
    monkeypatch.setattr(terminal.console, "width", 80)
    return StudyDirectory.open(tmp_path / "study", "finetune", {}, [0])


def table(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of the table, without trailing blanks; below it stands text."""
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    rows = lines[: next(i for i, line in enumerate(lines) if i > 3 and not line)]
    assert all(len(line) <= 80 for line in rows) and not any("…" in line for line in rows), "\n".join(rows)
    return rows


def test_conditions(directory: StudyDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    names = (
        "trap_rate",
        "goal_rate",
        "goal_rate_alone",
        "relative_sensitivity",
        "relative_seeing_gain",
        "relative_difference_to_honest",
    )
    summaries = [
        ConditionSummary(
            condition=name,
            method=name,
            after=after,
            measures=dict.fromkeys(names, SHARE) | {"relative_seeing_gain": LARGE},
            verdicts={"still deceptive": 7, "honest": 3},
            verdict="still deceptive",
        )
        for name in METHODS
        for after in (False, True)
    ]
    write_list(
        directory.results / "claims.json",
        [Claim(claim="a [claim]", source="", measured="so", estimate=LARGE, holds="no")],
    )
    print_conditions(summaries, directory)
    rows = table(capsys)
    assert [row.split() for row in rows if "condition" in row] == [
        ["condition", "trapped", "goal", "alone", "sees", "gain", "away", "verdicts"]
    ]
    text = " ".join(word for row in rows for word in row.split())
    assert text.count("0.12 0.12 0.12 0.12 -123.46 0.12 7 still") == text.count("3 honest") == len(summaries)
    assert all(name in text for name in METHODS if len(name) < 15), "not broken"
    print_conditions(summaries, directory)
    assert "no a [claim] (so: -123.46 [-200.00, 100.00])" in " ".join(capsys.readouterr().out.split())


def test_profiles(directory: StudyDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    rate = Interval(estimate=0.5, low=0.25, high=0.75, n=10)
    found = ProfileDifference(
        published=Interval(estimate=1_234_567.8, n=10), rate_based=Interval(estimate=0.0781, n=10), relative=rate
    )
    conditions = [
        ProfileRecord(
            condition=name,
            agents=10,
            opportunities=rate,
            rubric_rate=rate,
            goal_rate=rate,
            goal_rate_alone=rate,
            trap_rate=rate,
            competent_share=0.7 if name == "honest" else None,
            to_honest=found if name != "honest" else ProfileDifference(),
            to_deceptive=ProfileDifference(),
        )
        for name in ("honest", "deceptive", "position_difference_any.updates-200")
    ]
    result = ProfileResult(command="x", episodes=5, conditions=tuple(conditions), remark="something is left out")
    print_profiles(result, directory)
    rows = table(capsys)
    assert rows[0].startswith("Deception profiles")
    assert [row.split() for row in rows if row.split()[:1] == ["honest"]] == [["honest", "7/10", "0.50", "–", "–", "–"]]
    (deceptive,) = (row.split() for row in rows if row.split()[:1] == ["deceptive"])
    assert deceptive == ["deceptive", "–/10", "0.50", "0.0781", "0.50", "[0.25,", "0.75]", "1,234,568"]
    print_profiles(result, directory)
    assert "something is left out" in capsys.readouterr().out


def test_a_plan(directory: StudyDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    steps = [
        PlannedStep("trackable", "train", "1,000 seeds × 15,500 updates", 7_200.0, 1_234.0, done=True),
        PlannedStep("trackable", "measure", "31 conditions × 1,000 agents", 90.0, 2.0),
        PlannedStep("watch", "train", "3 seeds × 1 update", 30.0, 0.4),
    ]
    print_plan(steps, 96.4)
    rows = [row.split() for row in table(capsys)]
    assert ["trackable", "train", "1,000", "seeds", "×", "15,500", "updates", "done", "1,234", "MB"] in rows
    assert ["measure", "31", "conditions", "×", "1,000", "agents", "2", "min", "2", "MB"] in rows, "named once"
    print_plan(steps, 96.4)
    said = capsys.readouterr().out
    assert [line.split() for line in said.splitlines() if line.split()[:1] == ["all"]] == [
        ["all", "2", "min", "1,236", "MB"]
    ], "what is done takes no more time"
    assert "Checkpoints take up to 96 MB more" in said


def test_notes_are_read_out_and_fine_tuning_is_not_repeated(
    directory: StudyDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    def record(name: str, text: str | None = None) -> Record:
        return Record(name=name, unit="seeds", command="", text=text, **LARGE.model_dump())

    records = [record("honest/goal_rate"), record("finetune/soo/trap_rate"), record("note/competent_seeds", "Few [2].")]
    print_study([], None, records, directory)
    said = capsys.readouterr().out
    assert "honest/goal_rate" in said and "finetune/" not in said and "• Few [2]." in said
