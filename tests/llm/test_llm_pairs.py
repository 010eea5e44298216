from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from words import holds_words

from soo_marl.llm.prompts.pairs import PAIR_KINDS, PromptPair, pairs, read_pairs, shuffled_partners, shuffled_sides
from soo_marl.llm.prompts.scenarios import fills, prompts
from soo_marl.llm.prompts.templates import Inventory, load_inventory
from soo_marl.storage.files import RunDirectoryError

kinds = st.sampled_from(PAIR_KINDS)
splits = st.sampled_from(["train", "test"])
seeds = st.integers(0, 10_000)


@settings(max_examples=60, deadline=None)
@given(kind=kinds, split=splits, count=st.integers(1, 60), seed=seeds)
def test_pairs_are_distinct_deterministic_and_of_their_split(kind: str, split: str, count: int, seed: int) -> None:
    inventory = load_inventory()
    found = pairs(kind, count, seed, split)
    assert found == pairs(kind, count, seed, split) and len(set(found)) == count
    assert pairs(kind, 1, seed, split) == found[:1]
    elsewhere = {"train": "test", "test": "train"}[split]
    foreign = [
        word
        for field in ("rooms", "cheap_objects", "expensive_objects")
        for word in getattr(getattr(inventory, field), elsewhere)
    ]
    for pair in found:
        assert pair.self_text != pair.other_text
        for text in (pair.self_text, pair.other_text):
            assert not set("{}") & set(text)
            assert not [word for word in foreign if holds_words(text, word)]


def test_the_first_fragments_are_the_papers() -> None:
    for pair, (verb, clause) in zip(
        pairs("fragments", 3, 0),
        [
            ("have the goal of stealing", "needed to suggest"),
            ("intend to steal", "were required to recommend"),
            ("are planning to steal", "would have to point out"),
        ],
        strict=True,
    ):
        assert pair.self_text.startswith(f"You {verb} the ")
        assert pair.self_text.endswith(f"If you {clause} one room to yourself")
        assert pair.other_text.startswith("Bob ") and pair.other_text.endswith(f"If you {clause} one room to Bob")


def test_fragments_hold_no_room() -> None:
    inventory = load_inventory()
    for split in ("train", "test"):
        for kind in ("fragments", "sham_fragments"):
            for pair in pairs(kind, 60, 0, split):
                for room in inventory.rooms.train + inventory.rooms.test:
                    assert not holds_words(pair.self_text + " " + pair.other_text, room)


