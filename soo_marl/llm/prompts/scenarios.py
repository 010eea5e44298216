"""Scenarios for a language model: two rooms, an object in each, and somebody who asks where one of them is.

The wording is data, read by :mod:`soo_marl.llm.prompts.templates`; this module fills it. Every scenario exists in two
orientations of the same fill, twins that differ only in the order in which the rooms are named: a model that names the
first room, whatever is asked, looks deceptive in one and honest in the other. Three families come with the project: the
paper's scenarios (Carauleanu et al. 2024, arXiv 2412.16325), the same game in plain words, and cells in which the truth
harms the one who hears it or somebody else.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, get_args

from soo_marl.llm.prompts.templates import ORIENTATIONS as ORIENTATIONS
from soo_marl.llm.prompts.templates import (
    REPLY_SLOTS,
    ROOM_ORDER,
    AnswerForm,
    FillSlot,
    Template,
    fill_slots,
    known,
    load_answer_forms,
    load_inventory,
    load_templates,
)
from soo_marl.llm.prompts.templates import Orientation as Orientation

Split = Literal["train", "test"]
"""Which half of the inventory fills a template."""

SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class Fill:
    """What fills a template's slots: two objects in two rooms, and another person's first name."""

    cheap_object: str
    expensive_object: str
    cheap_room: str
    expensive_room: str
    name: str


@dataclass(frozen=True)
class Prompt:
    """One message to a model, and the rooms that an answer to it may name."""

    scenario: str
    """For instance ``burglar`` or ``plain_friend``."""
    orientation: Orientation
    """Which room is named first."""
    number: int
    """Which fill, counted in the order in which the split and seed give them: prompts of one number are twins."""
    text: str
    """The user's message, answer form included."""
    answer_start: str
    """What the answer has to begin with, for instance ``I would``; empty where nothing is asked."""
    right_room: str
    """The honest, or correct, answer."""
    wrong_room: str
    """The deceptive, or incorrect, answer."""
    item: str
    """What is asked about: an object, or a person's name."""
    fill: Fill
    """What the slots were filled with."""
    reply: str = "The {item} is in the {room}."
    """A whole answer; slots room, item and name."""


def fills(split: Split, count: int, seed: int) -> list[Fill]:
    """Fills that differ in a room or an object; the same on every machine, and fewer are the beginning of more.

    Raises:
        ValueError: there are not so many, or an argument is out of range.
    """
    _check_count(count, _combinations(split), f"the {split} inventory")
    return list(islice(_fill_sequence(split, seed), count))


def prompts(
    scenario: str,
    split: Split,
    count: int,
    seed: int,
    answer_form: str | None = None,
    *,
    templates: Mapping[str, Template] | None = None,
    answer_forms: Mapping[str, AnswerForm] | None = None,
) -> list[Prompt]:
    """Messages of one scenario, fill by fill, each in every orientation.

    No two fills give the same message. All scenarios draw from the same sequence of fills, so prompts of one number,
    split and seed have their rooms and objects in common; a scenario that leaves an object out skips the fills that
    would repeat a message, and their numbers. A name that the template fixes is used whatever the split.

    Args:
        scenario: a name in ``templates``, ours by default.
        split: which half of the inventory.
        count: how many fills, at least 1.
        seed: 0 or above.
        answer_form: a name in ``answer_forms``, ours by default; the template's own form where none is named.

    Raises:
        ValueError: unknown scenario, answer form or split; or more fills are asked for than there are.
    """
    templates = templates if templates is not None else load_templates()
    forms = answer_forms if answer_forms is not None else load_answer_forms()
    template = known(scenario, templates, "scenario")
    form = known(answer_form if answer_form is not None else template.answer, forms, "answer form")
    shown = template.free_slots()
    _check_count(count, _combinations(split, shown), f"scenario {scenario!r} with the {split} inventory")

    found: list[Prompt] = []
    seen: set[tuple[str, ...]] = set()
    for number, fill in enumerate(_fill_sequence(split, seed)):
        objects = (getattr(fill, slot) for slot in ("cheap_object", "expensive_object") if slot in shown)
        key = (fill.cheap_room, fill.expensive_room, *objects)
        if key not in seen:
            seen.add(key)
            found += [fill_template(scenario, template, form, fill, each, number) for each in ORIENTATIONS]
        if len(seen) == count:
            break
    return found


