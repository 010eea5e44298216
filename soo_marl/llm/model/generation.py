"""Let a language model answer prompts, greedily, in batches whose size does not change the answers."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from soo_marl.llm.model.chat import decoded, encode, marked, render, thought_begun, token_ids
from soo_marl.llm.model.layers import evaluating
from soo_marl.llm.model.models import LanguageModel, adapters_off, out_of_memory_advice
from soo_marl.llm.model.shared_prefix import prefix_cache, prefix_first, shared_prefix


def generate_texts(
    language_model: LanguageModel,
    messages: Sequence[str],
    answer_starts: Sequence[str] | None = None,
    *,
    max_new_tokens: int = 64,
    batch_size: int = 32,
    adapters: bool = True,
    raw: bool = False,
    before_batch: Callable[[], None] = lambda: None,
) -> list[tuple[str, bool]]:
    """How the model goes on after each message, taking the most probable token, and whether it was cut off; in order.

    The model's own generation settings (sampling, penalties) are left aside, but for its end tokens. Answers do not
    depend on the batch size; in half precision, rounding may still differ.

    Args:
        language_model: the model; its adapter, if it has one, takes part unless ``adapters`` is False.
        messages: what a user says; ``raw`` leaves the chat template out.
        answer_starts: what each answer begins with; nothing by default. It is not repeated in what is returned.
        max_new_tokens: token budget of an answer, beyond its given beginning.
        batch_size: messages answered at once; those of similar length go together.
        before_batch: called before each batch; what it raises ends the work.

    Raises:
        ValueError: a setting is out of range, the model has no chat template, or memory does not suffice.
    """
    if max_new_tokens < 1 or batch_size < 1:
        raise ValueError(f"max_new_tokens and batch_size must be at least 1, not {max_new_tokens} and {batch_size}")
    tokenizer = language_model.tokenizer
    starts = answer_starts if answer_starts is not None else [""] * len(messages)
    texts = [render(tokenizer, message, start, raw) for message, start in zip(messages, starts, strict=True)]
    lengths = [len(token_ids(tokenizer, text, raw=raw)) for text in texts]
    order = sorted(range(len(texts)), key=lambda place: lengths[place])
    answers: dict[int, tuple[str, bool]] = {}
    with evaluating(language_model.model), adapters_off(language_model, off=not adapters), out_of_memory_advice():
        for start in range(0, len(order), batch_size):
            before_batch()
            places = order[start : start + batch_size]
            found = _continue(language_model, [texts[place] for place in places], max_new_tokens, raw)
            answers.update(zip(places, found, strict=True))
    # A thought that the template began belongs to what the model says.
    return [
        (marked(answers[place][0]) if not raw and thought_begun(text) else answers[place][0], answers[place][1])
        for place, text in enumerate(texts)
    ]


def _continue(
    language_model: LanguageModel, texts: Sequence[str], max_new_tokens: int, raw: bool
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
    head = model.get_output_embeddings().register_forward_pre_hook(_contiguous)
    with torch.no_grad(), _generation_settings(model, settings), head:
        cached = prefix_cache(model, encoded.input_ids[0, :prefix], len(texts)) if prefix else {}
        output = model.generate(
            input_ids=encoded.input_ids,
            attention_mask=encoded.attention_mask.long(),
            generation_config=settings,
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


def _contiguous(_module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Given the last position as a strided slice, torch reads the whole output layer once for every prompt."""
    return tuple(value.contiguous() for value in inputs)


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
