"""How probable a model finds each of the two rooms, without letting it speak."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from soo_marl.llm.chat import Encoded, encode, render, token_ids
from soo_marl.llm.models import LanguageModel, adapters_off, evaluating, out_of_memory_advice

if TYPE_CHECKING:
    from soo_marl.llm.scenarios import Prompt

ITEM_SLOT = "{item}"
"""What a prefix may hold in place of the object that a prompt asks about."""


def room_log_probabilities(
    language_model: LanguageModel,
    prompts: Sequence[Prompt],
    prefix: str | None = None,
    *,
    per_token: bool = False,
    batch_size: int = 16,
    adapters: bool = True,
    raw: bool = False,
) -> Tensor:
    """Log-probability of either room's whole name, behind a pinned beginning of the answer and a space.

    What the model would rather say is left open: both values may be tiny.

    Args:
        language_model: the model.
        prompts: B prompts.
        prefix: beginning of the answer, without a space at its end; ``{item}`` stands for the object asked about. By
            default the prompt's own ``answer_start``.
        per_token: the mean over the name's tokens instead of their sum, which is lower for longer names.
        batch_size: prompts scored at once.
        adapters: whether the model's adapter, if it has one, takes part.
        raw: leave the chat template out.

    Returns:
        Float64 [B, 2], natural logarithms, at most 0: the right room, the wrong room.

    Raises:
        ValueError: ``batch_size`` is below 1, the model has no chat template, or memory does not suffice.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    rows = []
    with evaluating(language_model), adapters_off(language_model, off=not adapters), out_of_memory_advice():
        for start in range(0, len(prompts), batch_size):
            texts, room_lengths = [], []
            for prompt in prompts[start : start + batch_size]:
                candidates, lengths = _candidates(language_model, prompt, prefix, raw)
                texts += candidates
                room_lengths += lengths
            values = _summed(language_model, texts, room_lengths, raw)
            if per_token:
                values = values / torch.tensor(room_lengths, dtype=torch.float64)
            rows.append(values.reshape(-1, 2))
    return torch.cat(rows) if rows else torch.zeros(0, 2, dtype=torch.float64)


def next_token_logits(language_model: LanguageModel, encoded: Encoded, keep: int) -> Tensor:
    """Logits of the last ``keep`` positions [B, keep, vocabulary] of a batch padded on the left.

    Only those are computed where the model allows it: for a large vocabulary, the others would fill the memory.
    """
    model = language_model.transformer
    accepted = inspect.signature(model.forward).parameters
    options: dict[str, object] = {"use_cache": False}
    if "position_ids" in accepted:
        options["position_ids"] = encoded.position_ids
    if "logits_to_keep" in accepted:
        options["logits_to_keep"] = keep
    logits: Tensor = model(input_ids=encoded.input_ids, attention_mask=encoded.attention_mask.long(), **options).logits
    return logits[:, -keep:]


def _candidates(
    language_model: LanguageModel, prompt: Prompt, prefix: str | None, raw: bool
) -> tuple[list[str], list[int]]:
    """The two texts that end in a room, and how many tokens at their ends are the room.

    Where the tokenizer merges the room's beginning with what stands before, the merged token counts as the room's, for
    both rooms alike.
    """
    tokenizer = language_model.tokenizer
    begun = prompt.answer_start if prefix is None else prefix.replace(ITEM_SLOT, prompt.item)
    context = render(tokenizer, prompt.text, begun, raw)
    gap = " " if begun else ""
    texts = [f"{context}{gap}{room}" for room in (prompt.right_room, prompt.wrong_room)]
    tokens = [token_ids(tokenizer, text, raw=raw) for text in texts]
    before = token_ids(tokenizer, context, raw=raw)
    shared = min(_common(before, row) for row in tokens)
    return texts, [len(row) - shared for row in tokens]


def _common(one: list[int], another: list[int]) -> int:
    """Length of the common beginning."""
    pairs = zip(one, another, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(another)))


def _summed(language_model: LanguageModel, texts: list[str], lengths: list[int], raw: bool) -> Tensor:
    """Log-probability of the last ``lengths`` tokens of every text, summed [texts]."""
    encoded = encode(language_model.tokenizer, texts, "left", language_model.device, raw=raw)
    longest = max(lengths)
    with torch.no_grad():
        logits = next_token_logits(language_model, encoded, longest + 1)[:, :-1]
    targets = encoded.input_ids[:, -longest:]
    values = logits.float().log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1).double().cpu()
    places = torch.arange(longest)
    counted = places >= longest - torch.tensor(lengths).unsqueeze(-1)
    return torch.where(counted, values, 0.0).sum(-1)
