import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from soo_marl.agents import AgentNetworks, MADDPGConfig
from soo_marl.agents.networks import StackedMLP
from soo_marl.envs import BLUE, preset
from soo_marl.envs.batched import BatchedPhysicalDeception
from soo_marl.envs.configuration import PhysicalDeceptionConfig
from soo_marl.envs.observations import RED
from soo_marl.random_streams import RandomStreams
from soo_marl.studies.learning.agents_on_disk import agent_spaces
from soo_marl.studies.learning.overlap_values import (
    FORMS,
    LAYER_SETS,
    PAIRINGS,
    OverlapSums,
    ValueKey,
    measure_overlap,
    sample_activations,
)
from soo_marl.studies.learning.rollout import greedy_steps

SEEDS, EPISODES = (3, 4), 5
GAME = preset("trackable").replace(episode_length=8, alone_share=0.4, trapped_start_share=0.3)


def agents(game: PhysicalDeceptionConfig = GAME) -> AgentNetworks:
    networks = AgentNetworks(agent_spaces(game), MADDPGConfig(hidden_units=8), SEEDS)
    for actor in networks.actors:
        actor.output.weight.data *= 300.0
    return networks


@torch.no_grad()
def layers(actor: StackedMLP, run: int, observation: Tensor, discrete: bool) -> dict[str, Tensor]:
    """The network worked out by hand for one run and one observation."""
    value = observation * actor.input_scale[run, 0]
    found = {}
    for name in ("hidden_1", "hidden_2"):
        linear = getattr(actor, name).linear
        value = torch.relu(value @ linear.weight[run].T + linear.bias[run, 0])
        found[name] = value
    output = value @ actor.output.weight[run].T + actor.output.bias[run, 0]
    return {**found, "action": output.softmax(0) if discrete else output.tanh()}


def other_observation(pairing: str, zero_flag: bool, red: Tensor, blue: Tensor, draw: Tensor) -> Tensor | None:
    """The other observation of one self observation, or None where the pair does not count."""
    other = blue.clone()
    if pairing == "imagined_red":
        if blue[BLUE.red_position].any():
            return None
        angle, radius = float(draw[0]) * 2 * math.pi, float(draw[1]) * GAME.blue_sight_radius
        other[BLUE.red_position] = torch.tensor([math.cos(angle) * radius, math.sin(angle) * radius])
    else:
        if not red.any():
            return None
        moved = red[RED.landmark_0] - blue[BLUE.landmark_0]
        other[BLUE.goal] = blue[BLUE.goal] + moved
        other[BLUE.landmark_0], other[BLUE.landmark_1] = red[RED.landmark_0], red[RED.landmark_1]
        other[BLUE.red_position] = red[RED.blue_position]
    if zero_flag:
        other[BLUE.trapped] = 0.0
    return other


@pytest.mark.parametrize("continuous", [True, False])
def test_sums_equal_a_direct_computation(continuous: bool) -> None:
    game = GAME.replace(continuous_actions=continuous)
    found = measure_overlap(agents(game), game, evaluation_seeds=2, episodes=EPISODES)
    assert set(found) == {ValueKey(*key) for key in itertools.product(FORMS, LAYER_SETS, PAIRINGS)}
    counted = 0
    for evaluation_seed in range(2):
        stream = f"classification/{evaluation_seed}"
        worlds = BatchedPhysicalDeception(game, SEEDS, EPISODES, stream=stream)
        random = RandomStreams(SEEDS, f"{stream}/pairs")
        played = agents(game)
        expected: dict[tuple[ValueKey, int, int], np.ndarray] = {}
        for step in greedy_steps(played, worlds):
            draws = random.uniform(2, EPISODES)
            for run, episode in itertools.product(range(2), range(EPISODES)):
                red, blue = (seen[run, episode] for seen in step.observations)
                own = layers(played.actors[1], run, blue, not continuous)
                for form, pairing in itertools.product(FORMS, PAIRINGS):
                    other = other_observation(pairing, form == "published", red, blue, draws[run, :, episode])
                    untrapped_only = form in ("untrapped", "normalised")
                    if other is None or (untrapped_only and blue[BLUE.trapped].any()):
                        continue
                    others = layers(played.actors[1], run, other, not continuous)
                    for name, members in LAYER_SETS.items():
                        one, two = (torch.cat([each[layer] for layer in members]) for each in (own, others))
                        error, power = float((one - two).square().mean()), float((one**2 + two**2).mean() / 2)
                        term = math.log(error + 1e-25) if form == "published" else error
                        weight = power if form == "normalised" else 1.0
                        key = (ValueKey(form, name, pairing), run, episode)
                        expected[key] = expected.get(key, np.zeros(2)) + np.array([term, weight])
        for key, sums in found.items():
            for run, episode in itertools.product(range(2), range(EPISODES)):
                direct = expected.get((key, run, episode), np.zeros(2))
                total = sums.total[run, evaluation_seed, episode], sums.weight[run, evaluation_seed, episode]
                assert total == pytest.approx(tuple(direct), rel=2e-3, abs=1e-4), (key, run, episode)
                counted += int(direct[1] > 0)
    assert counted > 300, "the comparison means something"


