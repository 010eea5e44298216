"""What several processes that train one adapter together have to do in common, as the training loop calls it.

:data:`ALONE` does nothing. :mod:`soo_marl.llm.study.distributed` has the processes that accelerate starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Processes(Protocol):
    """This process among those that train one adapter."""

    @property
    def number(self) -> int:
        """Its number, from 0."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def whole_forward(self) -> bool:
        """Whether a forward pass must run to its end."""

    def spread(self, model: nn.Module, learning_rate: float, weight_decay: float) -> None:
        """Spread the weights over the processes, as far as they are to be; called before the first forward pass."""

    def optimiser(self, weights: Sequence[nn.Parameter], learning_rate: float, weight_decay: float) -> Any:
        """The optimiser of the weights that are trained, as they are after :meth:`spread`."""

    def backward(self, loss: Tensor) -> None:
        """Differentiate this process's part of the loss."""

    def total(self, loss: float, weights: Sequence[nn.Parameter]) -> float:
        """The sum of all processes' losses; every weight's gradient, or this process's part of it, is then the sum."""


class Alone:
    """One process, which holds the whole model."""

    number = 0
    count = 1
    whole_forward = False

    def spread(self, model: nn.Module, learning_rate: float, weight_decay: float) -> None:
        """Leave the weights where they are."""

    def optimiser(self, weights: Sequence[nn.Parameter], learning_rate: float, weight_decay: float) -> Any:
        """AdamW."""
        return torch.optim.AdamW(weights, lr=learning_rate, weight_decay=weight_decay)

    def backward(self, loss: Tensor) -> None:
        """Differentiate the loss."""
        loss.backward()  # type: ignore[no-untyped-call]

    def total(self, loss: float, weights: Sequence[nn.Parameter]) -> float:
        """The loss itself."""
        return loss


ALONE = Alone()
"""This process alone."""
