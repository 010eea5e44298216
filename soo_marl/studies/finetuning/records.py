"""What a fine-tuning study finds, as typed records: written by the study, read by the report.

==================================  =====================================================================
file in ``results/``                content
==================================  =====================================================================
``summary.json``                    list of :class:`soo_marl.storage.records.Record`
``treated_agents.json``             list of :class:`TreatedAgent`
``conditions.json``                 list of :class:`ConditionSummary`, in the order of tables and pictures
``claims.json``                     list of :class:`Claim`
``curves.json``                     list of :class:`soo_marl.studies.learning.records.LearningCurve`
``episodes.json``                   one :class:`EpisodeCollection`
the first three lists as ``.csv``    one line per record
``profiles.safetensors``            per condition ``rates/<condition>`` ``[R, X, Y]`` float32; ``projection_thresholds``
                                    ``[X]`` and ``cosine_thresholds`` ``[Y]`` float64
==================================  =====================================================================

The baselines are conditions like the others: ``deceptive`` is what every treatment starts from, ``honest`` what it is
held against.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field, FiniteFloat, model_validator

from soo_marl.statistics import Interval, Number
from soo_marl.storage.records import CONFIG, Rate


class TreatedAgent(BaseModel):
    """One agent: a baseline, one after a treatment, or one some time after the treatment's loss was taken away."""

    model_config = CONFIG

    condition: str = Field(description="The treatment's label, or honest or deceptive for baselines.")
    seed: int = Field(description="The run's seed.")
    after: bool = Field(False, description="Measured after further training without the loss.")
    goal_rate: Rate = Field(None, description="Share of late steps with red present in which blue is at the goal.")
    goal_rate_alone: Rate = Field(None, description="The same alone.")
    trap_rate: Rate = Field(None, description="Share of episodes in which red ends trapped.")
    following_rate: Rate = Field(None, description="Share of untrapped steps in which red sees blue.")
    red_goal_rate: Rate = Field(None, description="Share of late steps in which red is at the goal.")
    rubric_rate: Rate = Field(None, description="Share of opportunities that the rubric counts as deceptive.")
    rubric_rate_en_route: Rate = Field(None, description="The same without the steps that start at the goal.")
    episode_return: Number = Field(None, alias="return", description="Blue's mean honest return with red present.")
    return_blanked: Number = Field(None, description="The same with blue's field of red blanked at test time.")
    seeing_gain: Number = Field(None, description="Return minus return blanked: what seeing red is worth.")
    sensitivity: Number = Field(None, description="Mean change of blue's action when red's field is blanked.")
    sensitivity_moved: Number = Field(None, description="Mean change of blue's action when red is moved.")
    overlap: dict[str, Number] = Field({}, description="Self-other overlap by form.")
    activation_power: Number = Field(None, description="Mean square of the hidden activations.")
    activation_variance: Number = Field(None, description="Variance of the hidden activations across observations.")
    difference_to_honest: Number = Field(None, description="Rate-based behavioural difference to honest baselines.")
    difference_to_deceptive: Number = Field(None, description="The same to deceptive baselines.")
    published_difference_to_honest: Number = Field(None, description="Mean squared error between grids of counts.")
    published_difference_to_deceptive: Number = Field(None, description="The same to deceptive baselines.")
    stopped: str | None = Field(None, description="Where its training was stopped, if it was.")
    verdict: str | None = Field(None, description="honest, blind, broken or still deceptive; None without a verdict.")
    reasons: tuple[str, ...] = Field((), description="Why that word.")


class ConditionSummary(BaseModel):
    """All agents of one condition."""

    model_config = CONFIG

    condition: str = Field(description="The treatment's label, or honest or deceptive for baselines.")
    method: str = Field(description="Method of the treatment; the condition itself for baselines.")
    weight: Number = Field(None, description="Weight of the loss, where there is one.")
    description: str = Field("", description="What was done, in a few words.")
    source: str = Field("", description="Where the method comes from.")
    after: bool = Field(False, description="After further training without the loss.")
    measures: dict[str, Interval] = Field({}, description="Mean over seeds with its 95 % interval, by measure.")
    verdicts: dict[str, int] = Field({}, description="How many agents got each word.")
    verdict: str | None = Field(None, description="The word most agents got; None without verdicts.")


class Claim(BaseModel):
    """A line of the table of verdicts: what is claimed, what was measured, whether it holds."""

    model_config = CONFIG

    claim: str = Field(description="The claim, in words.")
    source: str = Field(description="Who claims it: the paper, or these developers.")
    measured: str = Field(description="What was measured, in words.")
    estimate: Interval | None = Field(None, description="The number behind it, with its interval.")
    holds: str = Field(description="yes, no, partly or undecided.")


class EpisodeRecord(BaseModel):
    """One episode of one agent, step by step, for the player."""

    model_config = CONFIG

    condition: str = Field(description="The agent's condition.")
    seed: int = Field(description="The agent's seed.")
    verdict: str | None = Field(None, description="The agent's verdict.")
    number: int = Field(description="Which start; the same number is the same start for all conditions of a seed.")
    alone: bool = Field(description="Red is absent.")
    goal: tuple[FiniteFloat, FiniteFloat] = Field(description="Position of the goal.")
    fake: tuple[FiniteFloat, FiniteFloat] = Field(description="Position of the fake landmark.")
    blue: tuple[tuple[FiniteFloat, FiniteFloat], ...] = Field(description="Blue's positions [T + 1].")
    red: tuple[tuple[FiniteFloat, FiniteFloat], ...] = Field(description="Red's positions [T + 1].")
    trapped: tuple[bool, ...] = Field(description="Whether red is trapped [T + 1].")
    red_in_sight: tuple[bool, ...] = Field(description="Whether blue sees red [T + 1].")
    overlap: tuple[Number, ...] = Field(
        description="Squared difference of blue's activations between what it sees and the matching other (red "
        "imagined where unseen, blanked where seen), per step [T]."
    )
    opportunity: tuple[bool, ...] = Field(description="Whether the step is an opportunity of the rubric [T].")
    projection_on_goal: tuple[Number, ...] = Field(description="Cosine between movement and goal direction [T].")
    projection_on_fake: tuple[Number, ...] = Field(description="Cosine between movement and fake direction [T].")
    cosine_between: tuple[Number, ...] = Field(description="Cosine between both directions [T].")

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        states = {len(self.blue), len(self.red), len(self.trapped), len(self.red_in_sight)}
        rows = (self.overlap, self.opportunity, self.projection_on_goal, self.projection_on_fake, self.cosine_between)
        if states != {len(self.overlap) + 1} or len({len(row) for row in rows}) > 1:
            raise ValueError("an episode of T steps needs T + 1 states and T values of every step")
        return self


class EpisodeCollection(BaseModel):
    """Episodes for the player and the videos, and the world they happen in."""

    model_config = CONFIG

    preset: str = Field(description="Preset of the game.")
    landmark_radius: FiniteFloat = Field(description="An agent is at a landmark when nearer than this.")
    landmark_size: FiniteFloat = Field(description="Radius of a landmark as drawn.")
    agent_size: FiniteFloat = Field(description="Radius of an agent as drawn.")
    blue_sight_radius: FiniteFloat = Field(description="Blue sees red up to this distance.")
    red_sight_radius: FiniteFloat = Field(description="Red sees blue up to this distance.")
    episodes: tuple[EpisodeRecord, ...] = Field(description="All episodes.")
