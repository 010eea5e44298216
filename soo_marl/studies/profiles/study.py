"""Deception profiles of a baseline study, and of the agents that were fine-tuned from it where there are some."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from soo_marl.deception import (
    BehaviourRates,
    DeceptionProfile,
    behaviour,
    behavioural_difference,
    deception_profile,
    relative_difference,
)
from soo_marl.deception.behaviour import exceeds
from soo_marl.engines import LOCAL_WORKERS, Compute, Interrupted
from soo_marl.engines.progress import Display
from soo_marl.statistics import NOT_NEGATIVE, Interval, mean_interval
from soo_marl.storage.files import DELETE, RunDirectoryError, quoted
from soo_marl.storage.lock import worker_lock
from soo_marl.storage.records import over_seeds, write_one
from soo_marl.storage.study import shown
from soo_marl.storage.study_directory import FINETUNING_FOLDER, StudyDirectory, agents_digest
from soo_marl.storage.tensor_files import read_headers, read_tensors, write_tensors
from soo_marl.studies.baselines.evaluation import LATE_STATES
from soo_marl.studies.baselines.study import merge_results
from soo_marl.studies.finetuning.evaluation import conditions, read_measures
from soo_marl.studies.finetuning.study import read_finetuning, source_digest
from soo_marl.studies.learning.agents_on_disk import agent_file, load_agents
from soo_marl.studies.learning.profile_records import NOT_MEASURED, ProfileDifference, ProfileRecord, ProfileResult
from soo_marl.studies.learning.recipes import BaselineConfig, Kind, check_counts
from soo_marl.studies.learning.records import from_named, named_tensors
from soo_marl.studies.learning.rollout import roll_out

STREAM = "profiles"
"""Random streams of the episodes that profiles are taken over; nothing else draws from them."""

EPISODES = 1_000
"""Greedy episodes per agent."""

_THRESHOLDS = ("projection_thresholds", "cosine_thresholds")


@dataclass(frozen=True)
class Profiled:
    """What was measured of the agents of one condition."""

    profile: DeceptionProfile
    """``[R]``."""
    rates: BehaviourRates
    """``[R]``, over the same episodes."""


def profile_study(
    config: BaselineConfig,
    directory: StudyDirectory,
    display: Display,
    command: str,
    *,
    episodes: int = EPISODES,
    compute: Compute = LOCAL_WORKERS,
) -> ProfileResult:
    """Measure the profiles that are missing, and write the results.

    Baselines play fresh episodes. What fine-tuned agents did was measured when they were fine-tuned, and they are held
    against the baselines as measured there; they are left out, with a remark, as long as that is not finished.

    Args:
        config: the recipe of the baselines.
        directory: the study's directory with all agents trained.
        display: where to say what is done.
        command: the command that gives these results.
        episodes: greedy episodes per baseline agent.
        compute: where to compute.

    Raises: as :func:`soo_marl.storage.study.shown`; RunDirectoryError also of a study that is not trained, ValueError
        where there are no episodes to play. Of what was measured before Ctrl-C nothing is kept.
    """
    if episodes < 1:
        raise ValueError(f"a profile needs at least one episode, not {episodes}")
    check_counts({"episodes": episodes})
    if not directory.done("train"):
        raise RunDirectoryError(
            f"{directory.path} is not trained to the end; run the command that began it again, then take profiles"
        )
    baselines = _baselines(config, directory, display, episodes, compute)
    finetuned, remark = _finetuned(directory, config)
    treated = {name: found for name, found in finetuned.items() if name not in config.kinds}
    records = [_record(kind, found, baselines, config) for kind, found in baselines.items()]
    records += [_record(name, found, finetuned, config, finetuned=True) for name, found in treated.items()]
    result = ProfileResult(command=command, episodes=episodes, conditions=tuple(records), remark=remark)
    write_one(directory.results / "profiles.json", result)
    merge_results(directory)
    return result


def profile_shard(
    config: BaselineConfig,
    path: Path,
    kind: Kind,
    seeds: tuple[int, ...],
    episodes: int,
    device: str,
    *,
    report: Callable[[float], None],
    stop: Callable[[], bool],
) -> Profiled:
    """Play greedy episodes with the agents of one kind and some seeds.

    Raises:
        Interrupted: ``stop()`` was true.
        RunDirectoryError: an agent is missing or damaged.
    """
    if stop():
        raise Interrupted
    directory, game = StudyDirectory.read(path), config.evaluation_game
    with worker_lock(path):
        agents = load_agents(directory, kind, seeds, config.game, config.maddpg, device)
        trajectories, _ = roll_out(agents, game, episodes, STREAM)
    profile = deception_profile(trajectories)
    rates = behaviour(trajectories, game.landmark_radius, min(LATE_STATES, game.episode_length))
    report(1.0)
    on_cpu = named_tensors(profile, "{}") | named_tensors(rates, "{}")
    return Profiled(from_named(DeceptionProfile, on_cpu), from_named(BehaviourRates, on_cpu))


def _baselines(
    config: BaselineConfig, directory: StudyDirectory, display: Display, episodes: int, compute: Compute
) -> dict[str, Profiled]:
    """The baselines' profiles by kind; those that were measured before over as many episodes are read."""
    file = directory.results / "profiles.safetensors"
    of_agents = agents_digest(agent_file(directory, kind, seed) for kind in config.kinds for seed in config.seeds)
    signature = {"settings": f"{episodes} episodes", "study": directory.owner, "agents": of_agents}
    if file.exists() and signature.items() <= read_headers(file)[1].items():
        tensors, _ = read_tensors(file, finite=False)
        try:
            return {str(kind): _unpacked(tensors, kind) for kind in config.kinds}
        except (KeyError, ValueError) as error:
            raise RunDirectoryError(f"{file} does not fit: {quoted(error)}; {DELETE}") from error
    shards = [
        (config, directory.path, kind, seeds, episodes, compute.device)
        for kind in config.kinds
        for seeds in config.shards
    ]
    parts = shown(display, "profiles", float(len(shards)), profile_shard, shards, compute)
    found = {}
    for kind in config.kinds:
        own = [part for part, shard in zip(parts, shards, strict=True) if shard[2] == kind]
        found[str(kind)] = Profiled(
            DeceptionProfile.join([part.profile for part in own]), BehaviourRates.join([part.rates for part in own])
        )
    write_tensors(file, _packed(found), signature)
    return found


