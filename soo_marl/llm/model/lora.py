"""Which layers of a language model a LoRA adapter changes, and how much it may."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

_OTHER_STACKS = frozenset(
    {"vision_tower", "vision_model", "visual", "audio_tower", "audio_model", "multi_modal_projector"}
)
"""Parts of multimodal models that read something other than text."""


class LoraSettings(BaseModel):
    """A low-rank adapter (Hu et al. 2022); the defaults are those of Carauleanu et al. 2024 for Mistral-7B."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    r: int = Field(8, ge=1, description="Rank.")
    alpha: float = Field(32, gt=0, description="The adapter's output is multiplied by alpha / r.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Share of the adapter's inputs that training drops.")
    targets: tuple[str, ...] = Field(
        ("q_proj", "v_proj"), min_length=1, description="Last part of the names of the linear layers to adapt."
    )
    layers: tuple[int, ...] | None = Field(
        None,
        description="Blocks to adapt, from 0; all by default. Blocks above the trained layer learn nothing.",
    )


def target_names(model: nn.Module, settings: LoraSettings) -> list[str]:
    """Full names of the linear layers of the text stack that the settings mean.

    Raises:
        ValueError: there are none, or one shares its weight with the embedding.
    """
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    text = sorted(name for name in linear if not _OTHER_STACKS & set(name.split(".")))
    named = [name for name in text if name.rsplit(".", 1)[-1] in settings.targets]
    missing = set(settings.targets) - {name.rsplit(".", 1)[-1] for name in named}
    if missing:
        known = sorted({name.rsplit(".", 1)[-1] for name in text})
        raise ValueError(f"the model has no linear layer {', '.join(sorted(missing))}; it has {', '.join(known)}")
    refuse_tied(model, named)
    if settings.layers is None:
        return named
    blocks = {name: _block(name) for name in named}
    absent = set(settings.layers) - set(blocks.values())
    if absent or not settings.layers:
        there = sorted(block for block in set(blocks.values()) if block is not None)
        raise ValueError(f"layers must name some of the blocks {there}, not {sorted(settings.layers)}")
    return [name for name in named if blocks[name] in settings.layers]


def refuse_tied(model: nn.Module, names: Iterable[str]) -> None:
    """Refuse an adapter on an output layer that shares its weight with the embedding: merging would change both.

    Args:
        model: a transformers model, with or without an adapter.
        names: names of the layers to adapt, or their ends.

    Raises:
        ValueError: one of them shares its weight.
    """
    ends = tuple(names)
    find: Any = getattr(model, "get_input_embeddings", None)
    embedding = None if find is None else find()
    for name, module in model.named_modules():
        plain = name.replace(".base_layer", "")
        if module is not embedding and any(plain == end or plain.endswith(f".{end}") for end in ends):
            weight = getattr(module, "weight", None)
            if embedding is not None and weight is embedding.weight:
                raise ValueError(
                    f"the layer {plain} shares its weight with the embedding, which an adapter, once merged, would "
                    "change as well: leave it out of the LoRA targets"
                )


def _block(name: str) -> int | None:
    """Number of the transformer block that a layer belongs to: the first number in its name."""
    found = re.search(r"\.(\d+)\.", name)
    return int(found.group(1)) if found else None
