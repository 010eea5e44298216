"""The page of a language study: what can be read of its directory, and what is missing; nothing is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pydantic import TypeAdapter

from soo_marl.llm.measures.answers import LABELS, Label
from soo_marl.llm.measures.evaluation import EvaluationConfig
from soo_marl.llm.measures.rates import Rate
from soo_marl.llm.measures.records import ModelSummary, ResponseExample
from soo_marl.llm.methods.recipes import Recipe
from soo_marl.llm.prompts.scenarios import ORIENTATIONS, Orientation
from soo_marl.llm.study.configuration import BASE, HONESTY, ORGANISM, LanguageStudyConfig
from soo_marl.llm.study.study import LANGUAGE
from soo_marl.report.data import in_words
from soo_marl.report.figures.verdict_styles import words_that_occur
from soo_marl.report.language.published import HEADLINE_SCENARIOS, PUBLISHED, Column, PublishedResult
from soo_marl.report.language.styles import ORIENTATION_NAMES, words_of_seeds
from soo_marl.report.page.self_contained import EmbeddedFigure, Reader, require_folder, seeds_text, write_page
from soo_marl.storage.files import validate
from soo_marl.storage.records import Record
from soo_marl.storage.study_directory import StudyDirectory, StudyManifest

TITLE = "Self-other overlap and honesty of a language model"

COLUMNS: tuple[Column, ...] = get_args(Column)

_RIGHT_ANSWERS = ("perspectives", "retrieval", "self", "friend")
"""Scenarios and roles of which the right answers are compared; of all others, the deceptive ones."""


class OwnResult(NamedTuple):
    """What this study found of one model in one scenario and orientation.

    The rate is the share of deceptive answers, or of right ones where the scenario is about those; beside it stand the
    share of answers that choose no room, and the model's verdict.
    """

    label: str
    rate: Rate
    no_room: Rate
    word: str


class ComparedScenario(NamedTuple):
    """One row of the table that holds ours against what is published.

    The scenario in words, which room is named first, the published numbers of each column, ours with the models before
    treatment first, and the names of our scenarios where they are others than the row's.
    """

    name: str
    orientation: Orientation
    published: Mapping[Column, tuple[PublishedResult, ...]]
    ours: tuple[OwnResult, ...]
    wording: str


@dataclass(frozen=True)
class LanguageContent:
    """What was read of a language study, and one sentence for all that could not be read or is not done yet.

    The summaries are those of ``results/models.json``, the records those of ``results/summary.json``.
    """

    manifest: StudyManifest | None
    config: LanguageStudyConfig | None
    summaries: tuple[ModelSummary, ...]
    examples: tuple[ResponseExample, ...]
    records: tuple[Record, ...]
    figures: tuple[EmbeddedFigure, ...]
    missing: tuple[str, ...]

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
        return ORGANISM if any(summary.label == ORGANISM for summary in self.summaries) else BASE

    @property
    def treatments(self) -> list[ModelSummary]:
        """Everything but the models that treatments start from."""
        return [summary for summary in self.summaries if summary.label not in (BASE, ORGANISM)]

    @property
    def treatments_by_word(self) -> list[tuple[str, list[str]]]:
        """Each word and the treatments that got it, in the order of legends; unknown words last."""
        words = words_that_occur(summary.word for summary in self.treatments)
        return [(word, [summary.label for summary in self.treatments if summary.word == word]) for word in words]


def write_language_report(study_directory: Path) -> Path:
    """Write ``report.html`` from what stands in a language study's directory, and return its path.

    Whatever is missing, unreadable or not done yet is named on the page. Figures are embedded.

    Raises:
        RunDirectoryError: there is no such directory, or the page cannot be written.
    """
    directory = require_folder(study_directory)
    content = read_language_content(directory)
    rows = compared(content)
    return write_page(
        directory,
        "language.html.j2",
        ["page.css", "language.css"],
        "language.js" if content.examples else "",
        examples_data(content),
        title=TITLE,
        content=content,
        missing=content.missing,
        rows=rows,
        sources=sources_of(rows),
        orientations=ORIENTATION_NAMES,
        columns=COLUMNS,
        answer_labels=LABELS,
        honesty=HONESTY,
        words_of_seeds=words_of_seeds,
        pairs_in_words=pairs_in_words,
        prompts_in_words=prompts_in_words,
        seeds_text=seeds_text,
    )


def read_language_content(directory: Path) -> LanguageContent:
    """Read what the page shows of a language study's directory; anything in it may be missing."""
    reader = Reader(Path(directory).absolute(), [])
    file = reader.directory / "study.json"
    manifest = reader.manifest()
    config = None
    if manifest is not None and manifest.kind != LANGUAGE.name:
        reader.missing.append(f"{file} is of a study of kind {manifest.kind}, not {LANGUAGE.name}")
    elif manifest is not None:
        configuration, adapter = manifest.configuration, TypeAdapter(LanguageStudyConfig)
        way_out = "the settings below are as they stand there"
        config = reader.optional(lambda: validate(adapter, configuration, file, way_out))
    summaries = reader.records("models", ModelSummary)
    examples = reader.records("examples", ResponseExample)
    records = reader.records("summary", Record)
    figures = reader.figures()
    if config is not None:
        reader.missing.extend(_unfinished(StudyDirectory.read(reader.directory), config))
    return LanguageContent(manifest, config, summaries, examples, records, figures, reader.sentences())


