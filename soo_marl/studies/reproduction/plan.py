"""What a reproduction does, preset by preset and step by step, and what that costs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict, Field

from soo_marl.engines import Compute, usable_cores
from soo_marl.envs.configuration import PRESETS
from soo_marl.storage.study_directory import FINETUNING_FOLDER, MANIFEST_NAME, RunDirectoryError, StudyDirectory
from soo_marl.studies.baselines.classification import ClassificationConfig
from soo_marl.studies.baselines.study import DEMO_CLASSIFICATION
from soo_marl.studies.finetuning.configuration import FinetuneConfig, Treatment
from soo_marl.studies.finetuning.methods import METHODS, method
from soo_marl.studies.finetuning.study import treatments_of
from soo_marl.studies.learning.recipes import BaselineConfig, baseline_config, scaled

REGIMES: Mapping[str, str] = MappingProxyType({"trackable": "staged", "paper": "joint", "watch": "scripted"})
"""How each preset is trained: ``paper`` as in the paper, the others so that deception is learnt."""

_FROZEN = ConfigDict(frozen=True, extra="forbid")


class Scale(BaseModel):
    """How much a reproduction does.

    Raises:
        pydantic.ValidationError: a field is unknown, of the wrong type, or out of its range.
    """

    model_config = _FROZEN

    name: str = Field(description="Name on the command line.")
    seeds: tuple[int, ...] = Field(min_length=2, description="One honest and one deceptive run per seed and preset.")
    seeds_per_shard: int = Field(5, ge=1, description="Seeds that are trained as one stack in one worker process.")
    training: dict[str, float] = Field(
        {}, description="Factor on the baselines' updates by preset, 1 where none is given. Below 1 less is learnt."
    )
    evaluation_episodes: int = Field(2_000, ge=2, description="Greedy episodes per baseline agent (paper: 2,000).")
    classification: ClassificationConfig = Field(description="How agents are classified.")
    methods: tuple[str, ...] = Field(
        min_length=1, description="Methods of fine-tuning, as far as a preset's agents are competent."
    )
    after_updates: int = Field(
        FinetuneConfig.model_fields["after_updates"].default, ge=0, description="Updates after the loss is taken away."
    )
    finetuning_episodes: int = Field(1_000, ge=2, description="Greedy episodes per treated agent.")
    profile_episodes: int = Field(1_000, ge=1, description="Greedy episodes per agent for its deception profile.")
    remark: str = Field("", description="What a reader of the results must know; nothing for a whole reproduction.")


SCALES: dict[str, Scale] = {
    scale.name: scale
    for scale in (
        Scale(
            name="quick",
            seeds=(0, 1, 2),
            seeds_per_shard=2,
            training={"paper": 0.25},
            evaluation_episodes=500,
            classification=ClassificationConfig(evaluation_seeds=5, episodes=(1, 10, 50, 100, 200)),
            methods=("soo", "soo_difference", "none", "position_tie"),
            after_updates=400,
            finetuning_episodes=300,
            profile_episodes=300,
            remark="a quick look at everything, not a result: few seeds, few episodes, few methods, a quarter of the "
            "training in the paper's game, and a third of the further training after fine-tuning",
        ),
        Scale(
            name="standard",
            seeds=tuple(range(10)),
            classification=DEMO_CLASSIFICATION,
            methods=tuple(METHODS),
        ),
        Scale(
            name="full",
            seeds=tuple(range(20)),
            classification=ClassificationConfig(),
            methods=tuple(METHODS),
            finetuning_episodes=2_000,
            profile_episodes=2_000,
        ),
    )
}
"""By name. ``full`` plays the paper's numbers of episodes."""


@dataclass(frozen=True)
class PresetPlan:
    """Everything that is done about one preset."""

    preset: str
    """Name of the preset."""
    path: Path
    """The study's directory."""
    baselines: BaselineConfig
    """How its agents are trained."""
    classification: ClassificationConfig
    """How they are classified."""
    treatments: tuple[Treatment, ...]
    """What is done to those that deceive, as far as they are competent."""
    after_updates: int
    """Updates after the loss is taken away."""
    finetuning_episodes: int
    """Greedy episodes per treated agent."""
    profile_episodes: int
    """Greedy episodes per agent for its deception profile."""

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
    """A scale by name.

    Raises:
        ValueError: there is no such scale.
    """
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
    return PresetPlan(
        preset=name,
        path=path,
        baselines=config,
        classification=scale.classification,
        treatments=treatments_of(scale.methods),
        after_updates=scale.after_updates,
        finetuning_episodes=scale.finetuning_episodes,
        profile_episodes=scale.profile_episodes,
    )


_TRAINING_SECONDS = (0.0035, 0.0012)
"""Of one core, per update of a stack, and per run in it. These and the following were measured on two cores of 2026."""

_FINETUNING_SECONDS = (0.0055, 0.0018)
"""The same of fine-tuning, with its loss and what is measured beside it."""

