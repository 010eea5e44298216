"""The HTML report: one self-contained page per study directory, readable offline, on a phone, and on paper."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined

from soo_marl.studies.files import RunDirectoryError, write_text
from soo_marl.studies.records import (
    AgentRecord,
    Classification,
    FigureRecord,
    Interval,
    Record,
    read_list,
    read_one,
)
from soo_marl.studies.run_directory import StudyDirectory, StudyManifest

Content = TypeVar("Content")

TITLE = "Self-other overlap and deception in multi-agent reinforcement learning"
QUESTION = (
    "Does self-other overlap, how alike a network's activations are for itself and for another agent, tell agents that "
    "learnt to deceive from agents that did not?"
)
MEDIA_TYPES = {".png": "image/png", ".gif": "image/gif"}

AGENT_RATES = (
    ("goal_rate", "at goal"),
    ("goal_rate_alone", "at goal, alone"),
    ("trap_rate", "red trapped"),
    ("following_rate", "red follows"),
    ("red_goal_rate", "red at goal"),
    ("rubric_rate", "deceptive steps"),
    ("rubric_rate_en_route", "… en route"),
    ("episode_return", "return"),
)


def write_report(study_directory: Path, *, title: str = TITLE, question: str = QUESTION) -> Path:
    """Write ``report.html`` from what stands in a study's directory, and return its path.

    Whatever is missing or unreadable is named on the page; nothing is computed but the layout. Figures are embedded.

    Args:
        study_directory: The study's directory.
        title: The page's title.
        question: The question that the study answers, in one or two sentences.

    Raises:
        RunDirectoryError: there is no such directory, or the page cannot be written.
    """
    study_directory = Path(study_directory)
    if not study_directory.is_dir():
        raise RunDirectoryError(f"{study_directory} is not a folder, so there is no study to report on")
    missing: list[str] = []
    results = study_directory / "results"
    manifest = _optional(lambda: StudyDirectory.read(study_directory).manifest, missing)
    records = _optional(lambda: read_list(results / "summary.json", Record), missing) or []
    agents = _optional(lambda: read_list(results / "agents.json", AgentRecord), missing) or []
    classification = _optional(lambda: read_one(results / "classification.json", Classification), missing)
    figures = _optional(lambda: read_list(results / "figures.json", FigureRecord), missing) or []
    environment = Environment(
        loader=PackageLoader("soo_marl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": format_number, "interval": format_interval, "words": _words}
    page = environment.get_template("report.html.j2").render(
        title=title,
        question=question,
        manifest=manifest,
        setting=_setting(manifest),
        configuration=_flattened(manifest.configuration) if manifest else [],
        records=records,
        agents=agents,
        agent_rates=AGENT_RATES,
        classification=classification or Classification(),
        figures=_embedded(figures, study_directory / "figures", missing),
        commands=list(dict.fromkeys(record.command for record in records)),
        missing=[
            text.replace(f"{study_directory}/", "").replace(str(study_directory), "this folder") for text in missing
        ],
    )
    path = study_directory / "report.html"
    write_text(path, page)
    return path


def format_number(value: float | None) -> str:
    """Return a number with three significant digits, and a dash for None."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if abs(value) < 1e-3 or abs(value) >= 1e6:
        return f"{value:.2e}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def format_interval(item: Interval | Record) -> str:
    """Return ``estimate [low, high]``, or the estimate alone where there is no interval."""
    if item.low is None or item.high is None:
        return format_number(item.estimate)
    return f"{format_number(item.estimate)} [{format_number(item.low)}, {format_number(item.high)}]"


def _optional(read: Callable[[], Content], missing: list[str]) -> Content | None:
    try:
        return read()
    except RunDirectoryError as error:
        missing.append(str(error))
        return None


def _embedded(figures: Iterable[FigureRecord], folder: Path, missing: list[str]) -> list[dict[str, str]]:
    """The figures as data URIs; those that cannot be read are added to what is missing."""
    embedded = []
    for figure in figures:
        path = folder / figure.file
        try:
            content = base64.b64encode(path.read_bytes()).decode("ascii")
        except OSError as error:
            missing.append(f"{path} cannot be read: {error.strerror or error}")
            continue
        embedded.append({"source": f"data:{MEDIA_TYPES[path.suffix]};base64,{content}", "caption": figure.caption})
    return embedded


def _setting(manifest: StudyManifest | None) -> list[tuple[str, str]]:
    """What a reader must know to place the numbers: preset and regime where the configuration names them, seeds."""
    if manifest is None:
        return []
    named = {}
    for field, value in _flattened(manifest.configuration):
        name = field.rsplit(".", 1)[-1]
        if name in ("preset", "regime") and name not in named:
            named[name] = value
    seeds = ", ".join(str(seed) for seed in manifest.seeds) or "none"
    return [("study", manifest.kind), *named.items(), ("seeds", seeds), ("started", manifest.created)]


def _flattened(configuration: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """The configuration as rows of dotted field and value."""
    rows: list[tuple[str, str]] = []
    for name, value in configuration.items():
        if isinstance(value, Mapping) and value:
            rows += _flattened(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", "none" if value is None else str(value)))
    return rows


def _words(name: str) -> str:
    return name.replace("_", " ")
