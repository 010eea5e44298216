"""Self-other overlap as a differentiable auxiliary loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from soo_marl.overlap.metric import expanded_mask, ratio_sums

Sides = Literal["both", "other_to_self", "self_to_other"]
"""Which activations move: both, only the other (towards a fixed self), or only the self (towards a fixed other)."""

LossForm = Literal["raw", "normalised"]
"""Mean squared error, or squared error over power, which shrinking the activations cannot lower."""


def overlap_loss(
    self_activations: Mapping[str, Tensor],
    other_activations: Mapping[str, Tensor],
    mask: Tensor | None = None,
    sides: Sides = "both",
    form: LossForm = "raw",
    run_dims: int = 0,
) -> Tensor:
    """The self-other overlap of a batch, with gradients to the sides that are to move.

    The paper's loss is the raw form with gradients to both sides (arXiv 2412.16325). In the normalised form the power
    is differentiated too.

    Args:
        self_activations: layer name to ``[*runs, *positions, units]``, with their graph.
        other_activations: the same layers and shapes.
        mask: ``[*runs, *positions]`` (sizes of 1 broadcast), true where the position counts; all by default.
            Activations elsewhere, NaN included, have no influence on the loss and receive a gradient of 0.
        sides: which activations receive a gradient; the others are detached, a fixed target.
        form: raw or normalised.
        run_dims: how many leading dimensions are independent runs.

    Returns:
        ``[*runs]``, at least 0, one value per run: their sum gives every run the gradient it would have alone. A run
        with no valid position has loss 0 and gradient 0.

    Raises:
        ValueError: layers, shapes, mask or ``run_dims`` do not fit, or sides or form are unknown.
    """
    if form not in ("raw", "normalised"):
        raise ValueError(f"the form of the loss must be raw or normalised, not {form!r}")
    if sides not in ("both", "other_to_self", "self_to_other"):
        raise ValueError(f"sides must be both, other_to_self or self_to_other, not {sides!r}")
    self_side = _prepared(self_activations, mask, detach=sides == "other_to_self")
    other_side = _prepared(other_activations, mask, detach=sides == "self_to_other")
    total, weight = ratio_sums(self_side, other_side, mask, form, run_dims)
    return total / torch.where(weight > 0, weight, 1.0)


def _prepared(activations: Mapping[str, Tensor], mask: Tensor | None, detach: bool) -> dict[str, Tensor]:
    layers = {name: layer.detach() if detach else layer for name, layer in activations.items()}
    if mask is None:
        return layers
    # Before any arithmetic: a NaN that is masked only afterwards still turns the gradient into NaN.
    return {
        name: torch.where(expanded_mask(mask, layer.shape[:-1]).unsqueeze(-1), layer, 0.0)
        for name, layer in layers.items()
    }
