"""From worlds to an overlap value without a study: train agents, play, compare what blue computes with and without red.

python examples/shortest_path.py
"""

import torch

from soo_marl.agents import MADDPG, AgentNetworks, AgentSpaces, MADDPGConfig, Trainer, TrainingConfig
from soo_marl.agents.networks import HIDDEN_LAYERS
from soo_marl.envs import BatchedPhysicalDeception, PhysicalDeceptionConfig, preset
from soo_marl.envs.observations import BLUE_AGENT, imagined_red
from soo_marl.overlap import EpisodeSums, activations_of, episode_sums
from soo_marl.random_streams import RandomStreams

SEEDS = (0, 1, 2)
"""Independent runs; everything below computes all of them at once."""
GAME = preset("trackable").replace(trap_reward=10.0)


def train(game: PhysicalDeceptionConfig, updates: int) -> AgentNetworks:
    """Red, and a blue that is paid while red is trapped, learn together."""
    worlds = BatchedPhysicalDeception(game, SEEDS, worlds=32)
    learner = MADDPG(AgentSpaces(worlds.observation_sizes, worlds.action_sizes), MADDPGConfig(reward_scale=0.1), SEEDS)
    Trainer(learner, worlds, TrainingConfig(updates=updates), SEEDS).run()
    return learner.networks


@torch.no_grad()
def measure(agents: AgentNetworks, game: PhysicalDeceptionConfig) -> list[float]:
    """Blue's self-other overlap in each run, over 100 greedy episodes."""
    worlds = BatchedPhysicalDeception(game, SEEDS, worlds=100, stream="measuring")
    pairs_of, random = imagined_red(game.blue_sight_radius), RandomStreams(SEEDS, "pairs")
    blue, observations, sums = agents.actors[BLUE_AGENT], worlds.observe(), list[EpisodeSums]()
    for _ in range(game.episode_length):
        # What blue sees where it sees no red, and the same with red somewhere in sight.
        red_sees, blue_sees = observations
        pairs = pairs_of(red_sees, blue_sees, random)
        own, other = activations_of(blue, HIDDEN_LAYERS, pairs.self_observation, pairs.other_observation)
        sums.append(episode_sums(own, other, pairs.valid, episode_dims=2))
        observations = worlds.step(agents.act(observations)).observations
    return sum(sums[1:], start=sums[0]).value().tolist()


if __name__ == "__main__":
    for seed, value in zip(SEEDS, measure(train(GAME, updates=300), GAME), strict=True):
        print(f"seed {seed}: mean squared difference of blue's activations {value:.4f} (lower: more overlap)")
