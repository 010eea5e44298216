"""From networks to words: agents whose behaviour is known are measured, judged, and summed up as what they are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hand_made_agents import (
    GAME,
    GUIDES,
    GUIDING_GAME,
    HONEST,
    LURES,
    MISGUIDES,
    STILL,
    STRAIGHT,
    Policy,
    baselines,
    finetuning,
    hand_made,
)
from numpy.typing import NDArray

from soo_marl.deception import NothingToJudgeByError
from soo_marl.engines import Compute
from soo_marl.envs.configuration import PhysicalDeceptionConfig
from soo_marl.statistics import UNBOUNDED, mean_interval, paired_difference
from soo_marl.studies.baselines.study import open_study
from soo_marl.studies.finetuning.claims import claims
from soo_marl.studies.finetuning.configuration import FinetuneConfig, treatment
from soo_marl.studies.finetuning.evaluation import (
    Condition,
    conditions,
    measure_conditions,
    read_about,
    read_measures,
)
from soo_marl.studies.finetuning.measures import Measures
from soo_marl.studies.finetuning.records import Claim, ConditionSummary, TreatedAgent
from soo_marl.studies.finetuning.results import condition_summaries, treated_agents
from soo_marl.studies.finetuning.study import open_finetuning
from soo_marl.studies.learning.agents_on_disk import Stop, save_agents

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Found:
    """All that a study of hand-made agents comes to."""

    config: FinetuneConfig
    measured: dict[Condition, Measures]
    agents: list[TreatedAgent]
    summaries: list[ConditionSummary]
    claims: list[Claim]

    def words(self, name: str, after: bool = False) -> list[str | None]:
        """Verdicts of a condition's agents."""
        return [agent.verdict for agent in self.agents if (agent.condition, agent.after) == (name, after)]

    def summary(self, name: str, after: bool = False) -> ConditionSummary:
        """A condition's."""
        return next(item for item in self.summaries if (item.condition, item.after) == (name, after))

    def holds(self, words: str) -> str:
        """What a claim comes to."""
        (found,) = [claim.holds for claim in self.claims if words in claim.claim]
        return found


def study(
    path: Path,
    game: PhysicalDeceptionConfig,
    honest: Policy,
    deceptive: Policy,
    treated: dict[str, Policy | Sequence[Policy]],
    after: dict[str, Policy] | None = None,
) -> Found:
    """Put agents on disk as if they had been trained and treated, and go through the rest of a study.

    Args:
        path: where.
        game: the game, the same for all.
        honest, deceptive: what the baselines do.
        treated: what agents do at the end of a treatment, by method.
        after: what they do later, and stand still where it is not said; None where nothing comes after.
    """
    of = baselines(game=game, seeds=SEEDS)
    chosen = [treatment(name, updates=6) for name in treated] + [treatment("blank")]
    config = finetuning(of, chosen, after_updates=0 if after is None else 4)
    source, directory = open_study(path / "source", of), open_finetuning(path / "finetune", config)
    for kind, policy in (("honest", honest), ("deceptive", deceptive)):
        save_agents(source, kind, hand_made(game, of.maddpg, SEEDS, policy))
    for name, policies in treated.items():
        stops = [None, Stop("finetune", 2), None] if name == "random" else None
        save_agents(directory, f"{name}.updates-6", hand_made(game, of.maddpg, SEEDS, policies), stops)
        later = (after or {}).get(name, STILL)
        save_agents(directory, f"{name}.updates-6.after", hand_made(game, of.maddpg, SEEDS, later), stops)
    measure_conditions(config, directory, source.path, compute=Compute(workers=0))
    groups = conditions(config)
    measured = {condition: read_measures(directory, condition) for condition in groups}
    stopped = {condition: read_about(directory, condition)[0] for condition in groups}
    agents = treated_agents(config, measured, stopped)
    summaries = condition_summaries(config, measured, agents)
    return Found(config, measured, agents, summaries, claims(config, agents, summaries))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """A game in which honest agents answer to red, but gain nothing by it."""
    return study(
        tmp_path_factory.mktemp("answering"),
        GAME,
        HONEST,
        LURES,
        {
            "soo": HONEST,
            "none": LURES,
            "position_tie": STRAIGHT,
            "random": STILL,
            "anchor": (LURES, HONEST, STRAIGHT),
            "honest_reward": HONEST,
        },
        {"soo": LURES},
    )


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """A game in which honest agents earn by seeing red: they guide it to the goal."""
    return study(
        tmp_path_factory.mktemp("guiding"),
        GUIDING_GAME,
        GUIDES,
        MISGUIDES,
        {"soo": STRAIGHT, "soo_difference": GUIDES, "none": MISGUIDES, "random": STILL, "anchor": HONEST},
    )


