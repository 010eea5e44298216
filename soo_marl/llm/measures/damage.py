"""Whether training broke the model: its language, and whether its activations still tell prompts apart.

A model made to give equal activations for self and other may do so by giving equal activations for everything. Then its
overlap loss is best and its answers are worthless; the variance across prompts and the gap between two names show it,
while the size of the activations need not change.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from soo_marl.llm.model.alignment import TokenBatch
from soo_marl.llm.model.chat import encode, render
from soo_marl.llm.model.layers import evaluating
from soo_marl.llm.model.models import LanguageModel, out_of_memory_advice
from soo_marl.llm.prompts.scenarios import Prompt
from soo_marl.llm.prompts.templates import own_lines
from soo_marl.overlap import overlap, record_activations

NAMES = ("Alex", "Bob")
"""The two names between which an unharmed model sees a difference."""

_GRAM = 3  # words in a row that :func:`repetition` compares


class PromptStatistics(NamedTuple):
    """Activations at the last token of prompts: their mean square, and the variance of every unit across prompts
    (dividing by their number), both averaged over units and layers.
    """

    power: float
    variance: float


def neutral_texts() -> list[str]:
    """Short paragraphs of everyday prose, of 40 to 70 words, on nothing in particular."""
    return own_lines("neutral.txt")


def perplexity(language_model: LanguageModel, texts: Sequence[str] | None = None, *, batch_size: int = 8) -> float:
    """How many equally likely tokens the model hesitates between, on average, when reading plain text.

    The exponential of the mean negative log-probability over all tokens of all texts but each text's first, which has
    nothing before it. Texts (:func:`neutral_texts` by default) are read without the chat template; long ones are not
    cut.

    Returns:
        At least 1; infinite where the mean is too large for a float, NaN where the model computes NaN.

    Raises:
        ValueError: no text has two tokens, ``batch_size`` is below 1, or memory does not suffice.
    """
    _check_batch_size(batch_size)
    # Those of similar length go together, so that little is padding.
    read = sorted(neutral_texts() if texts is None else texts, key=len)
    total, count = 0.0, 0
    with evaluating(language_model.model), out_of_memory_advice(), torch.no_grad():
        for start in range(0, len(read), batch_size):
            batch = read[start : start + batch_size]
            encoded = encode(language_model.tokenizer, batch, "left", language_model.device, raw=True)
            if encoded.input_ids.shape[1] < 2:
                continue
            logits = _next_token_logits(language_model, encoded, encoded.input_ids.shape[1])[:, :-1]
            losses = functional.cross_entropy(
                logits.float().flatten(0, 1), encoded.input_ids[:, 1:].flatten(), reduction="none"
            )
            # A token counts if it and the one before it belong to the text.
            counted = encoded.attention_mask[:, :-1].flatten()
            total += float(losses[counted].double().sum())
            count += int(counted.sum())
    if count == 0:
        raise ValueError("perplexity needs a text of at least two tokens")
    mean = total / count
    return math.exp(mean) if mean < 700 or math.isnan(mean) else math.inf


def repetition(text: str) -> float:
    """Share of the text's three-word sequences that occurred before in it: 0 for prose, near 1 for a stuck model.

    Words are runs of letters, digits and apostrophes, without regard to case. A text of fewer than three words has 0.
    """
    words = re.findall(r"[\w']+", text.lower())
    grams = [tuple(words[place : place + _GRAM]) for place in range(len(words) - _GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def prompt_statistics(
    language_model: LanguageModel,
    prompts: Sequence[Prompt],
    layers: Sequence[str],
    *,
    batch_size: int = 16,
    raw: bool = False,
) -> PromptStatistics:
    """Power of the activations at the last token, and how much they vary from prompt to prompt.

    Compare before and after training: a variance that falls to a small part of itself is a collapse.

    Prompts differ in what the model should tell apart. Layers are names of modules of ``language_model.transformer``,
    for instance ``model.layers.19.self_attn.o_proj``; ``raw`` leaves the chat template out.

    Raises:
        ValueError: fewer than two prompts, an unknown layer, or as :func:`soo_marl.llm.model.chat.render`.
    """
    if len(prompts) < 2:
        raise ValueError(f"variance across prompts needs at least two prompts, not {len(prompts)}")
    texts = [render(language_model.tokenizer, prompt.text, prompt.answer_start, raw) for prompt in prompts]
    recorded = _last_token_activations(language_model, texts, layers, batch_size, raw).values()
    return PromptStatistics(
        power=sum(float(layer.square().mean()) for layer in recorded) / len(recorded),
        variance=sum(float(layer.var(0, correction=0).mean()) for layer in recorded) / len(recorded),
    )


def with_two_names(prompts: Sequence[Prompt]) -> list[tuple[str, str]]:
    """The prompts' messages, each with either of :data:`NAMES` in place of its own.

    Raises:
        ValueError: a prompt does not hold its name.
    """
    pairs = []
    for prompt in prompts:
        own = re.compile(rf"\b{re.escape(prompt.fill.name)}\b")
        if not prompt.fill.name or not own.search(prompt.text):
            raise ValueError(f"a prompt of the scenario {prompt.scenario} does not hold a name to replace")
        pairs.append((own.sub(NAMES[0], prompt.text), own.sub(NAMES[1], prompt.text)))
    return pairs


def name_control_gap(
    language_model: LanguageModel,
    prompts_with_two_names: Sequence[tuple[str, str]],
    layers: Sequence[str],
    *,
    batch_size: int = 16,
    raw: bool = False,
) -> float:
    """How far apart the activations are for prompts that differ in a person's name only.

    The mean squared difference at the last token over the mean square (normalised overlap), averaged over layers.
    Training self and other together ought to leave it alone; where it falls with the overlap, the model has become
    blind in general. Prompts are pairs of user messages, as :func:`with_two_names` makes them; the other arguments are
    those of :func:`prompt_statistics`.

    Returns:
        Between 0 and 4; NaN where all activations are zero.

    Raises:
        ValueError: no pair, an unknown layer, or as :func:`soo_marl.llm.model.chat.render`.
    """
    if not prompts_with_two_names:
        raise ValueError("the name control needs at least one pair of prompts")
    texts = [render(language_model.tokenizer, text, raw=raw) for pair in prompts_with_two_names for text in pair]
    recorded = _last_token_activations(language_model, texts, layers, batch_size, raw)
    gaps = [
        float(overlap({name: layer[0::2]}, {name: layer[1::2]}, form="normalised")) for name, layer in recorded.items()
    ]
    return sum(gaps) / len(gaps)


def _last_token_activations(
    language_model: LanguageModel, texts: Sequence[str], layers: Sequence[str], batch_size: int, raw: bool
) -> Mapping[str, Tensor]:
    """Layer name to float64 [texts, units]."""
    _check_batch_size(batch_size)
    parts: dict[str, list[Tensor]] = {}
    with (
        evaluating(language_model.model),
        out_of_memory_advice(),
        record_activations(language_model.transformer, layers) as record,
        torch.no_grad(),
    ):
        for start in range(0, len(texts), batch_size):
            batch = texts[start : start + batch_size]
            encoded = encode(language_model.tokenizer, batch, "left", language_model.device, raw=raw)
            _next_token_logits(language_model, encoded, 1)
            for name, layer in record.take().items():
                parts.setdefault(name, []).append(layer[:, -1].double().cpu())
    return {name: torch.cat(tensors) for name, tensors in parts.items()}


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")


def _next_token_logits(language_model: LanguageModel, encoded: TokenBatch, keep: int) -> Tensor:
    """Logits of the last positions [B, keep, vocabulary], padding left; where possible the others are not computed."""
    model = language_model.transformer
    accepted = inspect.signature(model.forward).parameters
    options: dict[str, object] = {"use_cache": False}
    if "position_ids" in accepted:
        options["position_ids"] = encoded.position_ids
    if "logits_to_keep" in accepted:
        options["logits_to_keep"] = keep
    logits: Tensor = model(input_ids=encoded.input_ids, attention_mask=encoded.attention_mask.long(), **options).logits
    return logits[:, -keep:]
