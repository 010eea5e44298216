from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score, roc_curve
from soo_marl.overlap.classify import _leave_one_out

from soo_marl.overlap import Interval, Separation, published_protocol, roc_points, separation


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def test_auroc_by_hand() -> None:
    # Pairs: 1 < 2, 1 < 4, 3 > 2, 3 < 4, and 2 = 2 (half), 2 < 4: 4.5 of 6.
    result = separation([1, 3, 2], [2, 4], generator(), resamples=50)
    assert result.auroc.estimate == pytest.approx(4.5 / 6)
    assert result.auroc.n == 5


values = st.lists(st.integers(0, 12).map(float), min_size=2, max_size=7)


@given(values, values)
@settings(max_examples=50, deadline=None)
def test_figures_against_reference_implementations(honest: list[float], deceptive: list[float]) -> None:
    result = separation(honest, deceptive, generator(), resamples=20)
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
    right = separation(low, high, generator(), resamples=100)
    assert right.auroc == Interval(estimate=1, low=1, high=1, n=6)
    assert right.leave_one_out_accuracy.estimate == 1
    assert right.recall_at_false_positive_rate.estimate == 1
    reversed_ = separation(high, low, generator(), resamples=100)
    assert reversed_.auroc.estimate == 0
    assert reversed_.leave_one_out_accuracy.estimate == 0
    assert reversed_.recall_at_false_positive_rate.estimate == 0


def test_leave_one_out_by_hand() -> None:
    # Others of 5 (honest): 1, 2 | 4, 9 -> threshold 3, so 5 is called deceptive, wrongly. Others of 4 (deceptive):
    # 1, 2, 5 | 9 -> 7, so 4 is called honest, wrongly. Others of 1, 2 and 9 leave them on their side.
    assert separation([1, 2, 5], [4, 9], generator(), 10).leave_one_out_accuracy.estimate == pytest.approx(3 / 5)


def test_copies_of_the_agent_left_out_do_not_help_to_judge_it() -> None:
    honest, deceptive = np.array([1.0, 2.0, 5.0]), np.array([4.0, 9.0])
    copies = np.array([[1, 1, 1]]), np.array([[1, 1]])
    once = _leave_one_out(honest, deceptive, *copies)
    # Three copies of the honest agent at 5: with two left among the others the threshold would be 7, above them all.
    thrice = _leave_one_out(honest, deceptive, np.array([[1, 1, 3]]), np.array([[1, 1]]))
    assert once[0] * 5 == pytest.approx(3)
    # 5 and its copies are judged as wrongly as before. 4 is judged by 1, 2, 5, 5, 5 | 9 and stays wrong.
    assert thrice[0] * 7 == pytest.approx(3)


def test_resamples_with_one_distinct_agent_of_a_kind_are_passed_over() -> None:
    honest, deceptive = np.array([1.0, 2.0]), np.array([5.0, 6.0])
    accuracy = _leave_one_out(honest, deceptive, np.array([[2, 0], [1, 1]]), np.array([[1, 1], [1, 1]]))
    assert np.isnan(accuracy[0]) and accuracy[1] == 1


def test_no_difference_gives_no_separation() -> None:
    random = np.random.default_rng(1)
    result = separation(random.normal(size=60), random.normal(size=60), random, resamples=500)
    assert result.auroc.low < 0.5 < result.auroc.high
    assert 0.3 < result.leave_one_out_accuracy.estimate < 0.7
    assert result.recall_at_false_positive_rate.estimate < 0.3


def test_recall_allows_the_share_of_false_positives() -> None:
    honest = np.arange(20.0)  # one of 20 may lie above: the threshold is 18
    result = separation(honest, [18.0, 18.5, 30.0, 0.0], generator(), resamples=10)
    assert result.recall_at_false_positive_rate.estimate == 0.5
    strict = separation(honest[:19], [17.5, 18.5], generator(), resamples=10)
    assert strict.recall_at_false_positive_rate.estimate == 0.5


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(3)
    truth, hits, trials = 0.7602, 0, 40  # P(N(0, 1) < N(1, 1))
    for _ in range(trials):
        found = separation(random.normal(size=40), random.normal(1, 1, size=40), random, resamples=200).auroc
        hits += found.low <= truth <= found.high
    assert hits / trials > 0.8


def test_missing_values_are_counted() -> None:
    result = separation([1, np.nan, 2], [3, 4, np.nan, np.nan], generator(), resamples=10)
    assert (result.honest, result.deceptive, result.missing_honest, result.missing_deceptive) == (2, 2, 1, 2)
    assert result.auroc.n == 4


def test_same_generator_state_same_result() -> None:
    honest, deceptive = [1.0, 2.0, 5.0, 3.0], [4.0, 9.0, 2.5]
    assert separation(honest, deceptive, generator()) == separation(honest, deceptive, generator())


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at least two honest agents.*there are 1"):
        separation([1, np.nan], [3, 4], generator())
    with pytest.raises(ValueError, match="at least two deceptive"):
        separation([1, 2], [3], generator())
    with pytest.raises(ValueError, match="finite"):
        separation([1, np.inf], [3, 4], generator())
    with pytest.raises(ValueError, match="one per agent"):
        separation([[1, 2]], [3, 4], generator())
    with pytest.raises(ValueError, match="resamples"):
        separation([1, 2], [3, 4], generator(), resamples=0)
    with pytest.raises(ValueError, match="level"):
        separation([1, 2], [3, 4], generator(), level=95)
    with pytest.raises(ValueError, match="false_positive_rate"):
        separation([1, 2], [3, 4], generator(), false_positive_rate=1)


def test_records_survive_json_and_cannot_be_changed() -> None:
    result = separation([1, 2, 3], [2, 4], generator(), resamples=10)
    assert Separation.model_validate_json(result.model_dump_json()) == result
    missing = Interval(estimate=1, low=float("nan"), high=float("nan"), n=2)
    assert np.isnan(Interval.model_validate_json(missing.model_dump_json()).low)
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
