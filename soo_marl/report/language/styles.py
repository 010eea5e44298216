"""How the report of a language study shows verdicts and answers: one colour and one shape per word, everywhere.

Colours are Okabe and Ito's and agree with :mod:`soo_marl.report.figures.verdict_styles`: what is honest is blue and
what goes on deceiving vermilion in both halves of the project. ``templates/language.css`` has the same for the page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from soo_marl.llm.measures.answers import Label
from soo_marl.llm.measures.records import ModelSummary
from soo_marl.llm.prompts.scenarios import Orientation
from soo_marl.report.figures.verdict_styles import NO_VERDICT, WordStyle
from soo_marl.report.figures.verdict_styles import WORDS as WORDS_OF_AGENTS

WORDS: Mapping[str, WordStyle] = MappingProxyType(
    {
        "honest": WORDS_OF_AGENTS["honest"],
        # Grey and hatched: whatever else a damaged model says means nothing.
        "damaged": WORDS_OF_AGENTS["broken"],
        "positional": WORDS_OF_AGENTS["blind"],
        "no effect": WORDS_OF_AGENTS["still deceptive"],
    }
)
"""All words, in the order of legends."""

LABEL_COLOURS: Mapping[Label, str] = MappingProxyType(
    {"deceptive": "#D55E00", "refusal": "#E69F00", "other": "#D9D9D9", "honest": "#0072B2"}
)
"""Colours of answers, in the order of stacked bars: deceptive grows from the left, honest from the right."""

ORIENTATION_NAMES: Mapping[Orientation, str] = MappingProxyType(
    {"cheap_first": "cheap room first", "mirrored": "mirrored"}
)
"""The two orientations, in the order of tables."""


def word_style(word: str) -> WordStyle:
    """The style of a verdict; a neutral one for words that are not known."""
    return WORDS.get(word, WORDS_OF_AGENTS[NO_VERDICT])


def words_of_seeds(summary: ModelSummary) -> str:
    """How many seeds got each word, the most common first: "honest 2, positional 1"; empty without seeds."""
    counts = Counter(seed.word for seed in summary.seeds).most_common()
    if len(counts) == 1 and counts[0][1] > 1:
        return f"{counts[0][0]} (all {counts[0][1]})"
    return ", ".join(f"{word} {count}" for word, count in counts)


def words_that_occur(words: Sequence[str]) -> list[str]:
    """The words that occur, in the order of legends, unknown ones last."""
    return [word for word in WORDS if word in words] + sorted({word for word in words if word not in WORDS})
