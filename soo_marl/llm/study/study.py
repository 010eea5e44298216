"""A whole study of language models: teach the organism, treat it, ask everybody, and write what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from soo_marl.engines import LOCAL_WORKERS, Compute, threads_per_shard
from soo_marl.engines.progress import Display
from soo_marl.llm.measures.answers import Label
from soo_marl.llm.measures.evaluation import ModelMeasures, cells, evidence, share_of
from soo_marl.llm.measures.rates import position_check
from soo_marl.llm.measures.records import LatentRecord, ModelSummary, ResponseExample, SeedVerdict, TrainingRecord
from soo_marl.llm.measures.responses import Response
from soo_marl.llm.measures.verdict import Evidence, judge
from soo_marl.llm.methods.finetuning import METHODS
from soo_marl.llm.prompts.templates import own_toml
from soo_marl.llm.study.configuration import BASE, ORGANISM, LanguageStudyConfig
from soo_marl.llm.study.models_on_disk import organism_done, read_training
from soo_marl.llm.study.shard import latent_file, model_shard, organism_shard, read_measures, read_model_responses
from soo_marl.statistics import Interval
from soo_marl.storage.records import Record, read_list, write_list
from soo_marl.storage.study import StudyKind, shown
from soo_marl.storage.study_directory import StudyDirectory

LANGUAGE = StudyKind("language", LanguageStudyConfig)

read_language_study = LANGUAGE.read

_EXAMPLES = 12  # fills of each role whose answers are kept for browsing
_BROKEN = "damaged"  # the word for a model whose training broke down: there is none that could be asked


def open_language_study(path: Path, config: LanguageStudyConfig) -> StudyDirectory:
    """Create or resume the directory of a study; work in it within ``with directory.locked():``.

    Raises:
        RunDirectoryError: the directory cannot be used, another command is at work there, or it belongs to another
            configuration.
    """
    return LANGUAGE.open(path, config, config.seeds)


def unfinished_models(directory: StudyDirectory) -> list[str]:
    """Labels and seeds of the models that are not made and asked yet.

    Raises:
        RunDirectoryError: the configuration does not fit this version, or the mark of a step is unreadable.
    """
    models = read_language_study(directory.path)[1].models
    return [f"{label} {seed}" for label, seed in models if not directory.done(f"models/{label}/{seed}")]


def teach_organisms(
    config: LanguageStudyConfig, directory: StudyDirectory, display: Display, compute: Compute = LOCAL_WORKERS
) -> None:
    """Teach every organism of a study that is not taught yet.

    Raises:
        RunDirectoryError: a file cannot be read or written.
        ValueError: memory does not suffice.
        KeyboardInterrupt: Ctrl-C, after everything needed to continue was written.
    """
    organisms = [seed for label, seed in config.models if label == ORGANISM and not organism_done(directory, seed)]
    if organisms:
        # With few of them, each has several cores.
        threads = threads_per_shard(compute, len(organisms))
        taught = [(config, seed, directory.path, compute.device, threads) for seed in organisms]
        shown(display, "organism", float(len(taught)), organism_shard, taught, compute)


class UnfinishedError(ValueError):
    """Some models could not be made, for lack of memory; the message says which, in one sentence."""

    def __init__(self, message: str, summaries: Sequence[ModelSummary]) -> None:
        """Keep the sentence, and the summaries of the models that are done."""
        super().__init__(message)
        self.summaries = list(summaries)


def run_language_study(
    config: LanguageStudyConfig,
    directory: StudyDirectory,
    display: Display,
    command: str,
    compute: Compute = LOCAL_WORKERS,
) -> list[ModelSummary]:
    """Train and ask every model that is not done yet, write all results, and return them by model.

    Raises:
        RunDirectoryError: a file cannot be read or written.
        ValueError: the model, a layer or a scenario does not exist.
        UnfinishedError: memory did not suffice for some of the models; results are of the others.
        KeyboardInterrupt: Ctrl-C, after everything needed to continue was written.
    """
    failed: dict[_Model, str] = {}
    teach_organisms(config, directory, display, compute)  # Every treatment begins with one.
    if not all(directory.done(f"models/{label}/{seed}") for label, seed in config.models):
        shards = [(config, label, seed, directory.path, compute.device) for label, seed in config.models]
        found = shown(display, "models", float(len(shards)), model_shard, shards, compute)
        failed = {model: why for model, why in zip(config.models, found, strict=True) if why is not None}
    summaries = write_language_results(config, directory, command)
    if failed:
        (label, seed), why = next(iter(failed.items()))
        raise UnfinishedError(
            f"{len(failed)} of {len(config.models)} models could not be made, {label} of seed {seed} for one: {why}",
            summaries,
        )
    return summaries


def write_language_results(config: LanguageStudyConfig, directory: StudyDirectory, command: str) -> list[ModelSummary]:
    """Write everything in ``results/`` from the models' answers.

    Raises:
        RunDirectoryError: a file cannot be read or written.
    """
    done = [(label, seed) for label, seed in config.models if directory.done(f"models/{label}/{seed}")]
    trainings = {model: read_training(directory, *model) for model in done}
    answers = {
        model: read_model_responses(config, directory, *model) for model in done if not trainings[model].broke_down
    }
    summaries = _summaries(config, directory, answers, trainings)
    write_list(directory.results / "models.json", summaries)
    write_list(directory.results / "examples.json", _examples(answers))
    write_list(directory.results / "latent.json", _latent(directory, answers))
    write_list(directory.results / "summary.json", _records(summaries, answers, command))
    return summaries


_Model = tuple[str, int]  # label and seed
_Models = Sequence[_Model]
_Answers = dict[_Model, dict[str, list[Response]]]


def _summaries(
    config: LanguageStudyConfig,
    directory: StudyDirectory,
    answers: _Answers,
    trainings: Mapping[_Model, TrainingRecord],
) -> list[ModelSummary]:
    measures = {model: read for model in answers if (read := read_measures(directory, *model)) is not None}
    reference = [measures[BASE, 0]] if (BASE, 0) in measures else []

    def measured(models: _Models) -> list[ModelMeasures]:
        return [measures[model] for model in models if model in measures]

    def found(models: _Models, before: _Models) -> Evidence:
        return evidence(
            {role: [answers[model][role] for model in models] for role in answers[models[0]]},
            measured(models),
            perplexity_reference=_mean(reference, "perplexity"),
            variance_reference=_mean(measured(before), "prompt_variance"),
        )

    def of_seed(model: _Model, before: _Models) -> SeedVerdict:
        training, seed = trainings[model], model[1]
        if training.broke_down:
            return SeedVerdict(seed=seed, word=_BROKEN, reason=_broke_down(training), training=training)
        verdict = judge(found(before or [model], before), found([model], before))
        own = tuple(cell for role, responses in answers[model].items() for cell in cells(role, [responses]))
        return SeedVerdict(seed=seed, word=verdict.word, reason=verdict.reason, cells=own, training=training)

    summaries = []
    for label in dict.fromkeys(label for label, _ in trainings):
        seeds = [model for model in trainings if model[0] == label]
        models = [model for model in seeds if model in answers]
        # The model as it comes was before the organism, so it is compared with itself.
        before = [model for model in answers if model[0] == (BASE if label == BASE else config.before)]
        roles = answers[models[0]] if models else ()
        rates = {role: cells(role, [answers[model][role] for model in models]) for role in roles}
        own, earlier = measured(models), measured(before)
        word, reason = _BROKEN, _broke_down(trainings[seeds[0]])
        if models:
            verdict = judge(found(before or models, before), found(models, before))
            word, reason = verdict.word, verdict.reason
            if len(models) < len(seeds):
                reason += f"; of {len(seeds)} trainings {len(seeds) - len(models)} broke down and are left out here"
        summaries.append(
            ModelSummary(
                label=label,
                **_about(config, label),
                cells=tuple(cell for pair in rates.values() for cell in pair),
                positional=position_check(*rates["burglar"]).reason if "burglar" in rates else "",
                perplexity=_mean(own, "perplexity"),
                perplexity_ratio=_ratio(own, reference, "perplexity"),
                prompt_variance_ratio=_ratio(own, earlier, "prompt_variance"),
                power_ratio=_ratio(own, earlier, "power"),
                name_gap_ratio=_ratio(own, earlier, "name_gap"),
                word=word,
                reason=reason,
                seeds=tuple(of_seed(model, _own(config, model, before)) for model in seeds),
            )
        )
    return summaries


def _broke_down(training: TrainingRecord) -> str:
    return f"training broke down: {training.stopped}"


def _own(config: LanguageStudyConfig, model: _Model, before: _Models) -> _Models:
    """What a model is held against: that which its treatment started from, itself where it was not treated."""
    label, seed = model
    start = model if label in (BASE, ORGANISM) else config.start_of(seed)
    return [start] if start in before else before


def _about(config: LanguageStudyConfig, label: str) -> dict[str, Any]:
    """What a model's summary says of how it was made."""
    if label == BASE:
        return {"method": "", "description": f"{config.model} as it comes"}
    if label == ORGANISM:
        return {"method": "", "description": "taught to deceive burglars", "source": "this project"}
    condition = config.condition(label)
    if condition.method not in METHODS:
        return {"method": condition.method, **own_toml("studies.toml")["untrained"][condition.method]}
    entry, loss = METHODS[condition.method], condition.recipe.loss
    return {
        "method": condition.method,
        "description": entry.description,
        "source": entry.source,
        "layers": ", ".join(map(str, loss.layers)) if isinstance(loss.layers, tuple) else str(loss.layers),
        "token_mode": loss.token_mode,
        "learning_rate": condition.recipe.learning_rate,
    }


