"""What scenarios are made of, and how it is read: templates, answer forms, and the rooms, objects and names for them.

All of it is data: ``data/scenarios.toml`` holds the templates and answer forms, ``data/inventory.toml`` what fills
their slots. A user's file of the same form adds to ours or takes the place of parts. The models here refuse what could
not be scored: a template without a slot that it needs, or names that an answer could not tell apart.
"""

from __future__ import annotations

import difflib
import re
import string
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, NoReturn, Self, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from soo_marl.storage.files import quoted, read_text

Orientation = Literal["cheap_first", "mirrored"]
"""Which room is named first: the cheap object's, as in the paper, or the expensive one's."""

Side = Literal["cheap", "expensive"]
FillSlot = Literal["cheap_object", "expensive_object", "name"]
Model = TypeVar("Model", bound=BaseModel)

ORIENTATIONS: tuple[Orientation, ...] = get_args(Orientation)

ROOM_ORDER: dict[Orientation, tuple[Side, Side]] = {
    "cheap_first": ("cheap", "expensive"),
    "mirrored": ("expensive", "cheap"),
}
"""Whose rooms an orientation names, in order."""

REPLY_SLOTS = ("room", "item", "name", "verb")
"""Slots of a whole answer."""

_SLOTS = (
    *(f"{place}_{thing}" for place in ("first", "second", "cheap", "expensive") for thing in ("room", "object")),
    *("item", "name"),
)
_VOWEL_SOUND = re.compile(r"(?!uni|us[aeiu]|eu|one\b)[aeiou]", re.IGNORECASE)
_CONFIG = ConfigDict(frozen=True, extra="forbid")


def _one_line(text: str) -> str:
    return " ".join(text.split())


Text = Annotated[str, AfterValidator(_one_line)]
"""A text whose line breaks count as spaces."""


class Words(BaseModel):
    """One list of the inventory, in two parts that share nothing."""

    model_config = _CONFIG

    train: tuple[str, ...] = Field(min_length=1, description="For whatever a model is trained on.")
    test: tuple[str, ...] = Field(min_length=1, description="For whatever a model is judged by.")


class Inventory(BaseModel):
    """What fills the slots of a template."""

    model_config = _CONFIG

    rooms: Words = Field(description="At least two per split; no room's name is part of another's.")
    cheap_objects: Words = Field(description="Objects that nobody would want to steal.")
    expensive_objects: Words = Field(description="Objects worth stealing.")
    names: Words = Field(description="First names of the other person.")

    @model_validator(mode="after")
    def _can_be_told_apart(self) -> Self:
        lists = {field: getattr(self, field).train + getattr(self, field).test for field in Inventory.model_fields}
        _check_values(entry for entries in lists.values() for entry in entries)
        _refuse_repeated("rooms", lists["rooms"])
        _refuse_repeated("names", lists["names"])
        _refuse_repeated("objects", lists["cheap_objects"] + lists["expensive_objects"])
        if min(len(self.rooms.train), len(self.rooms.test)) < 2:
            raise ValueError("rooms must hold at least two per split")
        for room in lists["rooms"]:
            for field in ("rooms", "cheap_objects", "expensive_objects"):
                for entry in lists[field]:
                    if entry != room and holds_words(entry, room):
                        raise ValueError(f"{entry!r} contains the room {room!r}, so an answer could mean either")
        return self


class AnswerForm(BaseModel):
    """What the message asks of the answer's wording."""

    model_config = _CONFIG

    description: str = Field(description="What the form asks for.")
    suffix: Text = Field("", description="Added to the scenario's message.")
    answer_start: str = Field("", description="What the answer has to begin with; empty where nothing is asked.")
    reply: Text | None = Field(None, description="A whole answer in this form, in place of the scenario's.")

    @model_validator(mode="after")
    def _reply_fits(self) -> Self:
        if self.reply is not None:
            _check_reply(self.reply)
        return self


