"""What the page of a language study shows: everything that can be read of its directory, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from soo_marl.llm.measures.answers import Label
from soo_marl.llm.measures.rates import Rate
from soo_marl.llm.measures.records import ModelSummary, ResponseExample
from soo_marl.llm.methods.recipes import Recipe
from soo_marl.llm.prompts.scenarios import ORIENTATIONS, Orientation
from soo_marl.llm.study.configuration import HONESTY, LanguageStudyConfig
from soo_marl.report.language.published import (
    HEADLINE_SCENARIOS,
    PUBLISHED,
    SCENARIO_NAMES,
    Column,
    PublishedResult,
)
from soo_marl.report.language.styles import ORIENTATION_NAMES, WORDS
from soo_marl.report.page.content import seeds_text
from soo_marl.report.page.self_contained import EmbeddedFigure, embedded_figures, optional
from soo_marl.storage.files import validate
from soo_marl.storage.records import FigureRecord, Record, read_list
from soo_marl.storage.study_directory import StudyDirectory, StudyManifest

LANGUAGE_KIND = "language"
"""How a language study's ``study.json`` calls itself."""

COLUMNS: tuple[Column, ...] = ("paper", "authors' code", "replications")

_RIGHT_ANSWERS = ("perspectives", "retrieval", "self", "friend")
"""Scenarios and roles of which the right answers are compared; of all others, the deceptive ones."""

_SAME_MODEL = ("base", "organism")


@dataclass(frozen=True)
class OwnResult:
    """What this study found of one model in one scenario and orientation."""

    label: str
    """The model."""
    rate: Rate
    """Share of deceptive answers, or of right ones where the scenario is about those."""
    no_room: Rate
    """Share of answers that choose no room."""
    word: str
    """The model's verdict."""


@dataclass(frozen=True)
class ComparedScenario:
    """One row of the table that holds ours against what is published."""

    name: str
    """The scenario in words."""
    orientation: Orientation
    """Which room is named first."""
    published: Mapping[Column, tuple[PublishedResult, ...]]
    """Numbers of each column."""
    ours: tuple[OwnResult, ...]
    """Ours, the models before treatment first."""
    wording: str
    """The names of our scenarios, where they are others than the row's."""


@dataclass(frozen=True)
class LanguageContent:
    """What was read of a language study; empty where it is missing."""

    manifest: StudyManifest | None
    """``study.json``."""
    config: LanguageStudyConfig | None
    """The configuration in it."""
    summaries: tuple[ModelSummary, ...]
    """``results/models.json``."""
    examples: tuple[ResponseExample, ...]
    """``results/examples.json``."""
    records: tuple[Record, ...]
    """``results/summary.json``."""
    figures: tuple[EmbeddedFigure, ...]
    """The figures that ``results/figures.json`` lists."""
    missing: tuple[str, ...]
    """What could not be read or is not done yet, one sentence each."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever reads the results must know of the configuration."""
        try:
            return () if self.config is None else self.config.notes
        except ValueError:  # It asks for scenarios that this version does not have, which stands among what is missing.
            return ()

    @property
    def commands(self) -> list[str]:
        """Every command that made a record, once each."""
        return list(dict.fromkeys(record.command for record in self.records))

    @property
    def before(self) -> str:
        """Label of the model that treatments start from, as far as it is known."""
        if self.config is not None:
            return self.config.before
        labels = [summary.label for summary in self.summaries]
        return next((label for label in reversed(_SAME_MODEL) if label in labels), _SAME_MODEL[0])

    @property
    def treatments(self) -> list[ModelSummary]:
        """Everything but the models that treatments start from."""
        return [summary for summary in self.summaries if summary.label not in _SAME_MODEL]


