"""How baselines are trained, as configuration: a regime is a list of stages, and a stage changes the game alone."""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from soo_marl.agents.configuration import MADDPGConfig
from soo_marl.agents.trainer import TrainingConfig
from soo_marl.deception import CompetenceGate
from soo_marl.envs.configuration import DECEPTIVE_TRAP_REWARD, PhysicalDeceptionConfig, preset
from soo_marl.envs.observations import BLUE_AGENT, RED_AGENT

Kind = Literal["honest", "deceptive"]
Regime = Literal["staged", "joint", "scripted"]
REGIMES: tuple[Regime, ...] = ("staged", "joint", "scripted")

KINDS: tuple[Kind, ...] = ("honest", "deceptive")

CONFIGURATION = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
"""What all configurations of studies of agents have in common."""

LARGEST_COUNT = 2**31 - 1
"""Of anything but a seed; larger numbers do not fit what libraries count with."""


class Stage(BaseModel):
    """One stage of training: a game, and how long to learn what in it. The replay buffer starts empty in every
    stage."""

    model_config = CONFIGURATION

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="Name in logs, curves and checkpoints.")
    training: TrainingConfig = Field(description="Length, learners, noise, replay.")
    alone_share: float = Field(0.0, ge=0, le=1, description="Share of episodes in which blue is alone.")
    goal_needs_trap: bool = Field(
        False,
        description="The goal pays a deceptive blue only once red is trapped (or absent), and red's being there pays "
        "it nothing; honest ones are paid always.",
    )
    context_weights: tuple[float, ...] | None = Field(
        None, description="Weight of each context's transitions in the actor loss, in place of the algorithm's."
    )

    def game(self, base: PhysicalDeceptionConfig, kind: Kind) -> PhysicalDeceptionConfig:
        """The game of this stage for one kind of blue.

        A trap reward or bonus in the base game is what a deceptive blue is paid, in place of the paper's.
        """
        if kind == "honest":
            return honest_game(base).replace(alone_share=self.alone_share)
        papers = 0.0 if base.trap_reward or base.trap_bonus else DECEPTIVE_TRAP_REWARD
        game = base.replace(alone_share=self.alone_share, trap_reward=base.trap_reward + papers)
        if self.goal_needs_trap:
            return game.replace(goal_reward_untrapped=0.0, guide_reward=0.0)
        return game.replace(goal_reward_untrapped=None)


def honest_game(base: PhysicalDeceptionConfig) -> PhysicalDeceptionConfig:
    """The same game with nothing in blue's pay but the goal."""
    return base.replace(trap_reward=0.0, trap_bonus=0.0, goal_reward_untrapped=None, red_distance_reward=0.0)


