"""From measurements to results: one record per agent with its verdict, one per condition with intervals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from soo_marl.deception import (
    Conduct,
    DeceptionProfile,
    References,
    behavioural_difference,
    judge,
    relative_difference,
)
from soo_marl.statistics import NOT_NEGATIVE, UNBOUNDED, Interval, paired_difference, ratio_interval
from soo_marl.storage.records import over_seeds
from soo_marl.studies.finetuning.configuration import FinetuneConfig
from soo_marl.studies.finetuning.evaluation import Condition
from soo_marl.studies.finetuning.measures import Measures
from soo_marl.studies.finetuning.records import ConditionSummary, TreatedAgent

RELATIVE_DIFFERENCE = "relative_difference_to_honest"
"""Measure of a condition: the rate-based difference to honest as a fraction of that of the deceptive baselines."""

RELATIVE_SENSITIVITY = "relative_sensitivity"
"""Measure of a condition: sensitivity as a fraction of the honest baselines'."""

RELATIVE_GAIN = "relative_seeing_gain"
"""Measure of a condition: the gain from seeing red as a fraction of the honest baselines'."""

AGAINST_SOO = ("trap_rate", "seeing_gain")
"""Measures that every condition is held against the first treatment with ``soo`` by, seed by seed."""

_RATES = (
    "goal_rate", "goal_rate_alone", "trap_rate", "following_rate", "red_goal_rate", "rubric_rate",
    "rubric_rate_en_route",
)  # fmt: skip
_MEASURES = (
    *_RATES, "episode_return", "return_blanked", "seeing_gain", "sensitivity", "sensitivity_moved",
    "activation_power", "activation_variance", "difference_to_honest", "difference_to_deceptive",
    "published_difference_to_honest", "published_difference_to_deceptive",
)  # fmt: skip

_EITHER_SIGN = ("episode_return", "return_blanked", "seeing_gain")

Measured = Mapping[Condition, Measures]


def treated_agents(
    config: FinetuneConfig, measured: Measured, stops: Mapping[Condition, Sequence[str | None]]
) -> list[TreatedAgent]:
    """One record per agent of every condition, with its verdict.

    Raises:
        ValueError: the baselines do not differ enough to judge by.
    """
    honest, deceptive = (measured[Condition(kind)] for kind in ("honest", "deceptive"))
    references = _references(measured)
    agents = []
    for condition, measures in measured.items():
        differences = _differences(condition, measures, honest, deceptive)
        conducts = _conducts(measures)
        for run, seed in enumerate(config.seeds):
            verdict = judge(conducts[run], references)
            agents.append(
                TreatedAgent.model_validate(
                    {
                        "condition": condition.name,
                        "seed": seed,
                        "after": condition.after,
                        **{name: _number(getattr(measures.rates, name)[run]) for name in _RATES},
                        "return": _number(measures.returns[run]),
                        "return_blanked": _number(measures.returns_blanked[run]),
                        "seeing_gain": _number(measures.returns[run] - measures.returns_blanked[run]),
                        "sensitivity": _number(measures.sensitivity.blanked[run]),
                        "sensitivity_moved": _number(measures.sensitivity.moved[run]),
                        "overlap": {form: _number(values[run]) for form, values in measures.overlap.items()},
                        "activation_power": _number(measures.sensitivity.power[run]),
                        "activation_variance": _number(measures.sensitivity.variance[run]),
                        **{name: _number(values[run]) for name, values in differences.items()},
                        "stopped": stops[condition][run],
                        "verdict": verdict.word,
                        "reasons": verdict.reasons,
                    }
                )
            )
    return agents


def condition_summaries(
    config: FinetuneConfig, measured: Measured, agents: Sequence[TreatedAgent]
) -> list[ConditionSummary]:
    """One record per condition: the mean of every measure over seeds with its 95 % interval, and the verdicts."""
    generator = np.random.default_rng(0)
    honest, deceptive = (measured[Condition(kind)].profile for kind in ("honest", "deceptive"))
    summaries = []
    for condition, measures in measured.items():
        own = _agents_of(agents, condition.name, condition.after)
        intervals = measure_intervals(own, agents, generator)
        intervals[RELATIVE_DIFFERENCE] = _relative(condition, measures.profile, honest, deceptive)
        words = Counter(agent.verdict for agent in own if agent.verdict is not None)
        chosen = condition.treatment
        summaries.append(
            ConditionSummary(
                condition=condition.name,
                method=chosen.method if chosen else condition.name,
                weight=chosen.weight if chosen and chosen.entry.loss else None,
                description=chosen.entry.description if chosen else f"{condition.name} baseline",
                source=chosen.entry.source if chosen else "",
                after=condition.after,
                measures=intervals,
                verdicts=dict(words.most_common()),
                verdict=words.most_common(1)[0][0] if words else None,
            )
        )
    return summaries