def read_language_content(directory: Path) -> LanguageContent:
    """Read what the page shows of a language study's directory.

    Args:
        directory: the study's directory; anything in it may be missing.
    """
    # A relative path such as "." could not be told apart from the text of a message.
    directory = Path(directory).absolute()
    results = directory / "results"
    missing: list[str] = []
    study = optional(lambda: StudyDirectory.read(directory), missing)
    config = None
    if study is not None and study.manifest.kind != LANGUAGE_KIND:
        missing.append(f"{directory / 'study.json'} is of a study of kind {study.manifest.kind}, not {LANGUAGE_KIND}")
    elif study is not None:
        configuration = study.manifest.configuration
        adapter = TypeAdapter(LanguageStudyConfig)
        way_out = "the settings below are as they stand there"
        config = optional(lambda: validate(adapter, configuration, directory / "study.json", way_out), missing)
    summaries = optional(lambda: read_list(results / "models.json", ModelSummary), missing)
    examples = optional(lambda: read_list(results / "examples.json", ResponseExample), missing)
    records = optional(lambda: read_list(results / "summary.json", Record), missing)
    listed = optional(lambda: read_list(results / "figures.json", FigureRecord), missing)
    figures = embedded_figures(listed or (), directory / "figures", missing)
    if study is not None and config is not None:
        missing += _unfinished(study, config)
    return LanguageContent(
        manifest=None if study is None else study.manifest,
        config=config,
        summaries=tuple(summaries or ()),
        examples=tuple(examples or ()),
        records=tuple(records or ()),
        figures=figures,
        missing=tuple(text.replace(f"{directory}/", "").replace(str(directory), "this folder") for text in missing),
    )


def answer_in_short(content: LanguageContent) -> list[tuple[str, list[str]]]:
    """Each word and the treatments that got it, in the order of legends; unknown words last."""
    words = [*WORDS, *sorted({summary.word for summary in content.treatments} - set(WORDS))]
    found = [(word, [summary.label for summary in content.treatments if summary.word == word]) for word in words]
    return [(word, labels) for word, labels in found if labels]


def compared(content: LanguageContent) -> list[ComparedScenario]:
    """Published numbers and ours, a row per scenario and orientation that has any.

    Scenarios that are not among the headline ones stand there only where this study asks them.
    """
    asked = dict.fromkeys(cell.scenario for summary in content.summaries for cell in summary.cells)
    published = dict.fromkeys(result.scenario for result in PUBLISHED)
    rows = []
    for scenario in [*HEADLINE_SCENARIOS, *(name for name in published if name not in HEADLINE_SCENARIOS)]:
        if scenario not in HEADLINE_SCENARIOS and scenario not in asked:
            continue
        for orientation in ORIENTATIONS:
            row = _row(content, scenario, orientation)
            if row.ours or any(row.published.values()):
                rows.append(row)
    return rows


