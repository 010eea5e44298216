"""What ``results/*.json`` hold: typed, frozen, validated; shared by the studies that write and the report that reads.

==========================  ==================================
file                        content
==========================  ==================================
``summary.json``            list of :class:`Record`
``agents.json``             list of :class:`AgentRecord`
``classification.json``     one :class:`Classification`
``curves.json``             list of :class:`LearningCurve`
``figures.json``            list of :class:`FigureRecord`
==========================  ==================================

A number that could not be measured is None here and null on disk; NaN becomes None. Infinite numbers are refused.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Any, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, TypeAdapter, model_validator
from scipy import stats

from soo_marl.studies.files import read_json, validate, write_json

Model = TypeVar("Model", bound=BaseModel)

RESAMPLES = 9999
"""Bootstrap resamples behind every interval."""


def _nan_to_none(value: Any) -> Any:
    return None if isinstance(value, float | np.floating) and math.isnan(value) else value


def _check_order(low: float | None, high: float | None) -> None:
    if low is not None and high is not None and low > high:
        raise ValueError(f"the interval's low end {low} must not exceed its high end {high}")


Number = Annotated[FiniteFloat | None, BeforeValidator(_nan_to_none)]
"""A finite number, or None where nothing could be measured."""

Rate = Annotated[Annotated[FiniteFloat, Field(ge=0, le=1)] | None, BeforeValidator(_nan_to_none)]
"""A share between 0 and 1, or None where nothing could be measured."""


CONFIG = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, serialize_by_alias=True)


class Interval(BaseModel):
    """An estimate and its 95 % interval."""

    model_config = CONFIG

    estimate: Number = Field(description="The estimate.")
    low: Number = Field(None, description="Lower end of the 95 % interval.")
    high: Number = Field(None, description="Upper end of the 95 % interval.")
    n: int = Field(ge=0, description="How many independent units (seeds, agents, pairs) the estimate rests on.")

    @model_validator(mode="after")
    def _ends_in_order(self) -> Self:
        _check_order(self.low, self.high)
        return self


class Record(BaseModel):
    """One headline result: what was found, how sure, and the command that finds it again."""

    model_config = CONFIG

    name: str = Field(description="What was measured, in words a reader understands.")
    estimate: Number = Field(description="The estimate.")
    low: Number = Field(None, description="Lower end of the 95 % interval.")
    high: Number = Field(None, description="Upper end of the 95 % interval.")
    n: int = Field(ge=0, description="How many independent units (seeds, agents, pairs) the estimate rests on.")
    unit: str = Field(description="Unit of the estimate; 'share' for a rate between 0 and 1.")
    command: str = Field(description="The exact command that made this record.")
    text: str | None = Field(None, description="A remark, or the result itself where it is no number.")

    @model_validator(mode="after")
    def _ends_in_order(self) -> Self:
        _check_order(self.low, self.high)
        return self


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


class RocCurve(BaseModel):
    """Receiver operating characteristic, from (0, 0) to (1, 1)."""

    model_config = CONFIG

    false_positive_rate: tuple[FiniteFloat, ...] = Field(description="Honest agents called deceptive, as a share.")
    true_positive_rate: tuple[FiniteFloat, ...] = Field(description="Deceptive agents called deceptive, as a share.")

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        if len(self.false_positive_rate) != len(self.true_positive_rate):
            raise ValueError("false_positive_rate and true_positive_rate must have the same length")
        return self


class Classification(BaseModel):
    """Everything about telling deceptive from honest agents by their overlap values; dicts are keyed by form."""

    model_config = CONFIG

    settings: dict[str, Any] = Field({}, description="How the values were measured.")
    rows: tuple[ClassificationRow, ...] = Field((), description="One row per form, layers and pairing.")
    values: dict[str, tuple[OverlapValue, ...]] = Field({}, description="Every agent's value.")
    protocol: dict[str, ProtocolCurve] = Field({}, description="The published paired protocol.")
    roc: dict[str, RocCurve] = Field({}, description="ROC curves.")
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


class FigureRecord(BaseModel):
    """A picture of the report."""

    model_config = CONFIG

    file: str = Field(pattern=r"^[^/\\]+\.(png|gif)$", description="File name in figures/, PNG or GIF.")
    caption: str = Field(description="What the picture shows, for a reader who has not read the code.")


def read_list(path: Path, model: type[Model]) -> list[Model]:
    """Return the list of records that a JSON file holds.

    Raises:
        RunDirectoryError: the file is missing, unreadable, or does not fit the model.
    """
    list_type: Any = GenericAlias(list, (model,))
    adapter: TypeAdapter[list[Model]] = TypeAdapter(list_type)
    return validate(adapter, read_json(path), path)


def write_list(path: Path, records: Iterable[BaseModel]) -> None:
    """Write records as a JSON list, atomically.

    Raises:
        RunDirectoryError: the file cannot be written.
    """
    write_json(path, [record.model_dump(mode="json") for record in records])


def read_one(path: Path, model: type[Model]) -> Model:
    """Return the one record that a JSON file holds.

    Raises:
        RunDirectoryError: the file is missing, unreadable, or does not fit the model.
    """
    return validate(TypeAdapter(model), read_json(path), path)


def write_one(path: Path, record: BaseModel) -> None:
    """Write one record as a JSON object, atomically.

    Raises:
        RunDirectoryError: the file cannot be written.
    """
    write_json(path, record.model_dump(mode="json"))


def mean_interval(values: ArrayLike, generator: np.random.Generator) -> Interval:
    """Return the mean over independent units with its 95 % bootstrap interval.

    The interval is bias-corrected and accelerated (BCa), or the percentile interval where BCa is degenerate. Missing
    values (NaN or None) are left out and do not count in ``n``. A constant sample has ``low = high = estimate``. From
    one value no interval follows: ``low`` and ``high`` are None. Without any value everything is None.

    Args:
        values: One number per independent unit [S].
        generator: Source of the resampling.

    Raises:
        ValueError: the values are not one-dimensional, or one is infinite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1:
        raise ValueError(f"values must be one number per unit, a one-dimensional array, not of shape {sample.shape}")
    sample = sample[~np.isnan(sample)]
    if not np.isfinite(sample).all():
        raise ValueError("values must be finite; leave out or mark as NaN what could not be measured")
    n = len(sample)
    if n == 0:
        return Interval(estimate=None, low=None, high=None, n=0)
    if n == 1:
        return Interval(estimate=float(sample[0]), low=None, high=None, n=1)
    if np.ptp(sample) == 0:
        constant = float(sample[0])
        return Interval(estimate=constant, low=constant, high=constant, n=n)
    low, high = _bootstrap(sample, "BCa", generator)
    if not (np.isfinite(low) and np.isfinite(high)):
        low, high = _bootstrap(sample, "percentile", generator)
    return Interval(estimate=float(sample.mean()), low=low, high=high, n=n)


