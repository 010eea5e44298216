"""The HTML report: one self-contained page, readable offline, on a phone, and on paper.

The page is made of the templates in ``soo_marl/report/templates``. Its Content Security Policy lets nothing be fetched,
and nothing run but the page's own script, which is named by its hash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

from soo_marl.report.page.content import StudyContent, flattened, read_content, setting, slug
from soo_marl.report.page.player import player_json
from soo_marl.report.page.self_contained import new_environment, policy, source
from soo_marl.statistics import Interval
from soo_marl.storage.files import RunDirectoryError, write_text
from soo_marl.storage.records import Record
from soo_marl.studies.finetuning.records import ConditionSummary

TITLE = "Self-other overlap and deception in multi-agent reinforcement learning"
QUESTION = (
    "Does self-other overlap, how alike a network's activations are for itself and for another agent, tell agents that "
    "learnt to deceive from agents that did not?"
)
FINETUNING_QUESTION = (
    "Does training a deceptive agent with self-other overlap as a second loss make it honest, or does it only stop the "
    "agent from seeing the other?"
)

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

CONDITION_MEASURES = (
    ("trap_rate", "red trapped", "Share of the episodes with red in which red ends trapped at the fake landmark."),
    (
        "rubric_rate",
        "deceptive steps",
        "Share of blue's opportunities at which it moves more towards the fake landmark than towards the goal.",
    ),
    ("goal_rate", "at goal, with red", "Share of the late steps with red present in which blue is at the goal."),
    ("goal_rate_alone", "at goal, alone", "Share of the late steps in which blue is at the goal, where it is alone."),
    ("sensitivity", "sensitivity to red", "Mean change of blue's action when what it sees of red is blanked."),
    ("seeing_gain", "seeing gain", "Blue's return minus its return with red blanked: what seeing red is worth."),
    (
        "difference_to_honest",
        "difference to honest",
        "How far the rates of deceptive steps, over both thresholds, are from the honest baselines'; 0 is alike.",
    ),
)
"""Columns of the table of conditions: names of the measures, headings, and what they are."""


def write_report(study_directory: Path, *, title: str = TITLE, question: str | None = None) -> Path:
    """Write ``report.html`` from what stands in a study's directory, and return its path.

    The directory is a baseline study's, whose folder ``finetune`` may hold a fine-tuning study of its agents, or a
    fine-tuning study's own. Whatever is missing or unreadable is named on the page; nothing is computed but the layout.
    Figures are embedded.

    Args:
        study_directory: The study's directory.
        title: The page's title.
        question: The question that the study answers, in one or two sentences; by default the questions of the parts
            that are there.

    Raises:
        RunDirectoryError: there is no such directory, or the page cannot be written.
    """
    study_directory = Path(study_directory)
    if not study_directory.is_dir():
        raise RunDirectoryError(f"{study_directory} is not a folder, so there is no study to report on")
    study = read_content(study_directory)
    return _write(study_directory, title, _questions([study]) if question is None else [question], [study], [])


def write_reproduction(
    directory: Path, studies: Mapping[str, Path], *, title: str = TITLE, question: str | None = None
) -> Path:
    """Write one ``report.html`` about several studies, and return its path.

    Args:
        directory: The folder that the page is written to; made where it is missing.
        studies: Directories of studies as :func:`write_report` takes them, by name of the preset, in order. Those that
            are not there are named on the page.
        title: The page's title.
        question: The question that the studies answer, in one or two sentences; by default the questions of the parts
            that are there.

    Raises:
        RunDirectoryError: the page cannot be written.
        ValueError: there are no studies.
    """
    if not studies:
        raise ValueError("a reproduction needs at least one study: name its preset and its directory")
    there = {name: Path(path) for name, path in studies.items() if Path(path).is_dir()}
    absent = [f"The study {name} is missing: it has no folder." for name in studies if name not in there]
    found = [read_content(path, name) for name, path in there.items()]
    return _write(Path(directory), title, _questions(found) if question is None else [question], found, absent)


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
    return " ".join(part for part in (format_number(item.estimate), _range(item)) if part)


def _range(item: Interval | Record) -> str:
    """``[low, high]``, or nothing where there is no interval."""
    if item.low is None or item.high is None:
        return ""
    return f"[{format_number(item.low)}, {format_number(item.high)}]"


def _write(
    directory: Path, title: str, questions: Sequence[str], studies: Sequence[StudyContent], absent: Sequence[str]
) -> Path:
    environment = new_environment()
    environment.filters |= {
        "number": format_number,
        "interval": format_interval,
        "range": _range,
        "words": _words,
        "slug": slug,
        "setting": setting,
        "flattened": flattened,
        "other_measures": _other_measures,
    }
    environment.globals |= {
        "agent_rates": AGENT_RATES,
        "condition_measures": CONDITION_MEASURES,
        "figure_number": count(1).__next__,
    }
    episodes = {study.name: study.episodes for study in studies if study.episodes is not None}
    style = source(environment, "page.css") + (source(environment, "player.css") if episodes else "")
    script = source(environment, "player.js") if episodes else ""
    page = environment.get_template("report.html.j2").render(
        title=title,
        questions=questions,
        studies=studies,
        several=any(study.name for study in studies) or bool(absent),
        missing=[*absent, *(text for study in studies for text in study.missing)],
        policy=policy(style, script),
        style=style,
        script=script,
        episodes=player_json(episodes) if episodes else "",
        study_names=list(episodes),
    )
    path = directory / "report.html"
    write_text(path, page)
    return path


def _questions(studies: Sequence[StudyContent]) -> list[str]:
    """The questions of the parts that are there."""
    questions = []
    if any(study.baselines is not None for study in studies) or not studies:
        questions.append(QUESTION)
    if any(study.finetuning is not None for study in studies):
        questions.append(FINETUNING_QUESTION)
    return questions


def _other_measures(conditions: Sequence[ConditionSummary]) -> list[str]:
    """Names of the measures that have no column in the table of conditions, in the order of their appearance."""
    shown = {name for name, _, _ in CONDITION_MEASURES}
    return list(dict.fromkeys(name for condition in conditions for name in condition.measures if name not in shown))


def _words(name: str) -> str:
    return name.replace("_", " ")
