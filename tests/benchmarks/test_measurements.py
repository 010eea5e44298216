"""Medians, intervals, ratios, and the choice of the best."""

import pytest

from benchmarks import timing
from benchmarks.measurements import best, measurement, merged


def test_record_is_the_median_with_its_interval() -> None:
    record = measurement("a", [5.0, 1.0, 2.0, 4.0, 3.0], "s", "remark").record("command")
    assert (record.name, record.estimate, record.n, record.unit) == ("a", 3.0, 5, "s")
    assert (record.command, record.text) == ("command", "remark")
    assert record.low is not None and record.high is not None
    assert 1.0 <= record.low < 3.0 < record.high <= 5.0


def test_one_value_has_no_interval() -> None:
    record = measurement("a", 7.0, "MiB").record("command")
    assert (record.estimate, record.low, record.high, record.n) == (7.0, None, None, 1)


def test_equal_values_have_a_degenerate_interval() -> None:
    record = measurement("a", [2.0, 2.0, 2.0], "s").record("command")
    assert (record.low, record.estimate, record.high) == (2.0, 2.0, 2.0)


def test_values_of_one_name_are_merged_in_place() -> None:
    found = merged([measurement("r", [1.0, 2.0], "s"), measurement("x", 9.0, "s"), measurement("r", [3.0], "s")])
    assert [(one.name, list(one.values)) for one in found] == [("r", [1.0, 2.0, 3.0]), ("x", [9.0])]


def test_best_says_which_it_is() -> None:
    given = [measurement(f"a/n_{n}/ratio", values, "×") for n, values in ((1, [2.0, 3.0]), (64, [8.0, 9.0]))]
    (found,) = best(given, "a/n_*/ratio", "a/ratio")
    assert (found.name, list(found.values)) == ("a/ratio", [8.0, 9.0])
    assert found.text is not None and found.text.endswith("a/n_64/ratio")
    assert best(given, "b/*", "b") == []


def test_interleaving_times_all_in_turn_and_every_second_time_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    calls: list[str] = []

    def work(name: str, units: float, seconds: float) -> timing.Work:
        def do() -> float:
            nonlocal clock
            clock += seconds
            calls.append(name)
            return units

        return do

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock)
    works = {"slow": work("slow", 10.0, 2.0), "fast": work("fast", 10.0, 0.5)}
    rates = timing.interleaved(works, repeats=2, seconds=1.0)
    warm_up, forwards, backwards = ["slow", "fast"], ["slow", "fast", "fast"], ["fast", "fast", "slow"]
    assert calls == warm_up + forwards + backwards
    assert list(rates["slow"]) == [5.0, 5.0]
    assert list(rates["fast"] / rates["slow"]) == [4.0, 4.0]
