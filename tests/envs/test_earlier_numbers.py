"""Games that use nothing newer play as they did in version 0.1: numbers recorded there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from soo_marl.envs import BatchedPhysicalDeception, PhysicalDeception, preset
from soo_marl.envs.observations import BLUE, RED, imagined_red
from soo_marl.random_streams import RandomStreams

STARTS = {"alone_share": 0.2, "trapped_start_share": 0.3, "trap_reward": 10.0}


def force(step: int) -> Any:
    return np.array([np.cos(0.3 * step), np.sin(0.3 * step)])


@pytest.mark.parametrize(
    ("name", "returns", "goal_and_landmarks", "total"),
    [
        (
            "paper",
            [38.0, 375.0],
            [0.88346249638, 0.24621162688, 0.88346249638, 0.24621162688, 0.97025637506, 0.55686947381],
            6.624932090517297,
        ),
        (
            "trackable",
            [57.0, 340.0],
            [0.39866746057, 0.43154415187, 0.39866746057, 0.43154415187, 0.48546133925, 0.74220199880],
            12.120171722483207,
        ),
    ],
)
def test_batched_worlds(name: str, returns: list[float], goal_and_landmarks: list[float], total: float) -> None:
    config = preset(name).replace(**STARTS)
    worlds = BatchedPhysicalDeception(config, (3,), 4, dtype=torch.float64)
    worlds.reset()
    rewards = torch.zeros(2, dtype=torch.float64)
    for step in range(config.episode_length):
        action = torch.tensor(force(step)).expand(1, 4, 2)
        result = worlds.step((action, -action))
        rewards += result.rewards.sum((0, 1))
    # Two starts of 11 uniform numbers and a goal for each of 4 worlds.
    assert worlds.random.counter == 96
    assert worlds.trapped.tolist() == [[False, False, True, False]] and rewards.tolist() == returns
    blue = result.observations[1]
    np.testing.assert_allclose(blue[0, 0], [*goal_and_landmarks, 0.0, 0.0, 0.0, 0.0], rtol=0, atol=1e-9)
    assert float(blue.sum()) == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "blue", "velocity"),
    [
        ("paper", (-0.5270624756813049, -0.8194825649261475), (1.2420414686203003, 0.05111761391162872)),
        ("trackable", (-0.5313681364059448, -0.8196597695350647), (1.198984980583191, 0.049345578998327255)),
    ],
)
def test_single_worlds(name: str, blue: tuple[float, float], velocity: tuple[float, float]) -> None:
    env = PhysicalDeception(preset(name).replace(**STARTS))
    for seed in (3, None):
        env.reset(seed=seed)
        for step in range(10):
            env.step({"adversary_0": force(step), "agent_0": -force(step)})
    red = (0.2451028972864151, 0.3237563967704773)
    expected = [*red, *blue, 0, 0, *velocity, 0.7528409957885742, -0.35606807470321655, *red, 1, 0, 1, 0]
    np.testing.assert_allclose(env.state(), expected, rtol=0, atol=1e-6)


def test_imagined_reds() -> None:
    pairs = imagined_red(0.35)(torch.zeros(1, 2, RED.size), torch.zeros(1, 2, BLUE.size), RandomStreams([3], "pairs"))
    expected = [[-0.05270801857113838, 0.11211329698562622], [-0.07259394973516464, -0.004197441507130861]]
    np.testing.assert_allclose(pairs.other_observation[0, :, BLUE.red_position], expected, rtol=0, atol=1e-7)
