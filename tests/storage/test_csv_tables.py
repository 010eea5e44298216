"""Records as CSV."""

import csv
from pathlib import Path

from soo_marl.storage.records import Interval, write_csv
from soo_marl.studies.finetuning.records import ConditionSummary, TreatedAgent


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
