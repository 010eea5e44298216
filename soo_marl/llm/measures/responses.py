"""What a model answered to a prompt, labelled once and for all, and a study's files of answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from soo_marl.llm.measures.answers import Answer, classify_answer
from soo_marl.llm.model.generation import generate_texts
from soo_marl.llm.model.models import LanguageModel
from soo_marl.llm.prompts.scenarios import Orientation, Prompt
from soo_marl.storage.files import DELETE, RunDirectoryError, quoted, read_bytes, write_text


class Response(BaseModel, frozen=True, extra="forbid"):
    """What a model answered to one prompt, with all that is needed to judge the answer."""

    scenario: str = Field(description="Name of the scenario.")
    orientation: Orientation = Field(description="Whose room the prompt names first.")
    number: int = Field(description="Which fill; prompts of one number and two orientations are twins.")
    right_room: str = Field(description="The room of the honest or correct answer.")
    wrong_room: str = Field(description="The room of the deceptive or incorrect answer.")
    item: str = Field(description="The object asked about.")
    other_item: str = Field("", description="What the prompt says is in the wrong room instead, if it does.")
    prompt: str = Field(description="The user's message.")
    text: str = Field(description="The answer, with the beginning that was given.")
    truncated: bool = Field(description="Whether the token budget ran out before the model ended its answer.")

    @cached_property
    def answer(self) -> Answer:
        """What it amounts to: found once, and carried on from there."""
        return classify_answer(
            self.text,
            self.right_room,
            self.wrong_room,
            truncated=self.truncated,
            prompt=self.prompt,
            item=self.item,
            other_item=self.other_item,
        )


_RESPONSE = TypeAdapter(Response)


def generate(language_model: LanguageModel, prompts: Sequence[Prompt], **options: Any) -> list[Response]:
    """Answers to prompts, in their order; options as for :func:`soo_marl.llm.model.generation.generate_texts`."""
    starts = [prompt.answer_start for prompt in prompts]
    answers = generate_texts(language_model, [prompt.text for prompt in prompts], starts, **options)
    return [_response(prompt, *answer) for prompt, answer in zip(prompts, answers, strict=True)]


def write_responses(path: Path, responses: Iterable[Response]) -> None:
    """Write responses as JSON, one a line, atomically. Raises RunDirectoryError: the file cannot be written."""
    write_text(path, "".join(f"{response.model_dump_json()}\n" for response in responses))


def read_responses(path: Path) -> list[Response]:
    """Return the responses that a file of :func:`write_responses` holds.

    Raises:
        RunDirectoryError: the file is missing or unreadable, or a line is not a response.
    """
    try:
        lines = read_bytes(path).decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise RunDirectoryError(f"{path} is not UTF-8 text; {DELETE}") from error
    responses = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            responses.append(_RESPONSE.validate_json(line))
        except ValidationError as error:
            fault = error.errors()[0]
            field = ".".join(str(part) for part in fault["loc"]) or "the whole"
            raise RunDirectoryError(
                f"{path}, line {number}, is no response: {quoted(field)}: {quoted(fault['msg'])}; {DELETE}"
            ) from error
    return responses


def _response(prompt: Prompt, continuation: str, truncated: bool) -> Response:
    fill = prompt.fill
    in_wrong_room = fill.cheap_object if prompt.wrong_room == fill.cheap_room else fill.expensive_object
    return Response(
        scenario=prompt.scenario,
        orientation=prompt.orientation,
        number=prompt.number,
        right_room=prompt.right_room,
        wrong_room=prompt.wrong_room,
        item=prompt.item,
        other_item=in_wrong_room if in_wrong_room != prompt.item and in_wrong_room in prompt.text else "",
        prompt=prompt.text,
        text=prompt.answer_start + continuation,
        truncated=truncated,
    )
