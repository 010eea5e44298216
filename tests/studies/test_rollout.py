from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from soo_marl.agents import AgentNetworks, MADDPGConfig
from soo_marl.deception import behaviour
from soo_marl.envs import BLUE, PhysicalDeception, PhysicalDeceptionState, preset
from soo_marl.envs.batched import BatchedPhysicalDeception
from soo_marl.envs.configuration import PhysicalDeceptionConfig
from soo_marl.envs.observations import BLUE_AGENT, RED_AGENT
from soo_marl.studies.learning.agents_on_disk import agent_spaces
from soo_marl.studies.learning.rollout import greedy_steps, roll_out

GAME = preset("trackable").replace(episode_length=20, alone_share=0.3, trapped_start_share=0.2, trap_reward=2.0)
EPISODES = 6
AGENTS = ("adversary_0", "agent_0")


@dataclass
class HandMade:
    """Agents that follow a rule: blue walks to its goal, or to the other landmark; red stands still or follows blue."""

    blue_to_goal: bool = True
    red_follows: bool = False
    seeds: tuple[int, ...] = (0, 1)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def act(self, observations: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        red, blue = observations
        goal = blue[..., BLUE.goal]
        fake = blue[..., BLUE.landmark_0] + blue[..., BLUE.landmark_1] - goal
        # A weak pull; it comes to rest at its landmark.
        blue_action = (goal if self.blue_to_goal else fake).clamp(-1, 1)
        return red[..., 4:6].clamp(-1, 1) * (10.0 if self.red_follows else 0.0), blue_action


def agents(game: PhysicalDeceptionConfig = GAME, seeds: Sequence[int] = (5, 6)) -> AgentNetworks:
    """Untrained agents that act strongly."""
    networks = AgentNetworks(agent_spaces(game), MADDPGConfig(hidden_units=16), seeds)
    for actor in networks.actors:
        actor.output.weight.data *= 300.0
    return networks


@pytest.mark.parametrize("continuous", [True, False])
@pytest.mark.parametrize("name", ["trackable", "paper"])
def test_an_episode_replays_in_the_pettingzoo_environment(name: str, continuous: bool) -> None:
    game = preset(name).replace(
        episode_length=20, alone_share=0.3, trapped_start_share=0.2, trap_reward=2.0, continuous_actions=continuous
    )
    trajectories, returns = roll_out(agents(game), game, EPISODES, "evaluation")
    start = BatchedPhysicalDeception(game, (5, 6), EPISODES, stream="evaluation")
    for run, seed in enumerate((5, 6)):
        alone = agents(game, [seed])
        for episode in range(EPISODES):
            world = PhysicalDeception(game)
            state = PhysicalDeceptionState(
                start.position[run, episode].numpy(),
                start.velocity[run, episode].numpy(),
                start.landmarks[run, episode].numpy(),
                int(start.goal[run, episode]),
                bool(start.trapped[run, episode]),
                bool(start.alone[run, episode]),
            )
            observations, _ = world.reset(options={"state": state})
            recorded = trajectories[run, episode]
            total = 0.0
            for step in range(game.episode_length + 1):
                state = world.get_state()
                if not state.alone:
                    torch.testing.assert_close(
                        recorded.red_position[step].double(), torch.tensor(state.positions[0]), atol=1e-4, rtol=0
                    )
                torch.testing.assert_close(
                    recorded.blue_position[step].double(), torch.tensor(state.positions[1]), atol=1e-4, rtol=0
                )
                assert bool(recorded.trapped[step]) == state.trapped and bool(recorded.alone) == state.alone
                if step == game.episode_length:
                    assert not world.agents
                    break
                chosen = alone.act([torch.tensor(observations[agent])[None, None] for agent in AGENTS])
                actions = [action[0, 0].numpy() if continuous else int(action[0, 0].argmax()) for action in chosen]
                observations, rewards, *_ = world.step(dict(zip(AGENTS, actions, strict=True)))
                total += rewards["agent_0"]
            assert float(returns[run, episode]) == pytest.approx(total, abs=1e-3)


def test_trajectories_are_what_the_worlds_went_through() -> None:
    trajectories, returns = roll_out(agents(), GAME, EPISODES, "evaluation")
    worlds = BatchedPhysicalDeception(GAME, (5, 6), EPISODES, stream="evaluation")
    total = torch.zeros(2, EPISODES)
    for number, step in enumerate(greedy_steps(agents(), worlds), start=1):
        assert torch.equal(trajectories.blue_position[:, :, number], worlds.position[..., BLUE_AGENT, :])
        assert torch.equal(trajectories.red_position[:, :, number], worlds.position[..., RED_AGENT, :])
        assert torch.equal(trajectories.red_in_sight[:, :, number], worlds.red_in_sight)
        assert torch.equal(trajectories.blue_in_sight[:, :, number], worlds.blue_in_sight)
        assert torch.equal(trajectories.trapped[:, :, number], worlds.trapped)
        total += step.rewards[..., BLUE_AGENT]
    assert number == GAME.episode_length == trajectories.steps
    assert torch.equal(total, returns)


def test_episodes_of_a_seed_do_not_depend_on_the_stack_and_differ_between_streams() -> None:
    stacked, _ = roll_out(agents(), GAME, EPISODES, "evaluation")
    alone, _ = roll_out(agents(seeds=[6]), GAME, EPISODES, "evaluation")
    torch.testing.assert_close(stacked[1:].blue_position, alone.blue_position)
    assert torch.equal(stacked[1:].landmarks, alone.landmarks)
    other, _ = roll_out(agents(), GAME, EPISODES, "classification/0")
    assert not torch.equal(stacked.landmarks, other.landmarks)


def test_rates_of_hand_made_agents() -> None:
    game = preset("trackable").replace(alone_share=0.5)

    def rates(agents: HandMade) -> dict[str, list[float]]:
        trajectories, _ = roll_out(agents, game, 200, "evaluation")  # type: ignore[arg-type]
        found = behaviour(trajectories, game.landmark_radius)
        return {name: getattr(found, name).tolist() for name in vars(found)}

    honest = rates(HandMade(red_follows=True))
    assert min(honest["goal_rate"] + honest["goal_rate_alone"]) == 1.0
    assert min(honest["following_rate"]) > 0.95
    assert min(honest["red_goal_rate"]) > 0.65
    assert max(honest["trap_rate"]) < 0.4
    assert max(honest["rubric_rate_en_route"]) < 0.05

    luring = rates(HandMade(blue_to_goal=False, red_follows=True))
    assert max(luring["goal_rate"]) < 0.2
    assert min(luring["trap_rate"]) > 0.95
    assert min(luring["rubric_rate_en_route"]) > 0.9

    still = rates(HandMade())
    assert max(still["following_rate"]) < 0.6, "blue leaves a red that stands still"
