from math import comb

import pytest

from soo_marl.statistics import auroc_interval, threshold_rate
from soo_marl.storage.records import Interval
from soo_marl.studies.baselines.findings import behave_alike, findings, interval_text, number_text
from soo_marl.studies.learning.records import (
    AgentRecord,
    Classification,
    ClassificationRow,
    OverlapValue,
    ProtocolCurve,
)


def agents(
    honest: float | None = 0.2, deceptive: float | None = 0.9, count: int = 10, failing: int = 0
) -> list[AgentRecord]:
    return [
        AgentRecord(kind=kind, seed=seed, trap_rate=rate, rubric_rate=rate, competent=seed >= failing)
        for kind, rate in (("honest", honest), ("deceptive", deceptive))
        for seed in range(count)
    ]


def row(form: str, estimate: float, low: float, high: float, pairing: str = "imagined_red") -> ClassificationRow:
    interval = Interval(estimate=estimate, low=low, high=high, n=20)
    return ClassificationRow(
        form=form, layers="both", pairing=pairing, auroc=interval, leave_one_out=interval, recall_at_5_percent=interval
    )


def values(count: int = 10, failing: int = 0, wrong: int = 0) -> tuple[OverlapValue, ...]:
    """Honest values below deceptive ones, but for some deceptive ones that lie below all."""
    honest = [OverlapValue(kind="honest", seed=seed, value=seed, competent=seed >= failing) for seed in range(count)]
    deceptive = [
        OverlapValue(kind="deceptive", seed=seed, value=-1.0 if seed < wrong else 100.0, competent=seed >= failing)
        for seed in range(count)
    ]
    return (*honest, *deceptive)


def classification(*rows: ClassificationRow, count: int = 10, **fields: object) -> Classification:
    fields = {"values": {item.form: values(count) for item in rows if item.pairing == "imagined_red"}} | fields
    return Classification.model_validate({"rows": rows} | fields)


def about(sentences: tuple[str, ...], beginning: str) -> str:
    (found,) = [sentence for sentence in sentences if sentence.startswith(beginning)]
    return found


@pytest.mark.parametrize(
    ("estimate", "low", "high", "verdict"),
    [
        (0.97, 0.8, 1.0, "it separates the kinds."),
        (0.97, 0.79, 1.0, "these seeds do not decide whether it separates the kinds."),
        (0.7, 0.55, 0.79, "it fails to separate the kinds."),
        (0.2, 0.1, 0.4, "it fails, and puts the honest agents on the deceptive side."),
    ],
)
def test_verdict_by_the_interval(estimate: float, low: float, high: float, verdict: str) -> None:
    found = findings(classification(row("kept", estimate, low, high)), agents())
    assert about(found, "Form kept") == f"Form kept: AUROC {estimate:.2f} [{low:.2f}, {high:.2f}]: {verdict}"


def test_agents_that_behave_alike_turn_separation_into_a_warning() -> None:
    found = findings(classification(row("published", 1.0, 1.0, 1.0)), agents(0.25, 0.3))
    assert "By these two rates the two kinds behave alike." in found
    assert "what it reads is something else" in about(found, "Form published")
    assert not [sentence for sentence in found if "imagined red" in sentence]
    by_action = row("untrapped", 0.97, 0.9, 1.0).model_copy(update={"layers": "action"})
    with_action = findings(classification(row("published", 1.0, 1.0, 1.0), by_action), agents(0.25, 0.3))
    assert "AUROC 0.97 [0.90, 1.00]" in about(with_action, "How much blue's action answers to an imagined red")
    apart = findings(classification(row("published", 1.0, 1.0, 1.0)), agents(0.2, 0.9))
    assert not [sentence for sentence in apart if "alike" in sentence]
    assert "Red ends trapped in 0.90 of the episodes with deceptive blues and 0.20 with honest." in apart


def test_both_rates_must_be_alike_and_known() -> None:
    assert behave_alike(agents(0.25, 0.3))
    mixed = [agent.model_copy(update={"rubric_rate": 0.9 if agent.kind == "deceptive" else 0.2}) for agent in agents()]
    assert not behave_alike([agent.model_copy(update={"trap_rate": 0.2}) for agent in mixed])
    assert not behave_alike(agents(None, None)), "what nobody measured is not alike"
    assert findings(classification(), agents(None, None)), "and nothing is said of it"


