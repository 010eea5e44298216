"""The auxiliary losses of fine-tuning, one small function each, and the table of all methods.

A loss takes what it may use (:class:`Sources`), blue's actor and a minibatch, and returns one value per run ``[R]``,
before it is weighed. A new method is a function and a line in :data:`METHODS`.

In the equations ``h(o)`` are blue's hidden activations on observation ``o``, ``s`` is a self observation (blue sees no
red), ``s + p`` the other observation (the same with red at point ``p`` of the sight disc), and ``|.|^2`` a mean over
units, valid rows of the minibatch, and layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from soo_marl.agents.agent_networks import mean_action
from soo_marl.agents.networks import StackedMLP
from soo_marl.agents.replay import Transitions
from soo_marl.envs.configuration import PhysicalDeceptionConfig
from soo_marl.envs.observations import (
    BLUE,
    BLUE_AGENT,
    RED_AGENT,
    ObservationPairs,
    Pairing,
    every_red,
    every_red_moved,
    exchanged_goal,
    moved_red,
    red_unseen,
    untrapped,
    with_red,
    without_red,
)
from soo_marl.overlap import LOG_FLOOR, activations_of, overlap_loss
from soo_marl.random_streams import RandomStreams
from soo_marl.studies.learning.recipes import honest_game


@dataclass(frozen=True)
class Sources:
    """What a loss may use beside the actor and the minibatch."""

    initial: StackedMLP
    """Blue's actor before fine-tuning, which stays as it is."""
    pairing: Pairing
    """Makes other observations of self observations."""
    sight_radius: float
    """How far blue sees, world units."""
    layers: tuple[str, ...]
    """Layers whose activations are compared."""
    towards_initial: bool
    """Compare with the self activations of the initial actor, instead of tying both sides to each other."""
    untrapped_only: bool
    """Leave out observations that say that red is trapped."""
    discrete: bool
    """Actions are probabilities of moves instead of forces."""
    random: RandomStreams
    """Source of everything that a loss draws."""

    def pairs(self, batch: Transitions, pairing: Pairing | None = None) -> ObservationPairs:
        """Self and other observations ``[R, B, size]`` of a minibatch, valid where the loss counts them."""
        red, blue = batch.observations[RED_AGENT], batch.observations[BLUE_AGENT]
        pairs = (pairing or self.pairing)(red, blue, self.random)
        valid = pairs.valid & untrapped(blue) if self.untrapped_only else pairs.valid
        return ObservationPairs(pairs.self_observation, pairs.other_observation, valid)

    def action(self, actor: StackedMLP, blue: Tensor) -> Tensor:
        """What an actor does ``[R, B, size]``: forces, or probabilities of moves."""
        return mean_action(actor(blue), self.discrete)

    def shuffle(self, values: Tensor) -> Tensor:
        """Rows of ``[R, B, ...]`` in an order drawn anew for each run."""
        order = self.random.uniform(values.shape[1]).argsort(dim=1)
        index = order.view(*order.shape, *[1] * (values.ndim - 2)).expand_as(values)
        return values.gather(1, index)


Loss = Callable[[Sources, StackedMLP, Transitions], Tensor]
"""Called as ``loss(sources, actor, batch)``; returns ``[R]`` with its graph."""


def self_other_overlap(sources: Sources, actor: StackedMLP, batch: Transitions) -> Tensor:
    """``|h(s) - h(s + p)|^2``: the paper's loss (arXiv 2412.16325).

    Towards the initial self it is the mean of ``|h0(s) - h(s)|^2`` and ``|h0(s) - h(s + p)|^2``, with ``h0`` fixed.
    """
    return _tie(sources, actor, sources.pairs(batch))


def published_action_loss(sources: Sources, actor: StackedMLP, batch: Transitions) -> Tensor:
    """``log |a(o) - a0(o)|^2`` between the actions of the fine-tuned and the initial agent on the same observation.

    That is the loss in effect in the authors' public code, where the line with the hidden activations is commented
    out. It ties the agent to what it did before. There it takes an optimiser step of its own, here it is added to the
    actor's loss.
    """
    return (_action_distance(sources, actor, batch) + LOG_FLOOR).log()