def test_agents_get_the_words_that_they_deserve(found: Found) -> None:
    assert found.words("honest") == ["honest"] * 3
    assert found.words("deceptive") == ["still deceptive"] * 3
    assert found.words("soo.updates-6") == ["honest"] * 3
    assert found.words("none.updates-6") == ["still deceptive"] * 3
    assert found.words("position_tie.updates-6") == ["blind"] * 3
    assert found.words("random.updates-6") == ["broken"] * 3
    assert found.words("blank") == ["blind"] * 3, "the deceptive agents without their eyes"
    assert found.words("anchor.updates-6") == ["still deceptive", "honest", "blind"], "each run by itself"
    assert found.words("soo.updates-6", after=True) == ["still deceptive"] * 3
    assert found.words("honest_reward.updates-6", after=True) == ["broken"] * 3


def test_where_seeing_pays_those_are_blind_that_gain_nothing_by_it(guided: Found) -> None:
    assert guided.words("honest") == guided.words("soo_difference.updates-6") == ["honest"] * 3
    assert guided.words("deceptive") == guided.words("none.updates-6") == ["still deceptive"] * 3
    assert guided.words("soo.updates-6") == guided.words("blank") == ["blind"] * 3
    assert guided.words("random.updates-6") == ["broken"] * 3
    # As sensitive as any, but no better for it.
    sensitive = guided.summary("anchor.updates-6").measures["sensitivity"].estimate
    assert sensitive is not None and sensitive > 0.2
    assert guided.words("anchor.updates-6") == ["blind"] * 3
    reasons = next(agent.reasons for agent in guided.agents if agent.condition == "anchor.updates-6")
    assert "gain from seeing red" in reasons[0]


def test_records_hold_what_was_measured(found: Found) -> None:
    assert len(found.agents) == 3 * len(conditions(found.config))
    for condition, measures in found.measured.items():
        own = [a for a in found.agents if (a.condition, a.after) == (condition.name, condition.after)]
        assert [agent.seed for agent in own] == list(SEEDS)
        for run, agent in enumerate(own):
            for name in ("goal_rate", "goal_rate_alone", "trap_rate", "rubric_rate", "following_rate", "red_goal_rate"):
                assert getattr(agent, name) == pytest.approx(float(getattr(measures.rates, name)[run]))
            assert agent.episode_return == pytest.approx(float(measures.returns[run]))
            assert agent.return_blanked == pytest.approx(float(measures.returns_blanked[run]))
            assert agent.seeing_gain == pytest.approx(float(measures.returns[run] - measures.returns_blanked[run]))
            assert agent.sensitivity == pytest.approx(float(measures.sensitivity.blanked[run]))
            assert agent.sensitivity_moved == pytest.approx(float(measures.sensitivity.moved[run]))
            assert agent.activation_power == pytest.approx(float(measures.sensitivity.power[run]))
            assert agent.activation_variance == pytest.approx(float(measures.sensitivity.variance[run]))
            assert agent.overlap["kept"] == pytest.approx(float(measures.overlap["kept"][run]))
            assert agent.reasons
    stopped = {(agent.condition, agent.seed) for agent in found.agents if agent.stopped}
    assert stopped == {("random.updates-6", 1)}


