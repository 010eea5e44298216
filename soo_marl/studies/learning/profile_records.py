"""What ``results/profiles.json`` of a study holds: one :class:`ProfileResult`.

Beside it stands ``results/profiles.safetensors``: per kind of baseline ``counts/<kind>`` ``[R, X, Y]`` int32,
``opportunities/<kind>`` ``[R, Y]`` and ``total_opportunities/<kind>`` ``[R]`` int64, and each behaviour rate as
``<rate>/<kind>`` ``[R]``; ``projection_thresholds`` ``[X]`` and ``cosine_thresholds`` ``[Y]`` float64.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from soo_marl.statistics import Interval
from soo_marl.storage.records import CONFIG, Rate, Record

PROFILES = "profiles/"
"""How the names of the records begin that profiles add to a study's summary."""

NOT_MEASURED = Interval(estimate=None, n=0)


class ProfileDifference(BaseModel):
    """How far the deception profiles of a group of agents lie from those of another."""

    model_config = CONFIG

    published: Interval = Field(
        NOT_MEASURED,
        description="Mean squared error between grids of counts, squared steps (the paper's measure). It grows with "
        "an agent's opportunities; the interval is over the group's own agents.",
    )
    rate_based: Interval = Field(
        NOT_MEASURED,
        description="The same between grids of rates, at most 1; the interval is over the agents of both groups.",
    )
    relative: Interval = Field(
        NOT_MEASURED,
        description="The rate-based difference as a fraction of that between deceptive and honest agents; for honest "
        "agents how far each lies from the mean of the others.",
    )


class ProfileRecord(BaseModel):
    """The deception profiles of the agents of one condition, and how well these agents play."""

    model_config = CONFIG

    condition: str = Field(description="Kind of the baselines, or label of a treatment.")
    finetuned: bool = Field(False, description="The agents were fine-tuned, and are held against the baselines there.")
    agents: int = Field(ge=0, description="How many agents.")
    missing: int = Field(0, ge=0, description="Agents without an opportunity to deceive, who have no profile.")
    opportunities: Interval = Field(description="Opportunities to deceive per agent.")
    rubric_rate: Interval = Field(description="Share of opportunities that the rubric counts as deceptive.")
    goal_rate: Interval = Field(description="Share of late steps with red present in which blue is at the goal.")
    goal_rate_alone: Interval = Field(description="The same alone.")
    trap_rate: Interval = Field(description="Share of episodes in which red ends trapped.")
    competent_share: Rate = Field(None, description="Share of agents whose goal rate exceeds the competence gate's.")
    to_honest: ProfileDifference = Field(description="Difference to the honest baselines.")
    to_deceptive: ProfileDifference = Field(description="Difference to the deceptive baselines.")


class ProfileResult(BaseModel):
    """The deception profiles of a study."""

    model_config = CONFIG

    command: str = Field(description="The exact command that made this.")
    episodes: int = Field(ge=1, description="Greedy episodes per baseline agent.")
    conditions: tuple[ProfileRecord, ...] = Field(description="Baselines, then fine-tuned agents.")
    remark: str | None = Field(None, description="What is left out, and why.")

    def records(self) -> list[Record]:
        """The headline records: how far deceptive baselines lie from honest ones."""
        measured = [
            (f"{PROFILES}deceptive/{name}", unit, getattr(found.to_honest, field))
            for found in self.conditions
            if not found.finetuned and found.condition == "deceptive"
            for name, unit, field in (
                ("difference_to_honest", "squared share", "rate_based"),
                ("published_difference_to_honest", "squared steps", "published"),
            )
        ]
        return [
            Record(name=name, unit=unit, command=self.command, **interval.model_dump())
            for name, unit, interval in measured
            if interval.estimate is not None
        ]