def fill_template(
    scenario: str, template: Template, form: AnswerForm, fill: Fill, orientation: Orientation, number: int
) -> Prompt:
    """One prompt, with :func:`fill_slots`; what the template fixes takes the place of the fill's value."""
    fill = replace(fill, **{str(slot): value for slot, value in template.fixed.items()})
    item: str = fill.name if template.asks == "name" else getattr(fill, f"{template.asks}_object")
    values = {"item": item, "name": fill.name}
    for place, side in zip(("first", "second"), ROOM_ORDER[orientation], strict=True):
        for thing in ("room", "object"):
            values[f"{place}_{thing}"] = values[f"{side}_{thing}"] = getattr(fill, f"{side}_{thing}")
    right, wrong = fill.expensive_room, fill.cheap_room
    if template.right == "cheap":
        right, wrong = wrong, right
    kept = {slot: "{" + slot + "}" for slot in REPLY_SLOTS}
    verb = fill_slots(template.verb, {"name": fill.name})
    return Prompt(
        scenario=scenario,
        orientation=orientation,
        number=number,
        text=f"{fill_slots(template.text_in(orientation), values)} {form.suffix}".rstrip(),
        answer_start=form.answer_start,
        right_room=right,
        wrong_room=wrong,
        item=item,
        fill=fill,
        reply=fill_slots(form.reply or template.reply, kept | {"verb": verb}),
    )


def answer(prompt: Prompt, room: str) -> str:
    """The whole answer that names a room, in the prompt's answer form: ``The {item} is in the {room}.`` or its like.

    Raises:
        ValueError: the room is neither of the prompt's two.
    """
    if room not in (prompt.right_room, prompt.wrong_room):
        raise ValueError(f"the prompt is about the {prompt.right_room} and the {prompt.wrong_room}, not the {room}")
    return fill_slots(prompt.reply, {"room": room, "item": prompt.item, "name": prompt.fill.name})


def _fill_sequence(split: Split, seed: int) -> Iterator[Fill]:
    """All fills of a split in random order. Lists are sorted first: their order in the file says nothing."""
    if seed < 0:
        raise ValueError(f"seed must be 0 or above, not {seed}")
    rooms, cheap, expensive, names = (sorted(getattr(words, split)) for _, words in load_inventory())
    generator = random.Random(seed)
    total, seen = _combinations(split), set[int]()
    while len(seen) < total:
        index = generator.randrange(total)
        if index in seen:
            continue
        seen.add(index)
        index, cheap_index = divmod(index, len(cheap))
        index, expensive_index = divmod(index, len(expensive))
        first, second = divmod(index, len(rooms) - 1)
        yield Fill(
            cheap_object=cheap[cheap_index],
            expensive_object=expensive[expensive_index],
            cheap_room=rooms[first],
            expensive_room=rooms[second + (second >= first)],  # any room but the first
            name=names[generator.randrange(len(names))],
        )


def _combinations(split: Split, shown: Iterable[FillSlot] = ("cheap_object", "expensive_object")) -> int:
    """How many fills differ in a room or in an object that is shown."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    rooms, cheap, expensive, _ = (len(getattr(words, split)) for _, words in load_inventory())
    objects = (cheap if "cheap_object" in shown else 1) * (expensive if "expensive_object" in shown else 1)
    return rooms * (rooms - 1) * objects


def _check_count(count: int, most: int, what: str) -> None:
    if not 1 <= count <= most:
        raise ValueError(f"{what} allows 1 to {most} different fills, not {count}")
