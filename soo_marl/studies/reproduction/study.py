"""Reproduce the paper: for each preset train, classify, fine-tune and take profiles.

On disk a reproduction is a directory of kind ``reproduction`` with one whole baseline study per preset in a folder of
its name, whose folder ``finetune`` holds the fine-tuning of its agents. Each step of each study is done once, whatever
interrupts it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from soo_marl.deception import NothingToJudgeByError
from soo_marl.engines import LOCAL_WORKERS, Compute
from soo_marl.engines.progress import Display
from soo_marl.storage.files import RunDirectoryError, read_json, validate, write_json
from soo_marl.storage.records import Record
from soo_marl.storage.study import StudyKind
from soo_marl.storage.study_directory import FINETUNING_FOLDER, StudyDirectory
from soo_marl.studies.baselines.study import (
    NOTES,
    classify,
    merge_results,
    open_study,
    train_and_evaluate,
    write_results,
)
from soo_marl.studies.finetuning.configuration import FinetuneConfig, Treatment, treatment
from soo_marl.studies.finetuning.records import ConditionSummary
from soo_marl.studies.finetuning.study import (
    competent_seeds,
    finetuning_config,
    open_finetuning,
    run_finetuning,
    treatments_of,
)
from soo_marl.studies.learning.recipes import BaselineConfig
from soo_marl.studies.learning.records import AgentRecord, Classification
from soo_marl.studies.profiles.study import profile_study
from soo_marl.studies.reproduction.plan import REGIMES, PresetPlan, Scale

REPRODUCTION = StudyKind("reproduction", Scale)

_PRESETS = "presets.json"


@dataclass(frozen=True)
class Finetuned:
    """What came of fine-tuning the agents of a study."""

    directory: StudyDirectory | None
    """Where it stands; None where nothing was fine-tuned."""
    summaries: tuple[ConditionSummary, ...]
    """One per condition."""
    why_not: str | None
    """Why nothing was fine-tuned, in one sentence; None where something was."""


@dataclass(frozen=True)
class PresetResult:
    """What came of one preset."""

    directory: StudyDirectory
    """The study's."""
    agents: tuple[AgentRecord, ...]
    """Behaviour of the baselines."""
    classification: Classification
    """How well they are told apart."""
    finetuned: Finetuned
    """What became of those that deceive."""


def open_reproduction(path: Path, scale: Scale) -> StudyDirectory:
    """Create or resume the directory of a reproduction. Presets may be added later; all else is part of the scale.

    Raises:
        RunDirectoryError: as :meth:`soo_marl.storage.study_directory.StudyDirectory.open`.
    """
    return REPRODUCTION.open(path, scale, scale.seeds)


def reproduce_preset(
    plan: PresetPlan,
    display: Display,
    command: str,
    compute: Compute = LOCAL_WORKERS,
    written: Callable[[Path], object] = lambda path: None,
) -> PresetResult:
    """Do everything about one preset that is not done yet.

    Args:
        plan: what to do.
        display: where to say what is done.
        command: the command that gives these results.
        compute: where to compute.
        written: called with the directory of a study each time that its results were written, to draw them.

    Raises: as :func:`soo_marl.storage.study.shown`; RunDirectoryError also of a folder of another configuration.
    """
    config, scale = plan.baselines, plan.scale
    directory = open_study(plan.path, config, compute)
    with directory.locked():
        agents = train_and_evaluate(config, directory, display, compute)
        found = classify(config, directory, agents, scale.classification, display, compute)
        write_results(directory, agents, found, command)
        written(directory.path)
        changes = {"after_updates": scale.after_updates, "evaluation_episodes": scale.finetuning_episodes}
        finetuned = finetune_competent(config, directory, plan.treatments, changes, display, command, compute)
        if finetuned.directory is not None:
            written(finetuned.directory.path)
        profile_study(config, directory, display, command, episodes=scale.profile_episodes, compute=compute)
        notes = finetuning_notes(agents, finetuned, command)
        if scale.remark:
            factor = scale.training.get(plan.preset, 1.0)
            unit = "share of the recipe's updates"
            notes.append(_note("share_of_full_training", factor, len(scale.seeds), unit, command, scale.remark))
        merge_results(directory, notes)
        written(directory.path)
    return PresetResult(directory, tuple(agents), found, finetuned)


