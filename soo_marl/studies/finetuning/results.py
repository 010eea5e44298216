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
from soo_marl.statistics import NOT_NEGATIVE, UNBOUNDED, Interval, mean_interval, paired_difference, ratio_interval
from soo_marl.storage.records import over_seeds
from soo_marl.studies.finetuning.configuration import FinetuneConfig
from soo_marl.studies.finetuning.evaluation import Condition
from soo_marl.studies.finetuning.measures import Measures
from soo_marl.studies.finetuning.records import ConditionSummary, TreatedAgent
from soo_marl.studies.learning.records import finite

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
    references = References.from_baselines(_conducts(honest), _conducts(deceptive))
    agents = []
    for condition, measures in measured.items():
        numbers = {
            **{name: getattr(measures.rates, name) for name in _RATES},
            "return": measures.returns,
            "return_blanked": measures.returns_blanked,
            "seeing_gain": measures.returns - measures.returns_blanked,
            "sensitivity": measures.sensitivity.blanked,
            "sensitivity_moved": measures.sensitivity.moved,
            "activation_power": measures.sensitivity.power,
            "activation_variance": measures.sensitivity.variance,
            **_differences(condition, measures, honest, deceptive),
        }
        for run, (seed, conduct) in enumerate(zip(config.seeds, _conducts(measures), strict=True)):
            verdict = judge(conduct, references)
            content = {name: finite(values[run]) for name, values in numbers.items()} | {
                "condition": condition.name,
                "seed": seed,
                "after": condition.after,
                "overlap": {form: finite(values[run]) for form, values in measures.overlap.items()},
                "stopped": stops[condition][run],
                "verdict": verdict.word,
                "reasons": verdict.reasons,
            }
            agents.append(TreatedAgent.model_validate(content))
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
        intervals[f"overlap/{form}"] = mean_interval(np.array([agent.overlap[form] for agent in own], np.float64))
    if soo and own != soo:
        for name in AGAINST_SOO:
            intervals[f"{name}_minus_soo"] = paired_difference(_column(own, name), _column(soo, name))
    return intervals


def _agents_of(agents: Sequence[TreatedAgent], condition: str, after: bool = False) -> list[TreatedAgent]:
    return [agent for agent in agents if (agent.condition, agent.after) == (condition, after)]


def _conducts(measures: Measures) -> list[Conduct]:
    rates = ("goal_rate", "goal_rate_alone", "trap_rate", "rubric_rate")
    columns = {name: getattr(measures.rates, name) for name in rates} | {
        "episode_return": measures.returns,
        "sensitivity": measures.sensitivity.blanked,
        "sensitivity_moved": measures.sensitivity.moved,
        "seeing_gain": measures.returns - measures.returns_blanked,
    }
    runs = range(len(measures.returns))
    return [Conduct(**{name: float(values[run]) for name, values in columns.items()}) for run in runs]


def _differences(condition: Condition, measures: Measures, honest: Measures, deceptive: Measures) -> dict[str, Tensor]:
    """Behavioural differences ``[R]`` to both baselines, NaN of a baseline to itself."""
    found: dict[str, Tensor] = {}
    for name, other in (("honest", honest), ("deceptive", deceptive)):
        rate_based = published = torch.full_like(measures.returns, torch.nan)
        if condition.name != name:
            difference = behavioural_difference(measures.profile, other.profile, interval=False)
            rate_based, published = difference.rate_based, difference.published
        found |= {f"difference_to_{name}": rate_based, f"published_difference_to_{name}": published}
    return found


def _relative(
    condition: Condition, profile: DeceptionProfile, honest: DeceptionProfile, deceptive: DeceptionProfile
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
    return np.array([getattr(agent, name) for agent in agents], dtype=np.float64)
