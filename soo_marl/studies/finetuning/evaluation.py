"""Measure baselines and treated agents alike, one condition after the other, each kept in a file of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from soo_marl.agents.agent_networks import AgentNetworks
from soo_marl.deception import BehaviourRates, DeceptionProfile, rubric_steps
from soo_marl.engines import LOCAL_WORKERS, Compute, Interrupted, one_torch_thread
from soo_marl.engines.progress import Display
from soo_marl.envs.batched import BatchedPhysicalDeception
from soo_marl.envs.configuration import PhysicalDeceptionConfig
from soo_marl.envs.observations import BLUE_AGENT
from soo_marl.random_streams import RandomStreams
from soo_marl.storage.files import DELETE, RunDirectoryError, quoted, read_json, validate, write_json
from soo_marl.storage.lock import worker_lock
from soo_marl.storage.study import SILENCE, shown
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.storage.tensor_files import read_tensors, write_tensors
from soo_marl.studies.finetuning.configuration import FinetuneConfig, Treatment
from soo_marl.studies.finetuning.measures import Measures, Sensitivity, measure_agents, step_overlap
from soo_marl.studies.finetuning.records import EpisodeRecord
from soo_marl.studies.finetuning.training import AFTER
from soo_marl.studies.learning.agents_on_disk import agent_file, load_agents, read_stop
from soo_marl.studies.learning.records import from_named, named_tensors
from soo_marl.studies.learning.rollout import greedy_steps, roll_out

_PARTS: Mapping[str, type] = {"rates": BehaviourRates, "profile": DeceptionProfile, "sensitivity": Sensitivity}
_OVERLAP = "overlap/"

_EPISODES_STREAM = "finetuning/episodes"
_WITH_RED, _ALONE = 5, 1
"""How many episodes are kept of one agent."""
_CANDIDATES = 40
_DIGITS = 4


@dataclass(frozen=True)
class Condition:
    """A group of agents that were treated alike."""

    name: str
    """The treatment's label, or the kind of a baseline."""
    treatment: Treatment | None = None
    """None for baselines."""
    after: bool = False
    """Some time after the loss was taken away."""

    @property
    def file_name(self) -> str:
        """What files about it are named after."""
        return f"{self.name}.{AFTER}" if self.after else self.name


def conditions(config: FinetuneConfig) -> list[Condition]:
    """All conditions of a study: deceptive baselines, the treatments, honest baselines; then the latter's aftermath."""
    treated = [Condition(chosen.label, chosen) for chosen in config.treatments]
    later = [
        Condition(chosen.label, chosen, after=True)
        for chosen in config.treatments
        if chosen.updates > 0 and config.after_updates > 0
    ]
    return [Condition("deceptive"), *treated, Condition("honest"), *later]


def measure_conditions(
    config: FinetuneConfig,
    directory: StudyDirectory,
    source: Path,
    display: Display = SILENCE,
    compute: Compute = LOCAL_WORKERS,
) -> None:
    """Measure the agents of every condition that is not measured yet.

    Raises: as :func:`soo_marl.storage.study.shown`.
    """
    shards = [(config, condition, source.resolve(), directory.path, compute.device) for condition in conditions(config)]
    shown(display, "measurement", float(len(shards)), measure_shard, shards, compute)


def measure_shard(
    config: FinetuneConfig,
    condition: Condition,
    source: Path,
    path: Path,
    device: str,
    *,
    report: Callable[[float], None],
    stop: Callable[[], bool],
) -> None:
    """Measure the agents of one condition, unless that is done.

    Raises:
        Interrupted: ``stop()`` became true; nothing is kept of this condition.
        RunDirectoryError: an agent is missing or damaged, or a file cannot be written.
    """
    if stop():
        raise Interrupted
    directory = StudyDirectory.read(path)
    files = [measures_file(directory, condition), _about_file(directory, condition)]
    chosen, game = condition.treatment, config.evaluation_game
    trained_here = chosen is not None and chosen.updates > 0
    name = config.kind if chosen is not None and not trained_here else condition.file_name
    made_from = [agent_file(directory, name, seed) for seed in config.seeds] if trained_here else []
    if chosen is not None and not condition.after:
        game = chosen.entry.evaluation_game(game)

    def measure() -> None:
        place = directory if trained_here else StudyDirectory.read(source)
        agents = load_agents(place, name, config.seeds, config.baselines.game, config.maddpg, device)
        stops = [read_stop(place, name, seed) for seed in config.seeds]
        write_tensors(files[0], _tensors(measure_agents(agents, game, config.evaluation_episodes)))
        episodes = [] if condition.after else record_episodes(agents, game, condition.name)
        about = {
            "stops": [None if found is None else str(found) for found in stops],
            "episodes": [episode.model_dump(mode="json") for episode in episodes],
        }
        write_json(files[1], about)

    with worker_lock(path), one_torch_thread():
        directory.once(f"measure/{condition.file_name}", measure, files, made_from)
    report(1.0)


