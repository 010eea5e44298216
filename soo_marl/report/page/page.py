"""The page of a study of agents, or of several: what can be read of their directories, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from soo_marl.report.data import table
from soo_marl.report.page.player import player_data
from soo_marl.report.page.self_contained import (
    EmbeddedFigure,
    Reader,
    flattened,
    require_folder,
    seeds_text,
    slug,
    write_page,
)
from soo_marl.storage.records import Record
from soo_marl.storage.study_directory import FINETUNING_FOLDER, StudyManifest
from soo_marl.studies.finetuning.records import Claim, ConditionSummary, EpisodeCollection, TreatedAgent
from soo_marl.studies.finetuning.study import FINETUNED
from soo_marl.studies.learning.recipes import same_recipe
from soo_marl.studies.learning.records import AgentRecord, Classification

TITLE = "Self-other overlap and deception in multi-agent reinforcement learning"


@dataclass(frozen=True)
class BaselineContent:
    """What was read of a baseline study: its manifest, and what ``results/`` holds; empty where it is missing."""

    manifest: StudyManifest | None
    records: tuple[Record, ...]
    """``summary.json`` without what is of the fine-tuning, which stands in a section of its own."""
    agents: tuple[AgentRecord, ...]
    classification: Classification
    figures: tuple[EmbeddedFigure, ...]


@dataclass(frozen=True)
class FinetuningContent:
    """What was read of a fine-tuning study: its manifest, and what ``results/`` holds; empty where it is missing."""

    manifest: StudyManifest | None
    records: tuple[Record, ...]
    """``summary.json``."""
    claims: tuple[Claim, ...]
    conditions: tuple[ConditionSummary, ...]
    """Baselines and agents at the end of their treatment, and agents after further training without the loss."""
    treated: tuple[TreatedAgent, ...]
    """``treated_agents.json``."""
    episodes: EpisodeCollection | None
    """None without any episode."""
    figures: tuple[EmbeddedFigure, ...]

    @property
    def results(self) -> tuple[object, ...]:
        """What the section of results shows."""
        return self.conditions or self.records


class Section(NamedTuple):
    """A section of the page about one study, of ``templates/sections.toml``: template's part, link, and heading."""

    part: str
    identifier: str
    title: str


@dataclass(frozen=True)
class StudyContent:
    """One study: baselines, fine-tuning, or both; and one sentence for all that could not be read.

    The name is how the page calls it, and empty where the page shows no other.
    """

    name: str
    baselines: BaselineContent | None
    finetuning: FinetuningContent | None
    missing: tuple[str, ...]

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
        several = self.baselines is not None and self.finetuning is not None
        prefix = f"{slug(self.name)}-" if self.name else ""
        return [
            Section(part, prefix + slug(part), beside if several else alone)
            for part, alone, beside, needed in table("sections")["sections"]
            if self._has(needed)
        ]

    def _has(self, needed: str) -> bool:
        found: object = self
        for name in needed.split("."):
            found = getattr(found, name, None)
        return bool(found)


def write_report(study_directory: Path) -> Path:
    """Write ``report.html`` from what stands in a study's directory, and return its path.

    The directory is a baseline study's, whose folder ``finetune`` may hold a fine-tuning study of its agents, or a
    fine-tuning study's own. Whatever is missing or unreadable is named on the page. Figures are embedded.

    Raises:
        RunDirectoryError: there is no such directory, or the page cannot be written.
    """
    directory = require_folder(study_directory)
    return _write(directory, TITLE, [read_content(directory)], [])


def write_reproduction(directory: Path, studies: Mapping[str, Path], *, title: str = TITLE) -> Path:
    """Write one ``report.html`` about several studies, and return its path.

    Args:
        directory: The folder that the page is written to; made where it is missing.
        studies: Directories of studies as :func:`write_report` takes them, by name of the preset, in order. Those that
            are not there are named on the page.
        title: The page's title.

    Raises:
        RunDirectoryError: the page cannot be written.
        ValueError: there are no studies.
    """
    if not studies:
        raise ValueError("a reproduction needs at least one study: name its preset and its directory")
    there = {name: Path(path) for name, path in studies.items() if Path(path).is_dir()}
    absent = [f"The study {name} is missing: it has no folder." for name in studies if name not in there]
    return _write(Path(directory), title, [read_content(path, name) for name, path in there.items()], absent)