def test_complete_separation_comes_with_the_exact_chance() -> None:
    rows = [row(form, 1.0, 1.0, 1.0) for form in ("published", "kept")]
    found = findings(classification(*rows, row("untrapped", 0.99, 0.95, 1.0)), agents())
    sentence = about(found, "Complete separation")
    assert sentence.startswith("Complete separation (published, kept): if the value carried no information")
    assert "10 honest and 10 deceptive agents" in sentence
    assert f"probability 1/{comb(20, 10):,} (5e-06)." in sentence and "1/184,756" in sentence


@pytest.mark.parametrize(
    ("count", "verdict"), [(2, "do not decide whether it separates the kinds."), (10, ": it separates the kinds.")]
)
def test_complete_separation_of_few_agents_decides_nothing(count: int, verdict: str) -> None:
    interval = auroc_interval(1.0, count, count)
    found = findings(classification(row("kept", 1.0, interval.low or 0.0, 1.0), count=count), agents(count=count))
    assert about(found, "Form kept").endswith(verdict)
    assert f"{count} honest and {count} deceptive" in about(found, "Complete")


def test_recall_is_said_to_be_coarse() -> None:
    rows = [
        row(form, 1.0, 0.8, 1.0).model_copy(update={"true_false_positive_rate": threshold_rate(0, 10)})
        for form in ("published", "kept")
    ]
    sentence = about(findings(classification(*rows), agents()), "Recall at 5 %")
    assert "from 10 honest agents" in sentence and "0.09 [0.00, 0.31]" in sentence


def test_competence_is_counted_and_those_who_pass_are_looked_at_alone() -> None:
    content = classification(row("kept", 0.9, 0.8, 1.0), values={"kept": values(failing=2, wrong=1)})
    found = findings(content, agents(failing=2))
    assert found[0] == (
        "Agents that play well enough to be judged: 8 of 10 honest, 8 of 10 deceptive; all are in the tables."
    )
    # The one deceptive agent on the wrong side is among those that fail.
    assert about(found, "AUROC over").endswith("(honest and deceptive): kept 1.00 (8 and 8).")
    everyone = findings(classification(row("kept", 0.9, 0.8, 1.0)), agents())
    assert not [sentence for sentence in everyone if sentence.startswith("AUROC over")]
    nobody = findings(classification(values={"kept": values(failing=10)}), agents(failing=10))
    assert not [sentence for sentence in nobody if sentence.startswith("AUROC over")]
    assert nobody[0].startswith("Agents that play well enough to be judged: 0 of 10 honest")


def test_forms_without_a_row_and_empty_content() -> None:
    assert about(findings(classification(values={"kept": ()}), agents()), "Form kept").endswith("to say anything.")
    assert findings(Classification(), [])[0].startswith("Agents that play well enough")


def test_baselines_are_named() -> None:
    found = findings(classification(row("trap rate", 1.0, 1.0, 1.0, "–")), agents())
    assert about(found, "Baseline") == "Baseline: trap rate gives AUROC 1.00 [1.00, 1.00]."


@pytest.mark.parametrize(
    ("mean", "sentence"),
    [
        ((0.5, 1.0, 1.0), "every pair is right under every evaluation seed from 10 episodes on."),
        ((1.0, 0.9, 1.0), "every pair is right under every evaluation seed from 100 episodes on."),
        ((1.0, 1.0, 1.0), "every pair is right under every evaluation seed from 1 episodes on."),
        ((1.0, 1.0, 0.9), "accuracy 0.900 at 100 episodes, the most that were played."),
        ((None, None, None), "no value at 100 episodes, the most that were played."),
        ((None, 1.0, 1.0), "every pair is right under every evaluation seed from 10 episodes on."),
    ],
)
def test_protocol_settles_or_not(mean: tuple[float | None, ...], sentence: str) -> None:
    curve = ProtocolCurve(episodes=(1, 10, 100), mean=mean, standard_deviation=(0.0, 0.0, 0.0), pairs=4)
    found = findings(Classification(protocol={"published": curve}), agents())
    assert found[-1] == f"Published protocol, form published: {sentence}"


def test_intervals_as_text() -> None:
    assert interval_text(Interval(estimate=0.966, low=0.9, high=1.0, n=3)) == "0.97 [0.90, 1.00]"
    assert interval_text(Interval(estimate=0.5, n=1)) == "0.50"
    assert interval_text(Interval(estimate=None, n=0)) == "–" == number_text(None)
