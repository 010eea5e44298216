"""Measure what trained agents do: behaviour rates per seed, and whether each agent plays well enough to be judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from soo_marl.deception import BehaviourRates, Trajectories, behaviour, competence
from soo_marl.engines import one_torch_thread
from soo_marl.storage.records import write_list
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.storage.tensor_files import write_tensors
from soo_marl.studies.baselines.training import plan
from soo_marl.studies.learning.agents_on_disk import Stop, load_agents, read_stop
from soo_marl.studies.learning.curves import gathered_curves
from soo_marl.studies.learning.recipes import BaselineConfig
from soo_marl.studies.learning.records import AgentRecord, LearningCurve, finite
from soo_marl.studies.learning.rollout import roll_out

STREAM = "evaluation"
"""Random streams of the evaluation episodes; no training and no classification draws from them."""

LATE_STATES = 10
"""Last states of an episode in which an agent counts as having arrived somewhere."""

EPISODES_FILE = "episodes.safetensors"
"""In ``results/``: by ``<kind>/<name>`` one episode of T steps of each kind, for the report to film.

The names are those of :data:`FILMED`, ``goal`` (0 or 1) and ``sight_radius`` (world units)."""

FILMED = ("blue_position", "red_position", "landmarks", "trapped")
"""Shapes ``[T+1, 2]``, ``[T+1, 2]``, ``[2, 2]`` and ``[T+1]``, see :class:`soo_marl.deception.Trajectories`."""

_CURVE_METRICS = (
    "return_blue", "return_red", "goal_rate", "goal_rate_alone", "trap_rate", "following_rate", "overlap",
    "critic_loss_blue", "value_blue",
)  # fmt: skip


@one_torch_thread()
def evaluate_baselines(
    config: BaselineConfig,
    directory: StudyDirectory,
    device: str = "cpu",
    on_progress: Callable[[int, float], None] = lambda shard, done: None,
) -> list[AgentRecord]:
    """Play every trained agent greedily, write ``results/agents.json`` and an episode to film, return the records.

    Returns per episode are those of an honest blue for all kinds, so that they compare.

    Args:
        config: the recipe.
        directory: the study's directory.
        device: where to compute.
        on_progress: called as ``on_progress(0, agents measured)``.

    Raises:
        RunDirectoryError: an agent is missing or damaged, or a file cannot be written.
    """
    rates: dict[str, BehaviourRates] = {}
    returns: dict[str, list[float]] = {}
    stops: dict[tuple[str, int], Stop] = {}
    filmed: dict[str, Tensor] = {}
    game = config.evaluation_game
    for kind in config.kinds:
        parts, returns[kind] = [], []
        # Shard by shard: all episodes of a thousand seeds together would not fit into memory.
        for number, seeds in enumerate(config.shards):
            agents = load_agents(directory, kind, seeds, config.game, config.maddpg, device)
            trajectories, episode_returns = roll_out(agents, game, config.evaluation_episodes, STREAM)
            parts.append(behaviour(trajectories, game.landmark_radius, min(LATE_STATES, game.episode_length)))
            returns[kind] += episode_returns.mean(dim=1).tolist()
            if number == 0:
                filmed |= _filmed(trajectories, kind, config)
            on_progress(0, float(sum(map(len, returns.values()))))
        rates[kind] = BehaviourRates.join(parts)
        for seed in config.seeds:
            if (stop := read_stop(directory, kind, seed)) is not None:
                stops[kind, seed] = stop
    records = agent_records(config, rates, returns, stops)
    write_list(directory.results / "agents.json", records)
    write_tensors(directory.results / EPISODES_FILE, filmed)
    return records


def agent_records(
    config: BaselineConfig,
    rates: Mapping[str, BehaviourRates],
    returns: Mapping[str, list[float]],
    stops: Mapping[tuple[str, int], Stop],
) -> list[AgentRecord]:
    """One record per kind and seed; agents of one kind alone are held against nothing and count as not judged.

    Args:
        config: the recipe.
        rates: behaviour ``[R]`` by kind.
        returns: blue's mean return ``[R]`` by kind.
        stops: by kind and seed the agents whose training was stopped, which are never competent.
    """
    pairs = competence(rates["honest"], rates["deceptive"], config.gate) if len(rates) == 2 else None
    records = []
    for kind, of_kind in rates.items():
        for run, seed in enumerate(config.seeds):
            reasons = getattr(pairs[run], kind).reasons if pairs else ("the other kind was not trained beside it",)
            if (stop := stops.get((kind, seed))) is not None:
                reasons = (f"training was stopped in {stop}", *reasons)
            content = {
                "kind": kind,
                "seed": seed,
                **{field.name: finite(getattr(of_kind, field.name)[run]) for field in fields(BehaviourRates)},
                "return": returns[kind][run],
                "stopped": None if stop is None else str(stop),
                "competent": not reasons,
                "reasons": reasons,
            }
            records.append(AgentRecord.model_validate(content))
    return records


def collect_curves(config: BaselineConfig, directory: StudyDirectory) -> list[LearningCurve]:
    """Gather the learning curves of all seeds, write ``results/curves.json`` and return them.

    A stage too short for a single log entry has none.

    Raises:
        RunDirectoryError: a seed's curves are missing, unreadable, or of other updates than the first seed's.
    """
    generator = np.random.default_rng(0)
    curves = [
        curve
        for phase in plan(config)
        for curve in gathered_curves(directory, phase.condition, phase.stage, phase.kind, _CURVE_METRICS, generator)
        if any(value is not None for row in curve.values for value in row)
    ]
    write_list(directory.results / "curves.json", curves)
    return curves


def _filmed(trajectories: Trajectories, kind: str, config: BaselineConfig) -> dict[str, Tensor]:
    """The first episode that shows what the kind does: red trapped and blue at the goal, or both at the goal.

    Nothing where no episode has a red.
    """
    flat = trajectories[~trajectories.alone]
    if flat.leading_shape == (0,):
        return {}
    final = torch.stack((flat.blue_position[:, -1], flat.red_position[:, -1]))
    at_goal = torch.linalg.vector_norm(final - flat.goal_position, dim=-1) < config.game.landmark_radius
    shows = at_goal[0] & (flat.trapped[:, -1] if kind == "deceptive" else at_goal[1])
    # Not decided at once, so that there is something to see.
    shows &= ~flat.trapped[:, min(10, flat.steps)]
    chosen = flat[int(shows.int().argmax())]
    content = {f"{kind}/{name}": getattr(chosen, name).cpu() for name in (*FILMED, "goal")}
    sight_radius = torch.tensor(config.game.blue_sight_radius, dtype=torch.float64)
    return content | {f"{kind}/sight_radius": sight_radius}