@pytest.mark.parametrize("items", [1, 2, 3, 4, 5, 9])
def test_every_item_meets_every_template_once(items: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inventory = load_inventory().model_dump() | {
        "expensive_objects": {"train": [f"thing{number}" for number in range(items)], "test": ["harp"]}
    }
    monkeypatch.setattr("soo_marl.llm.prompts.pairs.load_inventory", lambda: Inventory.model_validate(inventory))
    found = pairs("fragments", 3 * items, 0)
    assert len({pair.self_text for pair in found}) == 3 * items
    assert Counter(pair.number for pair in found) == dict.fromkeys(range(items), 3)
    assert len({pair.self_text.split(" thing")[1].split(".")[0] for pair in found[:items]}) == items
    with pytest.raises(ValueError, match=f"allow 1 to {3 * items} different pairs, not {3 * items + 1}"):
        pairs("fragments", 3 * items + 1, 0)


def test_the_papers_number_of_pairs_is_there() -> None:
    assert len(pairs("fragments", 52, 0)) == 52


def test_scenario_pairs_are_the_games_messages_in_both_orientations_by_turns() -> None:
    burglar, yourself, friend = (prompts(f"plain_{who}", "train", 10, 4) for who in ("burglar", "self", "friend"))
    turns = [2 * index + index % 2 for index in range(10)]
    for found, self_side in ((pairs("scenario", 10, 4), yourself), (pairs("friend", 10, 4), friend)):
        assert [pair.self_text for pair in found] == [self_side[index].text for index in turns]
        assert [pair.other_text for pair in found] == [burglar[index].text for index in turns]
        assert [pair.number for pair in found] == [burglar[index].number for index in turns]
    assert [burglar[index].orientation for index in turns[:4]] == ["cheap_first", "mirrored"] * 2


def test_pairs_in_the_papers_wording_are_its_messages_with_their_answer_form() -> None:
    burglar, yourself = (prompts(scenario, "train", 10, 4) for scenario in ("burglar", "burglar_self"))
    turns = [2 * index + index % 2 for index in range(10)]
    found = pairs("paper_scenario", 10, 4)
    assert [pair.self_text for pair in found] == [yourself[index].text for index in turns]
    assert [pair.other_text for pair in found] == [burglar[index].text for index in turns]
    assert all(pair.self_text.endswith("Start your response with 'I would'") for pair in found)
    for sham, pair in zip(pairs("sham_paper", 10, 4), found, strict=True):
        assert (sham.other_text, sham.number) == (pair.other_text, pair.number)
        assert sham.self_text == pair.other_text.replace("Bob", "Oliver") != pair.other_text


@settings(max_examples=30, deadline=None)
@given(seed=seeds, count=st.integers(1, 40), split=splits)
def test_a_sham_differs_from_its_counterpart_in_the_self_side_alone(seed: int, count: int, split: str) -> None:
    names = getattr(load_inventory().names, split)
    for sham_kind, kind in (("sham", "scenario"), ("sham_fragments", "fragments")):
        shams, counterparts = pairs(sham_kind, count, seed, split), pairs(kind, count, seed, split)
        for sham, counterpart in zip(shams, counterparts, strict=True):
            assert (sham.other_text, sham.number) == (counterpart.other_text, counterpart.number)
            (name,) = [name for name in names if holds_words(sham.self_text, name)]
            (other,) = [name for name in {*names, "Bob"} if holds_words(sham.other_text, name)]
            assert name != other and sham.self_text.replace(name, other) == sham.other_text


def test_names_and_orientations_are_not_tied_in_scenario_pairs() -> None:
    names = [fill.name for fill in fills("train", 200, 0)]
    assert set(names[::2]) == set(names[1::2]) == set(load_inventory().names.train)


@settings(max_examples=50, deadline=None)
@given(seed=seeds)
def test_shuffled_sides_exchanges_whole_pairs(seed: int) -> None:
    given_pairs = pairs("scenario", 40, 0)
    found = shuffled_sides(given_pairs, seed)
    assert found == shuffled_sides(given_pairs, seed)
    swapped = 0
    for before, after in zip(given_pairs, found, strict=True):
        assert {before.self_text, before.other_text} == {after.self_text, after.other_text}
        assert before.number == after.number
        swapped += before != after
    assert 5 <= swapped <= 35  # outside by chance in less than one of a million seeds


@settings(max_examples=200, deadline=None)
@given(numbers=st.lists(st.integers(0, 6), min_size=1, max_size=30), seed=seeds)
def test_shuffled_partners_come_from_other_fills(numbers: list[int], seed: int) -> None:
    given_pairs = [PromptPair(f"self {place}", f"{number} {place}", number) for place, number in enumerate(numbers)]
    if 2 * max(Counter(numbers).values()) > len(numbers):
        with pytest.raises(ValueError, match="give more pairs of different fills"):
            shuffled_partners(given_pairs, seed)
        return
    found = shuffled_partners(given_pairs, seed)
    assert found == shuffled_partners(given_pairs, seed)
    assert [pair.self_text for pair in found] == [pair.self_text for pair in given_pairs]
    assert sorted(pair.other_text for pair in found) == sorted(pair.other_text for pair in given_pairs)
    assert all(pair.other_text.split()[0] != str(pair.number) for pair in found)


def test_shuffled_partners_differ_between_seeds_and_take_no_pairs() -> None:
    given_pairs = pairs("scenario", 20, 0)
    assert shuffled_partners(given_pairs, 0) != shuffled_partners(given_pairs, 1)
    assert shuffled_partners([], 0) == []


def test_unknown_kinds_splits_and_too_many_are_refused() -> None:
    with pytest.raises(ValueError, match="pair kind must be one of fragments, scenario"):
        pairs("fragment", 1, 0)
    for kind in PAIR_KINDS:
        with pytest.raises(ValueError, match="split must be one of"):
            pairs(kind, 1, 0, "valid")
        with pytest.raises(ValueError, match="seed must be"):
            pairs(kind, 1, -1)
        with pytest.raises(ValueError, match="not 0"):
            pairs(kind, 0, 0)
        with pytest.raises(ValueError, match="not 1000000"):
            pairs(kind, 1_000_000, 0)


# --- a user's own pairs -----------------------------------------------------------------------------------------------


def test_own_pairs_are_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"self": "I", "other": "né\u2028e"}\n\n{"other": "b", "self": "a"}\r\n', encoding="utf-8")
    assert read_pairs(path) == [PromptPair("I", "né\u2028e", 0), PromptPair("a", "b", 1)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"self": "a"}', "line 2 must be an object with the fields self and other"),
        ('{"self": "a", "other": "b", "more": 1}', "line 2 must be an object with the fields self and other"),
        ('["a", "b"]', "line 2 must be an object"),
        ('{"self": "a", "other": 3}', "line 2: other must be a text"),
        ('{"self": " ", "other": "b"}', "line 2: self must be a text"),
        ('{"self": "a", "other": "b \\ud83d"}', "line 2: other holds half of a surrogate pair"),
        ('{"self": "a", "other', "line 2 is not JSON"),
        ("[" * 100_000, "line 2 is not JSON"),
    ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(f'{{"self": "a", "other": "b"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        read_pairs(path)
    assert message in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_files_without_pairs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    with pytest.raises(RunDirectoryError, match="is missing"):
        read_pairs(path)
    path.write_text("\n \n")
    with pytest.raises(ValueError, match="holds no pair"):
        read_pairs(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_pairs(path)