def test_values_over_the_first_episodes() -> None:
    sums = OverlapSums(
        total=np.array([[[2.0, 0.0, 9.0], [0.0, 0.0, 0.0]]]), weight=np.array([[[4.0, 0.0, 1.0], [0.0, 0.0, 0.0]]])
    )
    assert sums.values(1)[0, 0] == 0.5 == sums.values(2)[0, 0]
    assert sums.values(3)[0, 0] == sums.values()[0, 0] == pytest.approx(11 / 5)
    assert np.isnan(sums.values()[0, 1]), "no step qualifies: missing, not zero"
    assert sums.pooled() == pytest.approx([11 / 5])
    assert np.isnan(OverlapSums(np.zeros((1, 2, 3)), np.zeros((1, 2, 3))).pooled()).all()


def test_where_no_step_qualifies_the_value_is_missing() -> None:
    # Always alone: no red whose place the perspective could take.
    found = measure_overlap(agents(), GAME.replace(alone_share=1.0, trapped_start_share=0.0), 1, 2)
    assert np.isnan(found[ValueKey("kept", "both", "perspective")].pooled()).all()
    assert np.isfinite(found[ValueKey("kept", "both", "imagined_red")].pooled()).all()
    # Always trapped from the start: nothing left for the forms that need an untrapped red.
    found = measure_overlap(agents(), GAME.replace(alone_share=0.0, trapped_start_share=1.0), 1, 2)
    assert np.isnan(found[ValueKey("untrapped", "both", "imagined_red")].pooled()).all()


def test_values_are_the_same_in_any_stack_and_differ_between_evaluation_seeds() -> None:
    stacked = measure_overlap(agents(), GAME, 2, EPISODES)[ValueKey("kept", "both", "imagined_red")]
    single = AgentNetworks(agent_spaces(GAME), MADDPGConfig(hidden_units=8), SEEDS[1:])
    for actor in single.actors:
        actor.output.weight.data *= 300.0
    alone = measure_overlap(single, GAME, 1, EPISODES)[ValueKey("kept", "both", "imagined_red")]
    assert alone.total[0, 0] == pytest.approx(stacked.total[1, 0], rel=1e-4)
    assert stacked.values()[0, 0] != pytest.approx(stacked.values()[0, 1], rel=1e-3)


def test_progress_counts_evaluation_seeds() -> None:
    done: list[int] = []
    measure_overlap(agents(), GAME, 3, 1, done.append)
    assert done == [1, 2, 3]


def test_sampled_activations_are_those_of_untrapped_self_steps() -> None:
    sample = sample_activations(agents(), GAME, 6)
    assert sample.shape == (2, 6, 16)
    assert len(np.unique(sample[0][np.isfinite(sample[0]).all(-1)].round(6), axis=0)) > 1
    never = sample_activations(agents(), GAME.replace(alone_share=0.0, trapped_start_share=1.0), 6)
    assert np.isnan(never).all(), "agents without such a step have none"
