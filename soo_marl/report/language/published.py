"""Published numbers of self-other overlap on language models, which ``templates/published.toml`` holds."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from soo_marl.llm.prompts.scenarios import Orientation
from soo_marl.report.data import table

Column = Literal["paper", "authors' code", "replications"]


class PublishedResult(BaseModel):
    """One number before a treatment and after it, in per cent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scenario: str = Field(description="Name of the scenario.")
    column: Column = Field(description="Who found it.")
    model: str = Field(description="The model, and the setting where there are several.")
    before: float | None = Field(None, ge=0, le=100, description="Before the treatment.")
    about: bool = Field(False, description="Whether the number before is given as about that.")
    after: float | None = Field(None, ge=0, le=100, description="After it, mean over seeds.")
    deviation: float | None = Field(None, ge=0, description="Standard deviation over seeds.")
    highest: float | None = Field(None, ge=0, le=100, description="Upper end where a range is given from `after` on.")
    orientation: Orientation = Field("cheap_first", description="Which room the prompts name first.")
    source: str = Field(description="Where the number stands.")

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
    PublishedResult.model_validate({name: value for name, value in group.items() if name != "results"} | result)
    for group in _TABLE["groups"]
    for result in group["results"]
)
"""Every number, in the order of tables."""

HEADLINE_SCENARIOS: Mapping[str, str] = MappingProxyType(_TABLE["headline"])
"""Scenarios that are always shown, with how the page calls them; others only where this study asks them too."""
