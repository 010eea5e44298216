"""What all prompts of a batch begin with, computed once for all of them: a chat template's system prompt, mostly.

It is often a third of a short prompt. A causal model gives it the same activations in every row, so outputs and
gradients are those of the whole batch, up to rounding.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from soo_marl.llm.model.alignment import TokenBatch

_SMALLEST = 8  # tokens below which a shared beginning is not worth a pass of its own
_PLAIN_CACHES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")
"""Models whose cache is the plain one of keys and values; others compute shared beginnings for every prompt."""


def bare(model: nn.Module) -> Any:
    """The causal model inside PEFT's wrapper, adapters included, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]


def shared_prefix(model: nn.Module, batch: TokenBatch, more_tokens: int = 0) -> int:
    """How many tokens all prompts begin with, where it is worth computing them once for all; else 0.

    At least one token of each prompt is left. A model that drops activations at random drops others in every row, and
    one that recomputes them keeps no cache, so they share nothing. ``more_tokens`` will follow the batch.
    """
    inner = bare(model)
    if len(batch.input_ids) < 2 or type(inner).__name__ not in _PLAIN_CACHES:
        return 0
    if model.training and any(_rules_sharing_out(module) for module in model.modules()):
        return 0
    window = getattr(inner.config, "sliding_window", None)
    if window is not None and batch.input_ids.shape[1] + more_tokens > window:
        # Padding between prefix and rest would push the prefix out of the window too early.
        return 0
    rows = [row[mask.bool()] for row, mask in zip(batch.input_ids, batch.attention_mask, strict=True)]
    shortest = min(map(len, rows)) - 1
    heads = torch.stack([row[:shortest] for row in rows])
    alike = (heads == heads[:1]).all(0)
    prefix = int(alike.long().cumprod(0).sum())
    return prefix if prefix >= _SMALLEST else 0


def prefix_first(batch: TokenBatch, prefix: int) -> TokenBatch:
    """Prompts that are padded on the left, with the padding behind the prefix instead of before it."""
    ids, mask = batch.input_ids.clone(), batch.attention_mask.clone()
    for row, real in enumerate(batch.attention_mask):
        padded = int((~real).sum())
        ids[row, :prefix] = batch.input_ids[row, padded : padded + prefix]
        ids[row, prefix : padded + prefix] = batch.input_ids[row, :padded]
        mask[row, :prefix] = True
        mask[row, prefix : padded + prefix] = False
    return TokenBatch(ids, mask)


def empty_cache(model: nn.Module) -> dict[str, Any]:
    """A cache of keys and values, as the argument that the model takes."""
    transformers: Any = importlib.import_module("transformers")
    inner = bare(model)
    # Renamed within version 5 of transformers.
    parameters = inspect.signature(inner.model.forward).parameters
    return {"cache" if "cache" in parameters else "past_key_values": transformers.DynamicCache(config=inner.config)}


def prefix_cache(model: nn.Module, prefix_ids: Tensor, rows: int) -> dict[str, Any]:
    """Keys and values of a prefix ``[P]`` for every row, with their graph where gradients are on."""
    cached = empty_cache(model)
    bare(model).model(input_ids=prefix_ids[None], use_cache=True, **cached)
    for_every_row(cached, rows)
    return cached


def for_every_row(cached: dict[str, Any], rows: int) -> None:
    """Repeat a cache of one row."""
    for cache in cached.values():
        cache.batch_repeat_interleave(rows)


def _rules_sharing_out(module: nn.Module) -> bool:
    if getattr(module, "gradient_checkpointing", False):
        return True
    # Attention drops without a module for it.
    return (isinstance(module, nn.Dropout) and module.p > 0) or float(getattr(module, "attention_dropout", 0) or 0) > 0
