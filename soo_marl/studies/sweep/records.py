"""What ``results/sweep.json`` of a sweep holds: one :class:`SweepResult`."""

from __future__ import annotations

from pydantic import BaseModel, Field, JsonValue

from soo_marl.statistics import Interval, Number
from soo_marl.storage.records import CONFIG, Rate


class SeedValues(BaseModel):
    """A metric of one point, seed by seed."""

    model_config = CONFIG

    values: tuple[Number, ...] = Field(description="One per seed of the study, in its order.")
    mean: Interval = Field(description="Mean over seeds.")


class PointRecord(BaseModel):
    """What one point of a sweep came to."""

    model_config = CONFIG

    number: int = Field(ge=0, description="Number of the point, and name of its folder in points/.")
    values: dict[str, JsonValue] = Field(description="Value of each field that is varied.")
    metrics: dict[str, SeedValues] = Field(description="By metric.")
    stopped: int = Field(0, ge=0, description="Agents whose training was stopped, which count with what they could.")


class GroupRecord(BaseModel):
    """The points that share a value of an axis, or a third of its range."""

    model_config = CONFIG

    label: str = Field(description="The value, or the range of values.")
    low: Number = Field(None, description="Smallest value, where the axis is a range.")
    high: Number = Field(None, description="Largest value, where the axis is a range.")
    points: tuple[int, ...] = Field(description="Numbers of the points.")
    mean: Interval = Field(description="Mean of the points' means, or over the seeds of a single point.")


class AxisRecord(BaseModel):
    """How much an axis alone mattered for a metric."""

    model_config = CONFIG

    field: str = Field(description="Dotted name of the field.")
    metric: str = Field(description="The metric.")
    groups: tuple[GroupRecord, ...] = Field(description="The metric along the axis.")
    share: Rate = Field(
        None, description="Share of the variance over all runs that this axis alone explains, beyond chance."
    )
    p_value: Rate = Field(
        None,
        description="How often chance alone would explain as much, adjusted for the number of axes; none where there "
        "are too few points or seeds to tell.",
    )
    matters: bool = Field(description="Whether the adjusted p-value is at most 0.05.")


class SweepResult(BaseModel):
    """Everything a sweep found."""

    model_config = CONFIG

    metrics: tuple[str, ...] = Field(description="What was asked for; points are compared by the first.")
    seeds: tuple[int, ...] = Field(description="Seeds of every point.")
    unfinished: int = Field(ge=0, description="Points that are not trained and measured yet.")
    failed: dict[int, str] = Field({}, description="Unfinished points whose training failed this time, and why.")
    points: tuple[PointRecord, ...] = Field(description="Finished points, highest first metric first.")
    axes: tuple[AxisRecord, ...] = Field(description="By metric, largest share first.")