def _finetuned(directory: StudyDirectory, baselines: BaselineConfig) -> tuple[dict[str, Profiled], str | None]:
    """Every condition of the fine-tuning in the study's folder but those after it; or what keeps it out."""
    folder = directory.path / FINETUNING_FOLDER
    if not folder.is_dir():
        return {}, None
    finetuning, config = read_finetuning(folder)
    if config.baselines != baselines or config.agents_digest != source_digest(directory, baselines, config.seeds):
        return {}, f"{folder} treated other agents than those here, so it is left out; delete it to treat these"
    if not finetuning.done("measure"):
        return {}, f"{folder} is not finished, so its agents are left out; run the command that began it again"
    found = {}
    for condition in conditions(config):
        if not condition.after:
            measures = read_measures(finetuning, condition)
            found[condition.name] = Profiled(measures.profile, measures.rates)
    return found, None


def _record(
    condition: str,
    found: Profiled,
    others: Mapping[str, Profiled],
    config: BaselineConfig,
    *,
    finetuned: bool = False,
) -> ProfileRecord:
    generator = np.random.default_rng(0)
    profile, rates = found.profile, found.rates
    competent = [exceeds(rate, config.gate.goal_rate) for rate in rates.goal_rate.tolist()]

    # In this order, in which they draw.
    intervals = {
        name: over_seeds(getattr(rates, name).double().numpy(), generator, rate=True)
        for name in ("rubric_rate", "goal_rate", "goal_rate_alone", "trap_rate")
    }
    return ProfileRecord(
        condition=condition,
        finetuned=finetuned,
        agents=len(profile.total_opportunities),
        missing=int((profile.total_opportunities == 0).sum()),
        opportunities=mean_interval(profile.total_opportunities.numpy(), NOT_NEGATIVE),
        **intervals,
        competent_share=sum(competent) / len(competent),
        to_honest=_difference(condition, "honest", found, others),
        to_deceptive=_difference(condition, "deceptive", found, others),
    )


def _difference(condition: str, other: str, found: Profiled, others: Mapping[str, Profiled]) -> ProfileDifference:
    """Nothing is measured of a group against itself, but for how far honest agents lie from one another."""
    counted, reference = _with_opportunity(found), others.get(other)
    if reference is None or not counted or not _with_opportunity(reference):
        return ProfileDifference()
    relative = _relative(condition, found, others) if other == "honest" else NOT_MEASURED
    if condition == other:
        return ProfileDifference(relative=relative)
    several = min(counted, _with_opportunity(reference)) > 1
    difference = behavioural_difference(found.profile, reference.profile, interval=several)
    return ProfileDifference(
        published=mean_interval(difference.published.numpy(), NOT_NEGATIVE),
        rate_based=Interval(estimate=difference.rate_based_mean, low=difference.low, high=difference.high, n=counted),
        relative=relative,
    )


def _relative(condition: str, found: Profiled, others: Mapping[str, Profiled]) -> Interval:
    honest, deceptive = others["honest"], others.get("deceptive")
    if deceptive is None or not _with_opportunity(deceptive):
        return NOT_MEASURED
    counted = min(_with_opportunity(group) for group in (found, honest, deceptive))
    try:
        difference = relative_difference(
            found.profile,
            honest.profile,
            deceptive.profile,
            interval=counted > 1 and condition not in ("honest", "deceptive"),
        )
    except ValueError:
        # Agents that do the same give no scale.
        return NOT_MEASURED
    if condition == "honest":
        return Interval(estimate=difference.honest, n=_with_opportunity(honest))
    return Interval(estimate=difference.mean, low=difference.low, high=difference.high, n=_with_opportunity(found))


def _with_opportunity(group: Profiled) -> int:
    """How many of its agents have a profile."""
    return int((group.profile.total_opportunities > 0).sum())


def _packed(found: Mapping[str, Profiled]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for kind, group in found.items():
        tensors |= named_tensors(group.profile, f"{{}}/{kind}") | named_tensors(group.rates, f"{{}}/{kind}")
        tensors |= {name: tensors.pop(f"{name}/{kind}") for name in _THRESHOLDS}
        # Counts of a run are below its number of steps, and they are most of the file.
        tensors[f"counts/{kind}"] = tensors[f"counts/{kind}"].int()
    return tensors


def _unpacked(tensors: Mapping[str, Tensor], kind: Kind) -> Profiled:
    """The inverse of :func:`_packed` for one kind.

    Raises:
        KeyError, ValueError: a tensor is missing, or does not fit.
    """
    own = {name.removesuffix(f"/{kind}"): tensors[name] for name in tensors if name.endswith(f"/{kind}")}
    own |= {name: tensors[name] for name in _THRESHOLDS} | {"counts": own["counts"].long()}
    return Profiled(from_named(DeceptionProfile, own), from_named(BehaviourRates, own))