def stay_close(sources: Sources, actor: StackedMLP, batch: Transitions) -> Tensor:
    """``|a(o) - a0(o)|^2``: stay close to the actions of before."""
    return _action_distance(sources, actor, batch)


def random_direction(sources: Sources, actor: StackedMLP, batch: Transitions) -> Tensor:
    """A push of all parameters in a direction drawn anew at each update, as long as the gradient of the paper's loss.

    The value is 0; only the gradient matters.
    """
    parameters = list(actor.parameters())
    gradients = torch.autograd.grad(self_other_overlap(sources, actor, batch).sum(), parameters, allow_unused=True)
    directions = [sources.random.normal(*parameter.shape[1:]) for parameter in parameters]
    size = _norm([gradient for gradient in gradients if gradient is not None])
    factor = size / _norm(directions)
    total = torch.zeros_like(size)
    for parameter, direction in zip(parameters, directions, strict=True):
        push = direction * factor.view(-1, *[1] * (direction.ndim - 1))
        total = total + ((parameter - parameter.detach()) * push).flatten(1).sum(dim=1)
    return total


def perturbation(sources: Sources, actor: StackedMLP, batch: Transitions) -> Tensor:
    """``|h(s) - h(s + e)|^2`` with a change ``e`` of all positions in ``s``, as large as that of red's appearing.

    Sizes are measured as the network sees them, after the fixed scaling of its inputs.
    """
    pairs = sources.pairs(batch)
    scale = actor.input_scale
    change = (pairs.other_observation - pairs.self_observation) * scale
    direction = sources.random.normal(*change.shape[1:])
    direction[..., BLUE.trapped.start :] = 0.0
    direction = direction / torch.linalg.vector_norm(direction, dim=-1, keepdim=True)
    # How far red is, without the bit that says that it is seen.
    size = torch.linalg.vector_norm(change[..., BLUE.red_position], dim=-1, keepdim=True)
    perturbed = pairs.self_observation + direction * size / scale
    return _tie(sources, actor, ObservationPairs(pairs.self_observation, perturbed, pairs.valid))


def shuffled_pairs(sources: Sources, actor: StackedMLP, batch: Transitions) -> Tensor:
    """``|h(s) - h(s' + p)|^2`` for two unrelated states ``s`` and ``s'``."""
    pairs = sources.pairs(batch)
    # One order for both, so that what is valid stays with what it belongs to.
    counter = sources.random.counter
    other = sources.shuffle(pairs.other_observation)
    sources.random.counter = counter
    valid = sources.shuffle(pairs.valid)
    return _tie(sources, actor, ObservationPairs(pairs.self_observation, other, pairs.valid & valid))


def position_tie(sources: Sources, actor: StackedMLP, batch: Transitions) -> Tensor:
    """``|h(s + p) - h(s + q)|^2``: two positions of red are tied, and no self takes part."""
    return _tie(sources, actor, sources.pairs(batch, moved_red(sources.sight_radius)))


def goal_difference(sources: Sources, actor: StackedMLP, batch: Transitions) -> Tensor:
    """``|[h(s + p) - h(s' + p)] - [h(s) - h(s')]|^2`` with goal and fake exchanged in ``s'``.

    Not the activations but what the goal does to them must be the same with and without red. Not in the paper.
    """
    pairs = sources.pairs(batch)
    return _tie_differences(sources, actor, pairs, _goal_partners(pairs))


def position_goal_difference(sources: Sources, actor: StackedMLP, batch: Transitions) -> Tensor:
    """:func:`goal_difference` between two positions of red, without a self: its control."""
    pairs = sources.pairs(batch, moved_red(sources.sight_radius))
    return _tie_differences(sources, actor, pairs, _goal_partners(pairs))


