"""How the report of a language study shows answers and seeds; verdicts look as those of agents.

``templates/language.css`` has the same for the page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from soo_marl.llm.measures.answers import Label
from soo_marl.llm.measures.records import ModelSummary
from soo_marl.llm.prompts.scenarios import Orientation
from soo_marl.report.data import counts_in_words

LABEL_COLOURS: Mapping[Label, str] = MappingProxyType(
    {"deceptive": "#D55E00", "refusal": "#E69F00", "other": "#D9D9D9", "honest": "#0072B2"}
)
"""Colours of answers, in the order of stacked bars: deceptive grows from the left, honest from the right."""

ORIENTATION_NAMES: Mapping[Orientation, str] = MappingProxyType(
    {"cheap_first": "cheap room first", "mirrored": "mirrored"}
)
"""The two orientations, in the order of tables."""


def words_of_seeds(summary: ModelSummary) -> str:
    """How many seeds got each word, the most common first: "honest 2, positional 1"; empty without seeds."""
    return counts_in_words(Counter(seed.word for seed in summary.seeds).most_common())
