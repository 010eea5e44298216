"""Actors, batches and plain loops that losses are held against."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soo_marl.agents.networks import StackedMLP
from soo_marl.agents.replay import Transitions
from soo_marl.envs.observations import (
    BLUE,
    RED,
    imagined_red,
    perspective,
)
from soo_marl.random_streams import RandomStreams
from soo_marl.studies.finetuning.methods import (
    Sources,
    goal_difference,
    perturbation,
    position_goal_difference,
    position_state_difference,
    position_tie,
    self_other_overlap,
    shuffled_pairs,
    state_difference,
)

Array = NDArray[np.float64]

SIGHT = 0.35
SEEDS = (4, 11)
ROWS = 12
SIZES = (BLUE.size, BLUE.size + 1)
LAYERS = ("hidden_1", "hidden_2")
TIES = {
    "soo": self_other_overlap,
    "perturbation": perturbation,
    "shuffled": shuffled_pairs,
    "position_tie": position_tie,
    "goal_difference": goal_difference,
    "state_difference": state_difference,
    "position_goal_difference": position_goal_difference,
    "position_state_difference": position_state_difference,
}
"""The losses between activations."""

PAIRINGS = {
    "imagined_red": imagined_red(SIGHT),
    "imagined_red, flag zeroed": imagined_red(SIGHT, zero_flag=True),
    "perspective": perspective(),
}


def make_actor(seeds: Sequence[int] = SEEDS, size: int = BLUE.size, stream: str = "actor") -> StackedMLP:
    """Small networks that act strongly."""
    scale = [1.0] * size
    scale[BLUE.red_position] = [1.0 / SIGHT] * 2
    return StackedMLP(
        size,
        2,
        hidden_units=6,
        activation="relu",
        random=RandomStreams(seeds, stream),
        input_scale=scale,
    )


def make_batch(seeds: Sequence[int] = SEEDS, size: int = BLUE.size, draw: int = 0, actions: int = 2) -> Transitions:
    """Blue does not see red in every second row, red is trapped in every third, and absent in the last."""
    random = RandomStreams(seeds, f"batch/{draw}")

    def observations() -> tuple[Tensor, Tensor]:
        red, blue = random.uniform(ROWS, RED.size) * 2 - 1, random.uniform(ROWS, size) * 2 - 1
        # Goal is one of the landmarks.
        blue[:, :, BLUE.goal] = blue[:, :, BLUE.landmark_0]
        blue[:, 1::3, BLUE.goal] = blue[:, 1::3, BLUE.landmark_1]
        blue[..., BLUE.red_position] *= 0.3
        blue[..., BLUE.visible] = 1.0
        blue[:, ::2, BLUE.red_position] = 0.0
        blue[:, ::2, BLUE.visible] = 0.0
        blue[..., BLUE.trapped] = 0.0
        blue[:, ::3, BLUE.trapped] = 1.0
        red[:, -1] = 0.0
        return red, blue

    return Transitions(
        observations=observations(),
        actions=tuple(torch.tanh(random.normal(ROWS, actions)) for _ in range(2)),
        rewards=random.normal(ROWS, 2),
        next_observations=observations(),
        terminated=torch.zeros(len(seeds), ROWS),
        context=random.integers(2, ROWS),
        next_context=random.integers(2, ROWS),
    )


def make_sources(seeds: Sequence[int] = SEEDS, size: int = BLUE.size, **changes: Any) -> Sources:
    fields: dict[str, Any] = {
        "initial": make_actor(seeds, size, "initial").requires_grad_(False),
        "pairing": imagined_red(SIGHT),
        "sight_radius": SIGHT,
        "layers": LAYERS,
        "towards_initial": False,
        "untrapped_only": False,
        "discrete": False,
        "random": RandomStreams(seeds, "loss"),
    }
    return Sources(**(fields | changes))


def rewound(sources: Sources) -> Sources:
    """The same, about to draw the same numbers."""
    return replace(sources, random=RandomStreams(sources.random.seeds, sources.random.name))


def hidden(actor: StackedMLP, run: int, observation: Array, layers: Sequence[str] = LAYERS) -> Array:
    """Activations of one observation, by the definition of a network."""
    values = observation * actor.input_scale[run, 0].double().numpy()
    found = []
    for name in LAYERS:
        linear = getattr(actor, name).linear
        weight, bias = (part[run].detach().double().numpy() for part in (linear.weight, linear.bias))
        values = np.maximum(weight @ values + bias[0], 0.0)
        if name in layers:
            found.append(values)
    return np.concatenate(found)


def action(actor: StackedMLP, run: int, observation: Array) -> Array:
    weight, bias = (part[run].detach().double().numpy() for part in (actor.output.weight, actor.output.bias))
    output: Array = weight @ hidden(actor, run, observation, LAYERS[1:]) + bias[0]
    return output


Quadruple = tuple[Array, Array, Array, Array]


def reference(
    rows: Callable[[int, int], Quadruple | tuple[Array, Array] | None], sources: Sources, actor: StackedMLP, runs: int
) -> list[float]:
    """Mean over rows of what is tied: two activations, or two differences of activations.

    Args:
        rows: for a run and a row the observations ``(first, second)`` or ``(first, its partner, second, its partner)``;
            None where the row does not count.
    """

    def feature(network: StackedMLP, run: int, observations: Sequence[Array]) -> Array:
        one, *other = (hidden(network, run, observation, sources.layers) for observation in observations)
        return one - other[0] if other else one

    values = []
    for run in range(runs):
        errors = []
        for row in range(ROWS):
            given = rows(run, row)
            if given is None:
                continue
            half = len(given) // 2
            sides = [feature(actor, run, given[:half]), feature(actor, run, given[half:])]
            if sources.towards_initial:
                target = feature(sources.initial, run, given[:half])
                errors.append(np.mean([np.mean((target - side) ** 2) for side in sides]))
            else:
                errors.append(np.mean((sides[0] - sides[1]) ** 2))
        values.append(float(np.mean(errors)) if errors else 0.0)
    return values


def numpy(values: Tensor) -> Array:
    return values.detach().double().numpy()


def shown(actor: StackedMLP, call: Callable[[], object]) -> list[Tensor]:
    """What a network is given while something is done."""
    given: list[Tensor] = []
    handle = actor.register_forward_pre_hook(lambda module, arguments: given.append(arguments[0].detach().clone()))
    try:
        call()
    finally:
        handle.remove()
    return given


VARIANTS = [
    {},
    {"untrapped_only": True},
    {"towards_initial": True},
    {"layers": ("hidden_2",)},
    {"layers": ("hidden_1",), "untrapped_only": True, "towards_initial": True},
]


def gradients(loss: Tensor, actor: StackedMLP) -> list[Tensor]:
    """Per parameter ``[R, ...]``, zeros where the loss does not reach."""
    parameters = list(actor.parameters())
    found = torch.autograd.grad(loss.sum(), parameters, allow_unused=True)
    return [
        torch.zeros_like(parameter) if gradient is None else gradient
        for parameter, gradient in zip(parameters, found, strict=True)
    ]


def flat(values: Sequence[Tensor]) -> Tensor:
    """One vector per run ``[R, P]``."""
    return torch.cat([value.flatten(1) for value in values], dim=1)


def order_of(sources: Sources, pairing_draws: int) -> list[list[int]]:
    """The order in which a loss shuffles rows, after what its pairing draws."""
    random = rewound(sources).random
    random.counter = pairing_draws
    return [[int(index) for index in order] for order in random.uniform(ROWS).argsort(dim=1)]