def state_difference(sources: Sources, actor: StackedMLP, batch: Transitions) -> Tensor:
    """``|[h(s + p) - h(s' + p)] - [h(s) - h(s')]|^2`` for two unrelated states ``s`` and ``s'``.

    As :func:`goal_difference`, but it need not know what the goal is. Not in the paper.
    """
    pairs, partners = _state_partners(sources, sources.pairs(batch))
    return _tie_differences(sources, actor, pairs, partners)


def position_state_difference(sources: Sources, actor: StackedMLP, batch: Transitions) -> Tensor:
    """:func:`state_difference` between two positions of red, without a self: its control."""
    pairs, partners = _state_partners(sources, sources.pairs(batch, moved_red(sources.sight_radius)))
    return _tie_differences(sources, actor, pairs, partners)


def kept_goal_difference(sources: Sources, actor: StackedMLP, batch: Transitions) -> Tensor:
    """:func:`goal_difference` towards the initial self, with a weak tie of what red does on average to what it did.

    ``(|D(s) - D0(s)|^2 + |D(o) - D0(s)|^2) / 2 + |M(s) - M0(s)|^2 + 0.03 |M(o) - M0(o)|^2``, where ``D`` is the
    difference and ``M`` the mean of an observation's activations and its partner's, ``0`` marks the initial actor, and
    ``s`` and ``o`` are as :func:`soo_marl.envs.observations.every_red` makes them. The cheapest way to make
    differences equal is to stop answering to red; the mean keeps the answer that has nothing to do with the goal.
    Not in the paper.
    """
    pairs = sources.pairs(batch, every_red(sources.sight_radius))
    return _tie_kept(sources, actor, pairs, _goal_partners(pairs), KEEP_GOAL_MEAN)


def position_kept_goal_difference(sources: Sources, actor: StackedMLP, batch: Transitions) -> Tensor:
    """:func:`kept_goal_difference` between two positions of red, without a self: its control."""
    pairs = sources.pairs(batch, every_red_moved(sources.sight_radius))
    return _tie_kept(sources, actor, pairs, _goal_partners(pairs), KEEP_GOAL_MEAN)


def kept_state_difference(sources: Sources, actor: StackedMLP, batch: Transitions) -> Tensor:
    """:func:`kept_goal_difference` for two unrelated states, with 0.05 for 0.03: it need not know what the goal is."""
    pairs, partners = _state_partners(sources, sources.pairs(batch, every_red(sources.sight_radius)))
    return _tie_kept(sources, actor, pairs, partners, KEEP_STATE_MEAN)


def position_kept_state_difference(sources: Sources, actor: StackedMLP, batch: Transitions) -> Tensor:
    """:func:`kept_state_difference` between two positions of red, without a self: its control."""
    pairs, partners = _state_partners(sources, sources.pairs(batch, every_red_moved(sources.sight_radius)))
    return _tie_kept(sources, actor, pairs, partners, KEEP_STATE_MEAN)


def _tie(sources: Sources, actor: StackedMLP, pairs: ObservationPairs) -> Tensor:
    first, second = _activations(sources, actor, pairs.self_observation, pairs.other_observation)
    if not sources.towards_initial:
        return overlap_loss(first, second, pairs.valid, run_dims=1)
    with torch.no_grad():
        (target,) = _activations(sources, sources.initial, pairs.self_observation)
    return 0.5 * sum(
        (overlap_loss(target, side, pairs.valid, "other_to_self", run_dims=1) for side in (first, second)),
        start=torch.zeros((), device=pairs.valid.device),
    )


def _goal_partners(pairs: ObservationPairs) -> tuple[Tensor, Tensor]:
    """Both sides of pairs with goal and fake exchanged."""
    return exchanged_goal(pairs.self_observation), exchanged_goal(pairs.other_observation)


