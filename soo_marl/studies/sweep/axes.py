"""What a sweep varies: axes over fields of a baseline configuration, and the points that follow from them.

A grid takes every combination of the listed values. Random search draws all its axes together, from a scrambled
Halton sequence: as good as independent draws, and it leaves no large gaps where points are few. Where both are given,
every cell of the grid gets the same draws, so that cells compare like with like.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, FiniteFloat, JsonValue, ValidationError, model_validator
from scipy.stats import qmc

from soo_marl.storage.records import CONFIG
from soo_marl.studies.learning.recipes import BaselineConfig, with_changes

LARGEST_SWEEP = 10_000
"""More points than this are taken for a slip of the finger."""


class ListedAxis(BaseModel):
    """A field that takes the values of a list: all of them in turn (grid), or one at random (choice)."""

    model_config = CONFIG

    search: Literal["grid", "choice"] = Field(description="All values in turn, or one of them at random.")
    field: str = Field(description="Dotted name of a field of the baseline configuration.")
    values: tuple[JsonValue, ...] = Field(description="At least two different values.")

    @model_validator(mode="after")
    def _values_differ(self) -> Self:
        if len(self.values) < 2 or len({json.dumps(value) for value in self.values}) < len(self.values):
            raise ValueError(f"{self.field} needs two or more values, all different; set a fixed value with --set")
        return self

    def value(self, share: float) -> JsonValue:
        """The value at a share in [0, 1) of the list."""
        return self.values[int(share * len(self.values))]


class RangeAxis(BaseModel):
    """A field that is drawn from a range, evenly in its value (uniform) or in its logarithm (log)."""

    model_config = CONFIG

    search: Literal["uniform", "log"] = Field(description="What is spread evenly: the value or its logarithm.")
    field: str = Field(description="Dotted name of a field of the baseline configuration.")
    low: FiniteFloat = Field(description="Smallest value.")
    high: FiniteFloat = Field(description="Largest value.")
    whole: bool = Field(description="The field holds whole numbers, and only those are drawn.")

    @model_validator(mode="after")
    def _range_fits(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"the range of {self.field} must ascend, but goes from {self.low:g} to {self.high:g}")
        if self.search == "log" and self.low <= 0:
            raise ValueError(f"a logarithmic range must begin above 0, but that of {self.field} begins at {self.low:g}")
        if self.whole and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(f"{self.field} holds whole numbers, so its range must begin and end with one")
        return self

    def value(self, share: float) -> float | int:
        """The value at a share in [0, 1) of the range; four significant digits, so that it can be typed again."""
        if self.search == "log":
            number = self.low * float((self.high / self.low) ** share)
        else:
            number = self.low + (self.high - self.low + self.whole) * share
        if self.whole:
            return round(number) if self.search == "log" else math.floor(number)
        return min(max(float(f"{number:.4g}"), self.low), self.high)


Axis = Annotated[ListedAxis | RangeAxis, Field(discriminator="search")]


class Point(BaseModel):
    """One setting of all axes."""

    model_config = CONFIG

    number: int = Field(ge=0, description="Place in the sweep, from 0; name of its folder.")
    values: dict[str, JsonValue] = Field(description="Value of each field that is varied.")

    def config(self, base: BaselineConfig) -> BaselineConfig:
        """The baseline configuration of this point.

        Raises:
            ValueError, pydantic.ValidationError: a field does not exist, or the values do not fit.
        """
        try:
            return with_changes(base, [f"{field}={json.dumps(value)}" for field, value in self.values.items()])
        except ValidationError:
            raise
        except ValueError as error:
            # The field was not given with this option.
            raise ValueError(str(error).removeprefix("--set ")) from error


def read_axes(grid: Sequence[str], random: Sequence[str], base: BaselineConfig) -> tuple[Axis, ...]:
    """The axes that the options of a sweep describe.

    Args:
        grid: texts ``field=value,value,...``, values as JSON or plain text.
        random: texts ``field=uniform:low:high``, ``field=log:low:high`` or ``field=choice:value,value,...``.
        base: the configuration whose fields are varied; a range over a whole number draws whole numbers.

    Raises:
        ValueError, pydantic.ValidationError: a text is not of that form, or its axis makes no sense; or two axes vary
            the same field; or there is no axis.
    """
    axes = [*(_grid_axis(text) for text in grid), *(_random_axis(text, base) for text in random)]
    if not axes:
        raise ValueError("there is nothing to sweep over: give --grid field=value,value or --random field=log:low:high")
    names = [axis.field for axis in axes]
    for first, second in itertools.combinations(sorted(names), 2):
        if f"{second}.".startswith(f"{first}."):
            raise ValueError(f"{first} and {second} vary the same thing; keep one of them")
    if any(name.split(".")[0] == "seeds" for name in names):
        raise ValueError("every point is trained with the same seeds: name them with --seeds, and not as an axis")
    return tuple(axes)


def make_points(axes: Sequence[Axis], draws: int, search_seed: int) -> tuple[Point, ...]:
    """All points of a sweep with so many random draws, in an order that the arguments decide alone.

    Equal draws, which small choices bring about, are trained once.

    Raises:
        ValueError: a number is out of its range, or there would be too many points.
    """
    if draws < 1 or search_seed < 0:
        raise ValueError(f"--points must be 1 or more and --search-seed 0 or more, not {draws} and {search_seed}")
    listed = [axis for axis in axes if isinstance(axis, ListedAxis) and axis.search == "grid"]
    random = [axis for axis in axes if axis.search != "grid"]
    count = math.prod(len(axis.values) for axis in listed) * (draws if random else 1)
    if count > LARGEST_SWEEP:
        raise ValueError(f"these axes give {count:,} points, and a sweep has at most {LARGEST_SWEEP:,}")
    drawn: list[dict[str, Any]] = [{}]
    if random:
        shares = qmc.Halton(len(random), scramble=True, rng=search_seed).random(draws).tolist()
        rows = [{axis.field: axis.value(share) for axis, share in zip(random, row, strict=True)} for row in shares]
        drawn = list({json.dumps(row): row for row in rows}.values())
    cells = itertools.product(*(axis.values for axis in listed))
    names = [axis.field for axis in listed]
    values = [dict(zip(names, cell, strict=True)) | row for cell in cells for row in drawn]
    return tuple(Point(number=number, values=chosen) for number, chosen in enumerate(values))


def value_text(value: object) -> str:
    """A value of an axis for a table or a figure; four significant digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _grid_axis(text: str) -> ListedAxis:
    field, equals, values = text.partition("=")
    if not equals:
        raise ValueError(f"--grid takes field=value,value,..., for example maddpg.tau=0.01,0.05, not {text!r}")
    return ListedAxis(search="grid", field=field, values=_listed(values))


