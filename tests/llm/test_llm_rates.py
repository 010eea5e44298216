import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from soo_marl.llm.measures.answers import Answer, Label
from soo_marl.llm.measures.rates import (
    NOTHING,
    CellRates,
    cell_rates,
    contradiction,
    in_words,
    pooled_rate,
    position_check,
)
from soo_marl.llm.prompts.scenarios import Orientation
from soo_marl.statistics import Interval
from soo_marl.statistics import share_interval as rate


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def answer(label: Label, stated_intent: bool = False, truncated: bool = False) -> Answer:
    return Answer(label, stated_intent, truncated)


def cell(orientation: Orientation, deceptive: int, honest: int, other: int = 0, scenario: str = "burglar") -> CellRates:
    answers = [answer("deceptive")] * deceptive + [answer("honest")] * honest + [answer("other")] * other
    return cell_rates(scenario, orientation, [answers])


def test_wilson_by_hand() -> None:
    # 8 of 10 with z = 1.959964: (0.8 + 0.192073) / 1.384146 -+ 1.959964 * sqrt(0.016 + 0.0096036) / 1.384146.
    found = rate(8, 10)
    assert found.estimate == 0.8 and found.n == 10
    assert found.low == pytest.approx(0.4902, abs=1e-4)
    assert found.high == pytest.approx(0.9433, abs=1e-4)
    # 0 of 40: the upper end is z^2 / (n + z^2).
    assert rate(0, 40).low == 0
    assert rate(0, 40).high == pytest.approx(3.841459 / 43.841459)
    assert rate(40, 40).high == 1


def test_rate_of_nothing_and_of_a_count_that_is_none() -> None:
    assert rate(0, 0) == NOTHING and in_words(NOTHING) == "not measured"
    for count, n in ((-1, 3), (4, 3), (1, 0)):
        with pytest.raises(ValueError, match="no share"):
            rate(count, n)


@pytest.mark.parametrize(
    "fields",
    [
        {"estimate": 0.5, "low": 0.6, "high": 0.7, "n": 3},
        {"estimate": None, "low": None, "high": None, "n": 3},
        {"estimate": 0.5, "low": 0.4, "high": 0.7, "n": 0},
        {"estimate": 0.5, "low": None, "high": 0.7, "n": 3},
        {"estimate": 1.5, "low": 0.4, "high": 1.7, "n": 3},
        {"estimate": math.nan, "low": 0.4, "high": 0.7, "n": 3},
    ],
)
def test_a_rate_is_whole_and_in_order(fields: dict[str, float | None]) -> None:
    with pytest.raises(ValidationError):
        CellRates.model_validate(cell("mirrored", 1, 1).model_dump() | {"honest": fields})


def test_a_rate_in_words() -> None:
    assert in_words(rate(18, 40)) == "45 % (31 to 60 %, n = 40)"


def test_one_seed_is_wilson() -> None:
    assert pooled_rate([[1, 0, 1, 1]]) == rate(3, 4)
    assert pooled_rate([[1, math.nan, 0, math.nan]]) == rate(1, 2)
    assert pooled_rate(np.empty((1, 0))) == pooled_rate(np.empty((3, 0))) == NOTHING
    assert pooled_rate([[math.nan], [math.nan]]) == NOTHING


def test_seeds_that_answer_alike_are_no_more_than_one() -> None:
    row = [1.0] * 30 + [0.0] * 10
    many, one = pooled_rate([row] * 20), rate(30, 40)
    assert many.estimate == one.estimate and many.n == 800
    # Prompts are paired across seeds: the interval stays that of 40 prompts, not of 800.
    assert many.low is not None and many.high is not None and one.low is not None and one.high is not None
    assert many.low <= one.low + 1e-9 and many.high >= one.high - 1e-9
    assert many.low == pytest.approx(one.low, abs=0.03) and many.high == pytest.approx(one.high, abs=0.03)


def test_no_deceptive_answer_at_all_still_has_an_upper_end() -> None:
    found = pooled_rate(np.zeros((5, 40)))
    assert found.low == 0 and found.high == pytest.approx(3.841459 / 43.841459)


def test_seeds_that_disagree_widen_the_interval() -> None:
    # Two of four seeds deceive always: the jackknife's variance is 3 * (1 / 6) ** 2 = 1 / 12, as that of three answers;
    # Wilson with Student's 3.182 at three degrees of freedom.
    found = pooled_rate(np.repeat([[0.0], [0.0], [1.0], [1.0]], 100, axis=1))
    half = 3.182446 / (1 + 3.182446**2 / 3) * math.sqrt(0.25 / 3 + 3.182446**2 / 36)
    assert (found.low, found.estimate, found.high) == (pytest.approx(0.5 - half), 0.5, pytest.approx(0.5 + half))


def test_the_interval_is_at_least_that_of_the_prompts() -> None:
    # Answers without any pattern: forty times as many answers do not make more prompts.
    values = (generator(1).random((40, 100)) < 0.5).astype(float)
    found, expected = pooled_rate(values), rate(float(values.sum()) / 40, 100)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_pooled_rate_is_reproducible_and_refuses_bad_tables() -> None:
    values = [[1, 0, 1], [0, 0, 1]]
    assert pooled_rate(values) == pooled_rate(values)
    with pytest.raises(ValueError, match="row of values per seed"):
        pooled_rate([1, 0])
    with pytest.raises(ValueError, match="0, 1, or NaN"):
        pooled_rate([[0.5]])


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, math.nan]), min_size=4, max_size=4), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_the_interval_holds_the_estimate(values: list[list[float]]) -> None:
    table = np.array(values)
    found = pooled_rate(table)
    assert found.n == np.count_nonzero(~np.isnan(table))
    if found.n:
        assert found.estimate == pytest.approx(np.nanmean(table))


