"""Records as CSV, for spreadsheets and for those who would rather not read JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from soo_marl.storage.files import write_text


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