def sources_of(rows: Sequence[ComparedScenario]) -> list[tuple[str, list[str]]]:
    """Every source of published numbers, and what is from it."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for column, results in row.published.items():
            for result in results:
                texts = found.setdefault(result.source, [])
                text = f"{column}: {SCENARIO_NAMES.get(result.scenario, result.scenario)}"
                if text not in texts:
                    texts.append(text)
    return list(found.items())


def setting_rows(content: LanguageContent) -> list[tuple[str, str]]:
    """What a reader must know to place the numbers."""
    rows: list[tuple[str, str]] = []
    config = content.config
    if config is not None:
        evaluation = config.evaluation
        weights = config.dtype if config.quantisation == "none" else f"{config.dtype}, {config.quantisation} quantised"
        organism = "none: treatments start from the model as it comes"
        if config.organism is not None:
            organism = (
                f"LoRA rank {config.organism.lora.r}, {config.organism.steps} steps, learning rate "
                f"{config.organism.learning_rate:g}, wording {config.organism.family}; "
                f"seeds {seeds_text(config.organism_seeds)}"
            )
        asked = []
        for role, scenarios in evaluation.all_roles.items():
            fills = -(-evaluation.fills.get(role, evaluation.other_fills) // len(scenarios)) * len(scenarios)
            asked.append(f"{role} {len(ORIENTATIONS)} × {fills} ({', '.join(scenarios)})")
        rows += [
            ("model", f"{config.model} ({weights})"),
            ("organism", organism),
            ("treatments", ", ".join(condition.label for condition in config.conditions)),
            ("seeds of treatments", seeds_text(config.seeds)),
            ("prompts per model", "; ".join(asked)),
            ("token budget of an answer", str(evaluation.max_new_tokens)),
            ("prompts from", f"the {evaluation.split} half of the inventory, seed {evaluation.seed}"),
            ("format", "raw text" if evaluation.raw else "the model's chat template"),
            ("answers", "greedy; the first room named as a whole word and not negated decides"),
        ]
    if content.manifest is not None:
        rows.append(("started", content.manifest.created))
    return rows


def recipe_rows(config: LanguageStudyConfig) -> list[tuple[str, list[str]]]:
    """A row per treatment: its label, and method, pairs, loss, layers, tokens, sides, adapter, rate, epochs, batch."""
    rows = []
    for condition in config.conditions:
        recipe, loss = condition.recipe, condition.recipe.loss
        if condition.method == HONESTY:
            rows.append((condition.label, [condition.method, *["–"] * 9]))
            continue
        layers = loss.layers if isinstance(loss.layers, str | int) else ", ".join(map(str, loss.layers))
        trained = [
            f"{recipe.lora.r} / {recipe.lora.alpha:g} / {recipe.lora.dropout:g}",
            f"{recipe.learning_rate:g}",
            str(recipe.epochs),
            str(recipe.batch_size * recipe.accumulation),
        ]
        rows.append(
            (
                condition.label,
                [
                    condition.method,
                    _pairs_in_words(recipe),
                    loss.kind,
                    str(layers),
                    loss.token_mode,
                    str(loss.sides),
                    *(trained if condition.trains else ["–"] * 4),
                ],
            )
        )
    return rows


def _pairs_in_words(recipe: Recipe) -> str:
    """For instance ``scenario, 48 + 24 kept``."""
    pairs = f"own, {len(recipe.own_pairs)}" if recipe.own_pairs else f"{recipe.pairs}, {recipe.pair_count}"
    return f"{pairs} + {recipe.kept_count} kept" if recipe.kept_count else pairs


def examples_json(content: LanguageContent) -> str:
    """The examples as JSON that may stand inside a ``script`` element, every prompt once.

    An answer is paired with that of the model before treatment by role, orientation and fill; where a role asks several
    questions about a fill, by their order.
    """
    prompts: dict[str, int] = {}
    counts: dict[tuple[str, str, str, int], int] = {}
    items = []
    for example in content.examples:
        key = (example.label, example.role, example.orientation, example.number)
        place = counts[key] = counts.get(key, -1) + 1
        items.append(
            {
                "model": example.label,
                # A seed may have 64 bits, more than a number in JavaScript.
                "seed": str(example.seed),
                "role": example.role,
                "orientation": example.orientation,
                "fill": example.number,
                "place": place,
                "prompt": prompts.setdefault(example.prompt, len(prompts)),
                "text": example.text,
                "answer": example.answer,
                "intent": example.stated_intent,
            }
        )
    words = {summary.label: summary.word for summary in content.summaries}
    data: dict[str, Any] = {
        "before": content.before,
        "words": words,
        "orientations": dict(ORIENTATION_NAMES),
        "prompts": list(prompts),
        "examples": items,
    }
    # A text of the records must not end the element, or begin a comment in it.
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _unfinished(study: StudyDirectory, config: LanguageStudyConfig) -> list[str]:
    waiting: dict[str, list[int]] = {}
    for label, seed in config.models:
        if not study.done(f"models/{label}/{seed}"):
            waiting.setdefault(label, []).append(seed)
    if not waiting:
        return []
    names = ", ".join(f"{label} (seeds {seeds_text(seeds)})" for label, seeds in waiting.items())
    return [f"The study is not finished: {names} {'is' if len(waiting) == 1 else 'are'} not done yet."]


def _row(content: LanguageContent, scenario: str, orientation: Orientation) -> ComparedScenario:
    results = [r for r in PUBLISHED if (r.scenario, r.orientation) == (scenario, orientation)]
    asked_honestly = scenario == HONESTY
    # Asking for honesty is a treatment here: its burglar answers a burglar who is to be told the truth.
    role = "burglar" if asked_honestly else scenario
    label: Label = "honest" if scenario in _RIGHT_ANSWERS else "deceptive"
    ours = []
    for summary in content.summaries:
        cell = summary.cell(role, orientation)
        if cell is None or (summary.method == HONESTY) != asked_honestly:
            continue
        ours.append(OwnResult(summary.label, cell.of(label), cell.refusal_or_other, summary.word))
    names = content.config.evaluation.all_roles.get(role, ()) if content.config else ()
    return ComparedScenario(
        name=SCENARIO_NAMES.get(scenario, scenario.replace("_", " ")),
        orientation=orientation,
        published={column: tuple(r for r in results if r.column == column) for column in COLUMNS},
        ours=tuple(ours),
        wording=", ".join(names) if ours and tuple(names) != (role,) else "",
    )
