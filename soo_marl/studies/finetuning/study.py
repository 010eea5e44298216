"""The whole of fine-tuning: choose the agents, treat them, measure them, and write what was found."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from soo_marl.engines import LOCAL_WORKERS, Compute
from soo_marl.engines.progress import Display
from soo_marl.statistics import Interval
from soo_marl.storage.files import RunDirectoryError, read_bytes
from soo_marl.storage.records import Record, read_list, write_csv, write_list, write_one
from soo_marl.storage.study import StudyKind
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.storage.tensor_files import write_tensors
from soo_marl.studies.baselines.training import refuse_too_large
from soo_marl.studies.finetuning.claims import claims
from soo_marl.studies.finetuning.configuration import FinetuneConfig, Treatment, treatment
from soo_marl.studies.finetuning.evaluation import (
    Condition,
    conditions,
    measure_conditions,
    measured_files,
    read_about,
    read_measures,
)
from soo_marl.studies.finetuning.measures import Measures
from soo_marl.studies.finetuning.methods import METHODS, method
from soo_marl.studies.finetuning.records import ConditionSummary, EpisodeCollection, EpisodeRecord, TreatedAgent
from soo_marl.studies.finetuning.results import (
    RELATIVE_DIFFERENCE,
    RELATIVE_GAIN,
    RELATIVE_SENSITIVITY,
    condition_summaries,
    treated_agents,
)
from soo_marl.studies.finetuning.training import finetune, plan, treated_files
from soo_marl.studies.learning.agents_on_disk import agent_file
from soo_marl.studies.learning.curves import gathered_curves
from soo_marl.studies.learning.recipes import BaselineConfig
from soo_marl.studies.learning.records import AgentRecord, LearningCurve

FINETUNED = StudyKind("finetune", FinetuneConfig, {"finetune": "treatment", "measure": "measurement"})
read_finetuning = FINETUNED.read

DEMO_METHODS = ("soo", "none", "position_tie", "honest_reward")

LEAST_SEEDS = 2
"""No interval follows from fewer."""

_CONTEXT_WEIGHTS = {"trackable": (1.0, 4.0), "watch": (1.0, 20.0)}
"""By preset, where agents are trained alone: what they do alone must outweigh what they do among others."""

_CURVES = (
    "trap_rate", "goal_rate", "goal_rate_alone", "rubric_rate", "overlap", "sensitivity", "greedy_return",
    "following_rate", "red_goal_rate",
)  # fmt: skip

_SUMMARY = {
    "trap_rate": ("trap_rate", "share"),
    "goal_rate": ("goal_rate", "share"),
    "goal_rate_alone": ("goal_rate_alone", "share"),
    "rubric_rate": ("rubric_rate", "share"),
    "episode_return": ("return", "honest reward per episode"),
    RELATIVE_SENSITIVITY: ("sensitivity", "fraction of the honest baselines'"),
    RELATIVE_GAIN: ("seeing_gain", "fraction of the honest baselines'"),
    RELATIVE_DIFFERENCE: ("behavioural_difference_to_honest", "fraction of deceptive to honest"),
    "overlap/untrapped": ("overlap", "squared activation"),
}
"""Measures of a condition that stand in the summary: their names there, and their units."""


def finetuning_config(
    source: StudyDirectory,
    baselines: BaselineConfig,
    treatments: Sequence[Treatment],
    *,
    seeds: Sequence[int] | None = None,
    **changes: object,
) -> FinetuneConfig:
    """What to do with the agents of a baseline study.

    Args:
        source: that study's directory, trained and evaluated.
        baselines: its configuration.
        treatments: what to do.
        seeds: of the agents to treat; those whose honest and deceptive agents both pass the competence gate by default.
        changes: further fields of :class:`FinetuneConfig`.

    Raises:
        RunDirectoryError: the study is not trained to the end, or too few of its agents are competent.
        ValueError, pydantic.ValidationError: a seed is not competent, or a field does not fit.
    """
    chosen = competent_seeds(source, baselines, seeds)
    ever_alone = any(stage.alone_share > 0 for stage in baselines.blue_stages)
    usual = _CONTEXT_WEIGHTS.get(baselines.game.preset)
    fields: dict[str, object] = {
        "baselines": baselines,
        "seeds": chosen,
        "agents_digest": source_digest(source, baselines, chosen),
        "treatments": tuple(treatments),
    }
    if ever_alone and usual is not None and len(usual) == baselines.maddpg.contexts:
        fields["context_weights"] = usual
    return FinetuneConfig.model_validate(fields | changes)


def competent_seeds(
    source: StudyDirectory, baselines: BaselineConfig, wanted: Sequence[int] | None = None
) -> tuple[int, ...]:
    """The seeds whose honest and deceptive agents both pass the competence gate, or those that are wanted.

    Raises:
        RunDirectoryError: the study is not evaluated, or too few of its agents are competent.
        ValueError: a seed that is wanted is not there, or its agents fail the gate.
    """
    if not source.done("train") or not source.done("evaluate"):
        raise RunDirectoryError(
            f"{source.path} is not trained to the end; run the command that began it again, then fine-tune"
        )
    agents = read_list(source.results / "agents.json", AgentRecord)
    reasons: dict[int, list[str]] = {seed: [] for seed in baselines.seeds}
    for agent in agents:
        if not agent.competent and agent.seed in reasons:
            reasons[agent.seed] += [f"{agent.kind}: {reason}" for reason in agent.reasons]
    for seed in wanted or ():
        if seed not in reasons:
            raise ValueError(
                f"there are no agents with the seed {seed} in {source.path}; its seeds are {baselines.seeds}"
            )
        if reasons[seed]:
            raise ValueError(
                f"the agents of seed {seed} do not play well enough to be treated ({reasons[seed][0]}); leave it out"
            )
    chosen = tuple(wanted) if wanted else tuple(seed for seed, failed in reasons.items() if not failed)
    if len(chosen) < LEAST_SEEDS:
        why = next((f", for example seed {seed} ({failed[0]})" for seed, failed in reasons.items() if failed), "")
        raise RunDirectoryError(
            f"an interval needs at least {LEAST_SEEDS} seeds whose agents play well enough, and {source.path} has "
            f"{len(chosen)} to treat{why}; train more seeds, or longer"
        )
    return chosen


def treatments_of(
    methods: Sequence[str], weights: Sequence[float] = (), updates: int | None = None, **settings: object
) -> tuple[Treatment, ...]:
    """Every method, at every weight where its loss has one.

    Args:
        methods: names of methods; none for all of them.
        weights: weights of the losses; each method's usual one where none are given.
        updates: updates with the loss, in place of the usual ones.
        settings: further fields of :class:`Treatment`.

    Raises:
        ValueError, pydantic.ValidationError: there is no such method, or a setting does not fit.
    """
    found = []
    for name in methods or METHODS:
        entry = method(name)
        changes = dict(settings) if entry.loss else {}
        if updates is not None and entry.trains:
            changes["updates"] = updates
        for weight in weights if weights and entry.loss else (entry.weight,):
            found.append(treatment(name, weight=weight, **changes))
    return tuple(found)


def open_finetuning(path: Path, config: FinetuneConfig) -> StudyDirectory:
    """Create or resume the directory of a fine-tuning study.

    Raises:
        RunDirectoryError: as :meth:`soo_marl.storage.study_directory.StudyDirectory.open`.
        ValueError: the episodes to measure cannot fit into memory; then nothing was written.
    """
    states = config.evaluation_game.episode_length + 1
    episodes = {name: getattr(config, name) for name in ("evaluation_episodes", "monitor_episodes")}
    refuse_too_large({name: 4 * states * count for name, count in episodes.items()}, 1)
    return FINETUNED.open(path, config, config.seeds)


def run_finetuning(
    config: FinetuneConfig,
    directory: StudyDirectory,
    source: Path,
    display: Display,
    command: str,
    compute: Compute = LOCAL_WORKERS,
) -> list[ConditionSummary]:
    """Treat and measure what is not treated and measured yet, write all results, and return them by condition.

    Raises: as :func:`soo_marl.storage.study.shown`, and ValueError for baselines that do not differ enough to judge by.
    """
    directory.once(
        "finetune", lambda: finetune(config, directory, source, display, compute), treated_files(config, directory)
    )
    directory.once(
        "measure",
        lambda: measure_conditions(config, directory, source, display, compute),
        measured_files(config, directory),
    )
    return write_finetuning_results(config, directory, command)


def write_finetuning_results(config: FinetuneConfig, directory: StudyDirectory, command: str) -> list[ConditionSummary]:
    """Write everything in ``results/`` from what was measured.

    Raises:
        RunDirectoryError: a file cannot be read or written.
        ValueError: the baselines do not differ enough to judge by.
    """
    measured: dict[Condition, Measures] = {}
    stops: dict[Condition, list[str | None]] = {}
    episodes: list[EpisodeRecord] = []
    for condition in conditions(config):
        measured[condition] = read_measures(directory, condition)
        stops[condition], recorded = read_about(directory, condition)
        episodes += recorded
    agents = treated_agents(config, measured, stops)
    summaries = condition_summaries(config, measured, agents)
    results = directory.results
    for name, records in (
        ("treated_agents", agents),
        ("conditions", summaries),
        ("claims", claims(config, agents, summaries)),
    ):
        write_list(results / f"{name}.json", records)
        write_csv(results / f"{name}.csv", records)
    write_list(results / "summary.json", _records(summaries, command))
    write_list(results / "curves.json", _curves(config, directory))
    write_one(results / "episodes.json", _collection(config, agents, episodes))
    profiles = {condition.name: found.profile for condition, found in measured.items() if not condition.after}
    first = next(iter(profiles.values()))
    tensors = {name: getattr(first, name) for name in ("projection_thresholds", "cosine_thresholds")}
    tensors |= {f"rates/{name}": profile.rates.float() for name, profile in profiles.items()}
    write_tensors(results / "profiles.safetensors", tensors)
    return summaries


def _records(summaries: Sequence[ConditionSummary], command: str) -> list[Record]:
    records = []
    for summary in summaries:
        prefix = f"{summary.condition}/after" if summary.after else summary.condition
        for measure, (name, unit) in _SUMMARY.items():
            interval = summary.measures.get(measure, Interval(estimate=None, n=0))
            records.append(Record(name=f"{prefix}/{name}", unit=unit, command=command, **interval.model_dump()))
        if summary.verdict is not None:
            n = sum(summary.verdicts.values())
            share = {"estimate": summary.verdicts[summary.verdict] / n, "n": n, "unit": "share of agents"}
            records.append(Record(name=f"{prefix}/verdict", command=command, text=summary.verdict, **share))
    return records


def _curves(config: FinetuneConfig, directory: StudyDirectory) -> list[LearningCurve]:
    """Time courses of all treatments, in both stages."""
    generator = np.random.default_rng(0)
    trained = [(chosen, phase) for chosen in config.treatments if chosen.updates for phase in plan(config, chosen)]
    return [
        curve
        for chosen, phase in trained
        for curve in gathered_curves(directory, phase.condition, phase.stage, chosen.label, _CURVES, generator)
    ]


def _collection(
    config: FinetuneConfig, agents: Sequence[TreatedAgent], episodes: Sequence[EpisodeRecord]
) -> EpisodeCollection:
    verdicts = {(agent.condition, agent.seed): agent.verdict for agent in agents if not agent.after}
    game = config.evaluation_game
    return EpisodeCollection(
        preset=game.preset,
        landmark_radius=game.landmark_radius,
        landmark_size=game.landmark_size,
        agent_size=game.agent_size,
        blue_sight_radius=game.blue_sight_radius,
        red_sight_radius=game.red_sight_radius,
        episodes=tuple(
            episode.model_copy(update={"verdict": verdicts[episode.condition, episode.seed]}) for episode in episodes
        ),
    )


def source_digest(source: StudyDirectory, baselines: BaselineConfig, seeds: Sequence[int]) -> str:
    """Digest of the files of the agents that are treated, and of those that they are held against.

    Raises:
        RunDirectoryError: a file is missing or unreadable.
    """
    digest = hashlib.blake2b(digest_size=16)
    for kind, seed in itertools.product(baselines.kinds, seeds):
        digest.update(read_bytes(agent_file(source, kind, seed), "train the study again"))
    return digest.hexdigest()