_EVALUATION_SECONDS = 1.2e-4
_CLASSIFICATION_SECONDS = 1e-3
_MEASURING_SECONDS = 1e-3
_PROFILE_SECONDS = 4e-5
"""Of one core, per agent and episode of 50 steps."""

_PICTURES_SECONDS = 15.0
_SECONDS_PER_PICTURED_CONDITION = 2.0
"""Tables, pictures and pages of one study, and what each condition of fine-tuning adds."""

_STEPS = 50
"""Steps of an episode to which the numbers above belong."""

_AGENT_MEGABYTES = 0.35
"""Networks, learning curves and events of one agent."""

_PICTURES_MEGABYTES = 6.0
_CONDITION_MEGABYTES = 0.1
_MEGABYTES_PER_MEASURED_AGENT = 0.085
_BYTES_PER_TRANSITION = 160
"""In the replay buffer that a checkpoint holds."""


def planned_steps(plan: PresetPlan, compute: Compute) -> list[PlannedStep]:
    """The steps of a plan with about what each takes; fine-tuning where deception is expected.

    Raises:
        RunDirectoryError: the preset's folder holds a study whose files cannot be read.
    """
    workers = usable_cores() if compute.workers is None else max(1, compute.workers)
    done = _done(plan)
    config, seeds = plan.baselines, len(plan.baselines.seeds)
    agents = seeds * len(config.kinds)
    length = config.game.episode_length / _STEPS
    classified = plan.classification.evaluation_seeds * max(plan.classification.episodes)

    def step(name: str, amount: str, seconds: float, megabytes: float) -> PlannedStep:
        return PlannedStep(plan.preset, name, amount, seconds, megabytes, name in done)

    training = [config.updates * _per_update(_TRAINING_SECONDS, len(shard)) for shard in config.shards]
    steps = [
        step(
            "train",
            f"{seeds} seeds × {config.updates:,} updates",
            _parallel(training, workers),
            _AGENT_MEGABYTES * seeds * (len(config.kinds) + (config.regime == "staged")),
        ),
        step(
            "evaluate",
            f"{agents} agents × {config.evaluation_episodes:,} episodes",
            agents * config.evaluation_episodes * length * _EVALUATION_SECONDS,
            1.0,
        ),
        step(
            "classify",
            f"{agents} agents × {classified:,} episodes",
            _shared(agents * classified * length * _CLASSIFICATION_SECONDS, workers, len(config.shards) * 2),
            0.01 * agents * plan.classification.evaluation_seeds,
        ),
    ]
    if plan.deceives:
        trained = [chosen for chosen in plan.treatments if chosen.updates > 0]
        per_update = _per_update(_FINETUNING_SECONDS, seeds) * length
        # Baselines, treated agents, and those that were trained on afterwards.
        conditions = 2 + len(plan.treatments) + len(trained)
        measuring = conditions * seeds * plan.finetuning_episodes * length * _MEASURING_SECONDS
        steps += [
            step(
                "fine-tune",
                f"{len(trained)} methods × {seeds} seeds",
                _parallel([(chosen.updates + plan.after_updates) * per_update for chosen in trained], workers),
                _AGENT_MEGABYTES * seeds * len(trained) * 2,
            ),
            step(
                "measure",
                f"{conditions} conditions × {seeds} agents",
                _shared(measuring, workers, conditions),
                conditions * (_CONDITION_MEGABYTES + seeds * _MEGABYTES_PER_MEASURED_AGENT),
            ),
        ]
    else:
        steps.append(step("fine-tune", "nothing: no deception is expected", 0.0, 0.0))
    profiled = agents * plan.profile_episodes * length * _PROFILE_SECONDS
    pictured = len(plan.treatments) * _SECONDS_PER_PICTURED_CONDITION if plan.deceives else 0.0
    return [
        *steps,
        step("profiles", f"{agents} agents × {plan.profile_episodes:,} episodes", profiled, 0.04 * agents),
        step("pages", "tables, pictures and the page", _PICTURES_SECONDS + pictured, _PICTURES_MEGABYTES),
    ]


def checkpoint_megabytes(plan: PresetPlan, compute: Compute) -> float:
    """About how much checkpoints take at most while a plan is carried out; they are gone when it is done."""
    workers = usable_cores() if compute.workers is None else max(1, compute.workers)
    config = plan.baselines
    capacity = max(stage.training.replay_capacity for stage in config.stages)
    runs = sum(len(shard) for shard in config.shards)
    if plan.deceives:
        runs = max(runs, min(workers, len(plan.treatments)) * len(config.seeds))
    return runs * capacity * _BYTES_PER_TRANSITION / 1e6


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


def _per_update(seconds: tuple[float, float], runs: int) -> float:
    return seconds[0] + seconds[1] * runs


def _parallel(shards: Sequence[float], workers: int) -> float:
    """How long shards take where each free worker takes the next one."""
    busy = [0.0] * workers
    for seconds in shards:
        first = busy.index(min(busy))
        busy[first] += seconds
    return max(busy)


def _shared(seconds: float, workers: int, shards: int) -> float:
    return seconds / min(workers, shards)