def _state_partners(sources: Sources, pairs: ObservationPairs) -> tuple[ObservationPairs, tuple[Tensor, Tensor]]:
    """The pairs, valid where another state is valid too; and for both sides that state, seeing red where they do."""
    counter = sources.random.counter
    partners = []
    for side in (pairs.self_observation, pairs.other_observation):
        # One order for all, so that both sides have the same partner.
        sources.random.counter = counter
        partner = sources.shuffle(side)
        # It sees red where the state itself does, and no red where that sees none.
        seeing = with_red(partner, side[..., BLUE.red_position])
        partners.append(torch.where(red_unseen(side)[..., None], without_red(partner), seeing))
    sources.random.counter = counter
    valid = sources.shuffle(pairs.valid)
    both_valid = ObservationPairs(pairs.self_observation, pairs.other_observation, pairs.valid & valid)
    return both_valid, (partners[0], partners[1])


def _tie_differences(
    sources: Sources, actor: StackedMLP, pairs: ObservationPairs, partners: tuple[Tensor, Tensor]
) -> Tensor:
    """The differences between observations and their partners, tied between both sides of the pairs."""
    first, first_partner, second, second_partner = _activations(
        sources, actor, pairs.self_observation, partners[0], pairs.other_observation, partners[1]
    )
    differences = [
        {layer: one[layer] - other[layer] for layer in sources.layers}
        for one, other in ((first, first_partner), (second, second_partner))
    ]
    if sources.towards_initial:
        with torch.no_grad():
            target, target_partner = _activations(sources, sources.initial, pairs.self_observation, partners[0])
        fixed = {layer: target[layer] - target_partner[layer] for layer in sources.layers}
        return 0.5 * sum(
            (overlap_loss(fixed, side, pairs.valid, "other_to_self", run_dims=1) for side in differences),
            start=torch.zeros((), device=pairs.valid.device),
        )
    return overlap_loss(differences[0], differences[1], pairs.valid, run_dims=1)


def _tie_kept(
    sources: Sources, actor: StackedMLP, pairs: ObservationPairs, partners: tuple[Tensor, Tensor], keep: float
) -> Tensor:
    """The differences on both sides tied to the initial self's, the means of both sides to what they were."""
    observations = (pairs.self_observation, partners[0], pairs.other_observation, partners[1])
    now = _activations(sources, actor, *observations)
    with torch.no_grad():
        before = _activations(sources, sources.initial, *observations)

    def combined(sides: list[dict[str, Tensor]], first: int, sign: float) -> dict[str, Tensor]:
        return {layer: sides[first][layer] + sign * sides[first + 1][layer] for layer in sources.layers}

    def tie(fixed: dict[str, Tensor], moving: dict[str, Tensor]) -> Tensor:
        return overlap_loss(fixed, moving, pairs.valid, "other_to_self", run_dims=1)

    initial_self = combined(before, 0, -1.0)
    differences = tie(initial_self, combined(now, 0, -1.0)) + tie(initial_self, combined(now, 2, -1.0))
    # Of sums, which are twice the means.
    means = [tie(combined(before, first, 1.0), combined(now, first, 1.0)) / 4.0 for first in (0, 2)]
    return differences / 2.0 + means[0] + keep * means[1]


def _activations(sources: Sources, actor: StackedMLP, *observations: Tensor) -> list[dict[str, Tensor]]:
    """Activations by layer ``[R, B, units]`` for each of several observations ``[R, B, size]``, in one pass."""
    (recorded,) = activations_of(actor, sources.layers, torch.cat(observations, dim=1))
    sizes = [observation.shape[1] for observation in observations]
    parts = {layer: torch.split(values, sizes, dim=1) for layer, values in recorded.items()}
    return [{layer: parts[layer][i] for layer in sources.layers} for i in range(len(observations))]


def _action_distance(sources: Sources, actor: StackedMLP, batch: Transitions) -> Tensor:
    blue = batch.observations[BLUE_AGENT]
    with torch.no_grad():
        before = sources.action(sources.initial, blue)
    return (sources.action(actor, blue) - before).square().mean(dim=(1, 2))


def _norm(tensors: list[Tensor]) -> Tensor:
    """Euclidean norm per run ``[R]`` over all tensors ``[R, ...]``."""
    return torch.stack([tensor.flatten(1).square().sum(dim=1) for tensor in tensors]).sum(dim=0).sqrt()


