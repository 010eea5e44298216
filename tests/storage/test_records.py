import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from soo_marl.statistics import RocPoints
from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.records import (
    FigureRecord,
    Interval,
    Record,
    read_list,
    read_one,
    record_from_values,
    write_csv,
    write_list,
    write_one,
)
from soo_marl.studies.finetuning.records import ConditionSummary, TreatedAgent
from soo_marl.studies.learning.records import (
    AgentRecord,
    Classification,
    LearningCurve,
    OverlapValue,
    ProtocolCurve,
    learning_curve,
)


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def test_rates_have_a_range_and_other_numbers_do_not() -> None:
    rate = record_from_values("competent", [1.0] * 10, "share of agents", "soo-marl demo", generator())
    assert rate.estimate == rate.high == 1 and rate.low == pytest.approx(0.05**0.1, abs=0.01)
    number = record_from_values("return", [200.0, 210.0, 190.0], "reward", "soo-marl demo", generator())
    assert number.high == pytest.approx(200 + 4.302653 * 10 / math.sqrt(3))


def test_missing_values_do_not_count() -> None:
    record = record_from_values("goal rate", [0.5, float("nan"), 0.7], "share", "soo-marl demo", generator())
    assert (record.estimate, record.n) == (pytest.approx(0.6), 2)
    assert record.text == "1 of 3 values are missing"
    assert record_from_values("goal rate", [0.5, 0.7], "share", "soo-marl demo", generator()).text is None


def test_records_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "results" / "summary.json"
    records = [
        Record(name="a", estimate=0.5, low=0.4, high=0.6, n=8, unit="share", command="soo-marl demo"),
        Record(name="b", estimate=float("nan"), low=None, high=np.float32("nan"), n=0, unit="", command="x", text="é"),
    ]
    write_list(path, records)
    assert read_list(path, Record) == records
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert stored[1]["estimate"] is None and stored[1]["high"] is None
    assert list(stored[0]) == ["name", "estimate", "low", "high", "n", "unit", "command", "text"]


def test_agents_are_stored_with_return(tmp_path: Path) -> None:
    agent = AgentRecord(kind="honest", seed=3, goal_rate=0.9, episode_return=12.5, competent=False, reasons=("slow",))
    write_list(tmp_path / "agents.json", [agent])
    stored = json.loads((tmp_path / "agents.json").read_text())
    assert stored[0]["return"] == 12.5 and stored[0]["trap_rate"] is None
    assert read_list(tmp_path / "agents.json", AgentRecord) == [agent]


def test_classification_round_trip(tmp_path: Path) -> None:
    content = Classification(
        values={"mse": (OverlapValue(kind="honest", seed=0, value=None),)},
        protocol={"mse": ProtocolCurve(episodes=(1, 2), mean=(0.5, 1.0), standard_deviation=(0.1, 0.0), pairs=3)},
        roc={"mse": RocPoints(false_positive_rate=(0, 1), true_positive_rate=(0, 1))},
        findings=("found",),
    )
    write_one(tmp_path / "classification.json", content)
    assert read_one(tmp_path / "classification.json", Classification) == content


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_text('[{"name": "a", "estimate": "much", "n": 1, "unit": "", "command": ""}]')
    with pytest.raises(RunDirectoryError, match=r"summary\.json does not fit: 0\.estimate: "):
        read_list(path, Record)
    path.write_text("{}")
    with pytest.raises(RunDirectoryError, match=r"summary\.json does not fit: the whole"):
        read_list(path, Record)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Interval(estimate=0.5, low=0.6, high=0.4, n=2),
        lambda: Interval(estimate=float("inf"), n=2),
        lambda: Record(name="a", estimate=1, low=2, high=1, n=1, unit="", command=""),
        lambda: AgentRecord(kind="honest", seed=0, goal_rate=1.5, competent=True),
        lambda: ProtocolCurve(episodes=(1,), mean=(0.5, 0.6), standard_deviation=(0.1,), pairs=1),
        lambda: RocPoints(false_positive_rate=(0,), true_positive_rate=(0, 1)),
        lambda: LearningCurve(stage="a", kind="b", metric="c", updates=(1, 2), values=((1.0,),)),
        lambda: FigureRecord(file="../secret.png", caption=""),
        lambda: FigureRecord(file="page.html", caption=""),
    ],
)
def test_inconsistent_records_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValidationError):
        make()


def test_learning_curve_has_an_interval_at_every_point() -> None:
    values = [[0.0, 1.0, float("nan")], [1.0, 1.0, 0.25]]
    curve = learning_curve("blue", "honest", "goal_rate", [0, 10, 20], values, generator())
    assert curve.mean == (0.5, 1.0, 0.25)
    assert curve.low is not None and curve.high is not None
    assert curve.low[0] is not None and 0 < curve.low[0] < 0.5 and curve.low[2] is None
    assert curve.high[1:] == (1.0, None) and curve.low[1] is not None and curve.low[1] < 0.9
    assert curve.values[0][2] is None
    with pytest.raises(ValueError, match=r"shape \[seeds, 2\]"):
        learning_curve("blue", "honest", "goal_rate", [0, 10], values, generator())


def test_a_line_per_record_with_nested_fields_as_columns(tmp_path: Path) -> None:
    rate = Interval(estimate=0.5, low=0.25, high=0.75, n=4)
    summaries = [
        ConditionSummary(
            condition="soo", method="soo", measures={"trap_rate": rate}, verdicts={"honest": 3, "blind": 1}
        ),
        ConditionSummary(condition="a, b", method="none", measures={}, verdicts={}),
    ]
    write_csv(tmp_path / "table.csv", summaries)
    with (tmp_path / "table.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["condition"], first["measures.trap_rate.low"], first["verdicts.honest"]) == ("soo", "0.25", "3")
    assert (second["condition"], second["measures.trap_rate.low"], second["verdicts.honest"]) == ("a, b", "", "")


def test_names_are_those_of_the_json_and_lists_are_joined(tmp_path: Path) -> None:
    agent = TreatedAgent(condition="soo", seed=3, episode_return=1.5, reasons=("one", "two"))
    write_csv(tmp_path / "table.csv", [agent])
    with (tmp_path / "table.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["return"], row["reasons"], row["goal_rate"]) == ("1.5", "one; two", "")


def test_no_records_leave_an_empty_table(tmp_path: Path) -> None:
    write_csv(tmp_path / "table.csv", [])
    assert (tmp_path / "table.csv").read_text().strip() == ""
