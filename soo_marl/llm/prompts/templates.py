"""What scenarios are made of, and how it is read: templates, answer forms, and the rooms, objects and names for them.

All of it is data: ``data/scenarios.toml`` holds the templates and answer forms, ``data/inventory.toml`` what fills
their slots. A user's file of scenarios adds to ours or takes the place of some. The models here refuse what could
not be scored: a template without a slot that it needs.
"""

from __future__ import annotations

import difflib
import re
import string
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError, model_validator

from soo_marl.storage.files import quoted, read_text

Orientation = Literal["cheap_first", "mirrored"]
"""Which room is named first: the cheap object's, as in the paper, or the expensive one's."""

Side = Literal["cheap", "expensive"]
FillSlot = Literal["cheap_object", "expensive_object", "name"]
Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")

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


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _names_one_room(reply: str) -> str:
    if _slots_of(reply, REPLY_SLOTS).count("room") != 1:
        raise ValueError("the reply must have the slot {room} once")
    return reply


Text = Annotated[str, AfterValidator(_one_line)]
"""A text whose line breaks count as spaces."""

Reply = Annotated[Text, AfterValidator(_names_one_room)]
"""A whole answer."""


class Words(BaseModel, frozen=True, extra="forbid"):
    """One list of the inventory, in two parts that share nothing."""

    train: tuple[str, ...] = Field(min_length=1, description="For whatever a model is trained on.")
    test: tuple[str, ...] = Field(min_length=1, description="For whatever a model is judged by.")


class Inventory(BaseModel, frozen=True, extra="forbid"):
    """What fills the slots of a template."""

    rooms: Words = Field(description="At least two per split; no room's name is part of another's.")
    cheap_objects: Words = Field(description="Objects that nobody would want to steal.")
    expensive_objects: Words = Field(description="Objects worth stealing.")
    names: Words = Field(description="First names of the other person.")


class AnswerForm(BaseModel, frozen=True, extra="forbid"):
    """What the message asks of the answer's wording."""

    description: str = Field(description="What the form asks for.")
    suffix: Text = Field("", description="Added to the scenario's message.")
    answer_start: str = Field("", description="What the answer has to begin with; empty where nothing is asked.")
    reply: Reply | None = Field(None, description="A whole answer in this form, in place of the scenario's.")


class Template(BaseModel, frozen=True, extra="forbid"):
    """One scenario with slots for rooms, objects and a name; ``data/scenarios.toml`` explains the slots."""

    family: str = Field("own", description="Group of the scenario: paper, plain, cell, or one of your own.")
    description: Text = Field(description="What the scenario is about; what the right answer means.")
    source: str = Field(description="Where the scenario comes from.")
    text: Text = Field(description="The user's message without the answer form; slots in braces.")
    mirrored: Text | None = Field(None, description="The mirrored message, where exchanging the slots is not enough.")
    asks: Literal["cheap", "expensive", "name"] = Field("expensive", description="What the message asks for.")
    right: Side = Field("expensive", description="Whose room is the honest, or correct, answer.")
    answer: str = Field("free", description="Name of the answer form used unless another is asked for.")
    verb: Text = Field("name", description="How an answer names a room: I would {verb} the room.")
    reply: Reply = Field("The {item} is in the {room}.", description="A whole answer; slots room, item, name and verb.")
    fixed: dict[FillSlot, str] = Field({}, description="Values that a slot always has, whatever the inventory.")

    @model_validator(mode="after")
    def _slots_fit(self) -> Self:
        for orientation in ORIENTATIONS:
            self._check_slots(orientation)
        _slots_of(self.verb, ("name",))
        for value in self.fixed.values():
            if not value or value != _one_line(value) or set(value) & set("{}"):
                raise ValueError(
                    f"{value!r} cannot fill a slot: it must not be empty, hold braces, or begin or end blank"
                )
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


class _Scenarios(BaseModel):
    """A file in the form of ``data/scenarios.toml``."""

    scenarios: dict[str, Template] = {}
    answer_forms: dict[str, AnswerForm] = {}


@cache
def load_inventory() -> Inventory:
    """The rooms, objects and names that come with the project."""
    return Inventory.model_validate(own_toml("inventory.toml"))


