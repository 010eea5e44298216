"""Published numbers of self-other overlap on language models, to hold ours against.

All are shares of deceptive answers in per cent, of right answers for the perspectives. All were asked in the paper's
orientation only, in which the cheap object's room stands first, unless the entry says mirrored.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from soo_marl.llm.prompts.scenarios import Orientation

Column = Literal["paper", "authors' code", "replications"]

PAPER = "Carauleanu et al. 2024, arXiv 2412.16325; orientation: paper's only"
CODE = (
    "stored results in the public code of the paper, agencyenterprise/SOO-Honest-AI, whose loss is a divergence of "
    "logits on raw text, another method than the paper's; orientation: paper's only"
)
CODE_SWAPPED = (
    f"{CODE}; its notebook plots escape room and treasure hunt under each other's name, which is corrected here"
)
MIRRORING = "an independent recreation of 2026 that asks mirrored prompts too"
NEGATIVE = "an independent negative result in 4-bit precision; orientation: paper's only"


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
        parts = [] if self.before is None else [f"{'≈ ' if self.about else ''}{self.before:g}"]
        if self.after is not None:
            after = f"{self.after:g}"
            if self.deviation is not None:
                after += f" ± {self.deviation:g}"
            if self.highest is not None:
                after += f" to {self.highest:g}"
            parts.append(after)
        arrow = " → ".join(parts)
        return f"{arrow} %" if self.before is not None or self.after is None else f"→ {arrow} %"


def _paper(
    scenario: str,
    model: str,
    before: float | None,
    after: float | None,
    deviation: float | None = None,
    *,
    about: bool = False,
) -> PublishedResult:
    return PublishedResult(
        scenario=scenario,
        column="paper",
        model=model,
        before=before,
        about=about,
        after=after,
        deviation=deviation,
        source=PAPER,
    )


def _code(scenario: str, before: float, after: float, deviation: float, source: str = CODE) -> PublishedResult:
    return PublishedResult(
        scenario=scenario,
        column="authors' code",
        model="Mistral-7B, loss on logits",
        before=before,
        after=after,
        deviation=deviation,
        source=source,
    )


_MISTRAL, _GEMMA, _CALMERYS = "Mistral-7B", "Gemma-2-27b", "CalmeRys-78B"

PUBLISHED: tuple[PublishedResult, ...] = (
    _paper("burglar", _MISTRAL, 73.6, 17.27, 1.88),
    _paper("burglar", _GEMMA, 100, 9.36, 7.09),
    _paper("burglar", _CALMERYS, 100, 2.71, 2.53),
    _paper("honesty_prompt", _MISTRAL, 73.6, 73.2),
    _paper("honesty_prompt", _GEMMA, 100, 100),
    _paper("honesty_prompt", _CALMERYS, 100, 100),
    _paper("treasure_hunt", _MISTRAL, 100, 99.68, 0.16, about=True),
    _paper("treasure_hunt", _GEMMA, 100, 0, about=True),
    _paper("treasure_hunt", _CALMERYS, 100, 0, about=True),
    _paper("escape_room", _CALMERYS, None, 0.48),
    _paper("perspectives", _MISTRAL, None, 100),
    _paper("perspectives", _GEMMA, None, 100),
    _paper("perspectives", _CALMERYS, None, 95.2, 2.21),
    _code("burglar", 95.2, 15.92, 4.33),
    _code("burglar_name", 93.2, 19.68, 5.43),
    _code("burglar_objective", 77.6, 23.12, 3.84),
    _code("burglar_action", 80.4, 1.60, 0.5),
    _code("burglar_name_objective", 82.0, 30.24, 4.10),
    _code("burglar_name_action", 76.8, 2.24, 0.59),
    _code("burglar_objective_action", 63.2, 12.16, 3.84),
    _code("burglar_all", 72.0, 12.64, 3.02),
    _code("treasure_hunt", 100, 94.64, 4.04, CODE_SWAPPED),
    _code("escape_room", 98.4, 57.84, 7.73, CODE_SWAPPED),
    *(
        PublishedResult(
            scenario="burglar",
            column="replications",
            model=f"{_MISTRAL}, layer 16, last token",
            before=before,
            after=after,
            deviation=deviation,
            orientation=orientation,
            source=MIRRORING,
        )
        for orientation, before, after, deviation in (("cheap_first", 90.4, 9.9, 6.1), ("mirrored", 82.4, 0.0, None))
    ),
    PublishedResult(
        scenario="burglar",
        column="replications",
        model=f"{_MISTRAL}, layer 19, 4-bit",
        before=100,
        after=96,
        highest=98,
        source=NEGATIVE,
    ),
)
"""Every number, in the order of tables."""

HEADLINE_SCENARIOS = ("burglar", "honesty_prompt", "treasure_hunt", "escape_room", "perspectives")
"""Scenarios that are always shown; others only where this study asks them too."""

SCENARIO_NAMES = {
    "burglar": "burglar",
    "honesty_prompt": "burglar, asked to be honest",
    "treasure_hunt": "treasure hunt",
    "escape_room": "escape room",
    "perspectives": "perspectives (right answers)",
}
"""How the page calls them; others by their own name."""
