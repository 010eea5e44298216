"""Tables of words beside the templates, lists of records, names and counts in words; no figure is needed for them."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from soo_marl.storage.records import Model, read_list

TEMPLATES = files("soo_marl.report") / "templates"
"""Where templates, tables and styles stand."""


@cache
def table(name: str) -> dict[str, Any]:
    """Return what ``templates/<name>.toml`` holds; do not change it.

    Raises:
        FileNotFoundError: there is no such file.
    """
    return tomllib.loads((TEMPLATES / f"{name}.toml").read_text(encoding="utf-8"))


def list_if_there(path: Path, model: type[Model]) -> list[Model]:
    """Return the list of records in a file, empty where there is none.

    Raises:
        RunDirectoryError: the file is unreadable, or does not fit the model.
    """
    return read_list(path, model) if path.exists() else []


def in_words(name: str) -> str:
    """A name of a condition, a metric or a form in words."""
    return name.replace("_", " ")


def counts_in_words(counts: Sequence[tuple[str, int]]) -> str:
    """Words with how many got each: "honest 9, blind 1", or "honest (all 10)"; empty without counts."""
    if len(counts) == 1 and counts[0][1] > 1:
        return f"{counts[0][0]} (all {counts[0][1]})"
    return ", ".join(f"{name} {count}" for name, count in counts)
