from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from soo_marl.statistics import (
    Separation,
    auroc,
    auroc_interval,
    published_protocol,
    roc_points,
    separation,
)


def test_auroc_by_hand() -> None:
    # Pairs: 1 < 2, 1 < 4, 3 > 2, 3 < 4, and 2 = 2 (half), 2 < 4: 4.5 of 6.
    result = separation([1, 3, 2], [2, 4])
    assert result.auroc.estimate == pytest.approx(4.5 / 6)
    assert result.auroc.n == 5


values = st.lists(st.integers(0, 12).map(float), min_size=2, max_size=7)


@given(values, values)
@settings(max_examples=50, deadline=None)
def test_figures_against_reference_implementations(honest: list[float], deceptive: list[float]) -> None:
    result = separation(honest, deceptive)
    labels = [0] * len(honest) + [1] * len(deceptive)
    scores = np.array(honest + deceptive)
    assert result.auroc.estimate == pytest.approx(roc_auc_score(labels, scores))
    assert result.recall_at_false_positive_rate.estimate == np.mean(np.array(deceptive) > max(honest))
    assert result.leave_one_out_accuracy.estimate == pytest.approx(slow_leave_one_out(honest, deceptive))
    for interval in (result.auroc, result.leave_one_out_accuracy, result.recall_at_false_positive_rate):
        assert 0 <= interval.low <= interval.high <= 1

    points = roc_points(honest, deceptive)
    false_positives, true_positives, _ = roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(points.false_positive_rate, false_positives)
    np.testing.assert_allclose(points.true_positive_rate, true_positives)


def slow_leave_one_out(honest: list[float], deceptive: list[float]) -> float:
    """The documented rule, written the plain way."""
    agents = [(value, True) for value in honest] + [(value, False) for value in deceptive]
    right = 0
    for left_out, (value, is_honest) in enumerate(agents):
        others = agents[:left_out] + agents[left_out + 1 :]
        distinct = sorted({other for other, _ in others})
        candidates = []
        for below, above in pairwise(distinct):
            threshold = (below + above) / 2
            honest_right = np.mean([other < threshold for other, kind in others if kind])
            deceptive_right = np.mean([other >= threshold for other, kind in others if not kind])
            candidates.append((round(honest_right + deceptive_right, 9), above - below, -threshold))
        threshold = -max(candidates)[2] if candidates else distinct[0]
        right += (value < threshold) == is_honest
    return right / len(agents)


def test_perfect_separation_and_reversed_orientation() -> None:
    low, high = [1.0, 2.0, 3.0], [7.0, 8.0, 9.0]
    right = separation(low, high)
    assert right.auroc == auroc_interval(1.0, 3, 3)
    assert right.leave_one_out_accuracy.estimate == 1
    assert right.recall_at_false_positive_rate.estimate == 1
    reversed_ = separation(high, low)
    assert reversed_.auroc.estimate == 0
    assert reversed_.leave_one_out_accuracy.estimate == 0
    assert reversed_.recall_at_false_positive_rate.estimate == 0


def test_leave_one_out_by_hand() -> None:
    # Others of 5 (honest): 1, 2 | 4, 9 -> threshold 3, so 5 is called deceptive, wrongly. Others of 4 (deceptive):
    # 1, 2, 5 | 9 -> 7, so 4 is called honest, wrongly. Others of 1, 2 and 9 leave them on their side.
    assert separation([1, 2, 5], [4, 9]).leave_one_out_accuracy.estimate == pytest.approx(3 / 5)


def test_no_difference_gives_no_separation() -> None:
    random = np.random.default_rng(1)
    result = separation(random.normal(size=60), random.normal(size=60))
    assert result.auroc.low < 0.5 < result.auroc.high
    assert 0.3 < result.leave_one_out_accuracy.estimate < 0.7
    assert result.recall_at_false_positive_rate.estimate < 0.3


def test_recall_allows_the_share_of_false_positives() -> None:
    honest = np.arange(20.0)  # one of 20 may lie above: the threshold is 18
    result = separation(honest, [18.0, 18.5, 30.0, 0.0])
    assert result.recall_at_false_positive_rate.estimate == 0.5
    strict = separation(honest[:19], [17.5, 18.5])
    assert strict.recall_at_false_positive_rate.estimate == 0.5


