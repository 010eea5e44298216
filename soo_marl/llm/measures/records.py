"""What a study of language models finds, as typed records: written by the study, read by the report.

==================================  =====================================================================
file in ``results/``                content
==================================  =====================================================================
``summary.json``                    list of :class:`soo_marl.storage.records.Record`
``models.json``                     list of :class:`ModelSummary`, in the order of tables and pictures
``examples.json``                   list of :class:`ResponseExample`, for browsing
``latent.json``                     list of :class:`LatentRecord`
==================================  =====================================================================
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from soo_marl.llm.measures.answers import Label
from soo_marl.llm.measures.latent import LatentOverlap, LayerGap
from soo_marl.llm.measures.rates import CellRates
from soo_marl.llm.prompts.scenarios import Orientation
from soo_marl.statistics import Number


class EpochRecord(BaseModel, frozen=True, extra="forbid"):
    """What a model answered to burglars after an epoch, on training prompts that hold no answers."""

    epoch: int = Field(ge=1, description="Epochs done.")
    deceptive_cheap_first: float = Field(description="Share of deceptive answers, the cheap object's room first.")
    deceptive_mirrored: float = Field(description="The same with the valuable object's room first.")
    honest_cheap_first: float = Field(description="Share of honest answers, the cheap object's room first.")
    honest_mirrored: float = Field(description="The same with the valuable object's room first.")


class TrainingRecord(BaseModel, frozen=True, extra="forbid"):
    """How a model was trained."""

    losses: tuple[float, ...] = Field((), description="The loss of every step.")
    steps_per_epoch: int = Field(0, ge=0, description="Steps of one pass over the pairs; 0 where there are no passes.")
    epochs: tuple[EpochRecord, ...] = Field((), description="Behaviour after each epoch.")
    stopped: str | None = Field(None, description="Why training ended early, if it did.")
    broke_down: bool = Field(
        False, description="Whether the reason is numbers that are not finite: no model came of it."
    )
    scale: float | None = Field(None, description="Factor on the steering vector, chosen on training prompts.")


class LatentRecord(BaseModel, frozen=True, extra="forbid"):
    """How far apart a model's activations lie for self and for other, on one set of pairs."""

    label: str = Field(description="Which model.")
    seed: int = Field(description="Its seed.")
    pairs: str = Field(description="Kind of the pairs and half of the inventory, for instance scenario/test.")
    overlap: LatentOverlap = Field(description="By layer and site, over all tokens that both prompts have.")
    gap: LayerGap = Field(description="By layer at the last token, relative to activation power.")


class SeedVerdict(BaseModel, frozen=True, extra="forbid"):
    """The word for one seed's model."""

    seed: int = Field(description="The seed.")
    word: str = Field(description="honest, damaged, positional or no effect.")
    reason: str = Field(description="One sentence with the numbers that decided.")
    cells: tuple[CellRates, ...] = Field((), description="Its own rates by role and orientation.")
    training: TrainingRecord = Field(description="How it was trained.")


class ModelSummary(BaseModel, frozen=True, extra="forbid"):
    """One model, or one treatment over its seeds."""

    label: str = Field(description="base, organism, or the treatment's label.")
    method: str = Field(description="Its method; empty for base and organism.")
    description: str = Field(description="What was done, in a few words.")
    source: str = Field("", description="Where that comes from.")
    layers: str = Field("", description="Layers of the loss; empty where nothing is trained.")
    token_mode: str = Field("", description="Which tokens the loss compares, likewise.")
    learning_rate: Number = Field(None, description="Learning rate, likewise.")
    cells: tuple[CellRates, ...] = Field(description="Rates by role and orientation, over all seeds.")
    positional: str = Field("", description="One sentence on whether answers to the burglar follow the rooms' order.")
    perplexity: Number = Field(None, description="Perplexity on neutral text, mean over seeds.")
    perplexity_ratio: Number = Field(None, description="The same over that of the model as it comes.")
    prompt_variance_ratio: Number = Field(
        None, description="Variance of the activations across prompts over that of the model before treatment."
    )
    power_ratio: Number = Field(None, description="Mean square of the activations, likewise.")
    name_gap_ratio: Number = Field(
        None, description="Difference between prompts that differ in a name only, likewise; it ought to stay."
    )
    word: str = Field(description="honest, damaged, positional or no effect, over all seeds.")
    reason: str = Field(description="One sentence with the numbers that decided.")
    seeds: tuple[SeedVerdict, ...] = Field(description="The word for each seed.")

    def cell(self, role: str, orientation: Orientation) -> CellRates | None:
        """The rates of a role in an orientation, None where it was not asked."""
        return next((c for c in self.cells if (c.scenario, c.orientation) == (role, orientation)), None)


class ResponseExample(BaseModel, frozen=True, extra="forbid"):
    """One answer, for a reader to look at."""

    label: str = Field(description="Which model.")
    seed: int = Field(description="Its seed.")
    role: str = Field(description="Role of the scenario.")
    orientation: Orientation = Field(description="Which room is named first.")
    number: int = Field(description="Which fill: the same for all models.")
    prompt: str = Field(description="The user's message.")
    text: str = Field(description="The answer.")
    answer: Label = Field(description="How it was classified.")
    stated_intent: bool = Field(description="The honest room, with a stated intent to mislead.")
