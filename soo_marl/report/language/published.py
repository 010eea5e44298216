"""Published numbers of self-other overlap on language models, which ``templates/published.toml`` holds."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from soo_marl.llm.prompts.scenarios import Orientation
from soo_marl.report.data import table

Column = Literal["paper", "authors' code", "replications"]


class PublishedResult(NamedTuple):
    """One number before a treatment and after it (mean over seeds, with its standard deviation), in per cent.

    The number before may be given as about that; the highest is the upper end where a range is given from ``after`` on.
    """

    scenario: str
    column: Column
    model: str
    source: str
    before: float | None = None
    about: bool = False
    after: float | None = None
    deviation: float | None = None
    highest: float | None = None
    orientation: Orientation = "cheap_first"

    @property
    def numbers(self) -> str:
        """For instance ``73.6 → 17.27 ± 1.88 %``."""
        before = "" if self.before is None else f"{'≈ ' if self.about else ''}{self.before:g} "
        after = "" if self.after is None else f"→ {self.after:g} "
        deviation = "" if self.deviation is None else f"± {self.deviation:g} "
        highest = "" if self.highest is None else f"to {self.highest:g} "
        return f"{before}{after}{deviation}{highest}%"


_TABLE = table("published")

PUBLISHED: tuple[PublishedResult, ...] = tuple(
    PublishedResult(**{name: value for name, value in group.items() if name != "results"} | result)
    for group in _TABLE["groups"]
    for result in group["results"]
)
"""Every number, in the order of tables."""

HEADLINE_SCENARIOS: Mapping[str, str] = MappingProxyType(_TABLE["headline"])
"""Scenarios that are always shown, with how the page calls them; others only where this study asks them too."""
