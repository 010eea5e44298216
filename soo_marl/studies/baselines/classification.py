"""Classify agents by overlap value: the published paired protocol, and separation across independent seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field, field_validator, model_validator

from soo_marl.agents.networks import HIDDEN_LAYERS
from soo_marl.engines import LOCAL_WORKERS, Compute, Interrupted
from soo_marl.engines.progress import Display
from soo_marl.statistics import auroc_interval, linear_probe, published_protocol, roc_points, separation
from soo_marl.storage.lock import worker_lock
from soo_marl.storage.records import write_one
from soo_marl.storage.study import SILENCE, shown
from soo_marl.storage.study_directory import StudyDirectory, agents_digest
from soo_marl.storage.tensor_files import Headers, TensorHeader, read_headers, read_tensors, write_tensors
from soo_marl.studies.baselines.findings import findings
from soo_marl.studies.learning.agents_on_disk import agent_file, load_agents
from soo_marl.studies.learning.overlap_values import (
    FORMS,
    LAYER_SETS,
    PAIRINGS,
    ValueKey,
    measure_overlap,
    sample_activations,
)
from soo_marl.studies.learning.recipes import CONFIGURATION, BaselineConfig, Kind, check_counts
from soo_marl.studies.learning.records import (
    AgentRecord,
    Classification,
    ClassificationRow,
    OverlapValue,
    ProtocolCurve,
    finite,
)

NOT_APPLICABLE = "–"


class ClassificationConfig(BaseModel):
    """How trained agents are classified. Immutable and validated."""

    model_config = CONFIGURATION

    evaluation_seeds: int = Field(10, ge=1, description="Evaluation seeds of the published protocol (paper: 10).")
    episodes: tuple[int, ...] = Field(
        (1, *range(100, 1501, 100)),
        min_length=1,
        description="Episodes per evaluation seed at which accuracy is given.",
    )
    probe_steps: int = Field(200, ge=10, description="Steps per agent for the linear probe.")

    @field_validator("episodes")
    @classmethod
    def _ascend_from_one(cls, episodes: tuple[int, ...]) -> tuple[int, ...]:
        if min(episodes) < 1 or list(episodes) != sorted(set(episodes)):
            raise ValueError("must be numbers from 1 on, each larger than the one before it")
        return episodes

    @model_validator(mode="after")
    def _counts_can_be_counted(self) -> Self:
        check_counts(self.model_dump())
        return self


def check_classifiable(config: BaselineConfig) -> None:
    """Find out before hours of training that the agents of a study cannot be told apart.

    Raises:
        ValueError: there are fewer than two seeds, or only one kind.
    """
    if len(config.kinds) < 2:
        raise ValueError(f"classification needs honest and deceptive agents, and there are only {config.kinds[0]} ones")
    if len(config.seeds) < 2:
        raise ValueError(
            f"classification needs at least two seeds, and there is only {config.seeds[0]}; give more --seeds"
        )


@dataclass(frozen=True)
class AgentValues:
    """Overlap values of all agents of one kind."""

    per_seed: Mapping[ValueKey, NDArray[np.float64]]
    """``[A, S, C]``: over the first so many episodes of each evaluation seed."""
    pooled: Mapping[ValueKey, NDArray[np.float64]]
    """``[A]``: over all evaluation seeds and episodes."""
    activations: NDArray[np.float64]
    """``[A, n, units]`` for the probe."""


def classify_baselines(
    config: BaselineConfig,
    directory: StudyDirectory,
    agents: Sequence[AgentRecord],
    settings: ClassificationConfig,
    display: Display = SILENCE,
    compute: Compute = LOCAL_WORKERS,
) -> Classification:
    """Measure the overlap values of all agents and say how well they tell the kinds apart.

    Writes ``results/classification.json``. Values once measured are kept in ``overlap/`` and not measured again.

    Args:
        config: the recipe of the baselines.
        directory: the study's directory with all agents trained.
        agents: behaviour of the agents, from :func:`soo_marl.studies.baselines.evaluation.evaluate_baselines`.
        settings: how to classify.
        display: where to say what is done.
        compute: where to compute.

    Raises: as :func:`soo_marl.storage.study.shown`, and ValueError for fewer than two seeds, or only one kind.
    """
    check_classifiable(config)
    shards = [
        (config, directory.path, kind, seeds, settings, compute.device)
        for seeds in config.shards
        for kind in config.kinds
    ]
    total = float(settings.evaluation_seeds * len(shards))
    measured = shown(display, "classification", total, measure_shard, shards, compute)
    values: dict[str, AgentValues] = {}
    for kind in config.kinds:
        parts = [part for part, shard in zip(measured, shards, strict=True) if shard[2] == kind]
        values[kind] = AgentValues(
            per_seed={key: np.concatenate([part.per_seed[key] for part in parts]) for key in parts[0].per_seed},
            pooled={key: np.concatenate([part.pooled[key] for part in parts]) for key in parts[0].pooled},
            activations=np.concatenate([part.activations for part in parts]),
        )
    found = classification(config.seeds, values["honest"], values["deceptive"], agents, settings)
    write_one(directory.results / "classification.json", found)
    return found


def measure_shard(
    config: BaselineConfig,
    path: Path,
    kind: Kind,
    seeds: tuple[int, ...],
    settings: ClassificationConfig,
    device: str,
    *,
    report: Callable[[float], None],
    stop: Callable[[], bool],
) -> AgentValues:
    """Measure the overlap values of some agents of one kind, or read them where they were measured before.

    Raises:
        Interrupted: ``stop()`` became true.
        RunDirectoryError: an agent is missing or damaged, or a file cannot be written.
    """
    directory = StudyDirectory.read(path)
    counts = settings.episodes
    file = directory.path / "overlap" / f"{kind}_seeds_{seeds[0]}-{seeds[-1]}.safetensors"
    with worker_lock(path):
        of_agents = agents_digest(agent_file(directory, kind, seed) for seed in seeds)
        signature = {"settings": settings.model_dump_json(), "study": directory.owner, "agents": of_agents}
        if file.exists() and signature.items() <= read_headers(file)[1].items():
            tensors, _ = read_tensors(file, _packed_headers(config, len(seeds), settings), finite=False)
            report(settings.evaluation_seeds)
            return _unpacked(tensors)

        def report_or_stop(done: int) -> None:
            report(done)
            if stop():
                raise Interrupted

        agents = load_agents(directory, kind, seeds, config.game, config.maddpg, device)
        sums = measure_overlap(agents, config.evaluation_game, settings.evaluation_seeds, max(counts), report_or_stop)
        values = AgentValues(
            per_seed={key: np.stack([of_key.values(n) for n in counts], axis=-1) for key, of_key in sums.items()},
            pooled={key: of_key.pooled() for key, of_key in sums.items()},
            activations=sample_activations(agents, config.evaluation_game, settings.probe_steps),
        )
        write_tensors(file, _packed(values), signature)
        return values


def classification(
    seeds: Sequence[int],
    honest: AgentValues,
    deceptive: AgentValues,
    agents: Sequence[AgentRecord],
    settings: ClassificationConfig,
) -> Classification:
    """From overlap values and behaviour to tables: separation, published protocol, baselines, findings.

    Args:
        seeds: training seeds, in the order of the agents in both sets of values.
        honest, deceptive: their values.
        agents: behaviour of the agents, for the baselines and the competence verdicts.
        settings: how the values were measured.

    Raises:
        ValueError: a kind has fewer than two agents.
    """
    keys = [ValueKey(form, layers, pairing) for pairing, form, layers in product(PAIRINGS, FORMS, LAYER_SETS)]
    rows = [row for key in keys for row in _row(key, honest.pooled[key], deceptive.pooled[key])]
    main_keys = {form: ValueKey(form, "both", "imagined_red") for form in FORMS}
    roc = {
        form: roc_points(honest.pooled[key], deceptive.pooled[key])
        for form, key in main_keys.items()
        if min(np.isfinite(values.pooled[key]).sum() for values in (honest, deceptive)) >= 2
    }
    rows += _baseline_rows(seeds, honest, deceptive, agents)
    competent = {(agent.kind, agent.seed): agent.competent for agent in agents}
    found = Classification(
        settings=settings.model_dump(mode="json"),
        rows=tuple(rows),
        values={
            form: tuple(
                OverlapValue(kind=kind, seed=seed, value=finite(value), competent=competent.get((kind, seed)))
                for kind, values in (("honest", honest), ("deceptive", deceptive))
                for seed, value in zip(seeds, values.pooled[key], strict=True)
            )
            for form, key in main_keys.items()
        },
        protocol={
            form: _protocol(honest.per_seed[key], deceptive.per_seed[key], settings.episodes)
            for form, key in main_keys.items()
        },
        roc=roc,
    )
    return found.model_copy(update={"findings": findings(found, agents)})


def _protocol(honest: NDArray[np.float64], deceptive: NDArray[np.float64], episodes: tuple[int, ...]) -> ProtocolCurve:
    """Accuracy over all pairs at each number of episodes, values ``[A, S, C]``."""
    accuracies = [published_protocol(honest[..., column], deceptive[..., column]) for column in range(len(episodes))]
    # Pairs share agents; the accuracy over all of them is an AUROC of one evaluation seed, mean over these.
    intervals = [auroc_interval(accuracy.mean, len(honest), len(deceptive)) for accuracy in accuracies]
    return ProtocolCurve(
        episodes=episodes,
        mean=tuple(accuracy.mean for accuracy in accuracies),
        standard_deviation=tuple(accuracy.standard_deviation for accuracy in accuracies),
        low=tuple(interval.low for interval in intervals),
        high=tuple(interval.high for interval in intervals),
        pairs=len(honest) * len(deceptive),
    )


def _row(key: ValueKey, honest: NDArray[np.float64], deceptive: NDArray[np.float64]) -> list[ClassificationRow]:
    """One row of the table; none where too few agents have a value."""
    if min(np.isfinite(honest).sum(), np.isfinite(deceptive).sum()) < 2:
        return []
    found = separation(honest, deceptive)
    return [
        ClassificationRow(
            **key._asdict(),
            auroc=found.auroc,
            leave_one_out=found.leave_one_out_accuracy,
            recall_at_5_percent=found.recall_at_false_positive_rate,
            true_false_positive_rate=found.true_false_positive_rate,
            missing=found.missing_honest + found.missing_deceptive,
        )
    ]


def _baseline_rows(
    seeds: Sequence[int], honest: AgentValues, deceptive: AgentValues, agents: Sequence[AgentRecord]
) -> list[ClassificationRow]:
    """Separation by behaviour and by a linear probe, in the same columns."""
    rows = []
    for name, rate, sign in (("trap rate", "trap_rate", 1.0), ("low return", "episode_return", -1.0)):
        of_kinds = [
            sign * np.array([getattr(agent, rate) for agent in agents if agent.kind == kind], dtype=np.float64)
            for kind in ("honest", "deceptive")
        ]
        rows += _row(ValueKey(name, NOT_APPLICABLE, NOT_APPLICABLE), *of_kinds)
    steps = np.concatenate((honest.activations, deceptive.activations))
    with_steps = np.isfinite(steps).all(axis=-1).any(axis=-1)
    labels = np.repeat([0, 1], [len(honest.activations), len(deceptive.activations)])
    pair_of = np.array([*seeds, *seeds])
    try:
        probe = linear_probe(steps[with_steps], labels[with_steps], pair_of[with_steps])
    except ValueError:
        # Too few agents with a step that qualifies.
        return rows
    scores, kept = np.array(probe.scores), labels[with_steps]
    return rows + _row(ValueKey("linear probe", "both", NOT_APPLICABLE), scores[kept == 0], scores[kept == 1])


def _packed(values: AgentValues) -> dict[str, torch.Tensor]:
    tensors = {"activations": torch.from_numpy(values.activations)}
    for name, of_keys in (("per_seed", values.per_seed), ("pooled", values.pooled)):
        tensors.update({f"{name}/{'/'.join(key)}": torch.from_numpy(value) for key, value in of_keys.items()})
    return tensors


def _packed_headers(config: BaselineConfig, agents: int, settings: ClassificationConfig) -> Headers:
    """What :func:`_packed` returns, without the numbers."""
    units = len(HIDDEN_LAYERS) * config.maddpg.hidden_units
    headers = {"activations": TensorHeader(torch.float64, (agents, settings.probe_steps, units))}
    for form, layers, pairing in product(FORMS, LAYER_SETS, PAIRINGS):
        of_seeds = (agents, settings.evaluation_seeds, len(settings.episodes))
        headers[f"per_seed/{form}/{layers}/{pairing}"] = TensorHeader(torch.float64, of_seeds)
        headers[f"pooled/{form}/{layers}/{pairing}"] = TensorHeader(torch.float64, (agents,))
    return headers


def _unpacked(tensors: Mapping[str, torch.Tensor]) -> AgentValues:
    fields: dict[str, dict[ValueKey, NDArray[np.float64]]] = {"per_seed": {}, "pooled": {}}
    for name, tensor in tensors.items():
        field, *key = name.split("/")
        if field in fields:
            fields[field][ValueKey(*key)] = tensor.numpy()
    return AgentValues(fields["per_seed"], fields["pooled"], tensors["activations"].numpy())
