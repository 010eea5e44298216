"""Latent overlap: how far apart a language model's activations for self and other prompts lie, layer by layer.

The paper averages such values over layers before and after training (Carauleanu et al. 2024, arXiv 2412.16325). Small
values alone say little: a model that gives every prompt the same activations has perfect overlap. So power and the
variance across prompts stand beside them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from soo_marl.llm.model.alignment import TokenBatch, TokenMode, align
from soo_marl.llm.model.layers import DEFAULT_SITE, evaluating, layer_outputs, stack_modules
from soo_marl.overlap import episode_sums
from soo_marl.statistics import Number


class LayerOverlap(BaseModel, frozen=True, extra="forbid"):
    """The latent overlap at one site of one decoder layer, every pair of prompts weighing the same."""

    layer: int = Field(ge=0, description="Number of the decoder layer.")
    site: str = Field(description="Module within the layer; '' is the residual stream.")
    raw: Number = Field(description="Mean squared difference of self and other, over units and compared tokens.")
    power: Number = Field(description="Mean square of the activations of the same tokens, both sides.")
    normalised: Number = Field(description="raw over power, in [0, 4]; None where the power is 0.")
    prompt_variance: Number = Field(
        description="Variance over prompts at the last token, mean over units and both sides; None for one pair."
    )


class LatentOverlap(BaseModel, frozen=True, extra="forbid"):
    """Latent overlap of a model on a set of prompt pairs."""

    token_mode: TokenMode = Field(description="Which tokens of the two prompts were compared.")
    skip_header: int = Field(0, ge=0, description="Tokens left out at the start, with aligned_right.")
    pairs: int = Field(ge=1, description="How many pairs of prompts the values rest on.")
    values: tuple[LayerOverlap, ...] = Field(description="One per layer and site, in the order of the stack.")


class LayerGap(BaseModel, frozen=True, extra="forbid"):
    """How much of each layer's activation at the last token tells self from other.

    A peak narrows the search for the layer to train, no more: on several models training worked beside the peak.
    """

    site: str = Field(description="Module within each layer.")
    pairs: int = Field(ge=1, description="How many pairs of prompts the values rest on.")
    layers: tuple[int, ...] = Field(description="Numbers of the layers that have the site.")
    relative: tuple[Number, ...] = Field(description="Squared difference over power at the last token, per layer.")


def overlap_and_gap(
    language_model: Any,
    self_batch: TokenBatch,
    other_batch: TokenBatch,
    mode: TokenMode = "full_masked",
    site: str = DEFAULT_SITE,
) -> tuple[LatentOverlap, LayerGap]:
    """Measure the latent overlap at the attention's and the MLP's output of every layer, without a graph or dropout.

    Args:
        language_model: a model, bare or wrapped by PEFT, or an object that holds it as ``model``.
        self_batch: self prompts, ids and mask ``[B, T]`` on the model's device.
        other_batch: their partners, row by row.
        mode: which tokens are compared; ``full`` needs prompts of one length.
        site: the attention's output within a layer, at which the gap is measured too. Layers that lack a site are left
            out (hybrid models).

    Returns:
        The overlap, and by layer the squared difference over power at the last token, to narrow down the layer to
        train; both of one pass.

    Raises:
        ValueError: no layer has a site, or the batches do not fit.
    """
    model = language_model if isinstance(language_model, nn.Module) else language_model.model
    places = {name: place for name, place in stack_modules(model).items() if place[1] in (site, "mlp")}
    if missing := {site, "mlp"} - {within for _, within in places.values()}:
        raise ValueError(f"no decoder layer has a site {sorted(missing)}: name a module within a layer")
    with evaluating(model), torch.no_grad():
        sides = layer_outputs(model, list(places), self_batch), layer_outputs(model, list(places), other_batch)
    masks = self_batch.attention_mask, other_batch.attention_mask
    self_side, other_side, valid = align(*sides, *masks, mode)
    self_last, other_last, valid_last = align(*sides, *masks, "last")
    values, gaps = [], []
    for name, (layer, within) in places.items():
        variances = [_variance(last[name][:, 0]) for last in (self_last, other_last)]
        values.append(
            LayerOverlap(
                layer=layer,
                site=within,
                **_compared(self_side[name], other_side[name], valid),
                prompt_variance=None if len(valid) < 2 else finite(sum(variances) / 2),
            )
        )
        if within == site:
            gaps.append((layer, _compared(self_last[name], other_last[name], valid_last)["normalised"]))
    return LatentOverlap(token_mode=mode, pairs=len(valid), values=tuple(values)), LayerGap(
        site=site, pairs=len(valid), layers=tuple(layer for layer, _ in gaps), relative=tuple(gap for _, gap in gaps)
    )


def _compared(self_layer: Tensor, other_layer: Tensor, valid: Tensor) -> dict[str, float | None]:
    """Difference and power of ``[B, P, units]``, averaged over each pair's tokens first."""
    valid = valid.to(self_layer.device)
    sums, tokens = episode_sums({"layer": self_layer}, {"layer": other_layer}, valid, "normalised"), valid.sum(1)
    raw, power = float((sums.total / tokens).double().sum()), float((sums.weight / tokens).double().sum())
    normalised = finite(raw / power) if power > 0 else None
    return {"raw": finite(raw / len(valid)), "power": finite(power / len(valid)), "normalised": normalised}


def _variance(rows: Tensor) -> float:
    """Mean over units of the variance over rows ``[B, units]`` (population form), in float64."""
    rows = rows.double().cpu()
    return float((rows - rows.mean(0)).square().sum(0).mean()) / len(rows)


def finite(value: float) -> float | None:
    """The value, None where a model that fell apart has none that could be stored."""
    return value if math.isfinite(value) else None
