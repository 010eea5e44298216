"""AgileRL's MADDPG on mpe2's simple_adversary, in the loop of its train_multi_agent_off_policy, without evolution.

PYTHONPATH=. <python with agilerl and mpe2> benchmarks/peer_scripts/with_agilerl.py <repeats> <seconds>
"""

from __future__ import annotations

import torch
from agilerl.algorithms import MADDPG
from agilerl.components.data import MultiAgentTransition
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.training.train_multi_agent_off_policy import transition_to_tensordict
from agilerl.vector.pz_async_vec_env import AsyncPettingZooVecEnv
from interleaving import measure
from mpe2 import simple_adversary_v3

STEPS_PER_UPDATE = 100
BATCH = 1024
# Its networks have an encoder and a head with at least one hidden layer each, and a latent layer between them.
HIDDEN = {
    "encoder_config": {"hidden_size": [64]},
    "head_config": {"hidden_size": [64]},
    "latent_dim": 64,
}


def main() -> None:
    torch.set_num_threads(1)
    environments = AsyncPettingZooVecEnv([simple_adversary_v3.parallel_env])
    names = environments.agents
    agent = MADDPG(
        observation_spaces=[environments.single_observation_space(name) for name in names],
        action_spaces=[environments.single_action_space(name) for name in names],
        agent_ids=names,
        net_config=HIDDEN,
        vect_noise_dim=1,
        batch_size=BATCH,
        lr_actor=0.01,
        lr_critic=0.01,
        learn_step=STEPS_PER_UPDATE,
        tau=0.01,
    )
    agent.set_training_mode(True)
    memory = ReplayBuffer(100_000)
    present = environments.reset()

    def collect() -> None:
        nonlocal present
        observations, infos = present
        actions, raw_actions = agent.get_action(obs=observations, infos=infos)
        next_observations, rewards, terminated, _, infos = environments.step(actions)
        transition = transition_to_tensordict(
            MultiAgentTransition(
                obs=observations, action=raw_actions, reward=rewards, next_obs=next_observations, done=terminated
            )
        )
        transition.batch_size = torch.Size([1])
        memory.add(transition)
        present = next_observations, infos

    def training() -> float:
        for _ in range(STEPS_PER_UPDATE):
            collect()
        agent.learn(memory.sample(BATCH))
        return STEPS_PER_UPDATE

    while len(memory) < BATCH:
        collect()
    measure(
        training,
        ("agilerl", "torch"),
        "1 environment in a process of its own, discrete actions, 3 hidden layers of 64, nothing logged",
    )
    environments.close()


if __name__ == "__main__":
    main()
