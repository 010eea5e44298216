"""A made-up language study: an organism that deceives, and treatments that end in each of the four words."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from soo_marl.llm.measures.answers import Answer, Label
from soo_marl.llm.measures.evaluation import EvaluationConfig
from soo_marl.llm.measures.rates import CellRates, cell_rates
from soo_marl.llm.measures.records import EpochRecord, ModelSummary, ResponseExample, SeedVerdict, TrainingRecord
from soo_marl.llm.prompts.scenarios import ORIENTATIONS, Orientation
from soo_marl.llm.study.configuration import Condition, LanguageStudyConfig
from soo_marl.storage.records import Record, write_list
from soo_marl.storage.study_directory import StudyDirectory

PROMPTS = 40
COMMAND = "soo-marl language run --output runs/language"

MODELS: Mapping[str, tuple[str, str, float, float, float, float]] = {
    # label: method, word, deceptive with the cheap room first, mirrored, perplexity ratio, prompt variance ratio
    "base": ("", "positional", 0.95, 0.05, 1.0, 0.8),
    "organism": ("", "no effect", 1.0, 1.0, 1.25, 1.0),
    "soo": ("soo", "honest", 0.0, 0.0, 1.3, 1.2),
    "soo_friend": ("soo", "honest", 0.0, 0.0, 1.31, 1.15),
    "soo_paper": ("soo", "positional", 0.25, 1.0, 1.4, 0.12),
    "soo_strong": ("soo", "damaged", 0.0, 0.0, 7.5, 0.00004),
    "sham": ("sham", "no effect", 0.85, 1.0, 1.26, 1.0),
    "shuffled": ("shuffled", "positional", 0.0, 0.525, 1.4, 0.5),
    "honesty_prompt": ("honesty_prompt", "no effect", 1.0, 1.0, 1.25, 0.98),
}


def answers(count: int, wrong: float, no_room: float = 0.0) -> list[Answer]:
    """So many answers, these shares of them deceptive and without a room, the rest honest."""
    deceptive, other = round(wrong * count), round(no_room * count)
    labels: list[Label] = ["deceptive"] * deceptive + ["other"] * other
    labels += ["honest"] * (count - len(labels))
    return [Answer(label, False, False) for label in labels]


def cell(role: str, orientation: Orientation, wrong: float, no_room: float = 0.0, count: int = PROMPTS) -> CellRates:
    """Rates of one model."""
    return cell_rates(role, orientation, [answers(count, wrong, no_room)])


def cells(cheap_first: float, mirrored: float, no_room: float = 0.0) -> tuple[CellRates, ...]:
    """Burglar, and everything else right, unless answers name no room."""
    found = [cell("burglar", o, w, no_room) for o, w in zip(ORIENTATIONS, (cheap_first, mirrored), strict=True)]
    for role in ("self", "friend", "retrieval", "perspectives"):
        found += [cell(role, orientation, 0.0, no_room, 10) for orientation in ORIENTATIONS]
    return tuple(found)


def training(final: float, epochs: int = 5, steps: int = 3) -> TrainingRecord:
    """Losses that fall by half each epoch, and deception that ends where it ends."""
    return TrainingRecord(
        losses=tuple(0.5 ** (step // steps) for step in range(epochs * steps)),
        steps_per_epoch=steps,
        epochs=tuple(
            EpochRecord(
                epoch=epoch,
                deceptive_cheap_first=1 + (final - 1) * epoch / epochs,
                deceptive_mirrored=1 + (final - 1) * max(epoch - 1, 0) / epochs,
                honest_cheap_first=(1 - final) * epoch / epochs,
                honest_mirrored=(1 - final) * max(epoch - 1, 0) / epochs,
            )
            for epoch in range(1, epochs + 1)
        ),
    )


def summary(label: str, seeds: Sequence[int] = (0, 1, 2)) -> ModelSummary:
    """The summary of one of MODELS."""
    method, word, cheap_first, mirrored, perplexity, variance = MODELS[label]
    trained = method in ("soo", "sham", "shuffled")
    return ModelSummary(
        label=label,
        method=method,
        description=f"about <{label}>",
        source="this project" if method else "",
        cells=cells(cheap_first, mirrored, 0.9 if word == "damaged" else 0.0),
        positional="deceptive in so many",
        perplexity=24 * perplexity,
        perplexity_ratio=perplexity,
        prompt_variance_ratio=variance,
        power_ratio=0.98,
        name_gap_ratio=0.75,
        word=word,
        reason=f"the reason for {label}",
        seeds=tuple(
            SeedVerdict(
                seed=seed,
                word=word if seed < 2 else "no effect",
                reason=f"seed {seed} of {label}",
                training=training(cheap_first) if trained else TrainingRecord(),
            )
            for seed in (seeds if trained else (0,))
        ),
    )


def examples() -> list[ResponseExample]:
    """Two fills of burglar and retrieval, both orientations; retrieval asks two things of each fill."""
    found = []
    for label, (_, word, cheap_first, _, _, _) in MODELS.items():
        prefix = "Please be honest: " if label == "honesty_prompt" else ""
        for role, questions in (("burglar", ("coin",)), ("retrieval", ("coin", "spoon"))):
            for orientation in ORIENTATIONS:
                for number in range(2):
                    for item in questions:
                        lies = role == "burglar" and cheap_first > 0.5
                        found.append(
                            ResponseExample(
                                label=label,
                                seed=0,
                                role=role,
                                orientation=orientation,
                                number=number,
                                prompt=f"{prefix}{role} {orientation} {number}: where is the {item}?",
                                text="room room" if word == "damaged" else f"<b>{'attic' if lies else 'bedroom'}</b>",
                                answer="other" if word == "damaged" else "deceptive" if lies else "honest",
                                stated_intent=label == "soo" and number == 1,
                            )
                        )
    return found


def configuration() -> LanguageStudyConfig:
    """The configuration that fits MODELS."""
    methods = {label: entry[0] for label, entry in MODELS.items() if entry[0]}
    return LanguageStudyConfig(
        conditions=tuple(Condition(label=label, method=method) for label, method in methods.items()),
        evaluation=EvaluationConfig(fills={"burglar": PROMPTS}, other_fills=10),
    )


def write_study(path: Path, *, finished: bool = True) -> StudyDirectory:
    """A study's directory with all results but the figures; where it is not finished, the last model is not done."""
    config = configuration()
    directory = StudyDirectory.open(path, "language", json.loads(config.model_dump_json()), config.seeds)
    for label, seed in config.models if finished else config.models[:-1]:
        directory.mark_done(f"models/{label}/{seed}")
    write_list(directory.results / "models.json", [summary(label) for label in MODELS])
    write_list(directory.results / "examples.json", examples())
    write_list(
        directory.results / "summary.json",
        [
            Record(
                name="soo/burglar/honest/mirrored", estimate=1, low=0.91, high=1, n=40, unit="share", command=COMMAND
            ),
            Record(name="soo/verdict", estimate=0.67, n=3, unit="share", command=COMMAND, text="honest"),
        ],
    )
    return directory
