"""Self-other overlap of two sets of activations, in three forms.

Let ``s`` and ``o`` be the activations of all recorded layers, concatenated, at one position (a time step, a token) for
the self and the other input, ``d`` their number, and sums run over the valid positions:

* squared error   ``e = |s - o|^2 / d``
* power           ``p = (|s|^2 + |o|^2) / (2 d)``
* raw overlap        ``sum(e) / count``
* log overlap        ``sum(log(e + 1e-25)) / count``, the statistic of the authors' code (``evaluate-deception.py``)
* normalised overlap ``sum(e) / sum(p)``, in [0, 4]: blind to the scale of the activations; 2 for unrelated directions

Each is a ratio of two sums over positions. Lower means more overlap. For a single layer, pass a mapping of one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

OverlapForm = Literal["raw", "log", "normalised"]
"""How positions combine into one value; the module's docstring has the equations."""

LOG_FLOOR = 1e-25
"""Added to the squared error before its logarithm (authors' code): identical activations give about -57.6."""


def squared_error(self_activations: Mapping[str, Tensor], other_activations: Mapping[str, Tensor]) -> Tensor:
    """Mean squared difference over the units of all layers, so that a layer weighs as many units as it has.

    Args:
        self_activations: layer name to ``[..., units]``; units may differ between layers, the rest may not.
        other_activations: the same layers and shapes.

    Returns:
        ``[...]``, at least 0. Half precision is computed in float32.

    Raises:
        ValueError: the layers or shapes do not match, or there is no layer.
    """
    pairs = _matched(self_activations, other_activations)
    return _mean_over_units([(self_layer - other_layer).square() for self_layer, other_layer in pairs])


def power(self_activations: Mapping[str, Tensor], other_activations: Mapping[str, Tensor]) -> Tensor:
    """Mean square over the units of all layers, averaged over self and other.

    Args, returns and raises as :func:`squared_error`.
    """
    pairs = _matched(self_activations, other_activations)
    return _mean_over_units([(self_layer.square() + other_layer.square()) / 2 for self_layer, other_layer in pairs])


def overlap(
    self_activations: Mapping[str, Tensor],
    other_activations: Mapping[str, Tensor],
    mask: Tensor | None = None,
    form: OverlapForm = "raw",
    run_dims: int = 0,
) -> Tensor:
    """Self-other overlap over the valid positions; lower means more overlap.

    Args:
        self_activations: layer name to ``[*runs, *positions, units]``.
        other_activations: the same layers and shapes.
        mask: ``[*runs, *positions]`` (sizes of 1 broadcast), true where the position counts; all by default.
        form: raw, log or normalised.
        run_dims: how many leading dimensions are runs, which are kept; every other position is averaged over.

    Returns:
        ``[*runs]`` (a scalar for ``run_dims=0``); NaN, meaning missing, where no position is valid, and in the
        normalised form where all activations are zero.

    Raises:
        ValueError: layers, shapes, mask or ``run_dims`` do not fit, or the form is unknown.
    """
    return _ratio(*ratio_sums(self_activations, other_activations, mask, form, run_dims))


def episode_sums(
    self_activations: Mapping[str, Tensor],
    other_activations: Mapping[str, Tensor],
    mask: Tensor | None = None,
    form: OverlapForm = "raw",
    episode_dims: int = 1,
) -> EpisodeSums:
    """The two sums whose ratio is the overlap, per episode, so that episodes can be pooled in any number later.

    Args:
        self_activations: layer name to ``[..., N, *steps, units]`` with N episodes.
        other_activations: the same layers and shapes.
        mask: as for :func:`overlap`.
        form: raw, log or normalised.
        episode_dims: how many leading dimensions are kept, the last of them being the episodes; steps are summed over.

    Returns:
        Sums of shape ``[..., N]``. Sums of further steps of the same episodes can be added with ``+``.

    Raises:
        ValueError: as for :func:`overlap`, or ``episode_dims`` is below 1.
    """
    return EpisodeSums(*ratio_sums(self_activations, other_activations, mask, form, episode_dims))


