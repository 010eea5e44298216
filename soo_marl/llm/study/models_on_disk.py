"""The models of a study on disk: where their adapters lie, whether they are trained, and loading them.

Whoever trains a model, a study's shard or the processes of :mod:`soo_marl.llm.study.distributed`, leaves the same here.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from soo_marl.llm.measures.records import TrainingRecord
from soo_marl.llm.methods.optimisation import BreakdownError
from soo_marl.llm.model.adapters import ADAPTER_WEIGHTS
from soo_marl.llm.model.embedded import quiet_transformers
from soo_marl.llm.model.models import LanguageModel, load_adapter, load_model, merged
from soo_marl.llm.study.configuration import BASE, ORGANISM, LanguageStudyConfig
from soo_marl.storage.files import RunDirectoryError, read_json, replacing_folder, validate, write_json
from soo_marl.storage.study_directory import StudyDirectory


def training_file(directory: StudyDirectory, label: str, seed: int) -> Path:
    """Where it stands how a model was trained."""
    return directory.agent_directory(label, seed) / "training.json"


def adapter_folder(directory: StudyDirectory, label: str, seed: int) -> Path:
    """Where a model's adapter lies."""
    return directory.agent_directory(label, seed) / "adapter"


def adapter_owner(directory: StudyDirectory, label: str, seed: int) -> str:
    """What a model's adapter says that it belongs to."""
    return f"{directory.owner} {label} {seed}"


def read_training(directory: StudyDirectory, label: str, seed: int) -> TrainingRecord:
    """How a model was trained; an empty record where it was not. Raises RunDirectoryError where it is damaged."""
    file = training_file(directory, label, seed)
    return validate(TypeAdapter(TrainingRecord), read_json(file), file) if file.exists() else TrainingRecord()


def trained_step(label: str, seed: int) -> str:
    """Name of the step that is done once a model's adapter is there."""
    return f"trained/{label}/{seed}"


def organism_done(directory: StudyDirectory, seed: int) -> bool:
    """Whether an organism is taught, or its teaching broke down."""
    return directory.done(trained_step(ORGANISM, seed))


def load_study_model(
    config: LanguageStudyConfig, directory: StudyDirectory, label: str, seed: int, device: str = "cpu"
) -> LanguageModel:
    """A model of a study, with its adapters; steering, and asking for honesty, are no part of it.

    Raises:
        RunDirectoryError: an adapter is missing or damaged.
        ValueError: the model cannot be loaded.
        BreakdownError: it has no adapter, because its training broke down, or that of its organism.
    """
    model = load_model(config.model, device=device, dtype=config.dtype, quantisation=config.quantisation)

    def with_adapter(model: LanguageModel, label: str, seed: int) -> LanguageModel:
        if (training := read_training(directory, label, seed)).broke_down:
            raise BreakdownError(f"{label} of seed {seed} has no adapter, since {training.stopped}", training.losses)
        owner = adapter_owner(directory, label, seed)
        return load_adapter(model, adapter_folder(directory, label, seed), owner=owner)

    if label == BASE:
        return model
    if label == ORGANISM:
        return with_adapter(model, ORGANISM, seed)
    if config.organism is not None:
        model = merged(with_adapter(model, ORGANISM, config.organism_seed(seed)))
    return with_adapter(model, label, seed) if config.condition(label).trains else model


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
    if output.exists() or output.is_symlink():
        raise RunDirectoryError(f"{output} is there already; name a new folder")
    # Merging would round 4-bit weights again.
    model = load_study_model(config.model_copy(update={"quantisation": "none"}), directory, label, seed)
    whole = merged(model) if model.has_adapter else model
    with replacing_folder(output, replace=False) as folder, quiet_transformers():
        whole.model.save_pretrained(folder, safe_serialization=True)
        whole.tokenizer.save_pretrained(folder)


def mark_trained(directory: StudyDirectory, label: str, seed: int) -> None:
    """Mark a model as trained, once all of it is written (else RunDirectoryError); what broke down has no adapter."""
    files = [training_file(directory, label, seed)]
    if not read_training(directory, label, seed).broke_down:
        files.append(adapter_folder(directory, label, seed) / ADAPTER_WEIGHTS)
    directory.mark_done(trained_step(label, seed), files)


def model_before(
    config: LanguageStudyConfig, directory: StudyDirectory, seed: int, device: str = "cpu"
) -> LanguageModel:
    """The model that a treatment starts from, without an adapter; raises as :func:`load_study_model`."""
    if config.organism is None:
        return load_study_model(config, directory, BASE, seed, device)
    return merged(load_study_model(config, directory, ORGANISM, config.organism_seed(seed), device))


def write_training(directory: StudyDirectory, label: str, seed: int, record: TrainingRecord) -> None:
    """Write how a model was trained; raises RunDirectoryError."""
    write_json(training_file(directory, label, seed), record.model_dump(mode="json"))