def record_from_values(name: str, values: ArrayLike, unit: str, command: str, generator: np.random.Generator) -> Record:
    """Return the mean over seeds as a record, with the interval of :func:`mean_interval`.

    Where values are missing, the record's text says how many.

    Raises:
        ValueError: as :func:`mean_interval`.
    """
    sample = np.asarray(values, dtype=np.float64)
    interval = mean_interval(sample, generator)
    missing = len(sample) - interval.n
    text = f"{missing} of {len(sample)} values are missing" if missing else None
    return Record(name=name, unit=unit, command=command, text=text, **interval.model_dump())


def learning_curve(
    stage: str, kind: str, metric: str, updates: Sequence[int], values: ArrayLike, generator: np.random.Generator
) -> LearningCurve:
    """Return a learning curve with its mean over seeds and a 95 % bootstrap interval at every point.

    Args:
        stage: Training stage.
        kind: Kind of agent.
        metric: What is measured.
        updates: Number of updates at each of U points.
        values: Values [S, U], one row per seed; NaN where nothing could be measured.
        generator: Source of the resampling.

    Raises:
        ValueError: the values do not have one column per entry of ``updates``, or one is infinite.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != len(updates):
        raise ValueError(f"values must have shape [seeds, {len(updates)}], not {list(table.shape)}")
    intervals = [mean_interval(column, generator) for column in table.T]
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


def _bootstrap(sample: NDArray[np.float64], method: str, generator: np.random.Generator) -> tuple[float, float]:
    with warnings.catch_warnings():
        # A degenerate BCa interval comes back as NaN, which the caller handles.
        warnings.simplefilter("ignore")
        result = stats.bootstrap(
            (sample,), np.mean, confidence_level=0.95, n_resamples=RESAMPLES, method=method, rng=generator
        )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
