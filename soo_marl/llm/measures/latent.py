"""Latent overlap: how far apart a language model's activations for self and other prompts lie, layer by layer.

The paper averages such values over layers before and after training (Carauleanu et al. 2024, arXiv 2412.16325). Small
values alone say little: a model that gives every prompt the same activations has perfect overlap. So power and the
variance across prompts stand beside them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from soo_marl.llm.methods.loss import padding_token
from soo_marl.llm.model.alignment import TokenBatch, TokenMode, align, longest, repadded
from soo_marl.llm.model.layers import DEFAULT_SITE, evaluating, layer_outputs, stack_modules
from soo_marl.overlap import episode_sums
from soo_marl.statistics import Number

PAPER_SITES = (DEFAULT_SITE, "mlp")
"""Attention output and MLP output of every layer."""

_CONFIG = ConfigDict(frozen=True, extra="forbid")


class LayerOverlap(BaseModel):
    """The latent overlap at one site of one decoder layer, every pair of prompts weighing the same."""

    model_config = _CONFIG

    layer: int = Field(ge=0, description="Number of the decoder layer.")
    site: str = Field(description="Module within the layer; '' is the residual stream.")
    raw: Number = Field(description="Mean squared difference of self and other, over units and compared tokens.")
    power: Number = Field(description="Mean square of the activations of the same tokens, both sides.")
    normalised: Number = Field(description="raw over power, in [0, 4]; None where the power is 0.")
    prompt_variance: Number = Field(
        description="Variance over prompts at the last token, mean over units and both sides; None for one pair."
    )


class LatentOverlap(BaseModel):
    """Latent overlap of a model on a set of prompt pairs."""

    model_config = _CONFIG

    token_mode: TokenMode = Field(description="Which tokens of the two prompts were compared.")
    skip_header: int = Field(ge=0, description="Tokens left out at the start, with aligned_right.")
    pairs: int = Field(ge=1, description="How many pairs of prompts the values rest on.")
    values: tuple[LayerOverlap, ...] = Field(description="One per layer and site, in the order of the stack.")

    def mean(self, site: str, quantity: Literal["raw", "power", "normalised", "prompt_variance"] = "raw") -> float:
        """Mean of a quantity over the layers that have the site, each weighing the same.

        Raises:
            ValueError: no layer has the site, or the quantity could not be measured at one of them.
        """
        found = [getattr(value, quantity) for value in self.values if value.site == site]
        if not found or None in found:
            known = ", ".join(sorted({value.site for value in self.values}))
            raise ValueError(f"{quantity} was not measured at the site {site!r} of every layer; sites are {known}")
        return float(sum(found) / len(found))


class LayerGap(BaseModel):
    """How much of each layer's activation at the last token tells self from other.

    A peak narrows the search for the layer to train, no more: on several models training worked beside the peak.
    """

    model_config = _CONFIG

    site: str = Field(description="Module within each layer.")
    pairs: int = Field(ge=1, description="How many pairs of prompts the values rest on.")
    layers: tuple[int, ...] = Field(description="Numbers of the layers that have the site.")
    relative: tuple[Number, ...] = Field(description="Squared difference over power at the last token, per layer.")


def latent_overlap(
    language_model: Any,
    self_batches: Iterable[TokenBatch],
    other_batches: Iterable[TokenBatch],
    sites: Sequence[str] | Literal["all"] = PAPER_SITES,
    mode: TokenMode = "full_masked",
    skip_header: int = 0,
) -> LatentOverlap:
    """Measure the latent overlap at every decoder layer in one pass over the prompts, without a graph or dropout.

    Args:
        language_model: a model, bare or wrapped by PEFT, or an object that holds it as ``model``.
        self_batches: self prompts, ids and mask ``[B, T]`` on the model's device.
        other_batches: their partners, batch by batch and row by row.
        sites: modules within a layer; ``"all"``: every linear map inside the layers, as the paper's public code, which
            adds the output head. Layers that lack a site are left out (hybrid models), provided one has it.
        mode: which tokens are compared. With ``full`` both batches are padded on the right to the longer prompt's
            length, and padding counts.
        skip_header: as for :func:`soo_marl.llm.model.alignment.align`.

    Raises:
        ValueError: no layer has a site, batches do not fit, or there is none.
    """
    return _measured(language_model, self_batches, other_batches, sites, mode, skip_header, None)[0]


def layer_gap(
    language_model: Any,
    self_batches: Iterable[TokenBatch],
    other_batches: Iterable[TokenBatch],
    site: str = DEFAULT_SITE,
) -> LayerGap:
    """Squared difference over power at the last token of each prompt, per layer, to narrow down the layer to train.

    Args and errors as for :func:`latent_overlap`.
    """
    return _measured(language_model, self_batches, other_batches, (site,), "last", 0, site)[1]


def overlap_and_gap(
    language_model: Any,
    self_batches: Iterable[TokenBatch],
    other_batches: Iterable[TokenBatch],
    mode: TokenMode = "full_masked",
    site: str = DEFAULT_SITE,
) -> tuple[LatentOverlap, LayerGap]:
    """:func:`latent_overlap` at the attention's and the MLP's output and :func:`layer_gap`, of one pass.

    Args and errors as for the two.
    """
    sites = tuple(site if of_paper == DEFAULT_SITE else of_paper for of_paper in PAPER_SITES)
    return _measured(language_model, self_batches, other_batches, sites, mode, 0, site)


def _measured(
    language_model: Any,
    self_batches: Iterable[TokenBatch],
    other_batches: Iterable[TokenBatch],
    sites: Sequence[str] | Literal["all"],
    mode: TokenMode,
    skip_header: int,
    gap_site: str | None,
) -> tuple[LatentOverlap, LayerGap]:
    """Both measures; the gap is empty where ``gap_site`` is None or not among the sites."""
    model = language_model if isinstance(language_model, nn.Module) else language_model.model
    places = _places(model, sites)
    sums = {name: _Sums() for name in places}
    gaps = {name: _Sums() for name, place in places.items() if place[1] == gap_site}
    pairs = 0
    with evaluating(model), torch.no_grad():
        for self_batch, other_batch in zip(self_batches, other_batches, strict=True):
            if mode == "full":
                length = max(longest(self_batch), longest(other_batch))
                token = padding_token(model)
                self_batch, other_batch = (
                    repadded(batch, length, "right", token) for batch in (self_batch, other_batch)
                )
            self_all = layer_outputs(model, list(places), self_batch)
            other_all = layer_outputs(model, list(places), other_batch)
            masks = (self_batch.attention_mask, other_batch.attention_mask)
            self_side, other_side, valid = align(self_all, other_all, *masks, mode, skip_header)
            self_last, other_last, valid_last = align(self_all, other_all, *masks, "last")
            for name, of_layer in sums.items():
                of_layer.add_pairs(self_side[name], other_side[name], valid)
                of_layer.self_prompts.add(self_last[name][:, 0])
                of_layer.other_prompts.add(other_last[name][:, 0])
            for name, of_layer in gaps.items():
                of_layer.add_pairs(self_last[name], other_last[name], valid_last)
            pairs += len(valid)
    if not pairs:
        raise ValueError("give at least one batch of prompt pairs")
    values = tuple(of_layer.result(*places[name], pairs) for name, of_layer in sums.items())
    found = [of_layer.result(*places[name], pairs) for name, of_layer in gaps.items()]
    return LatentOverlap(token_mode=mode, skip_header=skip_header, pairs=pairs, values=values), LayerGap(
        site=gap_site or "",
        pairs=pairs,
        layers=tuple(value.layer for value in found),
        relative=tuple(value.normalised for value in found),
    )


@dataclass
class _Moments:
    """Running mean and squared deviations of vectors, in float64; batches are merged without cancellation."""

    count: int = 0
    mean: Tensor | None = None
    deviations: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        """Take in ``[B, units]``."""
        rows = rows.double().cpu()
        mean = rows.mean(0)
        deviations = (rows - mean).square().sum(0)
        if self.mean is None or self.deviations is None:
            self.count, self.mean, self.deviations = len(rows), mean, deviations
            return
        total = self.count + len(rows)
        shift = mean - self.mean
        self.deviations = self.deviations + deviations + shift.square() * (self.count * len(rows) / total)
        self.mean = self.mean + shift * (len(rows) / total)
        self.count = total

    def variance(self) -> float | None:
        """Mean over units of the variance (population form); None for fewer than two rows."""
        return None if self.deviations is None or self.count < 2 else float(self.deviations.mean()) / self.count


@dataclass
class _Sums:
    raw: float = 0.0
    power: float = 0.0
    self_prompts: _Moments = field(default_factory=_Moments)
    other_prompts: _Moments = field(default_factory=_Moments)

    def add_pairs(self, self_layer: Tensor, other_layer: Tensor, valid: Tensor) -> None:
        """Take in ``[B, P, units]``, averaging over each pair's tokens first."""
        valid = valid.to(self_layer.device)
        sums = episode_sums({"layer": self_layer}, {"layer": other_layer}, valid, "normalised")
        tokens = valid.sum(1)
        self.raw += float((sums.total / tokens).double().sum())
        self.power += float((sums.weight / tokens).double().sum())

    def result(self, layer: int, site: str, pairs: int) -> LayerOverlap:
        variances = (self.self_prompts.variance(), self.other_prompts.variance())
        return LayerOverlap(
            layer=layer,
            site=site,
            raw=_finite(self.raw / pairs),
            power=_finite(self.power / pairs),
            normalised=_finite(self.raw / self.power) if self.power > 0 else None,
            prompt_variance=None if None in variances else _finite(sum(one or 0.0 for one in variances) / 2),
        )


def _finite(value: float) -> float | None:
    """The value, None where a model that fell apart has none that could be stored."""
    return value if math.isfinite(value) else None


def _places(model: nn.Module, sites: Sequence[str] | Literal["all"]) -> dict[str, tuple[int, str]]:
    """Full name of every module to measure, with its layer's number and its site."""
    known = stack_modules(model)
    if sites == "all":
        modules = dict(model.named_modules())
        return {name: place for name, place in known.items() if _is_linear(modules[name])}
    wanted = (sites,) if isinstance(sites, str) else tuple(sites)
    missing = [site for site in wanted if site not in {site for _, site in known.values()}]
    if missing or not wanted:
        raise ValueError(f"no decoder layer has a site {missing}: name at least one module within a layer, or 'all'")
    return {name: place for name, place in known.items() if place[1] in wanted}


def _is_linear(module: nn.Module) -> bool:
    # A module with a LoRA adapter holds the linear map that it wraps.
    return isinstance(getattr(module, "base_layer", module), nn.Linear)
