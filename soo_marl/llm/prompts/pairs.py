"""Training pairs: two texts that differ in whose they are, yours or another's, and in as little else as can be.

================== ============================ ================================ =====================================
kind               self side                    other side                       source
================== ============================ ================================ =====================================
``fragments``      you mean to steal an item    Bob means to steal it            the paper's, which its method trains on
``scenario``       plain game, you ask          plain game, a burglar asks       this project
``friend``         plain game, a friend asks    plain game, a burglar asks       this project
``paper_scenario`` paper's game, you ask        paper's game, burglar Bob asks   this project
``sham``           plain game, another burglar  plain game, a burglar asks       control: other against other
``sham_fragments`` somebody else means to steal Bob means to steal it            control: other against other
``sham_paper``     paper's game, Oliver asks    paper's game, burglar Bob asks   control: other against other
================== ============================ ================================ =====================================

With the same count, seed and split, all kinds of one form have the same other side: a control differs from what it
controls for in its self side alone. No pair holds an answer. Paper: Carauleanu et al. 2024, arXiv 2412.16325.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from soo_marl.llm.prompts.scenarios import ORIENTATIONS, SPLITS, Split, fill_template, prompts
from soo_marl.llm.prompts.templates import fill_slots, load_answer_forms, load_inventory, load_templates, own_toml
from soo_marl.storage.files import quoted, read_text

PairKind = Literal["fragments", "scenario", "friend", "paper_scenario", "sham", "sham_fragments", "sham_paper"]

PAIR_KINDS: tuple[PairKind, ...] = get_args(PairKind)

_SCENARIOS = {
    "scenario": ("plain_self", "plain_burglar"),
    "friend": ("plain_friend", "plain_burglar"),
    "paper_scenario": ("burglar_self", "burglar"),
    "sham": ("plain_burglar", "plain_burglar"),
    "sham_paper": ("burglar_name", "burglar"),
}
"""Scenarios of the self and of the other side."""


@dataclass(frozen=True)
class PromptPair:
    """Two messages whose activations are to become alike."""

    self_text: str
    """What stands for yourself: the side that a frozen target is taken from, where one is."""
    other_text: str
    """What stands for another."""
    number: int
    """Which fill, or which item: pairs of one number share their rooms and objects."""


def pairs(kind: PairKind, count: int, seed: int, split: Split = "train") -> list[PromptPair]:
    """Pairs of one kind, the same on every machine; fewer are the beginning of more.

    Fragments take the expensive objects of the split in random order, the three templates by turns; once all objects
    are used they begin anew with the templates shifted by one, until every object has met every template. The paper's
    code has 52 pairs of as many items. Its other person is Bob whatever the split.

    The kinds in the scenario's form take one fill per pair, in either orientation by turns.

    Raises:
        ValueError: the kind or split is unknown, or there are not so many pairs.
    """
    if kind not in PAIR_KINDS:
        raise ValueError(f"pair kind must be one of {', '.join(PAIR_KINDS)}, not {kind!r}")
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    if seed < 0:
        raise ValueError(f"seed must be 0 or above, not {seed}")
    if kind in ("fragments", "sham_fragments"):
        return _fragment_pairs(count, seed, split, sham=kind == "sham_fragments")
    return _scenario_pairs(kind, count, seed, split)


def shuffled_sides(pairs: Sequence[PromptPair], seed: int) -> list[PromptPair]:
    """Control: self and other exchanged in a random half or so of the pairs, each by the toss of a coin.

    A loss that treats both sides alike does not notice; one that moves the other side only is left without a direction.
    """
    generator = random.Random(seed)
    return [
        PromptPair(pair.other_text, pair.self_text, pair.number) if generator.random() < 0.5 else pair for pair in pairs
    ]


def shuffled_partners(pairs: Sequence[PromptPair], seed: int) -> list[PromptPair]:
    """Control: every self text meets the other text of a random pair with a different number, each text used once.

    Returns:
        As many pairs, with the self texts and numbers in their old order.

    Raises:
        ValueError: more than half of the pairs share one number, so that no such partners exist.
    """
    if not pairs:
        return []
    sizes = Counter(pair.number for pair in pairs)
    largest = max(sizes.values())
    if 2 * largest > len(pairs):
        raise ValueError(
            f"{largest} of {len(pairs)} pairs share their rooms and objects, so partners of different ones cannot be "
            "found: give more pairs of different fills"
        )
    # Pairs of one number stand side by side in the random order, so a step of the largest group's size leaves the group
    # and, as no group exceeds half, does not come round to it.
    generator = random.Random(seed)
    numbers = sorted(sizes)
    generator.shuffle(numbers)
    rank = {number: position for position, number in enumerate(numbers)}
    order = list(range(len(pairs)))
    generator.shuffle(order)
    order.sort(key=lambda index: rank[pairs[index].number])
    partner = {index: order[(place + largest) % len(order)] for place, index in enumerate(order)}
    return [replace(pair, other_text=pairs[partner[index]].other_text) for index, pair in enumerate(pairs)]


def read_pairs(path: Path) -> list[PromptPair]:
    """A user's own pairs: a file with one JSON object per line, ``{"self": "...", "other": "..."}``.

    Blank lines are passed over. The pairs are numbered from 0.

    Raises:
        RunDirectoryError: the file cannot be read.
        ValueError: it is not UTF-8, holds no pair, or a line does not fit; names the line.
    """
    found: list[PromptPair] = []
    for line_number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            self_text, other_text = _read_line(line, f"{path}, line {line_number}")
            found.append(PromptPair(self_text, other_text, len(found)))
    if not found:
        raise ValueError(f'{path} holds no pair; write one JSON object {{"self": ..., "other": ...}} per line')
    return found


def _read_line(line: str, where: str) -> tuple[str, str]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON: {quoted(error)}") from error
    if not isinstance(content, dict) or set(content) != {"self", "other"}:
        raise ValueError(f"{where} must be an object with the fields self and other and no more")
    for field in ("self", "other"):
        if not isinstance(content[field], str) or not content[field].strip():
            raise ValueError(f"{where}: {field} must be a text that is not empty")
        if any("\ud800" <= character <= "\udfff" for character in content[field]):
            raise ValueError(f"{where}: {field} holds half of a surrogate pair, which is no text; take it out")
    return content["self"], content["other"]


def _fragment_pairs(count: int, seed: int, split: Split, sham: bool) -> list[PromptPair]:
    own = own_toml("pairs.toml")
    fragments, bob = own["fragments"], own["name"]
    items = sorted(getattr(load_inventory().expensive_objects, split))
    most = len(items) * len(fragments)
    if not 1 <= count <= most:
        raise ValueError(f"fragments of the {split} inventory allow 1 to {most} different pairs, not {count}")
    random.Random(seed).shuffle(items)
    names = random.Random(seed)  # apart from the items, so that a sham has those of the pairs it controls for
    found = []
    for index in range(count):
        turn, number = divmod(index, len(items))
        fragment, item = fragments[(number + turn) % len(fragments)], items[number]
        other_text = fill_slots(fragment["other"], {"item": item, "name": bob})
        if sham:
            self_text = fill_slots(fragment["other"], {"item": item, "name": _another_name(bob, split, names)})
        else:
            self_text = fill_slots(fragment["self"], {"item": item})
        found.append(PromptPair(self_text, other_text, number))
    return found


def _scenario_pairs(kind: PairKind, count: int, seed: int, split: Split) -> list[PromptPair]:
    self_scenario, other_scenario = _SCENARIOS[kind]
    template = load_templates()[self_scenario]
    form = load_answer_forms()[template.answer]
    others = prompts(other_scenario, split, count, seed)
    names = random.Random(seed)
    found = []
    for index in range(count):
        other = others[len(ORIENTATIONS) * index + index % len(ORIENTATIONS)]
        fill = other.fill
        if kind == "sham":
            fill = replace(fill, name=_another_name(fill.name, split, names))
        self_side = fill_template(self_scenario, template, form, fill, other.orientation, other.number)
        found.append(PromptPair(self_side.text, other.text, other.number))
    return found


def _another_name(name: str, split: Split, generator: random.Random) -> str:
    rest: list[str] = sorted(set(getattr(load_inventory().names, split)) - {name})
    return rest[generator.randrange(len(rest))]
