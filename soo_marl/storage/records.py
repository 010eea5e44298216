"""What ``results/*.json`` hold that any study may write: typed, frozen, validated.

A number that could not be measured is None here and null on disk; NaN becomes None. Infinite numbers are refused.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Any, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, TypeAdapter, model_validator

from soo_marl.statistics import UNBOUNDED, Interval, Number, mean_interval, rate_interval
from soo_marl.statistics.intervals import check_order, nan_to_none
from soo_marl.storage.files import read_json, validate, write_json, write_text

Model = TypeVar("Model", bound=BaseModel)

Rate = Annotated[Annotated[FiniteFloat, Field(ge=0, le=1)] | None, BeforeValidator(nan_to_none)]
"""A share between 0 and 1, or None where nothing could be measured."""


CONFIG = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, serialize_by_alias=True)


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
        check_order(self.low, self.high)
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
    """Write records as a JSON list, atomically. Raises RunDirectoryError: the file cannot be written."""
    write_json(path, [record.model_dump(mode="json") for record in records])


def read_one(path: Path, model: type[Model]) -> Model:
    """Return the one record that a JSON file holds.

    Raises:
        RunDirectoryError: the file is missing, unreadable, or does not fit the model.
    """
    return validate(TypeAdapter(model), read_json(path), path)


def write_one(path: Path, record: BaseModel) -> None:
    """Write one record as a JSON object, atomically. Raises RunDirectoryError: the file cannot be written."""
    write_json(path, record.model_dump(mode="json"))


def over_seeds(
    values: ArrayLike, generator: np.random.Generator, *, rate: bool, bounds: tuple[float, float] = UNBOUNDED
) -> Interval:
    """Return the mean over seeds with its interval: :func:`rate_interval` of rates, else :func:`mean_interval`.

    Raises:
        ValueError: as these.
    """
    return rate_interval(values, generator) if rate else mean_interval(values, bounds)


def record_from_values(name: str, values: ArrayLike, unit: str, command: str, generator: np.random.Generator) -> Record:
    """Return the mean over seeds as a record, with the interval of :func:`over_seeds`.

    Where values are missing, the record's text says how many.

    Raises:
        ValueError: as :func:`over_seeds`.
    """
    sample = np.asarray(values, dtype=np.float64)
    interval = over_seeds(sample, generator, rate=unit.startswith("share"))
    missing = len(sample) - interval.n
    text = f"{missing} of {len(sample)} values are missing" if missing else None
    return Record(name=name, unit=unit, command=command, text=text, **interval.model_dump())


def write_csv(path: Path, records: Sequence[BaseModel]) -> None:
    """Write one line per record, atomically; nested fields become columns such as ``estimate.low``.

    Columns are those of all records together, in the order in which they first occur; what a record lacks is empty.
    Lists are joined by semicolons. Text that a spreadsheet would take for a formula gets an apostrophe before it.

    Raises:
        RunDirectoryError: the file cannot be written.
    """
    rows = [_flat(record.model_dump(mode="json", by_alias=True)) for record in records]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(path, text.getvalue())


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            flat[f"{prefix}{name}"] = _no_formula("; ".join(map(str, value)))
        else:
            flat[f"{prefix}{name}"] = _no_formula(value)
    return flat


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
