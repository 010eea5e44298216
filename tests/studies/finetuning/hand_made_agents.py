"""Agents whose weights are set by hand, so that what they do is known: real networks for the real game.

They are for games with the visible bit, in which blue observes 11 numbers, and need at least 13 hidden units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from soo_marl.agents import MADDPG, MADDPGConfig
from soo_marl.agents.networks import StackedMLP
from soo_marl.agents.trainer import TrainingConfig
from soo_marl.envs import preset
from soo_marl.envs.configuration import PhysicalDeceptionConfig
from soo_marl.envs.observations import BLUE_AGENT, RED_AGENT
from soo_marl.studies.finetuning.configuration import FINETUNING_TRAINING, FinetuneConfig, Treatment
from soo_marl.studies.learning.agents_on_disk import agent_spaces
from soo_marl.studies.learning.recipes import BaselineConfig, Stage

GAME = preset("trackable").replace(visible_bit=True, episode_length=40, blue_speed_limit=0.8)
"""Long enough to arrive anywhere, and slow enough for red to follow."""

GUIDING_GAME = GAME.replace(guide_reward=15.0, red_speed_limit=0.5)
"""A game in which seeing pays: red is slow, and blue earns most where it brings red to the goal."""

REACH = 0.1
"""Farther than this from where it wants to be, blue pulls with all its strength."""

_GATE = 10.0
"""Larger than everything that is switched on and off."""


@dataclass(frozen=True)
class Policy:
    """What a blue does: it pulls towards a landmark, and while it sees an untrapped red, also towards red."""

    goal_pull: float = 20.0
    """0 for a blue that does not care where it is."""
    lures: bool = False
    """Go to the fake while an untrapped red is seen, to the goal otherwise."""
    red_pull: float = 0.0
    """How strongly it pulls towards a red that it sees, per unit of distance."""
    push: float = 0.0
    """What it adds along the first axis while it sees an untrapped red, wherever that is."""


STILL = Policy(goal_pull=0.0)
STRAIGHT = Policy()
"""To the goal, whatever it sees: blind."""
HONEST = Policy(red_pull=2.0, push=0.4)
"""To the goal too, but it answers to red."""
LURES = Policy(lures=True, red_pull=2.0)
GUIDES = Policy(goal_pull=30.0, red_pull=12.0)
"""To the goal, but no faster than red follows."""
MISGUIDES = Policy(goal_pull=30.0, red_pull=12.0, lures=True)


def training(updates: int = 6, learners: tuple[int, ...] | None = None) -> TrainingConfig:
    """A training of a moment."""
    return TrainingConfig(
        worlds=8,
        updates=updates,
        steps_per_update=3,
        batch_size=16,
        replay_capacity=400,
        warm_up=64,
        log_every=2,
        learners=learners,
    )


def baselines(**changes: object) -> BaselineConfig:
    """The configuration of a study of hand-made agents."""
    fields: dict[str, object] = {
        "game": GAME,
        "regime": "staged",
        "seeds": (0, 1, 2),
        "maddpg": MADDPGConfig(hidden_units=16, contexts=2, reward_scale=0.1),
        "stages": (
            Stage(name="follow", training=training()),
            Stage(name="lure", training=training(learners=(BLUE_AGENT,)), alone_share=0.5),
        ),
        "evaluation_episodes": 60,
    }
    return BaselineConfig.model_validate(fields | changes)


def finetuning(of: BaselineConfig, treatments: Sequence[Treatment], **changes: object) -> FinetuneConfig:
    """A configuration that fine-tunes for a moment."""
    fields: dict[str, object] = {
        "baselines": of,
        "seeds": of.seeds,
        "agents_digest": "of these agents",
        "treatments": tuple(treatments),
        "training": FINETUNING_TRAINING.model_copy(
            update=training(learners=(BLUE_AGENT,)).model_dump(exclude_unset=True)
        ),
        "after_updates": 4,
        "evaluation_episodes": 60,
        "monitor_episodes": 8,
    }
    return FinetuneConfig.model_validate(fields | changes)


def hand_made(
    game: PhysicalDeceptionConfig, maddpg: MADDPGConfig, seeds: Sequence[int], policies: Policy | Sequence[Policy]
) -> MADDPG:
    """Agents with these blues, one policy for all runs or one for each, and reds that follow a blue they see."""
    agents = MADDPG(agent_spaces(game), maddpg, seeds)
    given = [policies] * len(seeds) if isinstance(policies, Policy) else policies
    set_linear(
        agents.networks.actors[RED_AGENT], {0: (4, 8.0 * game.red_sight_radius), 1: (5, 8.0 * game.red_sight_radius)}
    )
    for networks in (agents.networks.actors, agents.targets.actors):
        for run, policy in enumerate(given):
            _set_blue(networks[BLUE_AGENT], run, policy, game.blue_sight_radius)
    return agents


def set_linear(actor: StackedMLP, outputs: dict[int, tuple[int, float]]) -> None:
    """Make every run put out, before it squashes, ``factor`` times one of its scaled inputs per output."""
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.zero_()
        for output, (feature, factor) in outputs.items():
            for unit, sign in ((2 * output, 1.0), (2 * output + 1, -1.0)):
                actor.hidden_1.linear.weight[:, unit, feature] = sign
                actor.hidden_2.linear.weight[:, unit, unit] = 1.0
                actor.output.weight[:, output, unit] = sign * factor


def _set_blue(actor: StackedMLP, run: int, policy: Policy, sight: float) -> None:
    """Hidden layer 1 cuts distances to ``REACH``, layer 2 switches between landmarks."""
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter[run] = 0.0
        first, second = (hidden.linear for hidden in (actor.hidden_1, actor.hidden_2))
        lures = _GATE if policy.lures else 0.0
        for axis in (0, 1):
            goal = _row({axis: 1.0})
            fake = _row({2 + axis: 1.0, 4 + axis: 1.0, axis: -1.0})
            red = _row({6 + axis: sight})
            for start, direction in ((0, goal), (4, fake)):
                for unit, shift in ((start + 2 * axis, REACH), (start + 2 * axis + 1, -REACH)):
                    first.weight[run, unit], first.bias[run, 0, unit] = direction, shift
            for sign, unit in ((1.0, 8 + 2 * axis), (-1.0, 9 + 2 * axis)):
                first.weight[run, unit] = sign * red
            for sign, offset in ((1.0, 0), (-1.0, 1)):
                for start, gate, rest in ((0, -lures, 0.0), (4, lures, -_GATE)):
                    unit = start + 2 * axis + offset
                    for source, factor in ((start + 2 * axis, sign), (start + 2 * axis + 1, -sign)):
                        second.weight[run, unit, source] = factor
                    second.weight[run, unit, 12] = gate
                    second.bias[run, 0, unit] = -sign * REACH + rest
                    actor.output.weight[run, axis, unit] = sign * policy.goal_pull
                unit = 8 + 2 * axis + offset
                second.weight[run, unit, unit] = 1.0
                second.weight[run, unit, 12], second.bias[run, 0, unit] = _GATE, -_GATE
                actor.output.weight[run, axis, unit] = sign * policy.red_pull
        first.weight[run, 12] = _row({10: 1.0, 8: -1.0})
        second.weight[run, 12, 12] = 1.0
        actor.output.weight[run, 0, 12] = policy.push


def _row(entries: dict[int, float]) -> Tensor:
    row = torch.zeros(11)
    for index, value in entries.items():
        row[index] = value
    return row
