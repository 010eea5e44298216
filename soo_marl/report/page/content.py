"""What a page shows of a study's directory: everything that can be read from it, and what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from soo_marl.report.page.self_contained import EmbeddedFigure, embedded_figures, optional
from soo_marl.storage.records import FigureRecord, Record, read_list, read_one
from soo_marl.storage.study_directory import FINETUNING_FOLDER, StudyDirectory, StudyManifest
from soo_marl.studies.finetuning.records import Claim, ConditionSummary, EpisodeCollection, TreatedAgent
from soo_marl.studies.learning.recipes import same_recipe
from soo_marl.studies.learning.records import AgentRecord, Classification

Content = TypeVar("Content")

FINETUNING_KIND = "finetune"
"""How a fine-tuning study's ``study.json`` calls itself."""


@dataclass(frozen=True)
class BaselineContent:
    """What was read of a baseline study; empty where it is missing."""

    manifest: StudyManifest | None
    """``study.json``."""
    records: tuple[Record, ...]
    """``results/summary.json``."""
    agents: tuple[AgentRecord, ...]
    """``results/agents.json``."""
    classification: Classification
    """``results/classification.json``."""
    figures: tuple[EmbeddedFigure, ...]
    """The figures that ``results/figures.json`` lists."""


@dataclass(frozen=True)
class FinetuningContent:
    """What was read of a fine-tuning study; empty where it is missing."""

    manifest: StudyManifest | None
    """``study.json``."""
    records: tuple[Record, ...]
    """``results/summary.json``."""
    claims: tuple[Claim, ...]
    """``results/claims.json``."""
    conditions: tuple[ConditionSummary, ...]
    """``results/conditions.json``."""
    treated: tuple[TreatedAgent, ...]
    """``results/treated_agents.json``."""
    episodes: EpisodeCollection | None
    """``results/episodes.json``, if it holds any episode."""
    figures: tuple[EmbeddedFigure, ...]
    """The figures that ``results/figures.json`` lists."""

    @property
    def during(self) -> list[ConditionSummary]:
        """Baselines, and agents at the end of their treatment."""
        return [condition for condition in self.conditions if not condition.after]

    @property
    def later(self) -> list[ConditionSummary]:
        """Agents after further training without the loss."""
        return [condition for condition in self.conditions if condition.after]


@dataclass(frozen=True)
class Section:
    """A section of the page about one study."""

    part: str
    """Name of the template's part."""
    identifier: str
    """Where links lead to."""
    title: str
    """Heading."""


@dataclass(frozen=True)
class StudyContent:
    """One study: baselines, fine-tuning, or both."""

    name: str
    """How the page calls it, if it shows several studies; else empty."""
    baselines: BaselineContent | None
    """The baseline study; None where the directory is a fine-tuning study's own."""
    finetuning: FinetuningContent | None
    """The fine-tuning study; None where there is none."""
    missing: tuple[str, ...]
    """What could not be read, one sentence each."""

    @property
    def identifier(self) -> str:
        """Where links to the study lead to."""
        return f"study-{slug(self.name)}" if self.name else "study"

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The table of verdicts."""
        return self.finetuning.claims if self.finetuning else ()

    @property
    def episodes(self) -> EpisodeCollection | None:
        """Episodes for the player."""
        return self.finetuning.episodes if self.finetuning else None

    @property
    def manifests(self) -> list[StudyManifest]:
        """The manifests of both parts, as far as they are there."""
        parts = (self.baselines, self.finetuning)
        return [part.manifest for part in parts if part is not None and part.manifest is not None]

    @property
    def commands(self) -> list[str]:
        """Every command that made a record, once each."""
        parts = (self.baselines, self.finetuning)
        return list(dict.fromkeys(record.command for part in parts if part is not None for record in part.records))

    @property
    def sections(self) -> list[Section]:
        """The sections that there is something to show in, in order."""
        baselines, finetuning = self.baselines, self.finetuning
        several = baselines is not None and finetuning is not None
        found: list[tuple[str, str, object]] = []
        if baselines is not None:
            of_baselines = " of the baselines" if several else ""
            found += [
                ("findings", f"Findings{of_baselines}", baselines.classification.findings),
                ("summary", f"Results{of_baselines}", baselines.records),
                ("classification", "Classification", baselines.classification.rows),
            ]
        if finetuning is not None:
            found.append(("finetuning", "Fine-tuning", finetuning.conditions or finetuning.records))
        if baselines is not None:
            found.append(("figures", f"Figures{of_baselines}", baselines.figures))
        if finetuning is not None:
            found.append(("finetuning_figures", "Figures of the fine-tuning", finetuning.figures))
        if baselines is not None:
            found.append(("agents", "Baseline agents" if several else "Agents", baselines.agents))
        if finetuning is not None:
            found.append(("finetuning_agents", "Treated agents", finetuning.treated))
        found += [
            ("setting", "Setting", self.manifests),
            ("commands", "Commands", self.commands),
            ("versions", "Versions", self.manifests),
        ]
        prefix = f"{slug(self.name)}-" if self.name else ""
        return [Section(part, prefix + part.replace("_", "-"), title) for part, title, content in found if content]


def read_content(directory: Path, name: str = "") -> StudyContent:
    """Read what a page shows of a study's directory.

    Args:
        directory: A baseline study's directory, with or without a fine-tuning study in its folder ``finetune``, or a
            fine-tuning study's own.
        name: How the page calls the study, if it shows several.
    """
    # A relative path such as "." could not be told apart from the text of a message.
    directory = Path(directory).absolute()
    missing: list[str] = []
    manifest = optional(lambda: StudyDirectory.read(directory).manifest, missing)
    baselines: BaselineContent | None = None
    finetuning: FinetuningContent | None = None
    if _is_finetuning(directory, manifest):
        finetuning = _finetuning(directory, manifest, missing)
    else:
        baselines = _baselines(directory, manifest, missing)
        folder = directory / FINETUNING_FOLDER
        if folder.is_dir():
            of_folder = optional(lambda: StudyDirectory.read(folder).manifest, missing)
            treated = of_folder and of_folder.configuration.get("baselines")
            if manifest and of_folder and not same_recipe(treated, manifest.configuration):
                missing.append(
                    f"{folder} treats the agents of another study, so it is left out; delete it to treat these"
                )
            else:
                finetuning = _finetuning(folder, of_folder, missing)
    inside, itself = (f"{name}/", name) if name else ("", "this folder")
    sentences = tuple(text.replace(f"{directory}/", inside).replace(str(directory), itself) for text in missing)
    return StudyContent(name, baselines, finetuning, sentences)


def setting(manifest: StudyManifest) -> list[tuple[str, str]]:
    """What a reader must know to place the numbers: preset and regime where the configuration names them, seeds."""
    named = {}
    for field, value in flattened(manifest.configuration):
        name = field.rsplit(".", 1)[-1]
        if name in ("preset", "regime") and name not in named:
            named[name] = value
    return [
        ("study", manifest.kind),
        *named.items(),
        ("seeds", seeds_text(manifest.seeds)),
        ("started", manifest.created),
    ]


def seeds_text(seeds: Iterable[int]) -> str:
    """Return seeds as text, three and more in a row as a range, such as ``0–9, 20``."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    texts = [f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return ", ".join(texts) or "none"


