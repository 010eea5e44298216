"""What a reproduction does, preset by preset and step by step, and what that costs."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, Field

from soo_marl.engines import Compute, usable_cores
from soo_marl.envs.configuration import PRESETS
from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.study_directory import FINETUNING_FOLDER, MANIFEST_NAME, StudyDirectory
from soo_marl.studies.baselines.classification import ClassificationConfig
from soo_marl.studies.baselines.study import DEMO_CLASSIFICATION
from soo_marl.studies.finetuning.configuration import FinetuneConfig, Treatment
from soo_marl.studies.finetuning.methods import METHODS, method
from soo_marl.studies.finetuning.study import treatments_of
from soo_marl.studies.learning.recipes import CONFIGURATION, BaselineConfig, baseline_config, scaled

REGIMES: Mapping[str, str] = MappingProxyType({"trackable": "staged", "paper": "joint", "watch": "scripted"})
"""How each preset is trained: ``paper`` as in the paper, the others so that deception is learnt."""


class Scale(BaseModel):
    """How much a reproduction does.

    Raises:
        pydantic.ValidationError: a field is unknown, of the wrong type, or out of its range.
    """

    model_config = CONFIGURATION

    name: str = Field(description="Name on the command line.")
    seeds: tuple[int, ...] = Field(min_length=2, description="One honest and one deceptive run per seed and preset.")
    seeds_per_shard: int = Field(5, ge=1, description="Seeds that are trained as one stack in one worker process.")
    training: dict[str, float] = Field(
        {}, description="Factor on the baselines' updates by preset, 1 where none is given. Below 1 less is learnt."
    )
    evaluation_episodes: int = Field(2_000, ge=2, description="Greedy episodes per baseline agent (paper: 2,000).")
    classification: ClassificationConfig = Field(DEMO_CLASSIFICATION, description="How agents are classified.")
    methods: tuple[str, ...] = Field(
        tuple(METHODS), min_length=1, description="Methods of fine-tuning, as far as a preset's agents are competent."
    )
    after_updates: int = Field(
        FinetuneConfig.model_fields["after_updates"].default, ge=0, description="Updates after the loss is taken away."
    )
    finetuning_episodes: int = Field(1_000, ge=2, description="Greedy episodes per treated agent.")
    profile_episodes: int = Field(1_000, ge=1, description="Greedy episodes per agent for its deception profile.")
    remark: str = Field("", description="What a reader of the results must know; nothing for a whole reproduction.")


_DATA = tomllib.loads(resources.files("soo_marl.studies").joinpath("data", "reproduction.toml").read_text("utf-8"))
SCALES: dict[str, Scale] = {name: Scale(name=name, **fields) for name, fields in _DATA["scales"].items()}
"""By name. ``full`` plays the paper's numbers of episodes."""

_COSTS: Mapping[str, Any] = _DATA["costs"]


@dataclass(frozen=True)
class PresetPlan:
    """Everything that is done about one preset."""

    preset: str
    """Its name."""
    path: Path
    """The study's directory."""
    baselines: BaselineConfig
    """How its agents are trained."""
    scale: Scale
    """How much is done with them."""

    @property
    def treatments(self) -> tuple[Treatment, ...]:
        """What is done to those that deceive, as far as they are competent."""
        return treatments_of(self.scale.methods)

    @property
    def deceives(self) -> bool:
        """Whether deception is expected: learning together, red never comes to follow a blue that lies."""
        return self.baselines.regime != "joint"


@dataclass(frozen=True)
class PlannedStep:
    """One line of a plan."""

    preset: str
    """Name of the preset."""
    step: str
    """What is done."""
    amount: str
    """How much of it, in words."""
    seconds: float
    """About how long it takes."""
    megabytes: float
    """About how much it leaves on the disk."""
    done: bool = False
    """Whether it was done before, so that it takes no more time."""


def scale_named(name: str) -> Scale:
    """A scale by name. Raises ValueError: there is no such scale."""
    if name not in SCALES:
        raise ValueError(f"there is no scale {name!r}; choose one of {', '.join(SCALES)}")
    return SCALES[name]


def reproduction_plan(output: Path, scale: Scale, presets: Sequence[str] = tuple(REGIMES)) -> list[PresetPlan]:
    """What is to be done about each preset, in the order given.

    Args:
        output: folder of the reproduction; every preset gets a folder in it.
        scale: how much to do.
        presets: names of presets.

    Raises:
        ValueError, pydantic.ValidationError: there is no such preset, or none is given, or one is given twice.
    """
    if not presets:
        raise ValueError(f"name at least one preset of {', '.join(REGIMES)}")
    for name in presets:
        if name not in REGIMES:
            alike = difflib.get_close_matches(name, PRESETS, n=1)
            advice = f"did you mean {alike[0]}?" if alike else f"choose among {', '.join(REGIMES)}"
            raise ValueError(f"there is no preset {name!r}; {advice}")
        if presets.count(name) > 1:
            raise ValueError(f"each preset may be given only once, but {name} is repeated")
    for name in scale.methods:
        method(name)
    return [_preset_plan(output / name, name, scale) for name in presets]