class Template(BaseModel):
    """One scenario with slots for rooms, objects and a name; ``data/scenarios.toml`` explains the slots."""

    model_config = _CONFIG

    family: str = Field("own", description="Group of the scenario: paper, plain, cell, or one of your own.")
    description: Text = Field(description="What the scenario is about; what the right answer means.")
    source: str = Field(description="Where the scenario comes from.")
    text: Text = Field(description="The user's message without the answer form; slots in braces.")
    mirrored: Text | None = Field(None, description="The mirrored message, where exchanging the slots is not enough.")
    asks: Literal["cheap", "expensive", "name"] = Field("expensive", description="What the message asks for.")
    right: Side = Field("expensive", description="Whose room is the honest, or correct, answer.")
    answer: str = Field("free", description="Name of the answer form used unless another is asked for.")
    verb: Text = Field("name", description="How an answer names a room: I would {verb} the room.")
    reply: Text = Field("The {item} is in the {room}.", description="A whole answer; slots room, item, name and verb.")
    fixed: dict[FillSlot, str] = Field({}, description="Values that a slot always has, whatever the inventory.")

    @model_validator(mode="after")
    def _slots_fit(self) -> Self:
        for orientation in ORIENTATIONS:
            self._check_slots(orientation)
        _check_reply(self.reply)
        _slots_of(self.verb, ("name",))
        _check_values(self.fixed.values())
        return self

    def text_in(self, orientation: Orientation) -> str:
        """The message, slots unfilled, in an orientation."""
        return self.mirrored if orientation == "mirrored" and self.mirrored is not None else self.text

    def free_slots(self) -> frozenset[FillSlot]:
        """Slots of a fill, rooms apart, whose value shows in the message."""
        slots = {slot for orientation in ORIENTATIONS for slot in self._resolved(orientation)}
        return frozenset(slot for slot in get_args(FillSlot) if slot in slots and slot not in self.fixed)

    def _resolved(self, orientation: Orientation) -> list[str]:
        """The fill's slots that the message names, in the message's order."""
        meaning = {"item": "name" if self.asks == "name" else f"{self.asks}_object"}
        for place, side in zip(("first", "second"), ROOM_ORDER[orientation], strict=True):
            meaning |= {f"{place}_{thing}": f"{side}_{thing}" for thing in ("room", "object")}
        return [meaning.get(slot, slot) for slot in _slots_of(self.text_in(orientation), _SLOTS)]

    def _check_slots(self, orientation: Orientation) -> None:
        named = self._resolved(orientation)
        rooms = [slot for slot in named if slot.endswith("_room")]
        asked = "name" if self.asks == "name" else f"{self.asks}_object"
        for missing in sorted({"cheap_room", "expensive_room", asked} - set(named)):
            slots = "{item}" if missing == asked else "{first_room} and {second_room}"
            raise ValueError(f"the {orientation} text lacks a slot for the {missing.replace('_', ' ')}; name {slots}")
        if rooms[0] != f"{ROOM_ORDER[orientation][0]}_room":
            raise ValueError(
                f"the {orientation} text names the {rooms[0].replace('_', ' ')} first; write {{first_room}} and "
                "{second_room}, or give a text of its own as mirrored"
            )


def load_inventory(path: Path | None = None) -> Inventory:
    """The rooms, objects and names that come with the project, or a user's.

    Args:
        path: a TOML file in the form of ``data/inventory.toml``. A table that it holds replaces ours.

    Raises:
        RunDirectoryError: the file cannot be read.
        ValueError: it is not TOML, a list repeats an entry or shares one between its splits, a room's name is part of
            another room's or of an object's, or a table does not fit.
    """
    if path is None:
        return _own_inventory()
    return _checked(Inventory, own_toml("inventory.toml") | read_toml(path), str(path))


def load_templates(path: Path | None = None) -> Mapping[str, Template]:
    """Scenario name to template: those that come with the project, and a user's.

    Args:
        path: a TOML file in the form of ``data/scenarios.toml``. Its scenarios are added to ours; one of the same name
            takes the place of ours.

    Raises:
        RunDirectoryError: the file cannot be read.
        ValueError: it is not TOML, or a template lacks a slot, has an unknown one, names an unknown answer form, or
            otherwise does not fit.
    """
    forms = load_answer_forms(path)
    templates = _own_templates() if path is None else dict(_own_templates()) | _from_file(path, "scenarios", Template)
    for name, template in templates.items():
        known(template.answer, forms, f"scenario {name!r}: answer form")
    return MappingProxyType(dict(templates))


def load_answer_forms(path: Path | None = None) -> Mapping[str, AnswerForm]:
    """Name to answer form, as :func:`load_templates`, from the table ``answer_forms`` of the same file.

    Raises:
        RunDirectoryError: the file cannot be read.
        ValueError: it is not TOML, or a form does not fit.
    """
    forms = _own_forms() if path is None else dict(_own_forms()) | _from_file(path, "answer_forms", AnswerForm)
    return MappingProxyType(dict(forms))


def holds_words(text: str, words: str) -> bool:
    """Whether a text holds a name as whole words, in capitals or not."""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE) is not None


