"""xuance's MADDPG on mpe2's simple_adversary: its own agents, loop, replay buffer and TensorBoard logger.

PYTHONPATH=. <python with xuance and mpe2> benchmarks/peer_scripts/with_xuance.py <repeats> <seconds>
"""

from __future__ import annotations

import os
import sys
import tempfile

import mpe2.simple_adversary_v3
import torch
from interleaving import measure

# Newer versions of PettingZoo no longer have the module that xuance looks for.
sys.modules["pettingzoo.mpe.simple_adversary_v3"] = mpe2.simple_adversary_v3

from xuance.common import get_arguments  # noqa: E402
from xuance.environment import make_envs  # noqa: E402
from xuance.torch.agents import MADDPG_Agents  # noqa: E402

STEPS_PER_UPDATE = 100
SETTINGS = {
    # One hidden layer each in the representation and in the head: two in all.
    "representation": "Basic_MLP",
    "representation_hidden_size": [64],
    "actor_hidden_size": [64],
    "critic_hidden_size": [64],
    "activation": "relu",
    "use_parameter_sharing": False,
    "parallels": 1,
    "batch_size": 1024,
    "buffer_size": 100_000,
    "start_training": 1024,
    "training_frequency": STEPS_PER_UPDATE,
}


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        config = get_arguments("maddpg", "mpe", "simple_adversary_v3")
        for name, value in SETTINGS.items():
            setattr(config, name, value)
        agents = MADDPG_Agents(config, make_envs(config))
        agents.train(SETTINGS["start_training"])

        def training() -> float:
            agents.train(STEPS_PER_UPDATE)
            return STEPS_PER_UPDATE

        measure(
            training, ("xuance", "torch"), "1 environment, continuous actions, own networks per agent, TensorBoard on"
        )


if __name__ == "__main__":
    main()
