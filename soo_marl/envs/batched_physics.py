"""The particle physics of mpe2 for any number of worlds at once.

Inside, worlds lie in planes ``[bodies, 2, R, E]``: one contiguous stretch of memory holds the same number of all
worlds, which is what makes the arithmetic fast. What goes in and out lies per world, ``[R, E, ...]``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from gymnasium.error import ResetNeeded
from torch import Tensor
from torch.nn.functional import softplus

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

    @classmethod
    def of_planes(cls, observations: Sequence[Tensor], rewards: Tensor, truncated: bool) -> BatchedStep:
        """Copies of planes ``[..., R, E]``, in a game whose episodes never terminate."""
        terminated = torch.zeros(rewards.shape[-2:], dtype=torch.bool, device=rewards.device)
        return cls(tuple(as_rows(own) for own in observations), as_rows(rewards), terminated, truncated)


def as_planes(points: Tensor) -> Tensor:
    """Points of every world ``[R, E, n, 2]`` as contiguous planes ``[n, 2, R, E]``."""
    return points.permute(2, 3, 0, 1).contiguous()


def as_points(planes: Tensor) -> Tensor:
    """A contiguous copy ``[R, E, n, 2]`` of planes ``[n, 2, R, E]``."""
    return planes.permute(2, 3, 0, 1).clone(memory_format=torch.contiguous_format)


def as_rows(planes: Tensor) -> Tensor:
    """A contiguous copy of planes ``[..., R, E]`` with all numbers of a world in one row, ``[R, E, numbers]``."""
    return planes.flatten(0, -3).movedim(0, -1).clone(memory_format=torch.contiguous_format)


def stack_actions(actions: Sequence[Tensor], shape: tuple[int, int], sizes: Sequence[int], like: Tensor) -> Tensor:
    """A copy of actions per body ``[R, E, size]`` as ``[bodies, R, E, size]``, in the dtype of ``like``.

    Raises:
        ValueError: an action is missing, of another shape or not finite.
    """
    found, expected = [tuple(action.shape) for action in actions], [(*shape, size) for size in sizes]
    if found != expected:
        raise ValueError(f"actions must be one tensor per agent of shapes {expected}, not {found}")
    stacked = torch.stack(tuple(actions)).to(like.dtype)
    # A sum of finite numbers is finite, unless it overflows: one pass over them in nearly all cases.
    if not math.isfinite(float(stacked.sum())) and not bool(stacked.isfinite().all()):
        body, run, world = (~stacked.isfinite()).nonzero()[0, :3].tolist()
        raise ValueError(f"actions must be finite numbers, but that of agent {body} in run {run}, world {world} is not")
    return stacked


def refuse_after_end(steps: int, episode_length: int) -> None:
    """Raise gymnasium.error.ResetNeeded where an episode has been played to its end."""
    if steps >= episode_length:
        raise ResetNeeded(f"the episodes ended after {episode_length} steps: call reset() before step()")


def push(actions: Tensor, continuous: bool) -> Tensor:
    """Directions ``[bodies, 2, R, E]`` in which actions push, of length 1 along an axis for a full push.

    Args:
        actions: forces ``[bodies, R, E, 2]``, clipped in place to [-1, 1]; or weights ``[bodies, R, E, 5]`` (one-hot or
            relaxed) of stay, left, right, down, up.
        continuous: which of both.
    """
    direction = actions.clamp_(-1.0, 1.0) if continuous else actions[..., 2::2] - actions[..., 1::2]
    return direction.movedim(-1, 1)


def wall_force(position: Tensor, distance: float, stiffness: float, margin: float) -> Tensor:
    """Force of walls at -1 and 1 on bodies at ``position``, any shape, that touch them at ``distance``.

    The contact is mpe2's: stiffness times a softplus of the penetration, which ``margin`` softens.
    """
    touching = 1.0 - distance
    penetration = position.abs().sub_(touching)
    contact = softplus(penetration, beta=1.0 / margin)
    # The far wall is felt only where a body reaches it too; this many margins away, the softplus is below 1e-21.
    if touching < 50.0 * margin:
        contact -= softplus(-2.0 * touching - penetration, beta=1.0 / margin)
    return contact.copysign_(position).mul_(-stiffness)


def accelerate(velocity: Tensor, force: Tensor, dt: float, damping: float) -> Tensor:
    """Velocities of bodies of mass 1 after a step of duration ``dt``, in which they lose the share ``damping``."""
    return (velocity * (1.0 - damping)).add_(force, alpha=dt)


def limit_speed(velocity: Tensor, limit: float | Tensor) -> None:
    """Shorten velocities ``[2, ...]`` in place to at most ``limit``, one for all or one for each ``[...]``, above 0."""
    excess = torch.hypot(*velocity.unbind()).div_(limit)
    velocity.div_(excess.clamp_(min=1.0))


def move(position: Tensor, before: Tensor, after: Tensor, dt: float, order: IntegrationOrder) -> Tensor:
    """Positions after a step that turned velocities ``before`` into ``after``.

    ``mpe2`` moves with the old velocity, so that an action shows one step later; ``classic`` (OpenAI's MPE) with the
    new one.
    """
    return position.add(after if order == "classic" else before, alpha=dt)


def stored(state: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """A contiguous copy of one entry of a stored state, with the dtype and on the device of ``like``.

    Raises:
        KeyError: there is no such entry.
        ValueError: it is of another shape.
    """
    if state[name].shape != like.shape:
        raise ValueError(f"the stored {name} has shape {list(state[name].shape)}, these worlds {list(like.shape)}")
    return torch.empty(like.shape, dtype=like.dtype, device=like.device).copy_(state[name])


def stored_index(state: Mapping[str, Tensor], name: str, like: Tensor, below: int) -> Tensor:
    """The same for an entry that holds indices from 0 to ``below`` - 1; ValueError where it holds anything else."""
    index = stored(state, name, like)
    if not bool(((index >= 0) & (index < below)).all()):
        raise ValueError(f"the stored {name} must hold indices from 0 to {below - 1} only")
    return index
