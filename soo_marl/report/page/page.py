"""The HTML report of a study of agents, and of a whole reproduction; nothing is computed but the layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from soo_marl.report.page.content import StudyContent, read_content, setting
from soo_marl.report.page.player import player_data
from soo_marl.report.page.self_contained import require_folder, write_page

TITLE = "Self-other overlap and deception in multi-agent reinforcement learning"


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