def _random_axis(text: str, base: BaselineConfig) -> ListedAxis | RangeAxis:
    field, _, described = text.partition("=")
    search, _, rest = described.partition(":")
    if search == "choice":
        return ListedAxis(search="choice", field=field, values=_listed(rest))
    try:
        low, high = (float(number) for number in rest.split(":"))
    except ValueError:
        low = high = math.nan
    if search not in ("uniform", "log") or not math.isfinite(low + high):
        raise ValueError(
            "--random takes field=uniform:low:high, field=log:low:high or field=choice:value,value, for example "
            f"maddpg.actor_learning_rate=log:0.0005:0.01, not {text!r}"
        )
    whole = type(_present(base, field)) is int  # a bool is none
    return RangeAxis.model_validate({"search": search, "field": field, "low": low, "high": high, "whole": whole})


def _listed(text: str) -> tuple[Any, ...]:
    """Values separated by commas: JSON where the whole is JSON, so that lists can be values, else text by text."""
    return tuple(_json(f"[{text}]", [_json(part, part) for part in text.split(",")]))


def _json(text: str, otherwise: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return otherwise


def _present(base: BaselineConfig, field: str) -> Any:
    """What a field holds; None where there is no such field, which the first point's configuration finds."""
    branch: Any = base.model_dump(mode="json")
    try:
        for part in field.split("."):
            branch = branch[int(part) if isinstance(branch, list) else part]
    except (KeyError, IndexError, ValueError, TypeError):
        return None
    return branch