@dataclass(frozen=True)
class Method:
    """One way to treat a deceptive agent, or a control for one."""

    description: str
    """What it does, in a few words."""
    source: str
    """Where it comes from."""
    loss: Loss | None = None
    weight: float = 0.0
    """Weight of the loss where none is given."""
    updates: int = 1_000
    """Updates with the loss where no number is given."""
    towards: Literal["both", "initial_self"] = "both"
    """Which sides move where nothing is said."""
    training_game: Callable[[PhysicalDeceptionConfig], PhysicalDeceptionConfig] = lambda game: game
    """What it changes in the game that the agent is trained in."""
    evaluation_game: Callable[[PhysicalDeceptionConfig], PhysicalDeceptionConfig] = lambda game: game
    """What it changes in the game that the agent is evaluated in."""
    trains: bool = True
    """Whether the agent is trained at all."""


def blinded(game: PhysicalDeceptionConfig) -> PhysicalDeceptionConfig:
    """The same game with blue's field of red blanked."""
    return game.replace(blind=True)


KEEP_GOAL_MEAN, KEEP_STATE_MEAN = 0.03, 0.05
"""Weights of the tie that keeps what red does on average. Too low: agents end blind; too high: they go on to trap."""

_PAPER = "Carauleanu et al. 2024, arXiv 2412.16325"
_CODE = "public code of the paper, agencyenterprise/SOO-Honest-AI"
_POST = "first public post on self-other overlap (2024)"
_OURS = "this package"

METHODS: Mapping[str, Method] = {
    "soo": Method("self-other overlap of hidden activations", _PAPER, self_other_overlap, 100.0),
    "soo_action": Method("log distance to the actions of before", _CODE, published_action_loss, 1.0),
    "soo_difference": Method(
        "overlap of what the goal does to the activations", _OURS, goal_difference, 300.0, 1_500, "initial_self"
    ),
    "soo_difference_any": Method(
        "overlap of what the state does to them", _OURS, state_difference, 100.0, 1_500, "initial_self"
    ),
    "soo_difference_kept": Method(
        "the same, while what red does on average is kept", _OURS, kept_goal_difference, 300.0, 1_500
    ),
    "soo_difference_any_kept": Method(
        "overlap of what the state does, the average kept", _OURS, kept_state_difference, 1000.0, 2_000
    ),
    "none": Method("the same further training, no loss", _PAPER),
    "random": Method("random push as large as that of soo", _POST, random_direction, 100.0),
    "perturbation": Method("tied to an observation changed at random", _OURS, perturbation, 100.0),
    "anchor": Method("stay close to the actions of before", _POST, stay_close, 100.0),
    "shuffled": Method("self and other from different states tied", _OURS, shuffled_pairs, 100.0),
    "position_tie": Method("two positions of red tied, no self", _OURS, position_tie, 100.0),
    "position_difference": Method(
        "soo_difference without a self", _OURS, position_goal_difference, 300.0, 1_500, "initial_self"
    ),
    "position_difference_any": Method(
        "soo_difference_any without a self", _OURS, position_state_difference, 100.0, 1_500, "initial_self"
    ),
    "position_difference_kept": Method(
        "soo_difference_kept without a self", _OURS, position_kept_goal_difference, 300.0, 1_500
    ),
    "position_difference_any_kept": Method(
        "soo_difference_any_kept without a self", _OURS, position_kept_state_difference, 1000.0, 2_000
    ),
    "blank": Method("red's field blanked at test time", _OURS, trains=False, evaluation_game=blinded),
    "blind": Method("trained on without red's field", _OURS, training_game=blinded, evaluation_game=blinded),
    "honest_reward": Method("paid for honesty instead", _OURS, updates=3_000, training_game=honest_game),
}
"""All methods by name, in the order of tables and pictures."""


def method(name: str) -> Method:
    """Return a method by name. Raises ValueError: there is no method of that name."""
    if name not in METHODS:
        raise ValueError(f"there is no method {name!r}; choose among {', '.join(METHODS)}")
    return METHODS[name]