class BaselineConfig(BaseModel):
    """Honest and deceptive baselines over many seeds: the game, the regime, the algorithm, the stages.

    In the regime ``staged`` the first stage trains red together with an honest blue; then that red stays as it is, and
    a fresh blue of each kind goes through the remaining stages against it. In ``joint`` both agents learn together
    through all stages, once per kind, as in the paper. In ``scripted`` red follows the game's rule, and blue alone
    learns through all stages. Each seed has a red of its own, so seeds are independent.

    Raises:
        pydantic.ValidationError: a field is unknown, of the wrong type, or out of its range.
    """

    model_config = CONFIGURATION

    game: PhysicalDeceptionConfig = Field(description="The game before stages change it.")
    regime: Regime = Field(description="staged, joint or scripted.")
    seeds: tuple[int, ...] = Field(min_length=1, description="One honest and one deceptive run per seed.")
    kinds: tuple[Kind, ...] = Field(KINDS, min_length=1, description="Kinds of blue to train.")
    maddpg: MADDPGConfig = Field(description="The algorithm, the same for all.")
    stages: tuple[Stage, ...] = Field(min_length=1, description="In order.")
    seeds_per_shard: int = Field(5, ge=1, description="Seeds that are trained as one stack in one worker process.")
    gate: CompetenceGate = Field(
        CompetenceGate(), description="What a pair of agents must exceed to be judged, see soo_marl.deception."
    )
    evaluation_episodes: int = Field(
        2000, ge=2, description="Greedy episodes per agent on which behaviour is measured."
    )
    evaluation_alone_share: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="Share of evaluation episodes in which blue is alone, if it ever was in training; none start with "
        "red trapped.",
    )

    @field_validator("seeds", "kinds")
    @classmethod
    def _no_repeats(cls, values: tuple[int | str, ...]) -> tuple[int | str, ...]:
        repeated = sorted({str(value) for value in values if values.count(value) > 1})
        if repeated:
            raise ValueError(f"each may be given only once, but {', '.join(repeated)} is repeated")
        return values

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        if self.regime == "staged" and len(self.stages) < 2:
            raise ValueError("the staged regime needs a first stage for red and at least one more for blue")
        if (self.regime == "scripted") != (self.game.red_policy == "scripted"):
            raise ValueError(
                "the scripted regime is for games with a scripted red, and the others for games in which red learns: "
                f"the regime is {self.regime} and red_policy is {self.game.red_policy}"
            )
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"each stage needs a name of its own, but they are {', '.join(names)}")
        for stage in self.stages:
            if stage.alone_share + self.game.trapped_start_share > 1:
                raise ValueError(
                    f"alone_share of the stage {stage.name} and trapped_start_share of the game are shares of the same "
                    "episodes: together they must not exceed 1"
                )
            check_learners(stage.training, f"stage {stage.name}")
        return self

    @model_validator(mode="after")
    def _counts_can_be_counted(self) -> Self:
        check_counts(self.model_dump(exclude={"seeds"}))
        return self

    @property
    def blue_stages(self) -> tuple[Stage, ...]:
        """The stages that every kind of blue goes through."""
        return self.stages[1:] if self.regime == "staged" else self.stages

    @property
    def evaluation_game(self) -> PhysicalDeceptionConfig:
        """The game in which all agents are evaluated and classified, whatever their kind.

        No special starts, honest pay (so that returns compare), and no episodes alone for blues that never met any.
        """
        ever_alone = any(stage.alone_share > 0 for stage in self.blue_stages)
        return honest_game(self.game).replace(
            alone_share=self.evaluation_alone_share if ever_alone else 0.0, trapped_start_share=0.0
        )

    @property
    def shards(self) -> tuple[tuple[int, ...], ...]:
        """The seeds of each shard."""
        size = self.seeds_per_shard
        return tuple(self.seeds[start : start + size] for start in range(0, len(self.seeds), size))

    @property
    def updates(self) -> int:
        """Updates per shard over all stages and kinds."""
        of_red = self.stages[0].training.updates if self.regime == "staged" else 0
        return of_red + sum(stage.training.updates for stage in self.blue_stages) * len(self.kinds)


_LARGEST_SCALE = 1e6

_RECIPES = tomllib.loads(resources.files("soo_marl.studies").joinpath("data", "recipes.toml").read_text("utf-8"))
"""By regime the fields of its configuration."""


def baseline_config(
    preset_name: str = "trackable",
    regime: str = "staged",
    seeds: tuple[int, ...] = tuple(range(10)),
    **changes: object,
) -> BaselineConfig:
    """The recipe of a regime in a preset.

    Args:
        preset_name: name of a preset of the game.
        regime: ``staged``, ``joint`` or ``scripted``; a preset with a scripted red is trained in the last.
        seeds: one honest and one deceptive run per seed.
        changes: further fields of :class:`BaselineConfig`.

    Raises:
        ValueError, pydantic.ValidationError: there is no such preset or regime, or a field does not fit.
    """
    if regime not in REGIMES:
        raise ValueError(f"there is no regime {regime!r}; choose one of {', '.join(REGIMES)}")
    game = preset(preset_name)
    if game.red_policy == "scripted":
        regime = "scripted"
    fields = _RECIPES[regime] | {"game": game.replace(**_RECIPES[regime].get("game", {}))}
    return BaselineConfig.model_validate(fields | {"regime": regime, "seeds": seeds} | changes)


