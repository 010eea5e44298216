"""Overlap values of trained agents over evaluation episodes: what every classification starts from.

Per agent, evaluation seed and episode, and for every pairing, form and set of layers, two sums are kept whose ratio
is the overlap value, so that the value over any number of episodes follows without playing them again.

Forms (all lower for more overlap):

* ``published``: as the authors' code: the trapped flag of the other observation is zeroed, all self steps count, and
  each step gives the logarithm of its squared error;
* ``kept``: the flag is kept, all self steps count, plain squared error;
* ``untrapped``: the flag is kept, only steps with red untrapped (or absent) count, plain squared error;
* ``normalised``: as ``untrapped``, divided by the power of the activations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soo_marl.agents.agent_networks import AgentNetworks, mean_action
from soo_marl.agents.networks import HIDDEN_LAYERS
from soo_marl.envs.batched import BatchedPhysicalDeception
from soo_marl.envs.configuration import PhysicalDeceptionConfig
from soo_marl.envs.observations import BLUE_AGENT, imagined_red, perspective, red_unseen, untrapped
from soo_marl.overlap import EpisodeSums, OverlapForm, activations_of, episode_sums
from soo_marl.random_streams import RandomStreams
from soo_marl.studies.learning.rollout import greedy_steps

ACTION = "action"
"""Stands among the layers for the action itself, after squashing: the baseline that looks at behaviour only."""

LAYER_SETS: Mapping[str, tuple[str, ...]] = {
    "both": HIDDEN_LAYERS,
    "hidden_1": HIDDEN_LAYERS[:1],
    "hidden_2": HIDDEN_LAYERS[1:],
    "action": (ACTION,),
}


class Form(NamedTuple):
    """One way to make a value of the differences at single steps."""

    zero_flag: bool
    untrapped_only: bool
    combine: OverlapForm


FORMS: Mapping[str, Form] = {
    "published": Form(zero_flag=True, untrapped_only=False, combine="log"),
    "kept": Form(zero_flag=False, untrapped_only=False, combine="raw"),
    "untrapped": Form(zero_flag=False, untrapped_only=True, combine="raw"),
    "normalised": Form(zero_flag=False, untrapped_only=True, combine="normalised"),
}

PAIRINGS = ("imagined_red", "perspective")


class ValueKey(NamedTuple):
    """Which overlap value."""

    form: str
    layers: str
    pairing: str


@dataclass(frozen=True)
class OverlapSums:
    """Sums per agent, evaluation seed and episode."""

    total: NDArray[np.float64]
    """``[A, S, N]``."""
    weight: NDArray[np.float64]
    """``[A, S, N]``; zero where no step of an episode qualifies."""

    def values(self, episodes: int | None = None) -> NDArray[np.float64]:
        """Value per agent and evaluation seed ``[A, S]`` over the first ``episodes``; NaN where no step qualifies."""
        total, weight = (sums[..., :episodes].sum(axis=-1) for sums in (self.total, self.weight))
        return np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), np.nan)

    def pooled(self) -> NDArray[np.float64]:
        """Value per agent ``[A]`` over all evaluation seeds and episodes."""
        flat = OverlapSums(self.total.reshape(len(self.total), 1, -1), self.weight.reshape(len(self.weight), 1, -1))
        return flat.values()[:, 0]


@torch.no_grad()
def measure_overlap(
    agents: AgentNetworks,
    game: PhysicalDeceptionConfig,
    evaluation_seeds: int,
    episodes: int,
    report: Callable[[int], None] = lambda done: None,
    pairings: Sequence[str] = PAIRINGS,
    layer_sets: Sequence[str] = tuple(LAYER_SETS),
) -> dict[ValueKey, OverlapSums]:
    """Play greedy episodes under several evaluation seeds and collect the sums of every overlap value.

    Args:
        agents: A runs.
        game: the game to play.
        evaluation_seeds: S; agents of the same training seed meet the same episodes under the same evaluation seed.
        episodes: N, per evaluation seed.
        report: called with the number of evaluation seeds done.
        pairings, layer_sets: which values; all by default.
    """
    collected: dict[ValueKey, list[EpisodeSums]] = {}
    for evaluation_seed in range(evaluation_seeds):
        stream = f"classification/{evaluation_seed}"
        worlds = BatchedPhysicalDeception(game, agents.seeds, episodes, agents.device, stream=stream)
        random = RandomStreams(agents.seeds, f"{stream}/pairs", agents.device)
        sums: dict[ValueKey, EpisodeSums] = {}
        for step in greedy_steps(agents, worlds):
            red, blue = step.observations
            found = _sums_of_step(agents, red, blue, game.blue_sight_radius, random, pairings, layer_sets)
            for key, of_step in found.items():
                sums[key] = sums[key] + of_step if key in sums else of_step
        for key, of_seed in sums.items():
            collected.setdefault(key, []).append(of_seed)
        report(evaluation_seed + 1)
    return {
        key: OverlapSums(_stacked([sums.total for sums in of_key]), _stacked([sums.weight for sums in of_key]))
        for key, of_key in collected.items()
    }


@torch.no_grad()
def sample_activations(agents: AgentNetworks, game: PhysicalDeceptionConfig, count: int) -> NDArray[np.float64]:
    """Hidden activations of blue ``[A, count, units]`` at self steps with red untrapped, for a linear probe.

    Agents with fewer such steps have NaN in the remaining rows.
    """
    worlds = BatchedPhysicalDeception(game, agents.seeds, count, agents.device, stream="classification/probe")
    kept: list[list[Tensor]] = [[] for _ in agents.seeds]
    for number, step in enumerate(greedy_steps(agents, worlds)):
        # Neighbouring steps of one episode are nearly copies of one another.
        if number % 5:
            continue
        blue = step.observations[BLUE_AGENT]
        activations = _activations(agents, blue)
        hidden = torch.cat([activations[layer] for layer in HIDDEN_LAYERS], dim=-1)
        counts = red_unseen(blue) & untrapped(blue)
        for run, rows in enumerate(kept):
            rows.append(hidden[run, counts[run]].cpu())
    found = [torch.cat(rows) for rows in kept]
    sample = np.full((len(found), count, found[0].shape[-1]), np.nan)
    for run, rows_of_run in enumerate(found):
        spread = torch.linspace(0, max(len(rows_of_run) - 1, 0), min(count, len(rows_of_run))).long()
        sample[run, : len(spread)] = rows_of_run[spread].double().numpy()
    return sample


def _sums_of_step(
    agents: AgentNetworks,
    red: Tensor,
    blue: Tensor,
    sight_radius: float,
    random: RandomStreams,
    pairings: Sequence[str],
    layer_sets: Sequence[str],
) -> dict[ValueKey, EpisodeSums]:
    """Sums of one step for every pairing, form and set of layers; each episode is one position."""
    self_activations = _activations(agents, blue)
    not_trapped = untrapped(blue)
    sums = {}
    for name in pairings:
        counter = random.counter
        for zero_flag in (False, True):
            # Both variants imagine red at the same points.
            random.counter = counter
            pairing = perspective(zero_flag) if name == "perspective" else imagined_red(sight_radius, zero_flag)
            pairs = pairing(red, blue, random)
            other_activations = _activations(agents, pairs.other_observation)
            for form, settings in FORMS.items():
                if settings.zero_flag != zero_flag:
                    continue
                mask = pairs.valid & not_trapped if settings.untrapped_only else pairs.valid
                for layers in layer_sets:
                    members = LAYER_SETS[layers]
                    sums[ValueKey(form, layers, name)] = episode_sums(
                        {layer: self_activations[layer] for layer in members},
                        {layer: other_activations[layer] for layer in members},
                        mask,
                        settings.combine,
                        episode_dims=2,
                    )
    return sums


def _activations(agents: AgentNetworks, observations: Tensor) -> dict[str, Tensor]:
    """Blue's activations by layer ``[A, N, units]``; the action is a force, or the probabilities of discrete moves."""
    (layers,) = activations_of(agents.actors[BLUE_AGENT], (*HIDDEN_LAYERS, "output"), observations)
    return layers | {ACTION: mean_action(layers["output"], agents.spaces.discrete)}


def _stacked(of_seeds: list[Tensor]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = torch.stack(of_seeds, dim=1).double().cpu().numpy()
    return found
