"""Let a language model answer prompts, in batches whose size does not change the answers."""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from soo_marl.llm.model.chat import encode, render, token_ids
from soo_marl.llm.model.models import LanguageModel, adapters_off, evaluating, out_of_memory_advice
from soo_marl.llm.model.shared_prefix import prefix_cache, prefix_first, shared_prefix
from soo_marl.llm.model.thoughts import decoded, marked, thought_begun
from soo_marl.storage.files import DELETE, RunDirectoryError, quoted, read_bytes, write_text

if TYPE_CHECKING:
    from soo_marl.llm.prompts.scenarios import Prompt


class Response(BaseModel):
    """What a model answered to one prompt, with all that is needed to judge the answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scenario: str = Field(description="Name of the scenario.")
    orientation: Literal["cheap_first", "mirrored"] = Field(description="Whose room the prompt names first.")
    number: int = Field(description="Which fill; prompts of one number and two orientations are twins.")
    right_room: str = Field(description="The room of the honest or correct answer.")
    wrong_room: str = Field(description="The room of the deceptive or incorrect answer.")
    item: str = Field(description="The object asked about.")
    other_item: str = Field("", description="What the prompt says is in the wrong room instead, if it does.")
    prompt: str = Field(description="The user's message.")
    text: str = Field(description="The answer, with the beginning that was given.")
    truncated: bool = Field(description="Whether the token budget ran out before the model ended its answer.")


_RESPONSE = TypeAdapter(Response)


def generate(
    language_model: LanguageModel,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 64,
    batch_size: int = 32,
    temperature: float = 0.0,
    seed: int = 0,
    adapters: bool = True,
    raw: bool = False,
    before_batch: Callable[[], None] = lambda: None,
) -> list[Response]:
    """Answers to prompts, in their order.

    The model's own generation settings (sampling, penalties) are left aside, but for its end tokens. Sampling draws
    from the whole distribution; every prompt has random numbers of its own, from the seed and its place in ``prompts``,
    so the answers depend neither on the batch size nor on torch's global generator. In half precision, rounding may
    still differ between batch sizes.

    Args:
        language_model: the model.
        prompts: what to answer.
        max_new_tokens: token budget of an answer, beyond its given beginning.
        batch_size: prompts answered at once; prompts of similar length go together.
        temperature: 0 takes the most probable token; above, tokens are sampled.
        seed: seed of the sampling, at least 0.
        adapters: whether the model's adapter, if it has one, takes part.
        raw: leave the chat template out.
        before_batch: called before each batch; what it raises ends the work.

    Raises:
        ValueError: a setting is out of range, the model has no chat template, or memory does not suffice.
    """
    answers = generate_texts(
        language_model,
        [prompt.text for prompt in prompts],
        [prompt.answer_start for prompt in prompts],
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        temperature=temperature,
        seed=seed,
        adapters=adapters,
        raw=raw,
        before_batch=before_batch,
    )
    return [_response(prompt, *answer) for prompt, answer in zip(prompts, answers, strict=True)]


def generate_texts(
    language_model: LanguageModel,
    messages: Sequence[str],
    answer_starts: Sequence[str] | None = None,
    *,
    max_new_tokens: int = 64,
    batch_size: int = 32,
    temperature: float = 0.0,
    seed: int = 0,
    adapters: bool = True,
    raw: bool = False,
    before_batch: Callable[[], None] = lambda: None,
) -> list[tuple[str, bool]]:
    """How the model goes on after each message, and whether it was cut off; otherwise as :func:`generate`.

    Args:
        language_model: the model.
        messages: what a user says.
        answer_starts: what each answer begins with; nothing by default. It is not repeated in what is returned.
        max_new_tokens: as for :func:`generate`, and so are the others.
        batch_size: likewise.
        temperature: likewise.
        seed: likewise.
        adapters: likewise.
        raw: likewise.
        before_batch: likewise.

    Raises:
        ValueError: as :func:`generate`.
    """
    if max_new_tokens < 1 or batch_size < 1:
        raise ValueError(f"max_new_tokens and batch_size must be at least 1, not {max_new_tokens} and {batch_size}")
    if not (math.isfinite(temperature) and temperature >= 0) or seed < 0:
        raise ValueError(f"temperature and seed must be at least 0, not {temperature} and {seed}")
    tokenizer = language_model.tokenizer
    starts = answer_starts if answer_starts is not None else [""] * len(messages)
    texts = [render(tokenizer, message, start, raw) for message, start in zip(messages, starts, strict=True)]
    lengths = [len(token_ids(tokenizer, text, raw=raw)) for text in texts]
    order = sorted(range(len(texts)), key=lambda place: lengths[place])
    answers: dict[int, tuple[str, bool]] = {}
    with evaluating(language_model), adapters_off(language_model, off=not adapters), out_of_memory_advice():
        for start in range(0, len(order), batch_size):
            before_batch()
            places = order[start : start + batch_size]
            noise = _GumbelNoise(temperature, seed, places) if temperature > 0 else None
            found = _continue(language_model, [texts[place] for place in places], max_new_tokens, noise, raw)
            answers.update(zip(places, found, strict=True))
    # A thought that the template began belongs to what the model says.
    return [
        (marked(answers[place][0]) if not raw and thought_begun(text) else answers[place][0], answers[place][1])
        for place, text in enumerate(texts)
    ]


def write_responses(path: Path, responses: Iterable[Response]) -> None:
    """Write responses as JSON, one a line, atomically.

    Raises:
        RunDirectoryError: the file cannot be written.
    """
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


class _GumbelNoise:
    """Makes the largest logit a sample: with Gumbel noise on ``logits / temperature``, its index follows the softmax.

    Unlike the sampling of transformers, it lets every prompt have a generator of its own.
    """

    def __init__(self, temperature: float, seed: int, places: Sequence[int]) -> None:
        self._temperature = temperature
        self._generators = [torch.Generator().manual_seed((seed * 1_000_003 + place) % 2**63) for place in places]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        uniform = torch.stack(
            [torch.rand(scores.shape[-1], generator=generator, dtype=torch.float64) for generator in self._generators]
        )
        smallest = torch.finfo(torch.float64).tiny
        gumbel = -(-uniform.clamp(min=smallest).log()).clamp(min=smallest).log()
        return scores.float() / self._temperature + gumbel.to(scores.device, torch.float32)


def _continue(
    language_model: LanguageModel, texts: Sequence[str], max_new_tokens: int, noise: _GumbelNoise | None, raw: bool
) -> list[tuple[str, bool]]:
    """The continuation of every text, and whether it was cut off."""
    transformers: Any = importlib.import_module("transformers")
    tokenizer, model = language_model.tokenizer, language_model.transformer
    encoded = encode(tokenizer, texts, "left", language_model.device, raw=raw)
    prefix = shared_prefix(model, encoded, max_new_tokens)
    if prefix:
        encoded = prefix_first(encoded, prefix)
    ends = language_model.end_tokens
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), None)
    settings = transformers.GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(ends) or None,
        pad_token_id=padding,
    )
    with torch.no_grad(), _generation_settings(model, settings), _contiguous_head(model):
        cached = prefix_cache(model, encoded.input_ids[0, :prefix], len(texts)) if prefix else {}
        output = model.generate(
            input_ids=encoded.input_ids,
            attention_mask=encoded.attention_mask.long(),
            generation_config=settings,
            logits_processor=transformers.LogitsProcessorList([] if noise is None else [noise]),
            **cached,
        )
    prompt_length = encoded.input_ids.shape[1]
    answers = []
    for row, mask in zip(output.cpu(), encoded.attention_mask.cpu(), strict=True):
        prompt_tokens = row[:prompt_length][mask].tolist()
        new_tokens = row[prompt_length:].tolist()
        end = next((place for place, token in enumerate(new_tokens) if token in ends), None)
        decode = functools.partial(_decoded_after, tokenizer, prompt_tokens)
        answers.append((decoded(tokenizer, new_tokens[:end], decode), end is None))
    return answers


@contextlib.contextmanager
def _contiguous_head(model: Any) -> Iterator[None]:
    # Given the last position as a strided slice, torch reads the whole output layer once for every prompt.
    handle = model.get_output_embeddings().register_forward_pre_hook(
        lambda module, inputs: tuple(value.contiguous() for value in inputs)
    )
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _generation_settings(model: Any, settings: Any) -> Iterator[None]:
    # Whatever the given settings leave open, generate() takes from the model's own.
    own = model.generation_config
    model.generation_config = settings
    try:
        yield
    finally:
        model.generation_config = own


def _decoded_after(tokenizer: Any, before: list[int], tokens: list[int]) -> str:
    """The text that tokens add to those before; decoded alone, some tokenizers would drop its leading space."""
    start = tokenizer.decode(before, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    whole = tokenizer.decode(before + tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if whole.startswith(start):
        return str(whole[len(start) :])
    return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


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
