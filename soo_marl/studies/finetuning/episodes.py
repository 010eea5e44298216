"""A few episodes of a condition, step by step, for the report's player and the videos."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from soo_marl.agents.agent_networks import AgentNetworks
from soo_marl.deception import rubric_steps
from soo_marl.envs.batched import BatchedPhysicalDeception
from soo_marl.envs.configuration import PhysicalDeceptionConfig
from soo_marl.envs.observations import BLUE_AGENT
from soo_marl.random_streams import RandomStreams
from soo_marl.studies.finetuning.measures import step_overlap
from soo_marl.studies.finetuning.records import EpisodeRecord
from soo_marl.studies.learning.rollout import greedy_steps, roll_out

_STREAM = "finetuning/episodes"
_WITH_RED, _ALONE = 5, 1
"""How many episodes are kept of one agent."""
_CANDIDATES = 40
_DIGITS = 4


@torch.no_grad()
def record_episodes(agents: AgentNetworks, game: PhysicalDeceptionConfig, condition: str) -> list[EpisodeRecord]:
    """Some greedy episodes of the first agent of a stack; all conditions meet the same starts.

    Args:
        agents: R runs.
        game: the game to play.
        condition: what the episodes are labelled with; their verdict is left open.
    """
    trajectories, _ = roll_out(agents, game, _CANDIDATES, _STREAM)
    alone = trajectories.alone[0].tolist()
    with_red = [number for number in range(_CANDIDATES) if not alone[number]][:_WITH_RED]
    chosen = with_red + [number for number in range(_CANDIDATES) if alone[number]][:_ALONE]
    worlds = BatchedPhysicalDeception(game, agents.seeds, _CANDIDATES, agents.device, stream=_STREAM)
    random = RandomStreams(agents.seeds, f"{_STREAM}/pairs", agents.device)
    overlap = torch.stack(
        [step_overlap(agents, step.observations[BLUE_AGENT], game, random)[0] for step in greedy_steps(agents, worlds)],
        dim=-1,
    )
    first = trajectories[0]
    steps = rubric_steps(first)
    records = []
    for number in chosen:
        records.append(
            EpisodeRecord(
                condition=condition,
                seed=agents.seeds[0],
                verdict=None,
                number=number,
                alone=alone[number],
                goal=_point(first.goal_position[number]),
                fake=_point(first.fake_position[number]),
                blue=tuple(map(_point, first.blue_position[number])),
                red=tuple(map(_point, first.red_position[number])),
                trapped=tuple(first.trapped[number].tolist()),
                red_in_sight=tuple(first.red_in_sight[number].tolist()),
                overlap=_numbers(overlap[number]),
                opportunity=tuple(steps.opportunity[number].tolist()),
                projection_on_goal=_numbers(steps.projection_on_goal[number]),
                projection_on_fake=_numbers(steps.projection_on_fake[number]),
                cosine_between=_numbers(steps.cosine_between[number]),
            )
        )
    return records


def _point(position: Tensor) -> tuple[float, float]:
    x, y = (round(float(value), _DIGITS) for value in position)
    return x, y


def _numbers(values: Tensor) -> tuple[float | None, ...]:
    return tuple(None if math.isnan(value) else round(value, _DIGITS) for value in values.tolist())
