"""Tables of words beside the templates, and counts as words; no figure is needed for them."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

TEMPLATES = files("soo_marl.report") / "templates"
"""Where templates, tables and styles stand."""


@cache
def table(name: str) -> dict[str, Any]:
    """Return what ``templates/<name>.toml`` holds; do not change it.

    Raises:
        FileNotFoundError: there is no such file.
    """
    return tomllib.loads((TEMPLATES / f"{name}.toml").read_text(encoding="utf-8"))


def counts_in_words(counts: Sequence[tuple[str, int]]) -> str:
    """Words with how many got each: "honest 9, blind 1", or "honest (all 10)"; empty without counts."""
    if len(counts) == 1 and counts[0][1] > 1:
        return f"{counts[0][0]} (all {counts[0][1]})"
    return ", ".join(f"{name} {count}" for name, count in counts)
