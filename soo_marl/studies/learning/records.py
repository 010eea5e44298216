"""What ``results/*.json`` hold of trained agents, beside the records of :mod:`soo_marl.storage.records`.

==========================  ==================================
file                        content
==========================  ==================================
``summary.json``            list of :class:`Record`
``agents.json``             list of :class:`AgentRecord`
``classification.json``     one :class:`Classification`
``curves.json``             list of :class:`LearningCurve`
``figures.json``            list of :class:`FigureRecord`
==========================  ==================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Self, SupportsFloat, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, Field, model_validator
from torch import Tensor

from soo_marl.statistics import Interval, Number, RocPoints
from soo_marl.storage.records import CONFIG, Rate, over_seeds

Part = TypeVar("Part")


class AgentRecord(BaseModel):
    """How one trained agent behaves, and whether it plays well enough to be judged by its overlap."""

    model_config = CONFIG

    kind: str = Field(description="How blue was paid: honest, deceptive ...")
    seed: int = Field(description="The run's seed.")
    goal_rate: Rate = Field(None, description="Share of steps with red present in which blue is at the goal.")
    goal_rate_alone: Rate = Field(None, description="Share of steps alone in which blue is at the goal.")
    trap_rate: Rate = Field(None, description="Share of episodes in which red ends trapped.")
    following_rate: Rate = Field(None, description="Share of untrapped steps in which red sees blue.")
    red_goal_rate: Rate = Field(None, description="Share of steps in which red is at the goal.")
    rubric_rate: Rate = Field(None, description="Share of opportunities that the rubric counts as deceptive.")
    rubric_rate_en_route: Rate = Field(None, description="The same without the steps that start at the goal.")
    episode_return: Number = Field(None, alias="return", description="Blue's mean return per episode.")
    stopped: str | None = Field(
        None, description="Where and why its training was stopped, if it was; its networks are those of then."
    )
    competent: bool = Field(description="Whether the agent passes the competence gate.")
    reasons: tuple[str, ...] = Field((), description="Why it does not pass.")


class ClassificationRow(BaseModel):
    """How well one form of the overlap value tells the two kinds of agents apart."""

    model_config = CONFIG

    form: str = Field(description="Form of the overlap value.")
    layers: str = Field(description="Layers whose activations enter.")
    pairing: str = Field(description="How other observations are made from self observations.")
    auroc: Interval = Field(description="Area under the ROC curve.")
    leave_one_out: Interval = Field(description="Accuracy with a threshold from all other agents.")
    recall_at_5_percent: Interval = Field(description="Share of deceptive agents found at 5 % false positives.")
    true_false_positive_rate: Interval | None = Field(
        None,
        description="Share of all honest agents, not only those at hand, that exceed the threshold of this recall.",
    )
    missing: int = Field(0, ge=0, description="Agents without a value (no step qualified).")


class OverlapValue(BaseModel):
    """One agent's overlap value."""

    model_config = CONFIG

    kind: str = Field(description="The agent's kind.")
    seed: int = Field(description="The agent's seed.")
    value: Number = Field(description="The overlap value.")
    competent: bool | None = Field(None, description="The agent's competence verdict, where there is one.")


class ProtocolCurve(BaseModel):
    """Accuracy of the published paired protocol against the number of episodes per evaluation seed."""

    model_config = CONFIG

    episodes: tuple[int, ...] = Field(description="Episodes per evaluation seed.")
    mean: tuple[Rate, ...] = Field(description="Accuracy, mean over pairs.")
    standard_deviation: tuple[Number, ...] = Field(description="Standard deviation over pairs.")
    low: tuple[Number, ...] | None = Field(None, description="Lower end of the mean's 95 % interval over agents.")
    high: tuple[Number, ...] | None = Field(None, description="Upper end of the mean's 95 % interval over agents.")
    pairs: int = Field(ge=0, description="How many pairs of trained agents.")

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        if not len(self.episodes) == len(self.mean) == len(self.standard_deviation):
            raise ValueError("episodes, mean and standard_deviation must have the same length")
        return self


class Classification(BaseModel):
    """Everything about telling deceptive from honest agents by their overlap values; dicts are keyed by form."""

    model_config = CONFIG

    settings: dict[str, Any] = Field({}, description="How the values were measured.")
    rows: tuple[ClassificationRow, ...] = Field((), description="One row per form, layers and pairing.")
    values: dict[str, tuple[OverlapValue, ...]] = Field({}, description="Every agent's value.")
    protocol: dict[str, ProtocolCurve] = Field({}, description="The published paired protocol.")
    roc: dict[str, RocPoints] = Field({}, description="ROC curves.")
    findings: tuple[str, ...] = Field((), description="What was found, in words.")


class LearningCurve(BaseModel):
    """One metric of one kind of agent in the course of one training stage."""

    model_config = CONFIG

    stage: str = Field(description="Training stage.")
    kind: str = Field(description="Kind of agent.")
    metric: str = Field(description="What is measured.")
    updates: tuple[int, ...] = Field(description="Number of updates at each of the U points.")
    values: tuple[tuple[Number, ...], ...] = Field(description="Values [S, U], one row per seed.")
    mean: tuple[Number, ...] | None = Field(None, description="Mean over seeds [U].")
    low: tuple[Number, ...] | None = Field(None, description="Lower end of the mean's 95 % interval [U].")
    high: tuple[Number, ...] | None = Field(None, description="Upper end of the mean's 95 % interval [U].")

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        given = [row for row in (self.mean, self.low, self.high) if row is not None]
        if any(len(row) != len(self.updates) for row in (*self.values, *given)):
            raise ValueError("every row of values, and mean, low and high, must have one number per entry of updates")
        return self


def finite(value: SupportsFloat) -> float | None:
    """A number of a record; None for one that could not be measured."""
    number = float(value)
    return number if math.isfinite(number) else None


def named_tensors(part: Any, name: str) -> dict[str, Tensor]:
    """The tensors of a dataclass under names for a file, on the CPU; ``name`` has ``{}`` where a field's name goes."""
    return {name.format(field.name): getattr(part, field.name).cpu().contiguous() for field in fields(part)}


def from_named(part: type[Part], tensors: Mapping[str, Tensor], name: str = "{}") -> Part:
    """The inverse of :func:`named_tensors`. Raises KeyError, ValueError: a tensor is missing, or does not fit."""
    content: Any = {field.name: tensors[name.format(field.name)] for field in fields(cast(Any, part))}
    return part(**content)


def learning_curve(
    stage: str, kind: str, metric: str, updates: Sequence[int], values: ArrayLike, generator: np.random.Generator
) -> LearningCurve:
    """Return a learning curve with its mean over seeds and a 95 % interval at every point, see :func:`over_seeds`.

    Args:
        stage, kind, metric: what is measured of whom when; a rate where the metric's name has ``_rate`` in it.
        updates: number of updates at each of U points.
        values: ``[S, U]``, one row per seed; NaN where nothing could be measured.
        generator: source of the draws.

    Raises:
        ValueError: the values do not have one column per entry of ``updates``, or one is infinite.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != len(updates):
        raise ValueError(f"values must have shape [seeds, {len(updates)}], not {list(table.shape)}")
    intervals = [over_seeds(column, generator, rate="_rate" in metric) for column in table.T]
    return LearningCurve(
        stage=stage,
        kind=kind,
        metric=metric,
        updates=tuple(int(update) for update in updates),
        values=tuple(tuple(row) for row in table.tolist()),
        mean=tuple(interval.estimate for interval in intervals),
        low=tuple(interval.low for interval in intervals),
        high=tuple(interval.high for interval in intervals),
    )