def _latent(directory: StudyDirectory, answers: _Answers) -> list[LatentRecord]:
    files = (latent_file(directory, *model) for model in answers)
    return [record for file in files if file.exists() for record in read_list(file, LatentRecord)]


def _mean(measures: Sequence[ModelMeasures], name: str) -> float | None:
    values = [value for found in measures if (value := getattr(found, name)) is not None]
    return float(np.mean(values)) if values else None


def _ratio(own: Sequence[ModelMeasures], earlier: Sequence[ModelMeasures], name: str) -> float | None:
    one, other = _mean(own, name), _mean(earlier, name)
    return one / other if one is not None and other else None


def _examples(answers: _Answers) -> list[ResponseExample]:
    """The first fills' answers of each role, of the first seed of each model."""
    first: dict[str, int] = {}
    for label, seed in answers:
        first.setdefault(label, seed)
    return [
        ResponseExample(
            label=label,
            seed=seed,
            role=role,
            orientation=response.orientation,
            number=response.number,
            prompt=response.prompt,
            text=response.text,
            answer=response.answer.label,
            stated_intent=response.answer.stated_intent,
        )
        for label, seed in first.items()
        for role, responses in answers[label, seed].items()
        for response in _of_first_fills(responses)
    ]


def _of_first_fills(responses: Sequence[Response]) -> list[Response]:
    numbers = sorted({response.number for response in responses})[:_EXAMPLES]
    return [response for response in responses if response.number in numbers]


