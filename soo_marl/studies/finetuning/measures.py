"""Everything that is measured of a stack of agents, treated or not, on the same greedy episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from soo_marl.agents.agent_networks import AgentNetworks, mean_action
from soo_marl.agents.networks import HIDDEN_LAYERS
from soo_marl.deception import BehaviourRates, DeceptionProfile, Trajectories, behaviour, deception_profile
from soo_marl.envs.batched import BatchedPhysicalDeception
from soo_marl.envs.configuration import PhysicalDeceptionConfig
from soo_marl.envs.observations import BLUE_AGENT, point_in_sight, red_unseen, untrapped, with_red, without_red
from soo_marl.overlap import activations_of, squared_error
from soo_marl.random_streams import RandomStreams
from soo_marl.studies.baselines.evaluation import LATE_STATES
from soo_marl.studies.learning.overlap_values import FORMS, ValueKey, measure_overlap
from soo_marl.studies.learning.rollout import greedy_steps, roll_out

STREAM = "finetuning/evaluation"
"""Random streams of the episodes on which agents are measured; no training draws from them."""

_OVERLAP_EPISODES = 200


@dataclass(frozen=True)
class Sensitivity:
    """How much blue's action answers to red where blue sees an untrapped red: mean distance of actions, ``[R]``."""

    blanked: Tensor
    """Between the action and that with red's field blanked."""
    moved: Tensor
    """Between the action and that with red elsewhere in the sight disc."""
    power: Tensor
    """Mean square of the hidden activations, over all observations."""
    variance: Tensor
    """Variance of the hidden activations across observations, mean over units."""


@dataclass(frozen=True)
class Measures:
    """Of a stack of R agents; NaN where nothing could be measured."""

    rates: BehaviourRates
    profile: DeceptionProfile
    """``[R]``."""
    returns: Tensor
    """Blue's mean honest return in episodes with red ``[R]``."""
    returns_blanked: Tensor
    """The same from the same starts with red's field blanked."""
    sensitivity: Sensitivity
    overlap: dict[str, Tensor]
    """By form ``[R]``: paper's pairing, both hidden layers."""


def measure_agents(agents: AgentNetworks, game: PhysicalDeceptionConfig, episodes: int) -> Measures:
    """Measure a stack of agents.

    Args:
        agents: R runs.
        game: the game to play; agents of the same seed meet the same starts in it.
        episodes: greedy episodes per agent.
    """
    trajectories, returns = roll_out(agents, game, episodes, STREAM)
    blanked_trajectories, blanked = roll_out(agents, game.replace(blind=True), episodes, STREAM)
    count = min(episodes, _OVERLAP_EPISODES)
    sums = measure_overlap(agents, game, 1, count, pairings=("imagined_red",), layer_sets=("both",))
    return Measures(
        rates=behaviour(trajectories, game.landmark_radius, min(LATE_STATES, game.episode_length)),
        profile=deception_profile(trajectories),
        returns=_with_red(trajectories, returns),
        returns_blanked=_with_red(blanked_trajectories, blanked),
        sensitivity=sensitivity(agents, game, min(episodes, _OVERLAP_EPISODES), STREAM),
        overlap={
            form: torch.from_numpy(sums[ValueKey(form, "both", "imagined_red")].pooled()).float() for form in FORMS
        },
    )


@torch.no_grad()
def sensitivity(agents: AgentNetworks, game: PhysicalDeceptionConfig, episodes: int, stream: str) -> Sensitivity:
    """Play greedy episodes and compare blue's actions with those it would take if red were unseen, or elsewhere.

    Distances are between the two forces, each in [-1, 1]^2 (probabilities where actions are discrete). What a blind
    agent is fed is what is changed: its actions answer to nothing.

    Args:
        agents: R runs.
        game: the game to play.
        episodes: per agent.
        stream: prefix of the random streams.
    """
    worlds = BatchedPhysicalDeception(game, agents.seeds, episodes, agents.device, stream=f"{stream}/sensitivity")
    random = RandomStreams(agents.seeds, f"{stream}/moved", agents.device)
    actor = agents.actors[BLUE_AGENT]
    runs = len(agents.seeds)
    sums = torch.zeros(3, runs, device=agents.device)
    units = 2 * actor.output.weight.shape[-1]
    # In float32 the difference of both would be nothing but rounding where activations hardly vary.
    first, second = (torch.zeros(runs, units, device=agents.device, dtype=torch.float64) for _ in range(2))
    observations = 0
    for step in greedy_steps(agents, worlds):
        blue = step.observations[BLUE_AGENT]
        (layers,) = activations_of(actor, (*HIDDEN_LAYERS, "output"), blue)
        action = mean_action(layers["output"], agents.spaces.discrete)
        hidden = _units(layers).double()
        first += hidden.sum(dim=1)
        second += hidden.square().sum(dim=1)
        observations += blue.shape[1]
        moved = with_red(blue, point_in_sight(blue, game.blue_sight_radius, random))
        seen = (~red_unseen(blue) & untrapped(blue)).float()
        for i, other in enumerate((without_red(blue), moved)):
            distance = torch.linalg.vector_norm(action - mean_action(actor(other), agents.spaces.discrete), dim=-1)
            sums[i] += (distance * seen).sum(dim=1)
        sums[2] += seen.sum(dim=1)
    mean = first / observations
    if game.blind:
        sums = torch.tensor([0.0, 0.0, 1.0], device=agents.device)[:, None].expand(3, runs)
    return Sensitivity(
        blanked=sums[0] / sums[2],
        moved=sums[1] / sums[2],
        power=(second / observations).mean(dim=1).float(),
        variance=(second / observations - mean.square()).mean(dim=1).float(),
    )


def step_overlap(agents: AgentNetworks, blue: Tensor, game: PhysicalDeceptionConfig, random: RandomStreams) -> Tensor:
    """Squared difference of blue's activations between each observation and its other one: ``[R, N]``.

    Where blue does not see red, red is imagined in the sight disc; where it does, its field is blanked.
    """
    imagined = with_red(blue, point_in_sight(blue, game.blue_sight_radius, random))
    other = torch.where(red_unseen(blue)[..., None], imagined, without_red(blue))
    pairs = activations_of(agents.actors[BLUE_AGENT], HIDDEN_LAYERS, blue, other)
    return squared_error(*({"hidden": _units(layers)} for layers in pairs))


def _units(layers: Mapping[str, Tensor]) -> Tensor:
    """The units of both hidden layers side by side."""
    return torch.cat([layers[layer] for layer in HIDDEN_LAYERS], dim=-1)


def _with_red(trajectories: Trajectories, returns: Tensor) -> Tensor:
    """Mean return ``[R]`` over the episodes with red."""
    return torch.where(trajectories.alone, torch.nan, returns).nanmean(dim=1)