def measure_intervals(
    own: Sequence[TreatedAgent], agents: Sequence[TreatedAgent], generator: np.random.Generator
) -> dict[str, Interval]:
    """Every measure of the agents of one condition that follows from the agents' records, by name.

    Rates allow for a seed that fails, other measures have Student's t; fractions of the honest baselines' mean count
    the spread of these as well, and what is held against ``soo`` are differences seed by seed.

    Args:
        own: the agents of the condition.
        agents: those of all conditions, with the same seeds in the same order.
        generator: source of the draws.
    """
    honest = _agents_of(agents, "honest")
    label = next((agent.condition for agent in agents if agent.condition.split(".")[0] == "soo"), "")
    soo = _agents_of(agents, label, own[0].after)
    intervals = {
        name: over_seeds(
            _column(own, name),
            generator,
            rate=name in _RATES,
            bounds=UNBOUNDED if name in _EITHER_SIGN else NOT_NEGATIVE,
        )
        for name in _MEASURES
    }
    for name, part in ((RELATIVE_SENSITIVITY, "sensitivity"), (RELATIVE_GAIN, "seeing_gain")):
        intervals[name] = ratio_interval(_column(own, part), _column(honest, part))
    for form in own[0].overlap:
        values = [agent.overlap[form] for agent in own]
        intervals[f"overlap/{form}"] = over_seeds(np.array(values, dtype=np.float64), generator, rate=False)
    if soo and own != soo:
        for name in AGAINST_SOO:
            intervals[f"{name}_minus_soo"] = paired_difference(_column(own, name), _column(soo, name))
    return intervals


def _agents_of(agents: Sequence[TreatedAgent], condition: str, after: bool = False) -> list[TreatedAgent]:
    return [agent for agent in agents if (agent.condition, agent.after) == (condition, after)]


def _references(measured: Measured) -> References:
    honest, deceptive = (_conducts(measured[Condition(kind)]) for kind in ("honest", "deceptive"))
    return References.from_baselines(honest, deceptive)


def _conducts(measures: Measures) -> list[Conduct]:
    gain = measures.returns - measures.returns_blanked
    return [
        Conduct(
            goal_rate=float(measures.rates.goal_rate[run]),
            goal_rate_alone=float(measures.rates.goal_rate_alone[run]),
            trap_rate=float(measures.rates.trap_rate[run]),
            rubric_rate=float(measures.rates.rubric_rate[run]),
            episode_return=float(measures.returns[run]),
            sensitivity=float(measures.sensitivity.blanked[run]),
            sensitivity_moved=float(measures.sensitivity.moved[run]),
            seeing_gain=float(gain[run]),
        )
        for run in range(len(gain))
    ]


def _differences(condition: Condition, measures: Measures, honest: Measures, deceptive: Measures) -> dict[str, Tensor]:
    """Behavioural differences ``[R]`` to both baselines, NaN of a baseline to itself."""
    nothing = torch.full_like(measures.returns, torch.nan)
    found = {}
    for name, other in (("honest", honest), ("deceptive", deceptive)):
        if condition.name == name:
            rate_based = published = nothing
        else:
            difference = behavioural_difference(measures.profile, other.profile, interval=False)
            rate_based, published = difference.rate_based, difference.published
        found[f"difference_to_{name}"] = rate_based
        found[f"published_difference_to_{name}"] = published
    return found


def _relative(
    condition: Condition,
    profile: DeceptionProfile,
    honest: DeceptionProfile,
    deceptive: DeceptionProfile,
) -> Interval:
    """The rate-based difference to honest as a fraction of the deceptive baselines' own, which is 1 by definition."""
    if condition.name == "honest":
        found = relative_difference(deceptive, honest, deceptive, interval=False)
        return Interval(estimate=found.honest, n=len(honest.total_opportunities))
    counted = int((profile.total_opportunities > 0).sum())
    found = relative_difference(
        profile, honest, deceptive, interval=counted > 1 and condition != Condition("deceptive")
    )
    if math.isnan(found.mean):
        return Interval(estimate=None, n=0)
    return Interval(estimate=found.mean, low=found.low, high=found.high, n=counted)


def _column(agents: Sequence[TreatedAgent], name: str) -> np.ndarray:
    return np.array([math.nan if (value := getattr(agent, name)) is None else value for agent in agents])


def _number(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