@dataclass(frozen=True, eq=False)
class EpisodeSums:
    """Per-episode sums of an overlap statistic, whose value over episodes is the ratio of the summed sums.

    Attributes:
        total: ``[..., N]``, the sum of the statistic over an episode's valid steps.
        weight: ``[..., N]``, what to divide by: their number, or (normalised form) the sum of their power.

    Raises:
        ValueError: the shapes differ, or have no episode dimension.
    """

    total: Tensor
    weight: Tensor

    def __post_init__(self) -> None:
        if self.total.shape != self.weight.shape or self.total.ndim < 1:
            raise ValueError(
                "total and weight need one shape [..., N] with N episodes, "
                f"not {tuple(self.total.shape)} and {tuple(self.weight.shape)}"
            )

    def __add__(self, further: EpisodeSums) -> EpisodeSums:
        """Sums over the steps of both, for the same episodes."""
        if self.total.shape != further.total.shape:
            raise ValueError(
                "sums can be added only for the same episodes: "
                f"{tuple(self.total.shape)} and {tuple(further.total.shape)} differ"
            )
        return EpisodeSums(self.total + further.total, self.weight + further.weight)

    def value(self, episodes: int | None = None) -> Tensor:
        """The statistic over the first ``episodes`` episodes (all by default).

        Returns:
            ``[...]``; NaN, meaning missing, where the weight is 0.

        Raises:
            ValueError: ``episodes`` is not between 1 and N.
        """
        available = self.total.shape[-1]
        if episodes is not None and not 1 <= episodes <= available:
            raise ValueError(f"episodes must lie between 1 and the {available} at hand, not {episodes}")
        return _ratio(self.total[..., :episodes].sum(-1), self.weight[..., :episodes].sum(-1))


def ratio_sums(
    self_activations: Mapping[str, Tensor],
    other_activations: Mapping[str, Tensor],
    mask: Tensor | None,
    form: OverlapForm,
    kept_dims: int,
) -> tuple[Tensor, Tensor]:
    """Numerator and denominator of an overlap, summed over the valid positions behind the first ``kept_dims`` dims.

    Raises:
        ValueError: as for :func:`overlap`.
    """
    error = squared_error(self_activations, other_activations)
    if form == "raw":
        numerator, denominator = error, torch.ones_like(error)
    elif form == "log":
        numerator, denominator = (error + LOG_FLOOR).log(), torch.ones_like(error)
    elif form == "normalised":
        numerator, denominator = error, power(self_activations, other_activations)
    else:
        raise ValueError(f"form must be raw, log or normalised, not {form!r}")

    shape = error.shape
    if not 0 <= kept_dims <= len(shape):
        raise ValueError(f"cannot keep {kept_dims} leading dimensions of positions shaped {tuple(shape)}")
    if mask is not None:
        valid = expanded_mask(mask, shape)
        # Selecting, not multiplying: what stands at an invalid position may be NaN.
        numerator, denominator = (torch.where(valid, term, 0.0) for term in (numerator, denominator))
    summed = (*shape[:kept_dims], math.prod(shape[kept_dims:]))
    return numerator.reshape(summed).sum(-1), denominator.reshape(summed).sum(-1)


def expanded_mask(mask: Tensor, shape: torch.Size) -> Tensor:
    """The mask as booleans of the positions' shape.

    Raises:
        ValueError: the mask has another number of dimensions (it could broadcast along the wrong one) or other sizes.
    """
    if mask.ndim != len(shape) or any(size not in (1, full) for size, full in zip(mask.shape, shape, strict=True)):
        raise ValueError(
            f"the mask must be shaped like the positions, {tuple(shape)} (or 1 in places), not {tuple(mask.shape)}"
        )
    return mask.to(torch.bool).expand(shape)


def _ratio(total: Tensor, weight: Tensor) -> Tensor:
    return torch.where(weight > 0, total / weight, torch.nan)


def _matched(
    self_activations: Mapping[str, Tensor], other_activations: Mapping[str, Tensor]
) -> list[tuple[Tensor, Tensor]]:
    if not self_activations or set(self_activations) != set(other_activations):
        raise ValueError(
            "self and other activations need the same layers, at least one: "
            f"{sorted(self_activations)} and {sorted(other_activations)}"
        )
    pairs = []
    first_name = next(iter(self_activations))
    positions = self_activations[first_name].shape[:-1]
    for name, self_layer in self_activations.items():
        other_layer = other_activations[name]
        if self_layer.ndim == 0 or self_layer.shape != other_layer.shape:
            raise ValueError(
                f"layer {name!r} needs the same shape [..., units] for self and other, "
                f"not {tuple(self_layer.shape)} and {tuple(other_layer.shape)}: align the positions first"
            )
        if self_layer.shape[:-1] != positions:
            raise ValueError(
                f"layers {first_name!r} and {name!r} differ in more than their units, the last axis: "
                f"{tuple(positions)} and {tuple(self_layer.shape[:-1])}; a convolution's units lie on other axes, "
                f"which record_activations takes: units={{name: (1, 2, 3)}} puts whole maps beside linear layers"
            )
        pairs.append((_at_least_single(self_layer), _at_least_single(other_layer)))
    return pairs


def _at_least_single(activation: Tensor) -> Tensor:
    # A squared difference of half-precision activations soon underflows.
    return activation.float() if activation.dtype in (torch.float16, torch.bfloat16) else activation


def _mean_over_units(layers: list[Tensor]) -> Tensor:
    units = sum(layer.shape[-1] for layer in layers)
    return torch.stack([layer.sum(-1) for layer in layers]).sum(0) / units
