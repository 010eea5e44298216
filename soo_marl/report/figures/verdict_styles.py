"""How the report shows verdicts and conditions: one colour and one shape per word, one colour per group of conditions.

A word keeps its colour, marker and glyph in every picture; where colour is needed for something else, the marker alone
says the word. All of them stand in ``templates/styles.toml``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from soo_marl.report.data import counts_in_words, table
from soo_marl.report.figures.style import mark
from soo_marl.studies.finetuning.records import ConditionSummary, TreatedAgent

HONEST, DECEPTIVE = "honest", "deceptive"
"""The baselines' conditions."""

NO_VERDICT = "no verdict"
"""Stands where an agent has no word."""


class WordStyle(NamedTuple):
    """How a verdict's word looks: colours of marks, of the word itself and of bars, as hexadecimal numbers.

    The glyph is the same shape as matplotlib's marker; the hatch of bars is empty for plain ones.
    """

    colour: str
    text_colour: str
    marker: str
    glyph: str
    fill: str
    hatch: str = ""


class Group(NamedTuple):
    """Conditions that belong together: methods of fine-tuning, or baselines, and what they have in common."""

    name: str
    colour: str
    methods: tuple[str, ...]


_TABLE = table("styles")

WORDS: Mapping[str, WordStyle] = MappingProxyType({name: WordStyle(**style) for name, style in _TABLE["words"].items()})
"""All words of agents, in the order of legends."""

LANGUAGE_WORDS: Mapping[str, WordStyle] = MappingProxyType(
    {name: WORDS[same] for name, same in _TABLE["language_words"].items()}
)
"""All words of language models, in the order of legends: what is honest is blue in both halves of the project."""

_ALL_WORDS = {**WORDS, **LANGUAGE_WORDS}

GROUPS = tuple(Group(group["name"], group["colour"], tuple(group["methods"])) for group in _TABLE["groups"])
"""Groups in the order of legends; a method that is in none belongs to OTHERS."""

OTHERS = Group("other", "#A6A6A6", ())


def word_style(verdict: str | None) -> WordStyle:
    """The style of a verdict; that of NO_VERDICT for None and for words that are not known."""
    return _ALL_WORDS.get(verdict or NO_VERDICT, WORDS[NO_VERDICT])


def word(verdict: str | None) -> str:
    """The word that stands for a verdict."""
    return verdict or NO_VERDICT


def glyph_and_word(verdict: str | None) -> str:
    """A verdict as text: its shape as a character, and the word."""
    return f"{word_style(verdict).glyph} {word(verdict)}"


def draw_word(panel: Axes, x: float, y: float, verdict: str | None, **look: Any) -> None:
    """Draw a verdict's mark, with a white edge."""
    style = word_style(verdict)
    panel.plot(x, y, marker=style.marker, color=style.colour, markeredgecolor="white", **look)


def word_marks(verdicts: Iterable[str | None]) -> list[Line2D]:
    """A mark for the legend per word that occurs, in the order of legends."""
    return [mark(word_style(name).marker, word_style(name).colour, name) for name in words_that_occur(verdicts)]


def words_that_occur(verdicts: Iterable[str | None]) -> list[str]:
    """The words that occur, in the order of legends, unknown ones last."""
    found = {word(verdict) for verdict in verdicts}
    return [name for name in _ALL_WORDS if name in found] + sorted(found - {*_ALL_WORDS})


def group_of(condition: str) -> Group:
    """The group of a condition, told by its label: the method, and settings after a full stop."""
    method = condition.split(".")[0]
    return next((group for group in GROUPS if method in group.methods), OTHERS)


def most_common_word(agents: Iterable[TreatedAgent]) -> str | None:
    """The word that most of the agents got; None where none has one. Of equally many, the one that comes first."""
    counts = Counter(agent.verdict for agent in agents if agent.verdict is not None)
    return counts.most_common(1)[0][0] if counts else None


def counted_words(summary: ConditionSummary) -> str:
    """How many agents of a condition got each word, the most common first: "honest 9, blind 1"."""
    ordered = sorted(summary.verdicts.items(), key=lambda item: (item[0] != summary.verdict, -item[1]))
    return counts_in_words([(name, count) for name, count in ordered if count]) or word(summary.verdict)