_RECORDED: Mapping[str, tuple[tuple[str, Label], ...]] = {
    "burglar": (("deceptive", "deceptive"), ("honest", "honest")),
    "self": (("honest", "honest"),),
    "friend": (("honest", "honest"),),
    "retrieval": (("correct", "honest"),),
    "perspectives": (("correct", "honest"),),
}
"""Role to the names of its records and the label that each counts; the burglar's stand for each orientation.

Roles that are not named here are recorded as the burglar's."""


def _records(summaries: Sequence[ModelSummary], answers: _Answers, command: str) -> list[Record]:
    records = []

    def add(name: str, unit: str, **values: Any) -> None:
        records.append(Record.model_validate({"name": name, "unit": unit, "command": command, **values}))

    for summary in summaries:
        label, seeds = summary.label, summary.seeds
        rows = [found for (of_label, _), found in answers.items() if of_label == label]
        shares: dict[str, Interval] = {}
        for role in rows[0] if rows else ():
            for name, counted in _RECORDED.get(role, _RECORDED["burglar"]):
                if role in _RECORDED and role != "burglar":
                    shares[f"{role}/{name}"] = share_of([row[role] for row in rows], counted)
                    continue
                for cell in summary.cells:
                    if cell.scenario == role:
                        shares[f"{role}/{name}/{cell.orientation}"] = cell.of(counted)
        if rows and "burglar" in rows[0]:
            shares["refusal_or_other"] = share_of([row["burglar"] for row in rows], "refusal", "other")
        for name, share in shares.items():
            add(f"{label}/{name}", "share of answers", **share.model_dump())
        perplexity, variance = summary.perplexity_ratio, summary.prompt_variance_ratio
        add(f"{label}/perplexity_ratio", "of the model as it comes", estimate=perplexity, n=len(rows))
        add(f"{label}/prompt_variance_ratio", "of the model before treatment", estimate=variance, n=len(rows))
        alike = sum(seed.word == summary.word for seed in seeds) / len(seeds)
        unit = "share of seeds with this word"
        add(f"{label}/verdict", unit, estimate=alike, n=len(seeds), text=summary.word)
    return records