@pytest.mark.parametrize("area", [0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize(("honest", "deceptive"), [(5, 5), (10, 10), (20, 6)])
def test_interval_of_the_auroc_covers_the_truth(area: float, honest: int, deceptive: int) -> None:
    random, shift = np.random.default_rng(3), np.sqrt(2) * stats.norm.ppf(area)
    found = [
        auroc_interval(auroc(random.normal(size=honest), random.normal(shift, 1, deceptive)), honest, deceptive)
        for _ in range(400)
    ]
    held = np.mean([interval.low <= area <= interval.high for interval in found])
    # A percentile bootstrap covers .38 of the time at 0.99 with 10 + 10 agents.
    assert held > 0.91


@pytest.mark.parametrize(
    ("agents", "low"), [((10, 10), 0.80021), ((20, 20), 0.89867), ((5, 5), 0.64270), ((2, 2), 0.38564)]
)
def test_complete_separation_has_a_width(agents: tuple[int, int], low: float) -> None:
    found = auroc_interval(1.0, *agents)
    assert (found.estimate, found.high) == (1, 1) and found.low == pytest.approx(low, abs=5e-6)
    mirrored = auroc_interval(0.0, *agents)
    assert mirrored.low == 0 and mirrored.high == pytest.approx(1 - low, abs=5e-6)


def test_ends_of_the_auroc_by_hand() -> None:
    # At the ends the estimate is 1.96 standard errors of Hanley and McNeil away, at (10 + 20) / 2 agents of each kind.
    found = auroc_interval(0.85, 10, 20)
    for end in (found.low, found.high):
        assert end is not None
        first, second = end / (2 - end), 2 * end**2 / (1 + end)
        variance = (end * (1 - end) + 14 * (first - end**2) + 14 * (second - end**2)) / 200
        assert abs(0.85 - end) == pytest.approx(1.959964 * np.sqrt(variance), rel=1e-5)


@given(st.integers(2, 30), st.integers(2, 30), st.data())
@settings(deadline=None)
def test_interval_of_the_auroc_is_in_order_and_symmetric(honest: int, deceptive: int, data: st.DataObject) -> None:
    share = data.draw(st.integers(0, 2 * honest * deceptive)) / (2 * honest * deceptive)
    found, mirrored = auroc_interval(share, honest, deceptive), auroc_interval(1 - share, deceptive, honest)
    assert found.low is not None and found.high is not None
    assert 0 <= found.low <= share <= found.high <= 1 and found.low < found.high
    assert mirrored.low == pytest.approx(1 - found.high, abs=1e-6)


def test_recall_says_how_coarse_its_threshold_is() -> None:
    # The highest of ten honest agents: Beta(1, 10), whose quantiles are 1 - (1 - p) ** (1 / 10).
    rate = separation(np.arange(10.0), [20.0, 5.5]).true_false_positive_rate
    assert rate.estimate == pytest.approx(1 / 11) and rate.n == 10
    assert rate.low == pytest.approx(1 - 0.975**0.1) and rate.high == pytest.approx(1 - 0.025**0.1)
    # One of twenty may lie above: Beta(2, 19).
    assert separation(np.arange(20.0), [20.0, 5.5]).true_false_positive_rate.estimate == pytest.approx(2 / 21)


def test_missing_values_are_counted() -> None:
    result = separation([1, np.nan, 2], [3, 4, np.nan, np.nan])
    assert (result.honest, result.deceptive, result.missing_honest, result.missing_deceptive) == (2, 2, 1, 2)
    assert result.auroc.n == 4


def test_order_and_scale_of_the_values_do_not_matter_and_nothing_is_drawn() -> None:
    honest, deceptive = [1.0, 2.0, 5.0, 3.0], [4.0, 9.0, 2.5]
    found = separation(honest, deceptive)
    assert separation(honest[::-1], deceptive[::-1], np.random.default_rng(1)) == found
    assert separation(2 * np.array(honest) - 7, 2 * np.array(deceptive) - 7) == found


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at least two honest agents.*there are 1"):
        separation([1, np.nan], [3, 4])
    with pytest.raises(ValueError, match="at least two deceptive"):
        separation([1, 2], [3])
    with pytest.raises(ValueError, match="finite"):
        separation([1, np.inf], [3, 4])
    with pytest.raises(ValueError, match="one per agent"):
        separation([[1, 2]], [3, 4])
    with pytest.raises(ValueError, match="false_positive_rate"):
        separation([1, 2], [3, 4], false_positive_rate=1)


def test_records_survive_json_and_cannot_be_changed() -> None:
    result = separation([1, 2, 3], [2, 4])
    assert Separation.model_validate_json(result.model_dump_json()) == result
    with pytest.raises(ValidationError):
        result.honest = 3  # type: ignore[misc]


def test_published_protocol_by_hand() -> None:
    honest = [[1.0, 5.0, 2.0, np.nan], [0.0, 0.0, 0.0, 0.0]]
    deceptive = [[2.0, 4.0, 2.0, 9.0], [6.0, 6.0, np.nan, 6.0], [0.0, 1.0, 1.0, 1.0]]
    result = published_protocol(honest, deceptive)
    expected = [[0.25, 0.5, 0.0], [1.0, 0.75, 0.75]]  # a tie and a missing value are wrong
    assert np.array(result.pairs).tolist() == expected
    assert result.mean == pytest.approx(np.mean(expected))
    assert result.standard_deviation == pytest.approx(np.std(expected))
    assert result.evaluation_seeds == 4


def test_published_protocol_needs_the_same_seeds() -> None:
    with pytest.raises(ValueError, match="same seeds"):
        published_protocol(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="at least one"):
        published_protocol(np.zeros((2, 0)), np.zeros((2, 0)))
