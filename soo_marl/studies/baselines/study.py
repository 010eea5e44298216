"""The main job: train honest and deceptive baselines, measure what they do, and classify them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from soo_marl.engines import LOCAL_WORKERS, Compute
from soo_marl.engines.progress import Display
from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.records import Record, read_list, read_one, record_from_values, write_list
from soo_marl.storage.study import StudyKind
from soo_marl.storage.study_directory import FINETUNING_FOLDER, MANIFEST_NAME, StudyDirectory
from soo_marl.studies.baselines.classification import ClassificationConfig, classify_baselines
from soo_marl.studies.baselines.evaluation import EPISODES_FILE, collect_curves, evaluate_baselines
from soo_marl.studies.baselines.training import agent_files, check_memory, train_baselines
from soo_marl.studies.learning.agents_on_disk import agent_file
from soo_marl.studies.learning.profile_records import PROFILES, ProfileResult
from soo_marl.studies.learning.recipes import BaselineConfig, same_recipe
from soo_marl.studies.learning.records import AgentRecord, Classification

BASELINES = StudyKind(
    "baselines",
    BaselineConfig,
    {"train": "training", "evaluate": "evaluation", "results/classification.json": "classification"},
)
read_study = BASELINES.read

DEMO_CLASSIFICATION = ClassificationConfig(episodes=(1, 10, 20, 50, 100, 200, 300, 400, 500))

NOTES = "note/"
"""How the names of records begin that say what a reader must know of the study as a whole."""

FINETUNING = f"{FINETUNING_FOLDER}/"
"""How the names of the records begin that come from the fine-tuning in a study's folder."""

RATES = (
    "goal_rate", "trap_rate", "goal_rate_alone", "following_rate", "rubric_rate", "rubric_rate_en_route",
    "red_goal_rate",
)  # fmt: skip
"""Behaviour rates that the summary gives for each kind."""

_CLASSIFICATION = "classification/"
_SUMMARY = "summary.json"

ACCURACY_AT = (100, 500, 1500)
"""Episodes per evaluation seed at which the summary gives the published protocol's accuracy, where they were played."""


def open_study(path: Path, config: BaselineConfig, compute: Compute = LOCAL_WORKERS) -> StudyDirectory:
    """Create or resume the directory of a baseline study; ``compute`` is where its agents will be trained.

    Raises:
        RunDirectoryError: as :meth:`soo_marl.storage.study_directory.StudyDirectory.open`.
        ValueError: the agents cannot fit into memory; then nothing was written.
    """
    check_memory(config, compute)
    return BASELINES.open(path, config, config.seeds)


def train_and_evaluate(
    config: BaselineConfig, directory: StudyDirectory, display: Display, compute: Compute = LOCAL_WORKERS
) -> list[AgentRecord]:
    """Train what is not trained yet, measure the behaviour of all agents, and return the records.

    Raises: as :func:`soo_marl.storage.study.shown`.
    """

    def evaluate() -> None:
        with display.task("evaluation", float(len(config.kinds) * len(config.seeds)), 1) as advance:
            evaluate_baselines(config, directory, compute.device, advance)
            collect_curves(config, directory)

    results = directory.results
    directory.once(
        "train", lambda: train_baselines(config, directory, display, compute), agent_files(config, directory)
    )
    files = [results / name for name in ("agents.json", "curves.json", EPISODES_FILE)]
    directory.once("evaluate", evaluate, files, _judged(config, directory))
    return read_list(results / "agents.json", AgentRecord)


def classify(
    config: BaselineConfig,
    directory: StudyDirectory,
    agents: Sequence[AgentRecord],
    settings: ClassificationConfig,
    display: Display,
    compute: Compute = LOCAL_WORKERS,
) -> Classification:
    """Classify the agents of a study, unless that was done with the same settings before.

    Raises: as :func:`soo_marl.storage.study.shown`, and ValueError for fewer than two seeds, or only one kind.
    """
    file = directory.results / "classification.json"
    # What is missing, damaged, edited or of other settings is made anew.
    with suppress(RunDirectoryError):
        found = read_one(file, Classification)
        if directory.done("classify") and found.settings == settings.model_dump(mode="json"):
            return found
    found = classify_baselines(config, directory, agents, settings, display, compute)
    directory.mark_done("classify", [file], [*_judged(config, directory), directory.results / "agents.json"])
    return found


def _judged(config: BaselineConfig, directory: StudyDirectory) -> list[Path]:
    return [agent_file(directory, kind, seed) for kind in config.kinds for seed in config.seeds]