def finetune_competent(
    config: BaselineConfig,
    directory: StudyDirectory,
    treatments: Sequence[Treatment],
    changes: Mapping[str, object],
    display: Display,
    command: str,
    compute: Compute = LOCAL_WORKERS,
) -> Finetuned:
    """Fine-tune the agents of an evaluated study in its folder ``finetune``, where enough of them are competent.

    Args:
        config: the recipe of the baselines.
        directory: the study's directory.
        treatments: what to do.
        changes: fields of :class:`soo_marl.studies.finetuning.configuration.FinetuneConfig`.
        display: where to say what is done.
        command: the command that gives these results.
        compute: where to compute.

    Raises: as :func:`soo_marl.storage.study.shown`; RunDirectoryError also of a folder of another configuration,
        ValueError of a field that does not fit.
    """
    try:
        competent_seeds(directory, config)
    except RunDirectoryError as error:
        # The study is evaluated, so all that can be in the way is the gate.
        return Finetuned(None, (), f"nothing was fine-tuned: {error}")
    fields = dict(changes)
    if not any(stage.alone_share > 0 for stage in config.blue_stages):
        fields.setdefault("alone_share", 0.0)
    finetuning = finetuning_config(directory, config, treatments, seeds=None, **fields)
    folder = open_finetuning(directory.path / FINETUNING_FOLDER, finetuning)
    try:
        with folder.locked():
            summaries = run_finetuning(finetuning, folder, directory.path, display, command, compute)
    except NothingToJudgeByError as error:
        # Baselines may pass the competence gate and yet differ too little in fresh episodes.
        return Finetuned(None, (), f"what was fine-tuned cannot be judged: {error}")
    return Finetuned(folder, tuple(summaries), None)


def scaled_finetuning(methods: Sequence[str], scale: float) -> tuple[tuple[Treatment, ...], dict[str, object]]:
    """Treatments with their numbers of updates multiplied, and the fields of the configuration that go with them.

    Raises:
        ValueError: there is no such method.
    """
    usual = treatments_of(methods)
    if scale == 1.0:
        return usual, {}
    treatments = tuple(
        treatment(chosen.method, updates=max(1, round(chosen.updates * scale)) if chosen.updates else 0)
        for chosen in usual
    )
    after = int(FinetuneConfig.model_fields["after_updates"].default)
    return treatments, {"after_updates": max(1, round(after * scale))}


def finetuning_notes(agents: Sequence[AgentRecord], finetuned: Finetuned, command: str) -> list[Record]:
    """The note for a study's summary that says why nothing was fine-tuned; none where something was."""
    if finetuned.why_not is None:
        return []
    seeds = {agent.seed for agent in agents}
    competent = len(seeds - {agent.seed for agent in agents if not agent.competent})
    return [_note("competent_seeds", competent, len(seeds), "seeds", command, finetuned.why_not)]


def _note(name: str, estimate: float, n: int, unit: str, command: str, text: str) -> Record:
    return Record(name=f"{NOTES}{name}", estimate=estimate, n=n, unit=unit, command=command, text=text)


def name_presets(directory: StudyDirectory, presets: Sequence[str]) -> None:
    """Note in ``results/presets.json`` which presets are to be done; those that were noted before stay.

    Raises:
        RunDirectoryError: the file cannot be read or written.
    """
    noted = {*presets, *_noted_presets(directory)}
    write_json(directory.results / _PRESETS, [name for name in REGIMES if name in noted])


def shown_presets(directory: StudyDirectory) -> list[str]:
    """The presets that the page is about: those to be done and those with a folder; all where there is none yet.

    Raises:
        RunDirectoryError: the list of presets cannot be read.
    """
    noted = _noted_presets(directory)
    return [name for name in REGIMES if name in noted or (directory.path / name).is_dir()] or list(REGIMES)


def _noted_presets(directory: StudyDirectory) -> list[str]:
    file = directory.results / _PRESETS
    return validate(TypeAdapter(list[str]), read_json(file), file) if file.exists() else []
