"""Which token of the self prompt is compared with which token of the other prompt.

The two prompts of a pair may have different numbers of tokens, and the paper does not say which tokens its loss uses
(Carauleanu et al. 2024, arXiv 2412.16325); the modes in use give different models, so results name theirs.

Which tokens are real comes from the tokenizer's mask, never from the ids: in some tokenizers padding is the end token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

TokenMode = Literal["full_masked", "aligned_right", "last", "mean", "full"]
"""How the tokens of a pair meet:

* ``full_masked``: n-th token with n-th token, counted from the first real one, as far as the shorter prompt goes;
* ``aligned_right``: the same counted from the last real token backwards, optionally without a header;
* ``last``: only the last real token of each;
* ``mean``: the mean over each prompt's real tokens;
* ``full``: n-th column with n-th column, padding included, as one replication of the paper does.
"""

Side = Literal["left", "right"]
"""Where shorter prompts of a batch are filled up."""


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """A batch of B prompts as tokens, filled up to T columns."""

    input_ids: Tensor
    """Token numbers ``[B, T]``."""
    attention_mask: Tensor
    """Booleans ``[B, T]``, true for real tokens, which stand together in each row."""

    @property
    def position_ids(self) -> Tensor:
        """Position of every token in its text ``[B, T]``, from 0; padding on the left has 0."""
        return (self.attention_mask.long().cumsum(-1) - 1).clamp(min=0)

    @property
    def last(self) -> Tensor:
        """Index of every text's last token ``[B]``."""
        return token_span(self.attention_mask)[1] - 1


