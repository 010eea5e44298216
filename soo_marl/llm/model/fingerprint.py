"""By what an adapter knows its base model again, whatever precision that is loaded in."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


class BaseFingerprint(BaseModel):
    """By what an adapter knows its base model again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="The name it was loaded by.")
    architecture: str = Field(description="SHA-256 of its parameters' names and its embedding's shape.")
    half_precision: bool = Field(description="Whether its weights have 16 bits or fewer.")
    weights: tuple[float | None, ...] = Field(description="Two numbers of every parameter; null where quantised.")


def fingerprint(transformer: Any, name: str) -> BaseFingerprint:
    """The fingerprint of a transformers model, without the adapter layers that may be inside.

    Args:
        transformer: the model.
        name: the name it was loaded by, which is kept for messages and not compared.
    """
    names: list[str] = []
    weights: list[float | None] = []
    half = False
    for full_name, parameter in transformer.named_parameters():
        if ".lora_" in full_name:
            continue
        names.append(full_name.replace(".base_layer.", "."))
        if is_quantised(parameter):
            half = True
            weights += [None, None]
            continue
        half = half or parameter.element_size() < 4
        flat = parameter.detach().reshape(-1)
        picked = flat[[len(flat) // 3, 2 * len(flat) // 3]].float().cpu().tolist()
        weights += [value if math.isfinite(value) else None for value in picked]
    # The embedding's shape stands for the rest: shapes of quantised weights are those of packed numbers.
    shape = list(transformer.get_input_embeddings().weight.shape)
    digest = hashlib.sha256(json.dumps([names, shape]).encode()).hexdigest()
    return BaseFingerprint(name=name, architecture=digest, half_precision=half, weights=tuple(weights))


def same_base(one: BaseFingerprint, another: BaseFingerprint) -> bool:
    """Whether two fingerprints are of one model; what is quantised in either is not compared."""
    if one.architecture != another.architecture or len(one.weights) != len(another.weights):
        return False
    # Rounding to bfloat16 moves a weight by up to 0.4 %; merging an adapter on another machine, by far less.
    tolerance = 1e-2 if one.half_precision or another.half_precision else 1e-4
    pairs = zip(one.weights, another.weights, strict=True)
    return all(a is None or b is None or math.isclose(a, b, rel_tol=tolerance, abs_tol=1e-6) for a, b in pairs)


def is_quantised(parameter: Tensor) -> bool:
    """Whether a parameter holds packed numbers of fewer bits than its layer computes in."""
    return not parameter.is_floating_point() or type(parameter).__name__ in ("Params4bit", "Int8Params")