def known(name: str, among: Mapping[str, Model], what: str) -> Model:
    """The entry of that name.

    Raises:
        ValueError: there is none; names the nearest.
    """
    if name in among:
        return among[name]
    alike = difflib.get_close_matches(name, among, n=1)
    hint = f"did you mean {alike[0]!r}?" if alike else f"there are {', '.join(among)}"
    raise ValueError(f"{what} {name!r} is unknown; {hint}")


def fill_slots(text: str, values: Mapping[str, str]) -> str:
    """The text with its slots filled; ``a`` before a slot becomes ``an`` where the value begins with a vowel."""
    parts = []
    for literal, slot, _, _ in string.Formatter().parse(text):
        article = re.search(r"(?<!\w)a $", literal, re.IGNORECASE) is not None
        if slot is not None and article and _VOWEL_SOUND.match(values[slot]):
            literal = literal[:-1] + "n "
        parts += [literal, values[slot] if slot is not None else ""]
    return "".join(parts)


def _check_values(values: Iterable[str]) -> None:
    for value in values:
        if not value or value != _one_line(value) or set(value) & set("{}"):
            raise ValueError(f"{value!r} cannot fill a slot: it must not be empty, hold braces, or begin or end blank")


def _refuse_repeated(what: str, entries: Sequence[str]) -> None:
    lower = [entry.lower() for entry in entries]
    for entry in lower:
        if lower.count(entry) > 1:
            raise ValueError(f"{entry!r} stands twice among the {what}; splits and kinds must share nothing")


def _slots_of(text: str, allowed: Sequence[str]) -> list[str]:
    try:
        fields = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"braces must enclose one slot each ({error})") from error
    found = []
    for _, slot, layout, conversion in fields:
        if slot is None:
            continue
        if slot not in allowed or layout or conversion:
            alike = difflib.get_close_matches(slot, allowed, n=1)
            hint = f"did you mean {{{alike[0]}}}?" if alike else f"there are {', '.join(allowed)}"
            raise ValueError(f"slot {{{slot}}} is unknown; {hint}")
        found.append(slot)
    return found


def _check_reply(reply: str) -> None:
    if _slots_of(reply, REPLY_SLOTS).count("room") != 1:
        raise ValueError("the reply must have the slot {room} once")


def own_toml(name: str) -> dict[str, Any]:
    """The content of a TOML file that comes with the package."""
    return tomllib.loads(resources.files("soo_marl.llm").joinpath("data", name).read_text(encoding="utf-8"))


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file that the user wrote.

    Raises:
        RunDirectoryError: the file cannot be read.
        ValueError: it is not TOML, or is nested too deep.
    """
    text = read_text(path)
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is not readable TOML: {quoted(error)}") from error
    except RecursionError as error:
        raise ValueError(f"{path} is not readable TOML: it is nested too deep") from error


def _checked(model: type[Model], content: Any, where: str) -> Model:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        _refuse(error, where)


def _refuse(error: ValidationError, where: str) -> NoReturn:
    first = error.errors()[0]
    field = "".join(f"{part}: " for part in first["loc"])
    raise ValueError(f"{where}: {quoted(field + first['msg'].removeprefix('Value error, '))}") from error


def _models(content: Mapping[str, Any], table: str, model: type[Model], where: str) -> dict[str, Model]:
    unknown = sorted(set(content) - {"scenarios", "answer_forms"})
    if unknown:
        raise ValueError(f"{where}: table {unknown[0]!r} is unknown; there are scenarios and answer_forms")
    entries = content.get(table, {})
    if not isinstance(entries, dict):
        raise ValueError(f"{where}: {table} must be a table of tables, [{table}.NAME]")
    return {name: _checked(model, entry, f"{where}: {table}.{name}") for name, entry in entries.items()}


def _from_file(path: Path, table: str, model: type[Model]) -> dict[str, Model]:
    return _models(read_toml(path), table, model, str(path))


@cache
def _own_inventory() -> Inventory:
    return _checked(Inventory, own_toml("inventory.toml"), "inventory.toml")


@cache
def _own_templates() -> Mapping[str, Template]:
    return MappingProxyType(_models(own_toml("scenarios.toml"), "scenarios", Template, "scenarios.toml"))


@cache
def _own_forms() -> Mapping[str, AnswerForm]:
    return MappingProxyType(_models(own_toml("scenarios.toml"), "answer_forms", AnswerForm, "scenarios.toml"))