def _preset_plan(path: Path, name: str, scale: Scale) -> PresetPlan:
    config = baseline_config(
        name,
        REGIMES[name],
        scale.seeds,
        seeds_per_shard=scale.seeds_per_shard,
        evaluation_episodes=scale.evaluation_episodes,
    )
    factor = scale.training.get(name, 1.0)
    if factor != 1.0:
        config = config.model_copy(update={"stages": scaled(config.stages, factor)})
    return PresetPlan(name, path, config, scale)


def planned_steps(plan: PresetPlan, compute: Compute) -> list[PlannedStep]:
    """The steps of a plan with about what each takes; fine-tuning where deception is expected.

    Raises:
        RunDirectoryError: the preset's folder holds a study whose files cannot be read.
    """
    workers, done = _workers(compute), _done(plan)
    config, scale = plan.baselines, plan.scale
    seeds = len(config.seeds)
    agents = seeds * len(config.kinds)
    length = config.game.episode_length / _COSTS["steps"]

    def playing(what: str, count: float) -> float:
        return float(count * length * _COSTS[f"{what}_seconds"])

    evaluated, profiled = scale.evaluation_episodes, scale.profile_episodes
    classified = scale.classification.evaluation_seeds * max(scale.classification.episodes)
    of_agent = _COSTS["agent_megabytes"] * seeds
    training = [config.updates * _per_update("training", len(shard)) for shard in config.shards]
    classifying = _shared(playing("classification", agents * classified), workers, len(config.shards) * 2)
    values = _COSTS["values_megabytes"] * agents * scale.classification.evaluation_seeds
    conditions = len(config.kinds) + (config.regime == "staged")
    steps = [
        ("train", f"{seeds} seeds × {config.updates:,} updates", _parallel(training, workers), of_agent * conditions),
        ("evaluate", f"{agents} agents × {evaluated:,} episodes", playing("evaluation", agents * evaluated), 1.0),
        ("classify", f"{agents} agents × {classified:,} episodes", classifying, values),
    ]
    pages = _COSTS["pictures_seconds"]
    if plan.deceives:
        trained = [chosen for chosen in plan.treatments if chosen.updates > 0]
        per_update = _per_update("finetuning", seeds) * length
        treating = _parallel([(chosen.updates + scale.after_updates) * per_update for chosen in trained], workers)
        # Baselines, treated agents, and those that were trained on afterwards.
        conditions = 2 + len(plan.treatments) + len(trained)
        measuring = _shared(playing("measuring", conditions * seeds * scale.finetuning_episodes), workers, conditions)
        of_condition = _COSTS["condition_megabytes"] + seeds * _COSTS["measured_agent_megabytes"]
        steps += [
            ("fine-tune", f"{len(trained)} methods × {seeds} seeds", treating, of_agent * len(trained) * 2),
            ("measure", f"{conditions} conditions × {seeds} agents", measuring, conditions * of_condition),
        ]
        pages += len(plan.treatments) * _COSTS["pictured_condition_seconds"]
    else:
        steps.append(("fine-tune", "nothing: no deception is expected", 0.0, 0.0))
    profiling = playing("profile", agents * profiled)
    steps += [
        ("profiles", f"{agents} agents × {profiled:,} episodes", profiling, _COSTS["profile_megabytes"] * agents),
        ("pages", "tables, pictures and the page", pages, _COSTS["pictures_megabytes"]),
    ]
    return [PlannedStep(plan.preset, *step, done=step[0] in done) for step in steps]


def checkpoint_megabytes(plan: PresetPlan, compute: Compute) -> float:
    """About how much checkpoints take at most while a plan is carried out; they are gone when it is done."""
    config = plan.baselines
    capacity = max(stage.training.replay_capacity for stage in config.stages)
    runs = len(config.seeds)
    if plan.deceives:
        runs = max(runs, min(_workers(compute), len(plan.treatments)) * len(config.seeds))
    return float(runs * capacity * _COSTS["transition_megabytes"])


def _workers(compute: Compute) -> int:
    return usable_cores() if compute.workers is None else max(1, compute.workers)


def _done(plan: PresetPlan) -> set[str]:
    """Names of the steps that were done before; the preset itself refuses what is damaged, and the others go on."""

    def is_done(study: StudyDirectory, step: str) -> bool:
        try:
            return study.done(step)
        except RunDirectoryError:
            return False

    if not (plan.path / MANIFEST_NAME).exists():
        return set()
    study, folder = StudyDirectory.read(plan.path), plan.path / FINETUNING_FOLDER
    done = {step for step in ("train", "evaluate") if is_done(study, step)}
    for step, file in (("classify", "classification.json"), ("profiles", "profiles.json")):
        if (study.results / file).exists():
            done.add(step)
    if (folder / MANIFEST_NAME).exists():
        finetuning = StudyDirectory.read(folder)
        steps = (("fine-tune", "finetune"), ("measure", "measure"))
        done |= {name for name, step in steps if is_done(finetuning, step)}
    return done


def _per_update(what: str, runs: int) -> float:
    seconds, per_run = _COSTS[f"{what}_seconds"]
    return float(seconds + per_run * runs)


def _parallel(shards: Sequence[float], workers: int) -> float:
    """How long shards take where each free worker takes the next one."""
    busy = [0.0] * workers
    for seconds in shards:
        first = busy.index(min(busy))
        busy[first] += seconds
    return max(busy)


def _shared(seconds: float, workers: int, shards: int) -> float:
    return seconds / min(workers, shards)