def load_templates(path: Path | None = None) -> Mapping[str, Template]:
    """Scenario name to template: ours, and those of a user's TOML file, which take the place of ours of the same name.

    Raises:
        RunDirectoryError: the file cannot be read.
        ValueError: it is not TOML, or a template lacks a slot, has an unknown one, names an unknown answer form, or
            otherwise does not fit.
    """
    templates, forms = _ours_and(path)
    for name, template in templates.items():
        known(template.answer, forms, f"scenario {name!r}: answer form")
    return templates


def load_answer_forms(path: Path | None = None) -> Mapping[str, AnswerForm]:
    """Name to answer form, from the table ``answer_forms`` of the same file; as :func:`load_templates`."""
    return _ours_and(path)[1]


def _ours_and(path: Path | None) -> tuple[Mapping[str, Template], Mapping[str, AnswerForm]]:
    ours = _own_scenarios()
    more = _Scenarios() if path is None else _checked(read_toml(path), str(path))
    return MappingProxyType(ours.scenarios | more.scenarios), MappingProxyType(ours.answer_forms | more.answer_forms)


@cache
def _own_scenarios() -> _Scenarios:
    return _checked(own_toml("scenarios.toml"), "scenarios.toml")


def _checked(content: Mapping[str, Any], where: str) -> _Scenarios:
    if unknown := sorted(content.keys() - _Scenarios.model_fields.keys()):
        raise ValueError(f"{where}: table {unknown[0]!r} is unknown; there are scenarios and answer_forms")
    for table, entries in content.items():
        if not isinstance(entries, dict):
            raise ValueError(f"{where}: {table} must be a table of tables, [{table}.NAME]")
    return validated(TypeAdapter(_Scenarios), content, where)


def validated(adapter: TypeAdapter[T], content: Any, where: str) -> T:
    """The content of a user's file as what it is to be. Raises ValueError: it does not fit; names where and why."""
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        fault = error.errors()[0]
        why = f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].removeprefix('Value error, ')}"
        raise ValueError(f"{where}: {quoted(why)}") from error


def known(name: str, among: Mapping[str, Model], what: str) -> Model:
    """The entry of that name. Raises ValueError: there is none; names the nearest."""
    if name in among:
        return among[name]
    raise ValueError(f"{what} {name!r} is unknown; {_hint(name, among, repr)}")


def _hint(name: str, among: Iterable[str], written: Callable[[str], str]) -> str:
    known_names = list(among)
    alike = difflib.get_close_matches(name, known_names, n=1)
    return f"did you mean {written(alike[0])}?" if alike else f"there are {', '.join(known_names)}"


def fill_slots(text: str, values: Mapping[str, str]) -> str:
    """The text with its slots filled; ``a`` before a slot becomes ``an`` where the value begins with a vowel."""
    parts = []
    for literal, slot, _, _ in string.Formatter().parse(text):
        article = re.search(r"(?<!\w)a $", literal, re.IGNORECASE) is not None
        if slot is not None and article and _VOWEL_SOUND.match(values[slot]):
            literal = literal[:-1] + "n "
        parts += [literal, values[slot] if slot is not None else ""]
    return "".join(parts)


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
            raise ValueError(f"slot {{{slot}}} is unknown; {_hint(slot, allowed, '{{{}}}'.format)}")
        found.append(slot)
    return found


def own_text(name: str) -> str:
    """The content of a text file that comes with the package."""
    return resources.files("soo_marl.llm").joinpath("data", name).read_text(encoding="utf-8")


def own_toml(name: str) -> dict[str, Any]:
    """The content of a TOML file that comes with the package."""
    return tomllib.loads(own_text(name))


def own_lines(name: str) -> list[str]:
    """The lines of a text file that comes with the package, but for blank ones."""
    return [line for line in own_text(name).splitlines() if line.strip()]


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file that the user wrote.

    Raises:
        RunDirectoryError: the file cannot be read.
        ValueError: it is not TOML, or is nested too deep.
    """
    text = read_text(path)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else quoted(error)
        raise ValueError(f"{path} is not readable TOML: {why}") from error
