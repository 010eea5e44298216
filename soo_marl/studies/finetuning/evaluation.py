"""Measure baselines and treated agents alike, one condition after the other, each kept in a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import Tensor

from soo_marl.deception import BehaviourRates, DeceptionProfile
from soo_marl.engines import LOCAL_WORKERS, Compute, Interrupted, one_torch_thread, run_shards
from soo_marl.storage.files import DELETE, RunDirectoryError, quoted, read_json, validate, write_json
from soo_marl.storage.lock import worker_lock
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.storage.tensor_files import read_tensors, write_tensors
from soo_marl.studies.finetuning.configuration import FinetuneConfig, Treatment
from soo_marl.studies.finetuning.episodes import record_episodes
from soo_marl.studies.finetuning.measures import Measures, Sensitivity, measure_agents
from soo_marl.studies.finetuning.records import EpisodeRecord
from soo_marl.studies.finetuning.training import AFTER
from soo_marl.studies.learning.agents_on_disk import agent_file, load_agents, read_stop


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
    *,
    compute: Compute = LOCAL_WORKERS,
    on_progress: Callable[[int, float], None] | None = None,
) -> None:
    """Measure the agents of every condition that is not measured yet.

    Raises:
        RunDirectoryError: an agent is missing or damaged, or a file cannot be written.
        ValueError: the Ray cluster cannot be used.
        WorkerLostError: a shard lost its worker again and again.
        KeyboardInterrupt: Ctrl-C, after what was measured was written.
    """
    shards = [(config, condition, source.resolve(), directory.path, compute.device) for condition in conditions(config)]
    run_shards(measure_shard, shards, compute, on_progress)


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
    step = f"measure/{condition.file_name}"
    with worker_lock(path), one_torch_thread():
        if not directory.done(step):
            place, name = directory, condition.file_name
            if condition.treatment is None:
                place = StudyDirectory.read(source)
            elif condition.treatment.updates == 0:
                place, name = StudyDirectory.read(source), config.kind
            game = config.evaluation_game
            if condition.treatment is not None and not condition.after:
                game = condition.treatment.entry.evaluation_game(game)
            baselines = config.baselines
            agents = load_agents(place, name, config.seeds, baselines.game, config.maddpg, device)
            stops = [read_stop(place, name, seed) for seed in config.seeds]
            measures = measure_agents(agents, game, config.evaluation_episodes)
            write_tensors(measures_file(directory, condition), _tensors(measures))
            about = {
                "stops": [None if found is None else str(found) for found in stops],
                "episodes": [
                    episode.model_dump(mode="json")
                    for episode in ([] if condition.after else record_episodes(agents, game, condition.name))
                ],
            }
            write_json(_about_file(directory, condition), about)
            made_from = [agent_file(place, name, seed) for seed in config.seeds] if place is directory else []
            directory.mark_done(
                step, [measures_file(directory, condition), _about_file(directory, condition)], made_from
            )
    report(1.0)


def read_measures(directory: StudyDirectory, condition: Condition) -> Measures:
    """What was measured of a condition.

    Raises:
        RunDirectoryError: the file is missing or damaged.
    """
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
    """The inverse of :func:`_tensors`.

    Raises:
        KeyError, ValueError: a tensor is missing, or does not fit.
    """
    profile = DeceptionProfile(**{field.name: tensors[f"profile/{field.name}"] for field in fields(DeceptionProfile)})
    return Measures(
        rates=BehaviourRates(**{field.name: tensors[f"rates/{field.name}"] for field in fields(BehaviourRates)}),
        profile=profile,
        returns=tensors["returns"],
        returns_blanked=tensors["returns_blanked"],
        sensitivity=Sensitivity(**{field.name: tensors[f"sensitivity/{field.name}"] for field in fields(Sensitivity)}),
        overlap={
            name.removeprefix("overlap/"): tensor for name, tensor in tensors.items() if name.startswith("overlap/")
        },
    )


def _tensors(measures: Measures) -> dict[str, Tensor]:
    """All numbers as named tensors on the CPU."""
    tensors: dict[str, Tensor] = {"returns": measures.returns, "returns_blanked": measures.returns_blanked}
    parts: Sequence[tuple[str, BehaviourRates | DeceptionProfile | Sensitivity]] = (
        ("rates", measures.rates),
        ("profile", measures.profile),
        ("sensitivity", measures.sensitivity),
    )
    for prefix, part in parts:
        tensors |= {f"{prefix}/{field.name}": getattr(part, field.name) for field in fields(part)}
    tensors |= {f"overlap/{form}": values for form, values in measures.overlap.items()}
    return {name: torch.as_tensor(tensor).cpu().contiguous() for name, tensor in tensors.items()}
