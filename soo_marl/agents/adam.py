"""Adam for stacks of independent runs, on all parameters of a network at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

_FIRST_DECAY, _SECOND_DECAY, _EPSILON = 0.9, 0.999, 1e-8


class StackedAdam:
    """Adam (Kingma and Ba 2015, Algorithm 1) with torch's default settings, and each run's gradient clipped by itself.

    The network's parameters become views of one tensor, and so do their gradients: whoever computes gradients writes
    them into ``parameter.grad``. For networks this small torch's own optimiser takes longer to find its way through
    lists of parameters than to compute.

    Args:
        network: its parameters have a leading axis of ``R`` runs.
        learning_rate: step size.
        largest_norm: a run's gradient is scaled down to this norm.
        clip_scope: whether that norm is taken over the whole network or over each parameter alone.
    """

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float,
        largest_norm: float,
        clip_scope: Literal["network", "tensor"] = "network",
    ) -> None:
        parameters = list(network.parameters())
        self.parameters = share_storage(network)
        """``[R, P]``."""
        self.gradient = torch.zeros_like(self.parameters)
        """``[R, P]``."""
        for parameter, view in zip(parameters, views_of(self.gradient, parameters), strict=True):
            parameter.grad = view
        self.learning_rate = learning_rate
        self.largest_norm = largest_norm
        self._clipped = [self.gradient] if clip_scope == "network" else views_of(self.gradient, parameters)
        self.first_moment = torch.zeros_like(self.parameters)
        self.second_moment = torch.zeros_like(self.parameters)
        self.steps = 0
        """Steps taken so far."""

    @torch.no_grad()
    def step(self, frozen: Tensor | None = None) -> None:
        """Clip the gradient, then take one step.

        Args:
            frozen: runs ``[R]`` bool whose parameters stay as they are.
        """
        if frozen is not None:
            # Without gradient and moments Adam's step is zero, whatever numbers the run had come to.
            for tensor in (self.gradient, self.first_moment, self.second_moment):
                tensor[frozen] = 0.0
        clip_per_run(self._clipped, self.largest_norm)
        self.steps += 1
        self.first_moment.lerp_(self.gradient, 1.0 - _FIRST_DECAY)
        self.second_moment.mul_(_SECOND_DECAY).addcmul_(self.gradient, self.gradient, value=1.0 - _SECOND_DECAY)
        unbiased = self.second_moment / (1.0 - _SECOND_DECAY**self.steps)
        step_size = self.learning_rate / (1.0 - _FIRST_DECAY**self.steps)
        self.parameters.addcdiv_(self.first_moment, unbiased.sqrt_().add_(_EPSILON), value=-step_size)

    def state(self) -> dict[str, Tensor]:
        """Return copies of everything that changes but the parameters."""
        return {
            "first_moment": self.first_moment.clone(),
            "second_moment": self.second_moment.clone(),
            "steps": torch.tensor(self.steps),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned.

        Raises:
            KeyError, RuntimeError: the state is of another network.
        """
        self.first_moment.copy_(state["first_moment"])
        self.second_moment.copy_(state["second_moment"])
        self.steps = int(state["steps"])


def share_storage(network: nn.Module) -> Tensor:
    """Move all parameters ``[R, ...]`` of a network into one tensor ``[R, P]``, of which they become views.

    What is done to all parameters alike (Adam, clipping, soft updates) is then done once, not once per parameter.
    """
    parameters = list(network.parameters())
    shared = torch.cat([parameter.detach().flatten(1) for parameter in parameters], dim=1)
    for parameter, view in zip(parameters, views_of(shared, parameters), strict=True):
        parameter.data = view
    return shared


def views_of(shared: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Cut ``[R, P]`` into views with the shapes of the given tensors ``[R, ...]``, in order."""
    parts = torch.split(shared, [tensor[0].numel() for tensor in like], dim=1)
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]


def clip_per_run(gradients: list[Tensor], largest: float) -> None:
    """Scale down in place each gradient ``[R, ...]`` of each run whose norm exceeds ``largest``."""
    for gradient in gradients:
        norm = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
        factor = (largest / (norm + 1e-6)).clamp_(max=1.0)
        gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))