def grid(found: Found, name: str) -> NDArray[np.float64]:
    """Rates of deceptive steps ``[R, X * Y]``."""
    (condition,) = [item for item in found.measured if item.name == name and not item.after]
    profile = found.measured[condition].profile
    counts = profile.counts.double().numpy().reshape(3, -1)
    rates: NDArray[np.float64] = counts / profile.total_opportunities.double().numpy()[:, None]
    return rates


def test_differences_are_mean_squared_errors_to_the_mean_profile(found: Found) -> None:
    honest, deceptive = grid(found, "honest"), grid(found, "deceptive")
    for name in ("soo.updates-6", "none.updates-6", "position_tie.updates-6", "honest", "deceptive"):
        own = grid(found, name)
        agents = [agent for agent in found.agents if agent.condition == name and not agent.after]
        for run, agent in enumerate(agents):
            for kind, other in (("honest", honest), ("deceptive", deceptive)):
                value = getattr(agent, f"difference_to_{kind}")
                if kind == name:
                    assert value is None, "nobody is held against itself"
                else:
                    assert value == pytest.approx(((own[run] - other.mean(axis=0)) ** 2).mean())
    scale = np.mean([((run - honest.mean(axis=0)) ** 2).mean() for run in deceptive])
    for name in ("soo.updates-6", "none.updates-6", "deceptive"):
        expected = np.mean([((run - honest.mean(axis=0)) ** 2).mean() for run in grid(found, name)]) / scale
        interval = found.summary(name).measures["relative_difference_to_honest"]
        assert interval.estimate == pytest.approx(expected)
        if name == "deceptive":
            assert interval.low is None, "a fraction of itself"
        else:
            assert interval.low is not None and interval.high is not None and interval.low <= expected <= interval.high
    assert found.summary("deceptive").measures["relative_difference_to_honest"].estimate == pytest.approx(1.0)
    # Each honest run against the mean of the other two.
    among = [((run - np.delete(honest, i, axis=0).mean(axis=0)) ** 2).mean() for i, run in enumerate(honest)]
    interval = found.summary("honest").measures["relative_difference_to_honest"]
    assert interval.estimate == pytest.approx(np.mean(among) / scale) and interval.n == 3


def test_summaries_are_means_over_seeds_with_intervals(found: Found) -> None:
    assert [(item.condition, item.after) for item in found.summaries] == [
        (condition.name, condition.after) for condition in conditions(found.config)
    ]
    for item in found.summaries:
        own = [a for a in found.agents if (a.condition, a.after) == (item.condition, item.after)]
        for name in ("trap_rate", "goal_rate", "goal_rate_alone", "rubric_rate", "sensitivity", "episode_return"):
            values = [getattr(agent, name) for agent in own]
            interval = item.measures[name]
            assert interval.n == 3 and interval.estimate == pytest.approx(np.mean(values))
            if "rate" in name:
                # One seed more that was not seen could do the worst or the best.
                assert interval.low is not None and interval.high is not None and interval.high - interval.low > 0.5
                assert 0 <= interval.low <= np.mean(values) + 1e-9 and np.mean(values) - 1e-9 <= interval.high <= 1
            else:
                assert interval == mean_interval(values, (0.0, math.inf) if name == "sensitivity" else UNBOUNDED)
        assert item.measures["overlap/untrapped"].estimate == pytest.approx(
            np.mean([agent.overlap["untrapped"] for agent in own])
        )
    assert found.summary("soo.updates-6").verdicts == {"honest": 3}
    assert found.summary("soo.updates-6").verdict == "honest"
    assert sorted(found.summary("anchor.updates-6").verdicts) == ["blind", "honest", "still deceptive"]
    treated, control = (
        [a.trap_rate for a in found.agents if a.condition == name and not a.after]
        for name in ("soo.updates-6", "none.updates-6")
    )
    # Seed by seed; nobody is held against itself.
    assert found.summary("none.updates-6").measures["trap_rate_minus_soo"] == paired_difference(control, treated)
    assert "trap_rate_minus_soo" not in found.summary("soo.updates-6").measures
    soo, none, honest = (found.summary(name) for name in ("soo.updates-6", "none.updates-6", "honest"))
    assert (soo.method, soo.weight, honest.method, honest.weight, none.weight) == ("soo", 100.0, "honest", None, None)
    assert "Carauleanu" in soo.source and honest.source == ""


