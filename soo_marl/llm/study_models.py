"""The models of a study on disk: where their adapters lie, whether they are trained, and loading them.

Whoever trains a model, the shard of a study or the processes of :mod:`soo_marl.llm.distributed`, leaves the same here.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import TypeAdapter

from soo_marl.llm.configuration import BASE, ORGANISM, LanguageStudyConfig
from soo_marl.llm.embedded import quiet_transformers
from soo_marl.llm.models import LanguageModel, load_adapter, load_model, merged
from soo_marl.llm.records import TrainingRecord
from soo_marl.studies.files import PARTIAL_SUFFIX, RunDirectoryError, cannot_write, read_json, validate, write_json
from soo_marl.studies.run_directory import StudyDirectory

ADAPTER_WEIGHTS = "adapter_model.safetensors"
"""How peft names the weights in an adapter's folder."""


def training_file(directory: StudyDirectory, label: str, seed: int) -> Path:
    """Where it stands how a model was trained."""
    return directory.agent_directory(label, seed) / "training.json"


def adapter_folder(directory: StudyDirectory, label: str, seed: int) -> Path:
    """Where a model's adapter lies."""
    return directory.agent_directory(label, seed) / "adapter"


def read_training(directory: StudyDirectory, label: str, seed: int) -> TrainingRecord:
    """How a model was trained; an empty record where it was not.

    Raises:
        RunDirectoryError: the file is damaged.
    """
    file = training_file(directory, label, seed)
    return validate(TypeAdapter(TrainingRecord), read_json(file), file) if file.exists() else TrainingRecord()


def organism_done(directory: StudyDirectory, seed: int) -> bool:
    """Whether an organism's adapter is there."""
    return directory.done(trained_step(ORGANISM, seed))


def load_study_model(
    config: LanguageStudyConfig, directory: StudyDirectory, label: str, seed: int, device: str = "cpu"
) -> LanguageModel:
    """A model of a study, with its adapters; steering, and asking for honesty, are no part of it.

    Raises:
        RunDirectoryError: an adapter is missing or damaged.
        ValueError: the model cannot be loaded.
    """
    model = load_model(config.model, device=device, dtype=config.dtype, quantisation=config.quantisation)
    if label == BASE:
        return model
    if label == ORGANISM:
        return load_adapter(model, adapter_folder(directory, ORGANISM, seed))
    if config.organism is not None:
        organism = adapter_folder(directory, ORGANISM, config.organism_seed(seed))
        model = merged(load_adapter(model, organism))
    return load_adapter(model, adapter_folder(directory, label, seed)) if config.condition(label).trains else model


def save_merged(config: LanguageStudyConfig, directory: StudyDirectory, label: str, seed: int, output: Path) -> None:
    """Write a model of a study, its adapters merged, as a folder that transformers loads.

    Raises:
        RunDirectoryError: an adapter is missing or damaged, or the folder is there or cannot be written.
        ValueError: the study has no such model, it has the weights of another one, or it cannot be loaded.
    """
    if (label, seed) not in config.models:
        known = ", ".join(f"{name} {number}" for name, number in config.models)
        raise ValueError(f"the study has no model {label} of seed {seed}; it has {known}")
    if label not in (BASE, ORGANISM) and not config.condition(label).trains:
        raise ValueError(
            f"{label} changes what the model reads or its activations, not its weights, so there is nothing to merge: "
            "name organism, base, or a treatment that trains"
        )
    if output.exists():
        raise RunDirectoryError(f"{output} is there already; name a new folder")
    # Merging would round 4-bit weights again.
    model = load_study_model(config.model_copy(update={"quantisation": "none"}), directory, label, seed)
    whole = merged(model) if model.has_adapter else model
    partial = output.with_name(f".{output.name}{PARTIAL_SUFFIX}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        with quiet_transformers():
            whole.model.save_pretrained(partial, safe_serialization=True)
            whole.tokenizer.save_pretrained(partial)
        partial.rename(output)
    except OSError as error:
        raise cannot_write(output, error) from error


def trained_step(label: str, seed: int) -> str:
    """Name of the step that is done once a model's adapter is there."""
    return f"trained/{label}/{seed}"


def mark_trained(directory: StudyDirectory, label: str, seed: int) -> None:
    """Mark a model as trained, once its adapter and how it was trained are written.

    Raises:
        RunDirectoryError: one of them is not there, or the mark cannot be written.
    """
    files = [adapter_folder(directory, label, seed) / ADAPTER_WEIGHTS, training_file(directory, label, seed)]
    directory.mark_done(trained_step(label, seed), files)


def model_before(
    config: LanguageStudyConfig, directory: StudyDirectory, seed: int, device: str = "cpu"
) -> LanguageModel:
    """The model that a treatment starts from, without an adapter.

    Raises:
        As :func:`load_study_model`.
    """
    if config.organism is None:
        return load_study_model(config, directory, BASE, seed, device)
    return merged(load_study_model(config, directory, ORGANISM, config.organism_seed(seed), device))


def write_training(directory: StudyDirectory, label: str, seed: int, record: TrainingRecord) -> None:
    """Write how a model was trained.

    Raises:
        RunDirectoryError: the file cannot be written.
    """
    write_json(training_file(directory, label, seed), record.model_dump(mode="json"))