def _write(directory: Path, title: str, studies: Sequence[StudyContent], absent: Sequence[str]) -> Path:
    episodes = {study.name: study.episodes for study in studies if study.episodes is not None}
    return write_page(
        directory,
        "report.html.j2",
        ["page.css", "player.css"] if episodes else ["page.css"],
        "player.js" if episodes else "",
        player_data(episodes),
        title=title,
        studies=studies,
        several=any(study.name for study in studies) or bool(absent),
        missing=[*absent, *(text for study in studies for text in study.missing)],
        setting_of=setting,
        study_names=list(episodes),
    )


def read_content(directory: Path, name: str = "") -> StudyContent:
    """Read what a page shows of a study's directory.

    It is a baseline study's, with or without a fine-tuning study in its folder ``finetune``, or a fine-tuning study's
    own. The name is how the page calls the study, if it shows several.
    """
    reader = Reader(Path(directory).absolute(), [])
    manifest = reader.manifest()
    baselines = finetuning = None
    if _is_finetuning(reader.directory, manifest):
        finetuning = _finetuning(reader, manifest)
    else:
        baselines = _baselines(reader, manifest)
        folder = Reader(reader.directory / FINETUNING_FOLDER, reader.missing)
        if folder.directory.is_dir():
            treated = folder.manifest()
            if manifest and treated and not same_recipe(treated.configuration.get("baselines"), manifest.configuration):
                way_out = "so it is left out; delete it to treat these"
                reader.missing.append(f"{folder.directory} treats the agents of another study, {way_out}")
            else:
                finetuning = _finetuning(folder, treated)
    return StudyContent(name, baselines, finetuning, reader.sentences(name))


def setting(manifest: StudyManifest) -> list[tuple[str, str]]:
    """What a reader must know to place the numbers: preset and regime where the configuration names them, seeds."""
    named: dict[str, str] = {}
    for field, value in flattened(manifest.configuration):
        name = field.rsplit(".", 1)[-1]
        if name in ("preset", "regime"):
            named.setdefault(name, value)
    seeds = seeds_text(manifest.seeds)
    return [("study", manifest.kind), *named.items(), ("seeds", seeds), ("started", manifest.created)]


def _is_finetuning(directory: Path, manifest: StudyManifest | None) -> bool:
    if manifest is not None:
        return manifest.kind == FINETUNED.name
    files = ("conditions.json", "treated_agents.json", "claims.json")
    return any((directory / "results" / file).exists() for file in files)


def _baselines(reader: Reader, manifest: StudyManifest | None) -> BaselineContent:
    records = reader.records("summary", Record)
    return BaselineContent(
        manifest=manifest,
        records=tuple(record for record in records if not record.name.startswith(f"{FINETUNING_FOLDER}/")),
        agents=reader.records("agents", AgentRecord),
        classification=reader.record("classification", Classification) or Classification(),
        figures=reader.figures(),
    )


def _finetuning(reader: Reader, manifest: StudyManifest | None) -> FinetuningContent:
    curves = reader.directory / "results" / "curves.json"
    # The page shows curves as figures only.
    if not curves.exists():
        reader.missing.append(f"{curves} is missing")
    episodes = reader.record("episodes", EpisodeCollection)
    return FinetuningContent(
        manifest=manifest,
        records=reader.records("summary", Record),
        claims=reader.records("claims", Claim),
        conditions=reader.records("conditions", ConditionSummary),
        treated=reader.records("treated_agents", TreatedAgent),
        episodes=episodes if episodes is not None and episodes.episodes else None,
        figures=reader.figures(),
    )
