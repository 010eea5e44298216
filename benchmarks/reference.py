"""The reference R: steps per second of stock ``simple_adversary``, one environment, PettingZoo's parallel API.

This module needs NumPy and mpe2 alone, since peers import it in environments of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mpe2 import simple_adversary_v3

from benchmarks.timing import Work

EPISODE_LENGTH = 25


def reference_work() -> Work:
    """One episode of ``mpe2.simple_adversary_v3.parallel_env()`` under random actions, drawn before; counts steps."""
    environment: Any = simple_adversary_v3.parallel_env(max_cycles=EPISODE_LENGTH)
    environment.reset(seed=0)
    return episodes(environment)


def episodes(environment: Any) -> Work:
    """One episode, its reset included, of an environment with PettingZoo's parallel API; counts steps."""
    draws = np.random.default_rng(0)
    for agent in environment.possible_agents:
        environment.action_space(agent).seed(int(draws.integers(2**31)))
    drawn = [
        {agent: environment.action_space(agent).sample() for agent in environment.possible_agents}
        for _ in range(EPISODE_LENGTH)
    ]

    def episode() -> float:
        environment.reset()
        steps = 0
        while environment.agents:
            environment.step(drawn[steps % EPISODE_LENGTH])
            steps += 1
        return steps

    return episode
