"""The self-other overlap of prompt pairs as a training loss for a language model.

Two losses go by the name. In the paper (Carauleanu et al. 2024, arXiv 2412.16325) it is the mean squared difference of
self and other activations at one attention block's output projection: ``mse_hidden``. The public code of the paper
(agencyenterprise/SOO-Honest-AI) compares the output logits instead: ``kl_logits``. With ``P`` the next-token
distributions, ``F.kl_div(log_softmax(self), softmax(other), "batchmean")`` as that code calls it is

    sum over all positions, padding included, of KL(P_other || P_self) / number of pairs

so it grows with the padded length. A result names which of the two it used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax, pad, softmax

from soo_marl.llm.model.alignment import Side, TokenBatch, TokenMode, align, longest, repadded, token_span
from soo_marl.llm.model.layers import DEFAULT_SITE, evaluating, layer_outputs, matching_layers
from soo_marl.overlap import overlap_loss

_LOGITS = "logits"  # the name under which ``kl_logits`` has its outputs, in place of a layer's


class LossConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of the overlap loss; the defaults are the paper's for Mistral where it states them."""

    kind: Literal["mse_hidden", "kl_logits"] = Field(
        "mse_hidden", description="Squared error of hidden activations (paper), or KL between logits (its public code)."
    )
    layers: int | str | tuple[int | str, ...] = Field(
        19, description="Decoder layers: a number, numbers, a range such as '8-20', module names or a pattern."
    )
    site: str = Field(DEFAULT_SITE, description="Module within a numbered layer; '' is the residual stream.")
    token_mode: TokenMode = Field("full_masked", description="Which tokens of the two prompts meet.")
    skip_header: int = Field(
        0, ge=0, description="With aligned_right: tokens at the start of the shorter prompt to leave out."
    )
    sides: Literal["both", "other_to_self", "initial_self"] = Field(
        "both",
        description="Whose activations move: both; the other's alone, towards the self's of the moment; or towards "
        "those of self before training.",
    )
    normalise_by_initial: bool = Field(
        False, description="Divide each layer's loss by its value before training, so that layers weigh the same."
    )
    stop_early: bool = Field(True, description="Cut the forward pass off behind the last layer that is recorded.")
    padding_side: Side = Field("right", description="Token mode full: where both prompts are padded to one length.")
    padded_length: int | None = Field(
        None, ge=1, description="Token mode full: that length in tokens (public code: 128); None: the longest prompt's."
    )
    pad_token: int | None = Field(
        None, ge=0, description="Token mode full: id of the padding; None: the model's, else its end token, else 0."
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.kind == "kl_logits" and self.token_mode != "full":
            raise ValueError("kl_logits compares all positions, padding included: set token_mode to full")
        if self.skip_header and self.token_mode != "aligned_right":
            raise ValueError("skip_header works only with token_mode aligned_right")
        if self.sides == "initial_self" and self.token_mode == "full" and self.padded_length is None:
            raise ValueError("initial_self with token_mode full compares stored columns: set padded_length")
        return self


@dataclass(frozen=True, eq=False)
class FrozenTargets:
    """Activations of self prompts from before training, by layer; rows are prompts."""

    activations: Mapping[str, Tensor]
    """Layer name to ``[N, T, units]``, detached."""
    mask: Tensor
    """``[N, T]``, bool, true for real tokens."""

    def rows(self, indices: Sequence[int] | Tensor) -> FrozenTargets:
        """The targets of some of the prompts, in the order given: those of one shuffled batch."""
        chosen = torch.as_tensor(indices, dtype=torch.long)
        activations = {name: layer[chosen.to(layer.device)] for name, layer in self.activations.items()}
        return FrozenTargets(activations, self.mask[chosen.to(self.mask.device)])


class LanguageOverlapLoss:
    """The overlap loss of a batch of prompt pairs. ::

    loss = LanguageOverlapLoss(LossConfig(layers="8-20", token_mode="aligned_right"))
    loss(model, self_batch, other_batch).backward()
    """

    def __init__(self, config: LossConfig) -> None:
        self.config = config
        self.initial: dict[str, float] | None = None
        """Each layer's value before training, once :meth:`measure_initial` found it."""

    def __call__(
        self,
        model: nn.Module,
        self_batch: TokenBatch,
        other_batch: TokenBatch,
        targets: FrozenTargets | None = None,
        columns: int | None = None,
    ) -> Tensor:
        """The loss of a batch, a scalar with its graph: the mean over layers, computed in float32.

        Args:
            model: a causal language model, bare or wrapped by PEFT, in the mode it is to be trained in.
            self_batch: self prompts, ids and mask ``[B, T_self]``, on the model's device.
            other_batch: other prompts ``[B, T_other]``, row by row the partners of the self prompts.
            targets: with the sides ``initial_self``, the rows' :meth:`frozen_targets`.
            columns: token mode full without a ``padded_length``: the length to which both sides are padded, where these
                are some rows of a larger batch; by default the longest prompt's.

        Raises:
            ValueError: layers, batches or targets do not fit, targets or initial values are needed and missing, or the
                model uses reentrant gradient checkpointing.
        """
        raw = self._compared(*self._sides(model, self_batch, other_batch, targets, columns))
        if self.config.normalise_by_initial:
            if self.initial is None or set(self.initial) != set(raw):
                raise ValueError("normalise_by_initial needs each layer's value before training: measure_initial()")
            raw = {name: value / self.initial[name] for name, value in raw.items()}
        first = next(iter(raw.values()))
        return torch.stack([value.to(first.device) for value in raw.values()]).mean()

    def measure_initial(
        self, model: nn.Module, pairs: Iterable[tuple[TokenBatch, TokenBatch]], targets: FrozenTargets | None = None
    ) -> dict[str, float]:
        """Measure and keep each layer's value before training: the mean over pairs, however they are batched.

        Dropout is off meanwhile. With the sides ``initial_self``, targets are the :meth:`frozen_targets` of all self
        prompts in that order. Raises ValueError: there is no batch, a layer's value is 0, or as for a call.
        """
        sums: dict[str, float] = {}
        count = 0
        with evaluating(model), torch.no_grad():
            for self_batch, other_batch in pairs:
                size = len(self_batch.input_ids)
                rows = None if targets is None else targets.rows(range(count, count + size))
                whole = self._sides(model, self_batch, other_batch, rows)
                for place in range(size):
                    for name, value in self._compared(*_row(whole, place)).items():
                        sums[name] = sums.get(name, 0.0) + float(value)
                count += size
        if not count:
            raise ValueError("give at least one batch of pairs to measure the initial loss on")
        self.initial = {name: total / count for name, total in sums.items()}
        for name, initial in self.initial.items():
            if not initial > 0:
                raise ValueError(
                    f"the loss at {name!r} is {initial} before training, so nothing can be divided by it: "
                    "turn normalise_by_initial off, or leave out this layer or pairs whose two prompts are equal"
                )
        return self.initial

    def frozen_targets(self, model: nn.Module, self_batches: Iterable[TokenBatch]) -> FrozenTargets:
        """What batches of self prompts give, dropout off, for ``initial_self``: called before training.

        Raises ValueError: there is no batch.
        """
        parts = []
        with evaluating(model), torch.no_grad():
            for batch in self_batches:
                padded = self._padded(model, batch)
                parts.append((self._outputs(model, padded), padded.attention_mask))
        if not parts:
            raise ValueError("give at least one batch of self prompts")
        length = max(mask.shape[1] for _, mask in parts)
        masks = [pad(mask, (0, length - mask.shape[1])) for _, mask in parts]
        activations = {
            name: torch.cat([pad(part[name], (0, 0, 0, length - part[name].shape[1])) for part, _ in parts])
            for name in parts[0][0]
        }
        return FrozenTargets(activations, torch.cat(masks))

    def positions(self, self_batch: TokenBatch, other_batch: TokenBatch) -> int:
        """Over how many positions the loss of a batch is the mean, up to a factor that is the same for every batch.

        With it the loss of a batch follows from those of its parts: their mean, weighted by their positions.
        """
        if self.config.token_mode not in ("full_masked", "aligned_right"):
            return len(self_batch.input_ids)
        lengths = [
            end - start for start, end in map(token_span, (self_batch.attention_mask, other_batch.attention_mask))
        ]
        return int((torch.minimum(*lengths) - self.config.skip_header).sum())

    def _sides(
        self,
        model: nn.Module,
        self_batch: TokenBatch,
        other_batch: TokenBatch,
        targets: FrozenTargets | None,
        columns: int | None = None,
    ) -> _Aligned:
        sides = self.config.sides
        if targets is not None and sides != "initial_self":
            raise ValueError(f"targets are used only with sides initial_self, not {sides}: leave them out")
        length = columns or max(longest(self_batch), longest(other_batch))
        self_batch, other_batch = (self._padded(model, batch, length) for batch in (self_batch, other_batch))
        if targets is not None:
            self_side, self_mask = dict(targets.activations), targets.mask
        elif sides == "initial_self":
            raise ValueError("sides initial_self needs the frozen_targets() computed before training")
        else:
            with torch.set_grad_enabled(torch.is_grad_enabled() and sides == "both"):
                self_side, self_mask = self._outputs(model, self_batch), self_batch.attention_mask
        other_side = self._outputs(model, other_batch)
        mode, header = self.config.token_mode, self.config.skip_header
        return align(self_side, other_side, self_mask, other_batch.attention_mask, mode, header)

    def _compared(self, self_side: dict[str, Tensor], other_side: dict[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
        if self.config.kind == "kl_logits":
            logits = log_softmax(self_side[_LOGITS].float(), dim=-1), softmax(other_side[_LOGITS].float(), dim=-1)
            return {_LOGITS: kl_div(*logits, reduction="batchmean")}
        if set(self_side) != set(other_side):
            raise ValueError(f"the targets are of {sorted(self_side)}, not of {sorted(other_side)}: compute them anew")
        core_sides: Literal["both", "other_to_self"] = "both" if self.config.sides == "both" else "other_to_self"
        return {
            name: overlap_loss(
                {name: self_side[name].to(layer.device)}, {name: layer}, mask.to(layer.device), sides=core_sides
            )
            for name, layer in other_side.items()
        }

    def _outputs(self, model: nn.Module, batch: TokenBatch) -> dict[str, Tensor]:
        if self.config.kind == "kl_logits":
            output: Any = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask.long(), use_cache=False)
            return {_LOGITS: output.logits}
        names = matching_layers(model, self.config.layers, self.config.site)
        return layer_outputs(model, names, batch, self.config.stop_early)

    def _padded(self, model: nn.Module, batch: TokenBatch, length: int | None = None) -> TokenBatch:
        if self.config.token_mode != "full":
            return batch
        columns = self.config.padded_length or length or batch.attention_mask.shape[1]
        pad_token = self.config.pad_token if self.config.pad_token is not None else padding_token(model)
        return repadded(batch, columns, self.config.padding_side, pad_token)


_Aligned = tuple[dict[str, Tensor], dict[str, Tensor], Tensor]
"""Activations of self and other by layer, ``[B, P, units]``, and the mask ``[B, P]`` of the positions that count."""


def _row(whole: _Aligned, place: int) -> _Aligned:
    """One pair of a batch."""
    self_side, other_side = ({name: layer[place : place + 1] for name, layer in side.items()} for side in whole[:2])
    return self_side, other_side, whole[2][place : place + 1]


def padding_token(model: nn.Module) -> int:
    """The id with which a model's prompts are padded: its padding token, else its end token, else 0.

    A token that the embedding does not have is none.
    """
    find: Any = getattr(model, "get_input_embeddings", None)
    known = range(len(find().weight)) if find is not None else range(1 << 31)
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    for name in ("pad_token_id", "eos_token_id"):
        token = getattr(text, name, None)
        if isinstance(token, list | tuple) and token:
            token = token[0]
        if isinstance(token, int) and token in known:
            return token
    return 0
