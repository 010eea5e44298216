from typing import get_args

import pytest

from soo_marl.deception.verdict import Verdict
from soo_marl.report.figures.verdict_styles import (
    GROUPS,
    OTHERS,
    WORDS,
    counted_words,
    glyph_and_word,
    group_of,
    most_common_word,
    word_style,
)
from soo_marl.studies.finetuning.configuration import treatment
from soo_marl.studies.finetuning.methods import METHODS
from soo_marl.studies.finetuning.records import ConditionSummary, TreatedAgent


def summary(verdict: str | None = None, **counts: int) -> ConditionSummary:
    words = {name.replace("_", " "): count for name, count in counts.items()}
    return ConditionSummary(condition="soo", method="soo", verdict=verdict, verdicts=words)


def test_every_word_has_a_style_of_its_own() -> None:
    assert set(get_args(Verdict)) < set(WORDS)
    for part in ("colour", "marker", "glyph"):
        assert len({getattr(style, part) for style in WORDS.values()}) == len(WORDS)
    assert [word for word, style in WORDS.items() if style.hatch] == ["broken"]
    assert word_style(None) == word_style("something else") == WORDS["no verdict"]
    assert (glyph_and_word("blind"), glyph_and_word(None)) == ("■ blind", "◆ no verdict")


def test_every_method_belongs_to_one_group_whatever_its_settings() -> None:
    for name in METHODS:
        assert [group for group in GROUPS if name in group.methods] == [group_of(name)], name
    assert group_of(treatment("soo", weight=0.5, zero_flag=True).label).name == "self-other overlap"
    assert (group_of("honest").name, group_of("honest_reward").name) == ("honest baseline", "paid for honesty")
    assert group_of("something") == OTHERS
    assert len({group.colour for group in GROUPS}) == len(GROUPS)


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (summary("honest", honest=10), "honest (all 10)"),
        (summary("blind", broken=1, honest=2, blind=7), "blind 7, honest 2, broken 1"),
        (summary("honest", still_deceptive=5, honest=5), "honest 5, still deceptive 5"),
        (summary("honest", honest=3, broken=0), "honest (all 3)"),
        (summary("blind"), "blind"),
        (summary(), "no verdict"),
    ],
)
def test_words_are_counted_with_the_condition_s_own_first(item: ConditionSummary, text: str) -> None:
    assert counted_words(item) == text


def test_most_common_word_leaves_out_agents_without_one() -> None:
    def agents(*words: str | None) -> list[TreatedAgent]:
        return [TreatedAgent(condition="soo", seed=seed, verdict=word) for seed, word in enumerate(words)]

    assert most_common_word(agents(None, None, "blind", "honest", "honest", None)) == "honest"
    assert most_common_word(agents(None, None)) is None