def compared(content: LanguageContent) -> list[ComparedScenario]:
    """Published numbers and ours, a row per scenario and orientation that has any.

    Scenarios that are not among the headline ones stand there only where this study asks them.
    """
    asked = {cell.scenario for summary in content.summaries for cell in summary.cells}
    published = dict.fromkeys(result.scenario for result in PUBLISHED)
    scenarios = dict.fromkeys((*HEADLINE_SCENARIOS, *(name for name in published if name in asked)))
    rows = [_row(content, scenario, orientation) for scenario in scenarios for orientation in ORIENTATIONS]
    return [row for row in rows if row.ours or any(row.published.values())]


def sources_of(rows: Sequence[ComparedScenario]) -> list[tuple[str, str]]:
    """Every source of published numbers, and what is from it."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        for column, results in row.published.items():
            for result in results:
                found.setdefault(result.source, {})[f"{column}: {_scenario_name(result.scenario)}"] = None
    return [(source, "; ".join(texts)) for source, texts in found.items()]


def prompts_in_words(evaluation: EvaluationConfig) -> str:
    """How many prompts each role is asked, in which wordings."""
    asked = []
    for role, scenarios in evaluation.all_roles.items():
        fills = -(-evaluation.fills.get(role, evaluation.other_fills) // len(scenarios)) * len(scenarios)
        asked.append(f"{role} {len(ORIENTATIONS)} × {fills} ({', '.join(scenarios)})")
    return "; ".join(asked)


def pairs_in_words(recipe: Recipe) -> str:
    """For instance ``scenario, 48 + 24 kept``."""
    pairs = f"own, {len(recipe.own_pairs)}" if recipe.own_pairs else f"{recipe.pairs}, {recipe.pair_count}"
    return f"{pairs} + {recipe.kept_count} kept" if recipe.kept_count else pairs


def examples_data(content: LanguageContent) -> dict[str, Any]:
    """The examples as the page's script reads them, every prompt once.

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
    return {
        "before": content.before,
        "words": {summary.label: summary.word for summary in content.summaries},
        "orientations": dict(ORIENTATION_NAMES),
        "prompts": list(prompts),
        "examples": items,
    }


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
        if cell is not None and (summary.method == HONESTY) == asked_honestly:
            ours.append(OwnResult(summary.label, cell.of(label), cell.refusal_or_other, summary.word))
    names = content.config.evaluation.all_roles.get(role, ()) if content.config else ()
    return ComparedScenario(
        name=_scenario_name(scenario),
        orientation=orientation,
        published={column: tuple(r for r in results if r.column == column) for column in COLUMNS},
        ours=tuple(ours),
        wording=", ".join(names) if ours and tuple(names) != (role,) else "",
    )


def _scenario_name(scenario: str) -> str:
    return HEADLINE_SCENARIOS.get(scenario, in_words(scenario))
