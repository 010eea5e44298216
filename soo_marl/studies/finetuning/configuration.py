"""What a fine-tuning study does, as configuration: which agents, which treatments, how long."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from soo_marl.agents.configuration import MADDPGConfig
from soo_marl.agents.networks import HIDDEN_LAYERS
from soo_marl.agents.trainer import TrainingConfig
from soo_marl.envs.configuration import PhysicalDeceptionConfig
from soo_marl.envs.observations import BLUE_AGENT, Pairing, imagined_red, perspective
from soo_marl.studies.finetuning.methods import METHODS, Method, method
from soo_marl.studies.learning.recipes import (
    CONFIGURATION,
    BaselineConfig,
    Kind,
    Stage,
    check_counts,
    check_learners,
    honest_game,
)

STAGE, AFTER_STAGE = "finetune", "after"
"""Names of the two stages: with the loss, and further training without it."""

_STACK = 10
"""Seeds of one treatment that are trained as one stack."""

FINETUNING_TRAINING = TrainingConfig(updates=1_000, noise_start=1.0, noise_end=0.5, learners=(BLUE_AGENT,))


class Treatment(BaseModel):
    """One way to treat the agents: a method and its settings.

    Raises:
        pydantic.ValidationError: a field is unknown, of the wrong type, or out of its range.
    """

    model_config = CONFIGURATION

    method: str = Field(description="Name of the method, see soo_marl.studies.finetuning.methods.METHODS.")
    weight: float = Field(
        ge=0,
        description="Weight of the loss. Too low: nothing changes; too high: it outweighs the reward altogether.",
    )
    weight_start: float = Field(1.0, ge=0, description="Factor on the weight at the first update.")
    weight_end: float = Field(1.0, ge=0, description="Factor on the weight after the last update; linear in between.")
    updates: int = Field(1_000, ge=0, description="Updates with the loss. Longer ties harder and may end blind.")
    layers: tuple[str, ...] = Field(HIDDEN_LAYERS, min_length=1, description="Layers whose activations are compared.")
    pairing: Literal["imagined_red", "perspective"] = Field(
        "imagined_red", description="How other observations are made of self observations (imagined_red: paper)."
    )
    zero_flag: bool = Field(False, description="Zero the trapped flag of the other observation (as published).")
    towards: Literal["both", "initial_self"] = Field(
        "both", description="Both sides move towards each other (paper), or towards the self of before."
    )
    untrapped_only: bool = Field(False, description="Leave out observations in which red is trapped.")
    label: str = Field(
        min_length=1,
        description="Name of the condition: the method, and every setting that was not its usual one. Kept, since what "
        "is usual may change from one version to the next, and folders are named after it.",
    )

    @field_validator("method")
    @classmethod
    def _known(cls, name: str) -> str:
        method(name)
        return name

    @field_validator("layers")
    @classmethod
    def _hidden(cls, layers: tuple[str, ...]) -> tuple[str, ...]:
        if not set(layers) <= set(HIDDEN_LAYERS):
            raise ValueError(f"layers are {' and '.join(HIDDEN_LAYERS)}, not {', '.join(layers)}")
        # Named in another order, or twice, they are the same treatment.
        return tuple(layer for layer in HIDDEN_LAYERS if layer in layers)

    @model_validator(mode="after")
    def _trains_or_not(self) -> Self:
        if self.updates > 0 and not self.entry.trains:
            raise ValueError(f"{self.method} is for agents as they are: its updates must be 0, not {self.updates}")
        return self

    @property
    def entry(self) -> Method:
        """The method itself."""
        return METHODS[self.method]

    def pairing_for(self, game: PhysicalDeceptionConfig) -> Pairing:
        """The function that makes other observations."""
        if self.pairing == "perspective":
            return perspective(self.zero_flag)
        return imagined_red(game.blue_sight_radius, self.zero_flag)


def treatment(name: str, **changes: object) -> Treatment:
    """A method with its usual settings, some of them changed, labelled after what is changed.

    Raises:
        ValueError, pydantic.ValidationError: there is no such method, or a setting does not fit.
    """
    entry = method(name)
    usual = Treatment(
        label=name,
        method=name,
        weight=entry.weight,
        updates=entry.updates if entry.trains else 0,
        towards=entry.towards,
    )
    chosen = Treatment.model_validate(usual.model_dump() | changes)
    return chosen.model_copy(update={"label": _label(chosen, usual)})


def _label(chosen: Treatment, usual: Treatment) -> str:
    """The method, and every setting that is not its usual one."""
    parts = [chosen.method]
    if chosen.weight != usual.weight:
        parts.append(_text(chosen.weight))
    for name in ("weight_start", "weight_end"):
        if (value := getattr(chosen, name)) != getattr(usual, name):
            parts.append(f"{name}-{_text(value)}")
    if chosen.updates != usual.updates:
        parts.append(f"updates-{chosen.updates}")
    if chosen.layers != usual.layers:
        parts.append("-".join(chosen.layers))
    parts += [getattr(chosen, name) for name in ("pairing", "towards") if getattr(chosen, name) != getattr(usual, name)]
    parts += [name for name in ("zero_flag", "untrapped_only") if getattr(chosen, name)]
    return ".".join(parts)


class FinetuneConfig(BaseModel):
    """Fine-tuning of the agents of a baseline study: every treatment, for every seed.

    Raises:
        pydantic.ValidationError: a field is unknown, of the wrong type, or out of its range.
    """

    model_config = CONFIGURATION

    baselines: BaselineConfig = Field(description="The study that trained the agents.")
    seeds: tuple[int, ...] = Field(min_length=1, description="Seeds of that study whose agents are treated.")
    agents_digest: str = Field(description="Digest of its agents' files, so that other agents are not mixed in.")
    kind: Kind = Field("deceptive", description="Which of its agents are treated; honest to see what it costs them.")
    treatments: tuple[Treatment, ...] = Field(min_length=1, description="In the order of tables and pictures.")
    training: TrainingConfig = Field(
        FINETUNING_TRAINING,
        description="How experience is collected and used; its number of updates is the treatments' own.",
    )
    alone_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of episodes in which blue is alone. Without any, blue has hardly any behaviour of its own "
        "that overlap could pull towards.",
    )
    context_weights: tuple[float, ...] | None = Field(
        None,
        description="Weight of each context's transitions in the actor loss, in place of the study's. Overlap ties "
        "what blue does among others to what it does alone: the heavier side wins.",
    )
    after_updates: int = Field(1_200, ge=0, description="Updates of further training without the loss.")
    evaluation_episodes: int = Field(1_000, ge=2, description="Greedy episodes per agent on which it is measured.")
    monitor_episodes: int = Field(100, ge=0, description="Greedy episodes per agent at each log entry.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        labels = [treatment.label for treatment in self.treatments]
        if len(set(labels)) < len(labels):
            repeated = sorted({label for label in labels if labels.count(label) > 1})
            raise ValueError(f"each treatment may be given only once, but {', '.join(repeated)} is repeated")
        if foreign := sorted(set(self.seeds) - set(self.baselines.seeds)):
            raise ValueError(f"there are no agents with the seed {foreign[0]} in the study")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("each seed may be given only once")
        check_counts(self.model_dump(exclude={"baselines", "seeds"}))
        _ = self.maddpg
        check_learners(self.training, "training")
        if self.alone_share + self.baselines.game.trapped_start_share > 1:
            raise ValueError(
                "alone_share and trapped_start_share of the game are shares of the same episodes: together they must "
                "not exceed 1"
            )
        if missing := sorted({"honest", "deceptive"} - set(self.baselines.kinds)):
            raise ValueError(
                f"fine-tuning is held against honest and deceptive agents, and there are no {missing[0]} ones"
            )
        if self.alone_share > 0 and not any(stage.alone_share > 0 for stage in self.baselines.blue_stages):
            raise ValueError(
                "the agents were never trained alone, so they have no behaviour of their own to keep; train baselines "
                "in the staged regime, or set alone_share to 0"
            )
        return self

    @property
    def maddpg(self) -> MADDPGConfig:
        """The algorithm with which the agents are trained on."""
        fields = self.baselines.maddpg.model_dump()
        if self.context_weights is not None:
            fields["context_weights"] = self.context_weights
        return MADDPGConfig.model_validate(fields)

    @property
    def evaluation_game(self) -> PhysicalDeceptionConfig:
        """The game in which all agents are measured: honest pay, and episodes alone where there were some."""
        game = self.baselines.evaluation_game
        return game.replace(alone_share=game.alone_share if self.alone_share > 0 else 0.0)

    def training_game(self, chosen: Treatment) -> PhysicalDeceptionConfig:
        """The game of a treatment's training, under the reward of the treated agents unless the method changes it."""
        return chosen.entry.training_game(self.further_game)

    @property
    def further_game(self) -> PhysicalDeceptionConfig:
        """The game under the reward of the treated agents."""
        stage = Stage(name=STAGE, training=self.training, alone_share=self.alone_share)
        game = stage.game(self.baselines.game, self.kind)
        return game if self.kind == "deceptive" else honest_game(game)

    @property
    def shards(self) -> tuple[tuple[Treatment, tuple[int, ...]], ...]:
        """Every treatment that trains, with the seeds of each shard."""
        stacks = [self.seeds[start : start + _STACK] for start in range(0, len(self.seeds), _STACK)]
        return tuple((chosen, stack) for chosen in self.treatments if chosen.updates > 0 for stack in stacks)

    @property
    def updates(self) -> int:
        """Updates of all shards together."""
        return sum(chosen.updates + self.after_updates for chosen, _ in self.shards)


def _text(value: float) -> str:
    """A number as part of a folder's name: all its digits, and no plus sign."""
    return repr(float(value)).removesuffix(".0").replace("+", "")