def read_measures(directory: StudyDirectory, condition: Condition) -> Measures:
    """What was measured of a condition. Raises RunDirectoryError: the file is missing or damaged."""
    path = measures_file(directory, condition)
    tensors, _ = read_tensors(path, finite=False)
    agents = len(directory.manifest.seeds)
    try:
        for name, tensor in tensors.items():
            if not name.endswith("_thresholds") and tensor.shape[:1] != (agents,):
                raise ValueError(f"{name} is not of {agents} agents")
        return _measures(tensors)
    except (KeyError, ValueError) as error:
        raise RunDirectoryError(f"{path} does not hold what is measured: {quoted(error)}; {DELETE}") from error


def read_about(directory: StudyDirectory, condition: Condition) -> tuple[list[str | None], list[EpisodeRecord]]:
    """Where runs of a condition were stopped, and some of its episodes.

    Raises:
        RunDirectoryError: the file is missing or damaged.
    """
    path = _about_file(directory, condition)
    content = validate(TypeAdapter(dict[str, list[object]]), read_json(path), path)
    stops = validate(TypeAdapter(list[str | None]), content.get("stops"), path)
    if len(stops) != len(directory.manifest.seeds):
        raise RunDirectoryError(f"{path} does not fit: stops are not one for each seed; {DELETE}")
    return stops, validate(TypeAdapter(list[EpisodeRecord]), content.get("episodes"), path)


def measures_file(directory: StudyDirectory, condition: Condition) -> Path:
    """Where what was measured of a condition lies."""
    return directory.path / "measures" / f"{condition.file_name}.safetensors"


def measured_files(config: FinetuneConfig, directory: StudyDirectory) -> list[Path]:
    """Everything that measuring writes."""
    return [file(directory, condition) for condition in conditions(config) for file in (measures_file, _about_file)]


def _about_file(directory: StudyDirectory, condition: Condition) -> Path:
    return directory.path / "measures" / f"{condition.file_name}.json"


def _measures(tensors: Mapping[str, Tensor]) -> Measures:
    """The inverse of :func:`_tensors`. Raises KeyError, ValueError: a tensor is missing, or does not fit."""
    parts: dict[str, Any] = {name: from_named(part, tensors, f"{name}/{{}}") for name, part in _PARTS.items()}
    overlap = {name.removeprefix(_OVERLAP): found for name, found in tensors.items() if name.startswith(_OVERLAP)}
    return Measures(returns=tensors["returns"], returns_blanked=tensors["returns_blanked"], overlap=overlap, **parts)


def _tensors(measures: Measures) -> dict[str, Tensor]:
    """All numbers as named tensors on the CPU."""
    tensors = {"returns": measures.returns, "returns_blanked": measures.returns_blanked}
    tensors |= {f"{_OVERLAP}{form}": values for form, values in measures.overlap.items()}
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    for name in _PARTS:
        tensors |= named_tensors(getattr(measures, name), f"{name}/{{}}")
    return tensors


@torch.no_grad()
def record_episodes(agents: AgentNetworks, game: PhysicalDeceptionConfig, condition: str) -> list[EpisodeRecord]:
    """Some greedy episodes of the first agent of a stack; all conditions meet the same starts.

    Args:
        agents: R runs.
        game: the game to play.
        condition: what the episodes are labelled with; their verdict is left open.
    """
    trajectories, _ = roll_out(agents, game, _CANDIDATES, _EPISODES_STREAM)
    alone = trajectories.alone[0].tolist()
    with_red = [number for number in range(_CANDIDATES) if not alone[number]][:_WITH_RED]
    chosen = with_red + [number for number in range(_CANDIDATES) if alone[number]][:_ALONE]
    worlds = BatchedPhysicalDeception(game, agents.seeds, _CANDIDATES, agents.device, stream=_EPISODES_STREAM)
    random = RandomStreams(agents.seeds, f"{_EPISODES_STREAM}/pairs", agents.device)
    overlap = torch.stack(
        [step_overlap(agents, step.observations[BLUE_AGENT], game, random)[0] for step in greedy_steps(agents, worlds)],
        dim=-1,
    )
    first = trajectories[0]
    steps = rubric_steps(first)
    records = []
    for number in chosen:
        records.append(
            EpisodeRecord(
                condition=condition,
                seed=agents.seeds[0],
                verdict=None,
                number=number,
                alone=alone[number],
                goal=_point(first.goal_position[number]),
                fake=_point(first.fake_position[number]),
                blue=tuple(map(_point, first.blue_position[number])),
                red=tuple(map(_point, first.red_position[number])),
                trapped=tuple(first.trapped[number].tolist()),
                red_in_sight=tuple(first.red_in_sight[number].tolist()),
                overlap=_numbers(overlap[number]),
                opportunity=tuple(steps.opportunity[number].tolist()),
                projection_on_goal=_numbers(steps.projection_on_goal[number]),
                projection_on_fake=_numbers(steps.projection_on_fake[number]),
                cosine_between=_numbers(steps.cosine_between[number]),
            )
        )
    return records


def _point(position: Tensor) -> tuple[float, float]:
    x, y = (round(float(value), _DIGITS) for value in position)
    return x, y


def _numbers(values: Tensor) -> tuple[float | None, ...]:
    return tuple(None if math.isnan(value) else round(value, _DIGITS) for value in values.tolist())
