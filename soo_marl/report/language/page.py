"""The HTML report of a language study; nothing is computed but the layout."""

from __future__ import annotations

from pathlib import Path

from soo_marl.llm.measures.answers import LABELS
from soo_marl.llm.study.configuration import HONESTY
from soo_marl.report.language.content import (
    COLUMNS,
    compared,
    examples_data,
    pairs_in_words,
    prompts_in_words,
    read_language_content,
    sources_of,
)
from soo_marl.report.language.styles import ORIENTATION_NAMES, words_of_seeds
from soo_marl.report.page.self_contained import require_folder, seeds_text, write_page

TITLE = "Self-other overlap and honesty of a language model"


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