def write_results(
    directory: StudyDirectory, agents: Sequence[AgentRecord], found: Classification | None, command: str
) -> list[Record]:
    """Write ``results/summary.json`` and return its records.

    Notes that stand in it stay, and so do the records of what stands beside the study, see :func:`merge_results`.

    Args:
        directory: the study's directory.
        agents: behaviour per agent.
        found: the classification; where None, what an earlier one brought into the summary stays.
        command: the command that gives these records.

    Raises:
        RunDirectoryError: a file cannot be read or written.
    """
    file = directory.results / _SUMMARY
    stay = (NOTES,) if found is not None else (_CLASSIFICATION, NOTES)
    before = read_list(file, Record) if file.exists() else []
    records = summary(agents, found, command) + [record for record in before if record.name.startswith(stay)]
    records += _records_beside(directory)
    write_list(file, records)
    return records


def merge_results(directory: StudyDirectory, notes: Sequence[Record] | None = None) -> list[Record]:
    """Bring ``results/summary.json`` up to date with the fine-tuning and the profiles beside it.

    The records of a fine-tuning study in the folder ``finetune`` get the prefix ``finetune/``; those of a summary that
    cannot be read are left out.

    Args:
        directory: the study's directory.
        notes: records whose names begin with ``note/``, in place of those that are there; None lets these stay.

    Raises:
        RunDirectoryError: the summary is unreadable, or a file cannot be written.
    """
    file = directory.results / _SUMMARY
    before = read_list(file, Record) if file.exists() else []
    gone = (FINETUNING, PROFILES) if notes is None else (FINETUNING, PROFILES, NOTES)
    records = [record for record in before if not record.name.startswith(gone)]
    records += [*(notes or ()), *_records_beside(directory)]
    write_list(file, records)
    return records


def _records_beside(directory: StudyDirectory) -> list[Record]:
    """What the profiles, and the fine-tuning in the study's folder, add to its summary."""
    records: list[Record] = []
    folder = directory.path / FINETUNING_FOLDER
    # The page names what cannot be read.
    with suppress(RunDirectoryError):
        records += read_one(directory.results / "profiles.json", ProfileResult).records()
    with suppress(RunDirectoryError):
        if (folder / MANIFEST_NAME).exists():
            treated = StudyDirectory.read(folder).manifest.configuration.get("baselines")
            if not same_recipe(treated, directory.manifest.configuration):
                return records
        finetuned = read_list(folder / "results" / _SUMMARY, Record)
        records += [record.model_copy(update={"name": f"{FINETUNING}{record.name}"}) for record in finetuned]
    return records


def summary(agents: Sequence[AgentRecord], found: Classification | None, command: str) -> list[Record]:
    """The headline records of a baseline study: rates per kind over seeds, and separation by overlap value.

    Args:
        agents: behaviour per agent.
        found: the classification, if there is one.
        command: the command that gives these records.
    """
    generator = np.random.default_rng(0)
    records = []
    for name in (*RATES, "competent", "stopped"):
        for kind in dict.fromkeys(agent.kind for agent in agents):
            own = [agent for agent in agents if agent.kind == kind]
            found_of = [agent.stopped is not None if name == "stopped" else getattr(agent, name) for agent in own]
            values = np.array(found_of, dtype=np.float64)
            if np.isnan(values).all() or (name == "stopped" and not values.any()):
                continue
            unit = "share" if name in RATES else "share of agents"
            records.append(record_from_values(f"{kind}/{name}", values, unit, command, generator))
    return records if found is None else records + _classification_records(found, command)


def _classification_records(found: Classification, command: str) -> list[Record]:
    records = [
        Record(name=f"{_CLASSIFICATION}auroc/{row.form}", unit="AUROC", command=command, **row.auroc.model_dump())
        for row in found.rows
        if row.layers == "both" and row.pairing == "imagined_red"
    ]
    curve = found.protocol.get("published")
    if curve is None or curve.low is None or curve.high is None:
        return records
    return records + [
        Record(
            name=f"{_CLASSIFICATION}published_protocol/accuracy_{episodes}",
            estimate=mean,
            low=low,
            high=high,
            n=curve.pairs,
            unit="share of evaluation seeds",
            command=command,
            text="n counts pairs of agents; the interval is over agents",
        )
        for episodes, mean, low, high in zip(curve.episodes, curve.mean, curve.low, curve.high, strict=True)
        if episodes in ACCURACY_AT
    ]