def flattened(configuration: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return the configuration as rows of dotted field and value."""
    rows: list[tuple[str, str]] = []
    for name, value in configuration.items():
        if isinstance(value, Mapping) and value:
            rows += flattened(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", "none" if value is None else str(value)))
    return rows


def slug(text: str) -> str:
    """Return a text as part of an identifier: letters and digits, and a hyphen for whatever else."""
    return "".join(char if char.isascii() and char.isalnum() else "-" for char in text.lower())


def _is_finetuning(directory: Path, manifest: StudyManifest | None) -> bool:
    if manifest is not None:
        return manifest.kind == FINETUNING_KIND
    results = directory / "results"
    return any((results / file).exists() for file in ("conditions.json", "treated_agents.json", "claims.json"))


def _baselines(directory: Path, manifest: StudyManifest | None, missing: list[str]) -> BaselineContent:
    results = directory / "results"
    records = optional(lambda: read_list(results / "summary.json", Record), missing)
    agents = optional(lambda: read_list(results / "agents.json", AgentRecord), missing)
    classification = optional(lambda: read_one(results / "classification.json", Classification), missing)
    figures = optional(lambda: read_list(results / "figures.json", FigureRecord), missing)
    # Those of the fine-tuning stand in a section of their own.
    own = [record for record in records or () if not record.name.startswith(f"{FINETUNING_FOLDER}/")]
    return BaselineContent(
        manifest=manifest,
        records=tuple(own),
        agents=tuple(agents or ()),
        classification=classification or Classification(),
        figures=embedded_figures(figures or (), directory / "figures", missing),
    )


def _finetuning(directory: Path, manifest: StudyManifest | None, missing: list[str]) -> FinetuningContent:
    results = directory / "results"
    claims = optional(lambda: read_list(results / "claims.json", Claim), missing)
    conditions = optional(lambda: read_list(results / "conditions.json", ConditionSummary), missing)
    treated = optional(lambda: read_list(results / "treated_agents.json", TreatedAgent), missing)
    records = optional(lambda: read_list(results / "summary.json", Record), missing)
    # The page shows curves as figures only.
    if not (results / "curves.json").exists():
        missing.append(f"{results / 'curves.json'} is missing")
    episodes = optional(lambda: read_one(results / "episodes.json", EpisodeCollection), missing)
    figures = optional(lambda: read_list(results / "figures.json", FigureRecord), missing)
    return FinetuningContent(
        manifest=manifest,
        records=tuple(records or ()),
        claims=tuple(claims or ()),
        conditions=tuple(conditions or ()),
        treated=tuple(treated or ()),
        episodes=episodes if episodes is not None and episodes.episodes else None,
        figures=embedded_figures(figures or (), directory / "figures", missing),
    )
