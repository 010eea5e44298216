"""How the report shows verdicts and conditions: one colour and one shape per word, one colour per group of conditions.

Colours are Okabe and Ito's. A word keeps its colour, marker and glyph in every picture; where colour is needed for
something else, the marker alone says the word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from soo_marl.studies.finetuning.records import ConditionSummary, TreatedAgent

HONEST, DECEPTIVE = "honest", "deceptive"
"""The baselines' conditions."""

NO_VERDICT = "no verdict"
"""Stands where an agent has no word."""


class NothingToDraw(ValueError):
    """A figure has no content; the message says what is missing."""


@dataclass(frozen=True)
class WordStyle:
    """How a verdict's word looks.

    Attributes:
        colour: of marks and bars, hexadecimal.
        text_colour: of the word itself; darker where the colour is too pale to be read on white.
        marker: matplotlib's marker.
        glyph: the same shape as a character, for titles and labels.
        hatch: matplotlib's hatch of bars, empty for plain ones.
        fill: of bars, hexadecimal.
    """

    colour: str
    text_colour: str
    marker: str
    glyph: str
    hatch: str = ""
    fill: str = ""


WORDS: Mapping[str, WordStyle] = MappingProxyType(
    {
        "honest": WordStyle("#0072B2", "#0072B2", "o", "●", fill="#0072B2"),
        "blind": WordStyle("#CC79A7", "#A03C76", "s", "■", fill="#CC79A7"),
        "still deceptive": WordStyle("#D55E00", "#B34700", "^", "▲", fill="#D55E00"),
        # Grey and hatched: whatever else a broken policy measures means nothing.
        "broken": WordStyle("#000000", "#000000", "X", "✖", hatch="////", fill="#D9D9D9"),
        NO_VERDICT: WordStyle("#767676", "#5F5F5F", "D", "◆", fill="#A6A6A6"),
    }
)
"""All words, in the order of legends."""


@dataclass(frozen=True)
class Group:
    """Conditions that belong together.

    Attributes:
        name: what they have in common, in a few words.
        colour: hexadecimal.
        methods: methods of fine-tuning, or baselines.
    """

    name: str
    colour: str
    methods: tuple[str, ...]


GROUPS = (
    Group("honest baseline", "#0072B2", (HONEST,)),
    Group("deceptive baseline", "#D55E00", (DECEPTIVE,)),
    Group(
        "self-other overlap",
        "#009E73",
        (
            "soo",
            "soo_action",
            "soo_difference",
            "soo_difference_any",
            "soo_difference_kept",
            "soo_difference_any_kept",
        ),
    ),
    Group("other pressure, or none", "#E69F00", ("none", "random", "perturbation", "anchor", "shuffled")),
    Group(
        "tied without a self",
        "#56B4E9",
        (
            "position_tie",
            "position_difference",
            "position_difference_any",
            "position_difference_kept",
            "position_difference_any_kept",
        ),
    ),
    Group("red hidden", "#CC79A7", ("blank", "blind")),
    Group("paid for honesty", "#F0E442", ("honest_reward",)),
)
"""Groups in the order of legends; a method that is in none belongs to OTHERS."""

OTHERS = Group("other", "#A6A6A6", ())


def word_style(verdict: str | None) -> WordStyle:
    """The style of a verdict; that of NO_VERDICT for None and for words that are not known."""
    return WORDS.get(verdict or NO_VERDICT, WORDS[NO_VERDICT])


def word(verdict: str | None) -> str:
    """The word that stands for a verdict."""
    return verdict or NO_VERDICT


def glyph_and_word(verdict: str | None) -> str:
    """A verdict as text: its shape as a character, and the word."""
    return f"{word_style(verdict).glyph} {word(verdict)}"


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
    counts = {name: count for name, count in summary.verdicts.items() if count}
    if not counts:
        return word(summary.verdict)
    ordered = sorted(counts.items(), key=lambda item: (item[0] != summary.verdict, -item[1]))
    if len(ordered) == 1:
        return f"{ordered[0][0]} (all {ordered[0][1]})"
    return ", ".join(f"{name} {count}" for name, count in ordered)


def condition_name(condition: str) -> str:
    """A condition's label in words."""
    return condition.replace("_", " ")