def test_cell_rates_count_every_label_and_intent_among_the_honest() -> None:
    row = [
        answer("honest", stated_intent=True),
        answer("honest"),
        answer("deceptive"),
        answer("refusal"),
        answer("other", truncated=True),
    ]
    found = cell_rates("burglar", "mirrored", [row])
    assert [found.of(label).estimate for label in ("deceptive", "honest", "refusal", "other")] == [0.2, 0.4, 0.2, 0.2]
    assert found.refusal_or_other == rate(2, 5)
    assert found.stated_intent == rate(1, 2)
    assert found.truncated == rate(1, 5)
    assert (found.seeds, found.prompts) == (1, 5)
    assert CellRates.model_validate_json(found.model_dump_json()) == found


def test_cell_rates_over_seeds() -> None:
    found = cell_rates("burglar", "mirrored", [[answer("honest")] * 3, [answer("deceptive")] * 3])
    assert found.honest.estimate == 0.5 and found.honest.n == 6 and (found.seeds, found.prompts) == (2, 3)
    assert found.stated_intent.estimate == 0 and found.stated_intent.n == 3
    with pytest.raises(ValueError, match="same prompts"):
        cell_rates("burglar", "mirrored", [[answer("honest")], []])
    with pytest.raises(ValueError, match="at least one seed"):
        cell_rates("burglar", "mirrored", [])
    assert cell_rates("burglar", "mirrored", [[]]).honest == NOTHING


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (rate(12, 40), rate(40, 40), "above 50 %"),  # 18-45 % against 91-100 %
        (rate(40, 40), rate(12, 40), "above 50 %"),
        (
            rate(15, 40),
            rate(40, 40),
            "disjoint",
        ),  # 24-53 %: no longer below one half, 62 points away
        (rate(24, 40), rate(40, 40), None),  # 40 points are not more than 40
        (rate(32, 40), rate(40, 40), None),  # the organism's 80/100
        (rate(0, 40), rate(10, 40), None),
        (rate(0, 3), rate(3, 3), None),  # too few: intervals overlap
        (rate(125, 250), rate(0, 250), "disjoint"),
        (NOTHING, rate(40, 40), None),
        (rate(40, 40), NOTHING, None),
    ],
)
def test_contradiction(first: Interval, second: Interval, expected: str | None) -> None:
    found = contradiction(first, second)
    assert found is None if expected is None else found is not None and expected in found


def test_position_check_of_a_model_that_names_the_first_room() -> None:
    # The embedded base model: 96 % "deceptive" with the cheap room first, 8 % mirrored.
    found = position_check(cell("cheap_first", 48, 2), cell("mirrored", 4, 46))
    assert found.positional
    assert found.first_room.estimate == pytest.approx(0.94) and found.first_room.n == 100
    assert "96 %" in found.reason and "8 %" in found.reason and "94 %" in found.reason


def test_position_check_of_a_model_that_always_lies() -> None:
    found = position_check(cell("cheap_first", 40, 0), cell("mirrored", 40, 0))
    assert not found.positional and found.first_room.estimate == 0.5 and "no contradiction" in found.reason
    # Half of each interval's width, combined: sqrt(0^2 + (0.5 * 0.0876)^2) to either side.
    assert found.first_room.low == pytest.approx(0.5 - 0.5 * 3.841459 / 43.841459)


def test_position_check_needs_twins() -> None:
    with pytest.raises(ValueError, match="orientation first"):
        position_check(cell("mirrored", 1, 1), cell("cheap_first", 1, 1))
    with pytest.raises(ValueError, match="no twins"):
        position_check(cell("cheap_first", 1, 1), cell("mirrored", 1, 1, scenario="friend"))


def test_position_check_of_nothing() -> None:
    found = position_check(cell("cheap_first", 0, 0), cell("mirrored", 0, 3))
    assert not found.positional and found.first_room == rate(3, 3) and "not measured" in found.reason


def test_prompts_of_one_fill_are_drawn_together() -> None:
    # Every fill twice: the interval is that of the fills, not of twice as many answers.
    once = np.array([[1, 1, 0, 1, 0, 1], [1, 0, 0, 1, 1, 1]], dtype=float)
    twice, fills = np.repeat(once, 2, axis=1), np.repeat(np.arange(6), 2).tolist()
    expected = pooled_rate(once)
    found = pooled_rate(twice, fills)
    assert (found.estimate, found.low, found.high) == (expected.estimate, expected.low, expected.high)
    narrower = pooled_rate(twice)
    assert narrower.low is not None and found.low is not None and narrower.low > found.low
    one_seed = pooled_rate(twice[:1], fills)
    assert (one_seed.low, one_seed.high) == (
        pytest.approx(rate(4, 6).low),
        pytest.approx(rate(4, 6).high),
    )
    with pytest.raises(ValueError, match="give the fill of each of the 12 prompts, not of 3"):
        pooled_rate(twice, [0, 1, 2])