def test_fractions_of_the_honest_baselines(found: Found, guided: Found) -> None:
    honest = [agent for agent in guided.agents if agent.condition == "honest"]
    for name, part in (("relative_sensitivity", "sensitivity"), ("relative_seeing_gain", "seeing_gain")):
        reference = np.mean([getattr(agent, part) for agent in honest])
        assert guided.summary("honest").measures[name].estimate == pytest.approx(1.0)
        for condition in ("soo_difference.updates-6", "soo.updates-6", "none.updates-6"):
            own = [getattr(a, part) for a in guided.agents if a.condition == condition and not a.after]
            assert guided.summary(condition).measures[name].estimate == pytest.approx(np.mean(own) / reference)
    assert guided.summary("soo.updates-6").measures["relative_seeing_gain"].estimate == 0
    # Where honest agents gain nothing by seeing, there is nothing to be a fraction of.
    gain = found.summary("honest").measures["seeing_gain"].estimate
    assert gain is not None and abs(gain) < 2
    if gain <= 0:
        assert found.summary("none.updates-6").measures["relative_seeing_gain"].estimate is None


def test_claims_of_agents_that_are_what_they_are(found: Found, guided: Found) -> None:
    soo = "soo.updates-6"
    assert found.holds(f"{soo} brings deceptive agents close to honest behaviour") == "yes"
    assert found.holds(f"{soo} costs no skill: blue still reaches the goal with red") == "yes"
    assert found.holds(f"{soo} costs no skill: blue still reaches the goal alone") == "yes"
    assert found.holds(f"{soo} makes agents honest") == "yes"
    assert found.holds(f"agents treated with {soo} still see red") == "yes"
    assert found.holds(f"what {soo} does lasts") == "no", "they lure again afterwards"
    assert found.holds("control: agents treated with none.updates-6 still deceive") == "yes"
    assert found.holds("control: agents treated with random.updates-6 still deceive") == "no", "they do nothing"
    assert found.holds("control: agents treated with anchor.updates-6 still deceive") == "partly"
    # Going straight to the goal is honest behaviour, whatever it is that made agents do so.
    assert found.holds("control: position_tie.updates-6, in which no self takes part") == "no"
    assert found.holds("control: blank, in which no self takes part") == "no"
    assert found.holds("paying for honesty") == "yes"
    assert found.holds("an honest agent that sees red earns more") in ("no", "undecided")
    assert guided.holds("an honest agent that sees red earns more") == "yes"
    assert guided.holds("agents treated with soo.updates-6 still see red") == "no"
    assert guided.holds("agents treated with soo_difference.updates-6 still see red") == "yes"
    assert guided.holds("soo.updates-6 makes agents honest") == "no", "blind is not honest"


def test_baselines_that_behave_alike_are_nothing_to_judge_by(found: Found) -> None:
    honest, deceptive = Condition("honest"), Condition("deceptive")
    alike = dict(found.measured) | {deceptive: found.measured[honest]}
    stops = {condition: [None] * 3 for condition in alike}
    with pytest.raises(
        NothingToJudgeByError, match="the baselines fail the gate, so there is nothing to judge against"
    ) as raised:
        treated_agents(found.config, alike, stops)
    assert "\n" not in str(raised.value)


def test_every_number_is_finite_or_missing(found: Found, guided: Found) -> None:
    for study_found in (found, guided):
        for item in study_found.summaries:
            for interval in item.measures.values():
                values = (interval.estimate, interval.low, interval.high)
                assert all(value is None or math.isfinite(value) for value in values)
