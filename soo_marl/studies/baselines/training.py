"""Train baselines: the stages of a recipe, shard by shard, resumable at any moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from soo_marl.agents.configuration import MADDPGConfig
from soo_marl.agents.maddpg import MADDPG
from soo_marl.engines import LOCAL_WORKERS, Compute, usable_memory
from soo_marl.engines.progress import Display
from soo_marl.envs.observations import RED_AGENT
from soo_marl.storage.study import SILENCE, shown
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.learning.agents_on_disk import Stop, agent_spaces, load_learner, read_stop, trained_files
from soo_marl.studies.learning.phases import Phase, Task, train_phases
from soo_marl.studies.learning.recipes import BaselineConfig, Kind, Stage

RED_CONDITION = "red"
"""Condition under which the reds of the staged regime are stored, with the honest blues they grew up with."""


def baseline_task(config: BaselineConfig) -> Task:
    """What a shard of a baseline study trains, from rewards alone."""

    def begin(
        directory: StudyDirectory, phase: Phase, seeds: Sequence[int], device: str
    ) -> tuple[MADDPG, list[Stop | None]]:
        """Fresh agents, with the red that was trained before where there is one, and what stopped with it."""
        maddpg = config.maddpg
        weights = next(stage.context_weights for stage in config.stages if stage.name == phase.stage)
        if weights is not None:
            maddpg = MADDPGConfig.model_validate(maddpg.model_dump() | {"context_weights": weights})
        learner = MADDPG(agent_spaces(phase.game), maddpg, seeds, device, stream=phase.condition)
        if config.regime != "staged" or phase.condition == RED_CONDITION or not phase.first:
            return learner, [None] * len(seeds)
        learner.take_agent(RED_AGENT, load_learner(directory, RED_CONDITION, seeds, phase.game, config.maddpg, device))
        return learner, [read_stop(directory, RED_CONDITION, seed) for seed in seeds]

    return Task(config, plan(config), [stage.name for stage in config.stages], begin)


def plan(config: BaselineConfig) -> list[Phase]:
    """The phases that every shard goes through, in order."""
    conditions: list[tuple[str, Kind, tuple[Stage, ...]]] = [(kind, kind, config.blue_stages) for kind in config.kinds]
    if config.regime == "staged":
        conditions.insert(0, (RED_CONDITION, "honest", config.stages[:1]))
    phases: list[Phase] = []
    for condition, kind, stages in conditions:
        updates = 0
        for index, stage in enumerate(stages):
            phases.append(
                Phase(
                    number=len(phases),
                    condition=condition,
                    kind=kind,
                    stage=stage.name,
                    game=stage.game(config.game, kind),
                    training=stage.training,
                    first=index == 0,
                    last=index == len(stages) - 1,
                    updates_before=updates,
                    stream=f"{condition}/{stage.name}",
                )
            )
            updates += stage.training.updates
    return phases


def check_memory(config: BaselineConfig, compute: Compute = LOCAL_WORKERS) -> None:
    """Find out before anything is written that a shard of a study can never fit into memory.

    Only what is certain is counted: weights with their targets and Adam's moments, the replay buffer, observations of
    all worlds and of a minibatch, positions in all evaluation episodes. What passes may still prove too large.

    Raises:
        ValueError: a field asks for more memory than this machine has.
    """
    game, spaces = config.evaluation_game, agent_spaces(config.game)
    inputs, actions = sum(spaces.observation_sizes), sum(spaces.action_sizes)
    units, agents = config.maddpg.hidden_units, len(spaces.action_sizes)
    row = inputs + actions
    weights = units * (row + agents * (2 * units + row + config.maddpg.contexts))
    floats = {
        "maddpg.hidden_units": 4 * weights,
        "evaluation_episodes": 4 * config.evaluation_episodes * (game.episode_length + 1),
    }
    for number, stage in enumerate(config.stages):
        training = stage.training
        sizes = {"worlds": row, "batch_size": row, "replay_capacity": row + inputs}
        for field, size in sizes.items():
            floats[f"stages.{number}.training.{field}"] = size * getattr(training, field)
    refuse_too_large(floats, min(config.seeds_per_shard, len(config.seeds)), compute)


def refuse_too_large(floats: Mapping[str, int], seeds: int, compute: Compute = LOCAL_WORKERS) -> None:
    """Refuse what takes more memory than this machine has; other machines, and graphics cards, may have more.

    Args:
        floats: numbers of 32 bits that each field takes at least, per seed.
        seeds: how many are computed as one stack.
        compute: where.

    Raises:
        ValueError: a field takes too much; it is named.
    """
    field, most = max(floats.items(), key=lambda item: item[1])
    needed, there = 4.0 * most * seeds, usable_memory()
    if compute.engine == "local" and compute.device == "cpu" and needed > there:
        raise ValueError(
            f"{field} is too large for this machine: with {seeds} seeds in a shard it takes at least "
            f"{needed / 1e9:,.0f} GB, and there are {there / 1e9:,.0f} GB; take less of it, or fewer seeds_per_shard"
        )


def agent_files(config: BaselineConfig, directory: StudyDirectory) -> list[Path]:
    """Where the trained agents of a study and their learning curves lie."""
    return trained_files(directory, dict.fromkeys(phase.condition for phase in plan(config)), config.seeds)


def train_baselines(
    config: BaselineConfig, directory: StudyDirectory, display: Display = SILENCE, compute: Compute = LOCAL_WORKERS
) -> None:
    """Train all agents of a study that are not trained yet and store them in its directory.

    Raises: as :func:`soo_marl.storage.study.shown`.
    """
    shards = [(config, directory.path, seeds, compute.device) for seeds in config.shards]
    shown(display, "training", float(config.updates * len(shards)), train_shard, shards, compute)


def train_shard(
    config: BaselineConfig,
    path: Path,
    seeds: tuple[int, ...],
    device: str,
    *,
    report: Callable[[float], None],
    stop: Callable[[], bool],
) -> None:
    """Train the runs of one shard, see :func:`soo_marl.studies.learning.phases.train_phases`."""
    train_phases(baseline_task(config), path, seeds, device, report=report, stop=stop)
