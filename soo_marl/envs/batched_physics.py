"""The particle physics of mpe2 for any number of bodies at once, as tensors ``[..., bodies, 2]``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from soo_marl.envs.configuration import IntegrationOrder


@dataclass(frozen=True)
class BatchedStep:
    """What one step of a batch of worlds returns, with leading axes ``[R, E]``."""

    observations: tuple[Tensor, ...]
    """Per agent ``[R, E, observation size]``: the true next observation, also at the end of an episode."""
    rewards: Tensor
    """``[R, E, agents]``."""
    terminated: Tensor
    """``[R, E]`` bool."""
    truncated: bool
    """The episode's time is over, in all worlds at once; call ``reset`` next."""


def stack_actions(actions: Sequence[Tensor], shape: tuple[int, int], sizes: Sequence[int], like: Tensor) -> Tensor:
    """Actions ``[R, E, bodies, size]`` of actions per body ``[R, E, size]``, in the dtype of ``like``.

    Raises:
        ValueError: an action is missing or of another shape.
    """
    found, expected = [tuple(action.shape) for action in actions], [(*shape, size) for size in sizes]
    if found != expected:
        raise ValueError(f"actions must be one tensor per agent of shapes {expected}, not {found}")
    return torch.stack(tuple(actions), dim=2).to(like.dtype)


def push(actions: Tensor, continuous: bool, force: float) -> Tensor:
    """Forces ``[..., 2]`` of actions.

    Args:
        actions: forces ``[..., 2]``, clipped to [-1, 1]; or weights ``[..., 5]`` (one-hot or relaxed) of stay, left,
            right, down, up.
        continuous: which of both.
        force: the force of a full action.
    """
    if continuous:
        return actions.clamp(-1.0, 1.0) * force
    return torch.stack((actions[..., 2] - actions[..., 1], actions[..., 4] - actions[..., 3]), dim=-1) * force


def wall_force(position: Tensor, distance: float, stiffness: float, margin: float) -> Tensor:
    """Force ``[..., 2]`` of walls at -1 and 1 on bodies at ``position`` that touch them at ``distance``.

    The contact is mpe2's: stiffness times a softplus of the penetration, which ``margin`` softens.
    """
    inward = torch.stack((1.0 + position, 1.0 - position))
    from_low, from_high = torch.nn.functional.softplus((distance - inward) / margin).unbind()
    return (from_low - from_high) * (margin * stiffness)


def integrate(
    position: Tensor,
    velocity: Tensor,
    force: Tensor,
    *,
    dt: float,
    damping: float,
    order: IntegrationOrder,
    speed_limit: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Advance bodies of mass 1 by one step and return their new positions and velocities.

    ``mpe2`` moves with the old velocity, so that an action shows one step later; ``classic`` (OpenAI's MPE) with the
    new one.

    Args:
        position, velocity, force: ``[..., bodies, 2]``; world units, and units of time in which a step lasts ``dt``.
        dt: duration of the step.
        damping: share of the velocity lost in the step.
        order: which velocity moves the bodies.
        speed_limit: ``[..., bodies]``, infinite for none.
    """
    if order == "mpe2":
        position = position + velocity * dt
    velocity = velocity * (1.0 - damping) + force * dt
    if speed_limit is not None:
        speed = torch.linalg.vector_norm(velocity, dim=-1)
        velocity = velocity * torch.where(speed > speed_limit, speed_limit / speed, 1.0)[..., None]
    if order == "classic":
        position = position + velocity * dt
    return position, velocity


def stored(state: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """A copy of one entry of a stored state, with the dtype and on the device of ``like``.

    Raises:
        KeyError: there is no such entry.
        ValueError: it is of another shape.
    """
    if state[name].shape != like.shape:
        raise ValueError(f"the stored {name} has shape {list(state[name].shape)}, these worlds {list(like.shape)}")
    return torch.empty_like(like).copy_(state[name])