def scaled(stages: tuple[Stage, ...], factor: float) -> tuple[Stage, ...]:
    """The same stages with their numbers of updates multiplied, for quick looks; results then mean little.

    Raises:
        ValueError: the factor is not a positive number.
    """
    if not (0 < factor < math.inf):
        raise ValueError(f"scale must be a positive number, not {factor:g}")
    if factor > _LARGEST_SCALE:
        raise ValueError(f"scale must be at most {_LARGEST_SCALE:g}, not {factor:g}")

    def shorter(training: TrainingConfig) -> TrainingConfig:
        updates = max(1, round(training.updates * factor))
        # A stage shorter than the distance between two log entries would leave no curve.
        return training.model_copy(update={"updates": updates, "log_every": min(training.log_every, updates)})

    return tuple(stage.model_copy(update={"training": shorter(stage.training)}) for stage in stages)


def same_recipe(one: object, other: object) -> bool:
    """Whether two configurations, as JSON, are of one recipe; fields that earlier versions did not write are usual."""
    try:
        return one == other or BaselineConfig.model_validate(one) == BaselineConfig.model_validate(other)
    except ValidationError:
        return False


def with_changes(config: BaselineConfig, changes: Sequence[str]) -> BaselineConfig:
    """A configuration with fields set by ``name=value``, names dotted, values as JSON or plain text.

    Raises:
        ValueError: a change is not of that form, or names no field.
        pydantic.ValidationError: a value does not fit its field.
    """
    tree = config.model_dump(mode="json")
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise ValueError(f"--set takes name=value, for example game.blue_speed_limit=1.0, not {change!r}")
        *parents, last = name.split(".")
        branch: Any = tree
        try:
            for parent in parents:
                branch = branch[_key(branch, parent)]
            key = _key(branch, last)
            branch[key]
        except (KeyError, IndexError, ValueError, TypeError):
            alike = difflib.get_close_matches(name, [name for name, _ in _parts(tree)], n=1)
            advice = f"did you mean {alike[0]}?" if alike else "the fields are those in study.json"
            raise ValueError(f"--set {change}: there is no field {name}; {advice}") from None
        try:
            branch[key] = json.loads(text)
        except (ValueError, RecursionError):
            branch[key] = text
    return BaselineConfig.model_validate(tree)


def check_learners(training: TrainingConfig, what: str) -> None:
    """Refuse learners that are no agents of the game. Raises ValueError: one is unknown or repeated, or none is."""
    learners = (RED_AGENT, BLUE_AGENT) if training.learners is None else training.learners
    if not learners or len(set(learners)) < len(learners) or not set(learners) <= {RED_AGENT, BLUE_AGENT}:
        raise ValueError(f"learners of the {what} are {RED_AGENT} (red) and {BLUE_AGENT} (blue), each once")


def check_counts(fields: Mapping[str, Any]) -> None:
    """Refuse numbers that nothing can have, among the fields of a configuration without its seeds.

    Raises:
        ValueError: one exceeds :data:`LARGEST_COUNT`.
    """
    for name, value in _parts(fields):
        if isinstance(value, int) and value > LARGEST_COUNT:
            raise ValueError(f"{name} must be at most {LARGEST_COUNT:,}, not {value:,}")


def _key(branch: Any, part: str) -> str | int:
    return int(part) if isinstance(branch, list) else part


def _parts(branch: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All that lies below a branch of a configuration, by dotted name."""
    listed = enumerate(branch) if isinstance(branch, list | tuple) else ()
    pairs: Iterable[tuple[Any, Any]] = branch.items() if isinstance(branch, dict) else listed
    for key, value in pairs:
        yield f"{prefix}{key}", value
        yield from _parts(value, f"{prefix}{key}.")


_STAGED, _JOINT = baseline_config("trackable", "staged"), baseline_config("paper", "joint")
STAGED_MADDPG, STAGED_STAGES = _STAGED.maddpg, _STAGED.stages
JOINT_MADDPG, JOINT_STAGES = _JOINT.maddpg, _JOINT.stages