def align(
    self_activations: Mapping[str, Tensor],
    other_activations: Mapping[str, Tensor],
    self_mask: Tensor,
    other_mask: Tensor,
    mode: TokenMode,
    skip_header: int = 0,
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Bring the activations of both prompts of each pair to common positions.

    In every mode but ``full`` padding has no influence, on whichever side it stands and whatever it holds.

    Args:
        self_activations: layer name to ``[B, T_self, units]``.
        other_activations: layer name to ``[B, T_other, units]``.
        self_mask: ``[B, T_self]``, true for real tokens, which stand together in each row.
        other_mask: ``[B, T_other]``.
        mode: how the tokens meet; see :data:`TokenMode`.
        skip_header: with ``aligned_right``, how many tokens at the start of the shorter prompt have no partner.

    Returns:
        Self and other activations ``[B, P, units]`` and the mask ``[B, P]`` of the positions that count, as
        :func:`soo_marl.overlap.overlap` and :func:`soo_marl.overlap.overlap_loss` take them.

    Raises:
        ValueError: the mode is unknown, masks or activations do not fit, a row has no real token or real tokens apart
            from each other, the header leaves a pair without tokens, or (``full``) the lengths differ.
    """
    if mode not in get_args(TokenMode):
        raise ValueError(f"the token mode must be one of {', '.join(get_args(TokenMode))}, not {mode!r}")
    if skip_header < 0 or (skip_header and mode != "aligned_right"):
        raise ValueError("skip_header must be at least 0, and above 0 only with the token mode aligned_right")
    self_start, self_end = token_span(self_mask)
    other_start, other_end = token_span(other_mask)
    if len(self_mask) != len(other_mask):
        raise ValueError(f"self and other need one prompt per pair, not {len(self_mask)} and {len(other_mask)}")
    _check(self_activations, self_mask)
    _check(other_activations, other_mask)

    if mode == "full":
        if self_mask.shape != other_mask.shape:
            raise ValueError(
                f"the token mode full needs one length for self and other, not {self_mask.shape[1]} and "
                f"{other_mask.shape[1]}: pad both with repadded() before the forward pass"
            )
        return dict(self_activations), dict(other_activations), torch.ones_like(self_mask, dtype=torch.bool)
    if mode == "mean":
        means = (_means(self_activations, self_mask), _means(other_activations, other_mask))
        return *means, self_mask.new_ones((len(self_mask), 1), dtype=torch.bool)

    self_end, other_end = self_end.to(self_start.device), other_end.to(self_start.device)
    other_start = other_start.to(self_start.device)
    common = torch.minimum(self_end - self_start, other_end - other_start)
    if mode == "last":
        common = torch.ones_like(common)
    else:
        common = common - skip_header
        if (common < 1).any():
            raise ValueError(
                f"a header of {skip_header} tokens leaves pair {int(common.argmin())} of the batch without common "
                f"tokens: skip at most {skip_header + int(common.min()) - 1}"
            )
    from_left = mode == "full_masked"
    self_first = self_start if from_left else self_end - common
    other_first = other_start if from_left else other_end - common
    steps = torch.arange(int(common.max()), device=common.device)
    return (
        _picked(self_activations, self_first.unsqueeze(1) + steps),
        _picked(other_activations, other_first.unsqueeze(1) + steps),
        steps < common.unsqueeze(1),
    )


def token_span(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Columns where each row's real tokens begin and end, of a mask ``[B, T]`` that is true for these.

    Returns:
        First column and one past the last, ``[B]`` each.

    Raises:
        ValueError: the mask is not ``[B, T]`` with at least one row, or a row has no real token or gaps.
    """
    if mask.ndim != 2 or not len(mask):
        raise ValueError(f"a token mask must be [prompts, tokens] with at least one prompt, not {tuple(mask.shape)}")
    real = mask.to(torch.bool)
    count = real.sum(1)
    if (count == 0).any():
        raise ValueError(f"prompt {int(count.argmin())} of the batch has no real token: leave it out")
    start = real.int().argmax(1)
    end = real.shape[1] - real.int().flip(1).argmax(1)
    if (end - start != count).any():
        raise ValueError("padding must stand before or after a prompt's tokens, not between them")
    return start, end


def longest(batch: TokenBatch) -> int:
    """Real tokens of the longest prompt of a batch; raises as :func:`token_span`."""
    start, end = token_span(batch.attention_mask)
    return int((end - start).max())


def repadded(batch: TokenBatch, length: int, side: Side, pad_token: int) -> TokenBatch:
    """The same prompts ``[B, length]``, padded with a token on one side, wherever their padding was.

    Raises:
        ValueError: a prompt has more tokens than ``length``, or the mask is unfit as for :func:`token_span`.
    """
    start, end = token_span(batch.attention_mask)
    if longest(batch) > length:
        raise ValueError(f"a prompt has {longest(batch)} tokens, more than the {length} to pad to: raise the length")
    first = length - (end - start) if side == "left" else torch.zeros_like(start)
    columns = torch.arange(length, device=start.device)
    real = (columns >= first.unsqueeze(1)) & (columns < (first + end - start).unsqueeze(1))
    source = (columns - first.unsqueeze(1) + start.unsqueeze(1)).clamp(0, batch.input_ids.shape[1] - 1)
    return TokenBatch(torch.where(real, batch.input_ids.gather(1, source), pad_token), real)


def _check(activations: Mapping[str, Tensor], mask: Tensor) -> None:
    for name, layer in activations.items():
        if layer.ndim != 3 or layer.shape[:2] != mask.shape:
            raise ValueError(
                f"layer {name!r} must give [prompts, tokens, units] for a mask {tuple(mask.shape)}, "
                f"not {tuple(layer.shape)}: record a layer that keeps the tokens apart"
            )


def _picked(activations: Mapping[str, Tensor], columns: Tensor) -> dict[str, Tensor]:
    picked = {}
    for name, layer in activations.items():
        # Behind a shorter pair's end any column does; the mask leaves it out.
        index = columns.to(layer.device).clamp(max=layer.shape[1] - 1).unsqueeze(-1)
        picked[name] = layer.gather(1, index.expand(-1, -1, layer.shape[-1]))
    return picked


def _means(activations: Mapping[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
    means = {}
    for name, layer in activations.items():
        real = mask.to(device=layer.device, dtype=torch.bool).unsqueeze(-1)
        # Selecting, not multiplying: padding may hold NaN. A sum of many half-precision numbers needs float32.
        wide = layer.float() if layer.dtype in (torch.float16, torch.bfloat16) else layer
        means[name] = torch.where(real, wide, 0.0).sum(1, keepdim=True) / real.sum(1, keepdim=True)
    return means
