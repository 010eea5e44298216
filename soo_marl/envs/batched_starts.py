"""What only some games draw at the start of an episode, for any number of worlds at once, in planes ``[..., R, E]``."""

from __future__ import annotations

import torch
from torch import Tensor


def second_landmark(first: Tensor, candidates: Tensor, separation: float, edge: float) -> Tensor:
    """The first of several candidates that is far enough from the first landmark.

    Where none is, it is the corner of the start square that is farthest from the first landmark. Every world uses the
    same number of random numbers so, whatever comes of them.

    Args:
        first: position of the first landmark, plane ``[2, R, E]``.
        candidates: uniform positions for the second one, planes ``[n, 2, R, E]``.
        separation: least distance between the landmarks, less than half the diagonal of the start square.
        edge: half the side of the start square.

    Returns:
        Plane ``[2, R, E]``.
    """
    edges = torch.full_like(first, edge)
    corner = torch.where(first > 0.0, -edges, edges)
    choices = torch.cat((candidates, corner[None]))
    apart = torch.hypot(*(choices - first).unbind(dim=1)) >= separation
    # The corner is far enough whatever rounding says; argmax gives the first of several.
    apart[-1] = True
    index = apart.to(torch.uint8).argmax(dim=0)
    return choices.gather(0, index.expand(1, 2, *index.shape))[0]


def pause_schedule(uniform: Tensor, chance: float, steps: tuple[int, int]) -> Tensor:
    """In which steps of an episode red pauses.

    One number per step decides both whether a pause would begin there (it is below ``chance``) and, since what is
    below ``chance`` is uniform again, how long it would be. Begins within another pause do not count.

    Args:
        uniform: numbers in [0, 1), planes ``[T, R, E]``.
        chance: above 0, that a pause begins in a step, while there is none.
        steps: fewest and most steps of a pause.

    Returns:
        bool ``[T, R, E]``.
    """
    fewest, most = steps
    extra = (uniform / chance * (most - fewest + 1)).floor_().clamp_(max=most - fewest)
    length = torch.where(uniform < chance, extra + fewest, 0.0).to(torch.int32)
    number = torch.arange(len(uniform), dtype=torch.int32, device=uniform.device)[:, None, None]
    end, present = number + length, torch.zeros_like(length[0])
    for step in range(len(uniform)):
        # Without a pause, the end is the step itself.
        present = torch.where(present <= step, end[step], present)
        end[step] = present
    return end > number
