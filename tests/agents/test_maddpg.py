"""The update against numbers worked by hand, and against a plain implementation without stacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.functional import one_hot

from soo_marl.agents import MADDPG, AgentSpaces, MADDPGConfig
from soo_marl.agents.adam import clip_per_run, views_of
from soo_marl.agents.networks import StackedMLP
from soo_marl.agents.replay import Transitions
from soo_marl.random_streams import RandomStreams

SPACES = AgentSpaces((3, 2), (2, 1), observation_scales=((1.0, 2.0, 0.5), (3.0, 1.0)))
DISCRETE = AgentSpaces((3, 2), (5, 3), discrete=True)
SEEDS = (4, 0, 11)


def make(spaces: AgentSpaces = SPACES, seeds: Sequence[int] = SEEDS, **config: Any) -> MADDPG:
    return MADDPG(spaces, MADDPGConfig(**({"hidden_units": 8} | config)), seeds)


def make_batch(
    spaces: AgentSpaces = SPACES, seeds: Sequence[int] = SEEDS, size: int = 12, draw: int = 0
) -> Transitions:
    random = RandomStreams(seeds, f"batch/{draw}")

    def action(width: int) -> Tensor:
        numbers = random.normal(size, width)
        return torch.softmax(numbers, dim=-1) if spaces.discrete else torch.tanh(numbers)

    return Transitions(
        observations=tuple(random.normal(size, width) for width in spaces.observation_sizes),
        actions=tuple(action(width) for width in spaces.action_sizes),
        rewards=random.normal(size, 2) * 3.0 + 1.0,
        next_observations=tuple(random.normal(size, width) for width in spaces.observation_sizes),
        terminated=(random.uniform(size) < 0.3).float(),
        context=random.integers(2, size),
        next_context=random.integers(2, size),
    )


def change(batch: Transitions, **fields: Any) -> Transitions:
    return replace(batch, **fields)


def of_run(batch: Transitions, run: int) -> Transitions:
    def part(value: Any) -> Any:
        return tuple(part(item) for item in value) if isinstance(value, tuple) else value[run : run + 1]

    return Transitions(**{field.name: part(getattr(batch, field.name)) for field in fields(Transitions)})


def parameters(maddpg: MADDPG) -> dict[str, Tensor]:
    return maddpg.networks_state()


# By hand


def hand_made(**config: Any) -> tuple[MADDPG, Transitions]:
    """Two agents with one observation and one action each, and networks that are linear where these transitions lie.

    Q = o0 + 2 o1 + 3 a0 + 4 a1, Q' = 2 Q; actor 0 always plays 0.5, actor 1 and both targets play 0.
    """
    maddpg = make(
        AgentSpaces((1, 1), (1, 1)),
        (0,),
        hidden_units=1,
        gamma=0.5,
        tau=0.1,
        pre_squash_penalty=0.1,
        critic_learning_rate=1e-12,
        **config,
    )
    with torch.no_grad():
        for networks in (maddpg.networks, maddpg.targets):
            for network in (*networks.actors, *networks.critics):
                for parameter in network.parameters():
                    parameter.zero_()
        for critic, output in ((maddpg.networks.critics[0], 1.0), (maddpg.targets.critics[0], 2.0)):
            network: Any = critic.networks[0]
            network.hidden_1.linear.weight.copy_(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]))
            network.hidden_2.linear.weight.fill_(1.0)
            network.output.weight.fill_(output)
        maddpg.networks.actors[0].output.bias.fill_(math.atanh(0.5))
    batch = Transitions(
        observations=(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[1.0], [1.0]]])),
        actions=(torch.tensor([[[0.5], [0.0]]]), torch.tensor([[[0.25], [0.5]]])),
        rewards=torch.tensor([[[3.0, 0.0], [4.0, 0.0]]]),
        next_observations=(torch.tensor([[[1.0], [9.0]]]), torch.tensor([[[0.5], [9.0]]])),
        terminated=torch.tensor([[0.0, 1.0]]),
        context=torch.zeros(1, 2, dtype=torch.int64),
        next_context=torch.zeros(1, 2, dtype=torch.int64),
    )
    return maddpg, batch


def test_losses_worked_by_hand() -> None:
    maddpg, batch = hand_made()
    statistics = maddpg.update(batch)
    # Q = 1 + 2 + 1.5 + 1 = 5.5 against 3 + 0.5 * 2 * (1 + 1) = 5 (truncated or running: bootstraps),
    # Q = 2 + 2 + 0 + 2 = 6 against 4 (terminated: does not).
    assert float(statistics.critic_loss[0, 0]) == pytest.approx((0.5**2 + 2.0**2) / 2)
    # With a0 = 0.5 and a1 from replay, Q = 5.5 and 2 + 2 + 1.5 + 2 = 7.5.
    assert float(statistics.value[0, 0]) == pytest.approx(6.5)
    assert float(statistics.actor_loss[0, 0]) == pytest.approx(-6.5 + 0.1 * math.atanh(0.5) ** 2)


def test_truncated_transitions_bootstrap_and_terminated_ones_do_not() -> None:
    maddpg, batch = hand_made()
    loss = maddpg.update(change(batch, terminated=torch.zeros(1, 2))).critic_loss[0, 0]
    # The second target becomes 4 + 0.5 * 2 * (9 + 18) = 31.
    assert float(loss) == pytest.approx((0.5**2 + 25.0**2) / 2)
    maddpg, batch = hand_made()
    loss = maddpg.update(change(batch, terminated=torch.ones(1, 2))).critic_loss[0, 0]
    assert float(loss) == pytest.approx((2.5**2 + 2.0**2) / 2)


def test_the_target_critic_and_the_target_actors_are_really_used() -> None:
    maddpg, batch = hand_made()
    maddpg.targets.critics[0].networks[0].output.weight.data.fill_(4.0)  # type: ignore[operator, union-attr]
    # 3 + 0.5 * 4 * 2 = 7
    assert float(maddpg.update(batch).critic_loss[0, 0]) == pytest.approx((1.5**2 + 2.0**2) / 2)
    maddpg, batch = hand_made()
    maddpg.targets.actors[1].output.bias.data.fill_(math.atanh(0.75))
    # 3 + 0.5 * 2 * (2 + 4 * 0.75) = 8
    assert float(maddpg.update(batch).critic_loss[0, 0]) == pytest.approx((2.5**2 + 2.0**2) / 2)


def test_rewards_are_scaled_and_the_critic_learns_each_agents_own() -> None:
    maddpg, batch = hand_made(reward_scale=10.0)
    statistics = maddpg.update(batch)
    assert float(statistics.critic_loss[0, 0]) == pytest.approx((26.5**2 + 34.0**2) / 2)
    assert float(statistics.critic_loss[0, 1]) == 0.0  # agent 1 earns nothing, and its critic says so


def test_context_weights_scale_the_value_in_the_actor_loss_alone() -> None:
    maddpg, batch = hand_made(contexts=2, context_weights=(1.0, 4.0))
    first, second = maddpg.networks.critics[0].networks
    second.load_state_dict(first.state_dict())
    statistics = maddpg.update(change(batch, context=torch.tensor([[0, 1]])))
    assert float(statistics.value[0, 0]) == pytest.approx(6.5)
    expected = -(5.5 + 4.0 * 7.5) / 2 + 0.1 * math.atanh(0.5) ** 2
    assert float(statistics.actor_loss[0, 0]) == pytest.approx(expected)


def test_targets_move_by_tau() -> None:
    maddpg, batch = hand_made()
    maddpg.update(batch, learners=[0])
    assert float(maddpg.targets.critics[0].networks[0].output.weight) == pytest.approx(0.9 * 2.0 + 0.1 * 1.0)  # type: ignore
    actor = float(maddpg.networks.actors[0].output.bias.detach())
    assert float(maddpg.targets.actors[0].output.bias) == pytest.approx(0.1 * actor)
    # The critic wants a larger a0: Adam's first step is the whole learning rate.
    assert actor == pytest.approx(math.atanh(0.5) + 0.003, abs=1e-6)


# Against a plain implementation


class Plain:
    """MADDPG for one run and continuous actions, with torch's own layers, optimisers and clipping."""

    def __init__(self, stack: MADDPG, run: int) -> None:
        self.config, self.spaces = stack.config, stack.spaces
        self.actors, self.target_actors, self.critics, self.target_critics = (
            [self.copy(network, run) for network in networks]
            for networks in (
                stack.networks.actors,
                stack.targets.actors,
                [critic.networks[0] for critic in stack.networks.critics],
                [critic.networks[0] for critic in stack.targets.critics],
            )
        )
        self.actor_adam = [torch.optim.Adam(net.parameters(), self.config.actor_learning_rate) for net in self.actors]
        self.critic_adam = [
            torch.optim.Adam(net.parameters(), self.config.critic_learning_rate) for net in self.critics
        ]

    @staticmethod
    def copy(network: Any, run: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for stacked in (network.hidden_1.linear, network.hidden_2.linear, network.output):
            layer = nn.Linear(stacked.weight.shape[2], stacked.weight.shape[1])
            layer.weight.data, layer.bias.data = stacked.weight.data[run].clone(), stacked.bias.data[run, 0].clone()
            layers += [layer, nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    def scale(self, observations: Sequence[Tensor]) -> list[Tensor]:
        assert self.spaces.observation_scales is not None
        scales = self.spaces.observation_scales
        return [observation * torch.tensor(scale) for observation, scale in zip(observations, scales, strict=True)]

    def descend(self, network: nn.Module, optimiser: torch.optim.Adam, loss: Tensor) -> None:
        network.zero_grad()
        loss.backward()
        groups = [[p] for p in network.parameters()] if self.config.clip_scope == "tensor" else [network.parameters()]
        for group in groups:
            nn.utils.clip_grad_norm_(group, self.config.gradient_clip)
        optimiser.step()

    def update(self, batch: Transitions) -> None:
        observations = self.scale([value[0] for value in batch.observations])
        following = self.scale([value[0] for value in batch.next_observations])
        actions = [value[0] for value in batch.actions]
        with torch.no_grad():
            next_actions = [actor(seen).tanh() for actor, seen in zip(self.target_actors, following, strict=True)]
        for i in range(2):
            with torch.no_grad():
                bootstrap = self.target_critics[i](torch.cat((*following, *next_actions), -1))[:, 0]
                goes_on = 1 - batch.terminated[0]
                target = batch.rewards[0, :, i] * self.config.reward_scale + self.config.gamma * goes_on * bootstrap
            value = self.critics[i](torch.cat((*observations, *actions), -1))[:, 0]
            self.descend(self.critics[i], self.critic_adam[i], nn.functional.mse_loss(value, target))
            pre_squash = self.actors[i](observations[i])
            played = [pre_squash.tanh() if j == i else action for j, action in enumerate(actions)]
            value = self.critics[i](torch.cat((*observations, *played), -1))
            loss = -value.mean() + self.config.pre_squash_penalty * pre_squash.square().mean()
            self.descend(self.actors[i], self.actor_adam[i], loss)
        for targets, sources in ((self.target_actors, self.actors), (self.target_critics, self.critics)):
            for network, source in zip(targets, sources, strict=True):
                for parameter, learnt in zip(network.parameters(), source.parameters(), strict=True):
                    parameter.data = (1 - self.config.tau) * parameter.data + self.config.tau * learnt.data


@pytest.mark.parametrize("scope", ["network", "tensor"])
@pytest.mark.parametrize("clip", [0.05, 50.0])
def test_a_stack_learns_as_a_plain_implementation_does_run_by_run(scope: str, clip: float) -> None:
    stack = make(clip_scope=scope, gradient_clip=clip, tau=0.1, reward_scale=0.5)
    members = [Plain(stack, run) for run in range(len(SEEDS))]
    for draw in range(5):
        batch = make_batch(draw=draw)
        stack.update(batch)
        for run, member in enumerate(members):
            member.update(of_run(batch, run))
    for run, member in enumerate(members):
        pairs = [
            *zip(member.actors, stack.networks.actors, strict=True),
            *zip(member.target_actors, stack.targets.actors, strict=True),
            *zip(member.critics, [critic.networks[0] for critic in stack.networks.critics], strict=True),
            *zip(member.target_critics, [critic.networks[0] for critic in stack.targets.critics], strict=True),
        ]
        for plain, stacked in pairs:
            expected = Plain.copy(stacked, run)
            for one, other in zip(plain.parameters(), expected.parameters(), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("scope", ["network", "tensor"])
def test_clipping_a_stack_is_clipping_each_member(scope: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    # One run far above the limit, one near it, one below.
    size = torch.tensor([100.0, 1.0, 1e-3])
    gradients = [torch.randn(3, *shape, generator=generator) for shape in ((4, 2), (1, 2))]
    gradients = [gradient * size.view(3, 1, 1) for gradient in gradients]
    expected = [[gradient[run].clone() for gradient in gradients] for run in range(3)]
    if scope == "tensor":
        clip_per_run(gradients, 0.5)
    else:
        whole = torch.cat([gradient.flatten(1) for gradient in gradients], dim=1)
        clip_per_run([whole], 0.5)
        gradients = views_of(whole, gradients)
    for run, tensors in enumerate(expected):
        leaves = [nn.Parameter(torch.zeros_like(tensor)) for tensor in tensors]
        for leaf, tensor in zip(leaves, tensors, strict=True):
            leaf.grad = tensor
        for group in [leaves] if scope == "network" else [[leaf] for leaf in leaves]:
            nn.utils.clip_grad_norm_(group, 0.5)
        for leaf, gradient in zip(leaves, gradients, strict=True):
            torch.testing.assert_close(gradient[run], leaf.grad)


# What each critic and actor sees


def test_critics_see_all_observations_and_actions() -> None:
    maddpg = make()
    batch = make_batch()
    joint = torch.cat((*batch.observations, *batch.actions), dim=-1).requires_grad_()
    for critic in maddpg.networks.critics:
        (gradient,) = torch.autograd.grad(critic(joint, batch.context).sum(), joint)
        assert joint.shape[-1] == 3 + 2 + 2 + 1
        assert bool((gradient.abs().sum(dim=1) > 0).all())


def test_actors_see_their_own_observation_alone() -> None:
    maddpg, batch = make(), make_batch()
    before = maddpg.networks.act(batch.observations)
    other = maddpg.networks.act((batch.observations[0], batch.observations[1] + 1.0))
    assert torch.equal(before[0], other[0]) and not torch.equal(before[1], other[1])


def test_each_transition_trains_the_critic_of_its_own_context_only() -> None:
    maddpg, batch = make(contexts=2, critic_learning_rate=0.01), make_batch()
    context = torch.zeros_like(batch.context)
    before = parameters(maddpg)
    maddpg.update(change(batch, context=context, next_context=torch.ones_like(context)))
    after = parameters(maddpg)
    for name in before:
        if name.startswith("critic/") and name.endswith("output.weight"):
            assert torch.equal(before[name], after[name]) == ("networks.1." in name)


def test_the_next_value_is_that_of_the_next_context() -> None:
    def loss(next_context: int) -> Tensor:
        maddpg, batch = make(contexts=2), make_batch()
        for critic in maddpg.targets.critics:
            critic.networks[1].output.bias.data.fill_(100.0)  # type: ignore[operator, union-attr]
        batch = change(batch, terminated=torch.zeros_like(batch.terminated))
        return maddpg.update(change(batch, next_context=torch.full_like(batch.context, next_context))).critic_loss

    assert bool((loss(1) > 50 * loss(0)).all())


# Options


def test_an_auxiliary_actor_loss_is_added_and_changes_that_actor_only() -> None:
    calls = []

    def auxiliary(agent: int, actor: StackedMLP, batch: Transitions) -> Tensor:
        calls.append((agent, actor.training))
        loss = actor(batch.observations[agent]).square().mean(dim=(1, 2))
        return loss * (5.0 if agent == 1 else 0.0)

    plain, helped, batch = make(), make(), make_batch()
    without, with_loss = plain.update(batch), helped.update(batch, auxiliary_actor_loss=auxiliary)
    assert calls == [(0, False), (1, False)]
    penalty = 5.0 * make().networks.actors[1](batch.observations[1]).square().mean(dim=(1, 2))
    torch.testing.assert_close(with_loss.actor_loss[:, 1] - without.actor_loss[:, 1], penalty)
    torch.testing.assert_close(with_loss.actor_loss[:, 0], without.actor_loss[:, 0])
    changed = {name for name, tensor in parameters(plain).items() if not torch.equal(tensor, parameters(helped)[name])}
    assert changed and all(name.startswith(("actor/1/", "target_actor/1/")) for name in changed)


def test_agents_that_do_not_learn_stay_as_they_are() -> None:
    maddpg = make()
    before = parameters(maddpg)
    statistics = maddpg.update(make_batch(), learners=(1,))
    for name, tensor in parameters(maddpg).items():
        learns = "/1/" in name and "input_scale" not in name
        assert torch.equal(before[name], tensor) == (not learns), name
    for values in (statistics.critic_loss, statistics.actor_loss, statistics.value):
        assert bool(values[:, 0].isnan().all()) and not bool(values[:, 1].isnan().any())


# Acting


def test_continuous_actions_are_greedy_without_noise_and_perturbed_and_clipped_with_it() -> None:
    maddpg, batch = make(), make_batch()
    greedy = maddpg.networks.act(batch.observations)
    torch.testing.assert_close(greedy[0], torch.tanh(maddpg.networks.actors[0](batch.observations[0])))
    noise = [torch.full_like(action, 0.5) for action in greedy]
    torch.testing.assert_close(maddpg.networks.act(batch.observations, noise)[1], greedy[1] + 0.5)
    assert bool((maddpg.networks.act(batch.observations, [value * 9 for value in noise])[0] == 1.0).all())
    assert not greedy[0].requires_grad and maddpg.networks.random.counter == 0


def test_discrete_actions_are_one_hot_without_noise_and_on_the_simplex_with_it() -> None:
    maddpg, batch = make(DISCRETE), make_batch(DISCRETE)
    greedy = maddpg.networks.act(batch.observations)
    assert maddpg.networks.random.counter == 0
    for agent, action in enumerate(greedy):
        best = maddpg.networks.actors[agent](batch.observations[agent]).argmax(dim=-1)
        assert torch.equal(action, one_hot(best, DISCRETE.action_sizes[agent]).float())
    sampled = maddpg.networks.act(batch.observations, greedy)
    assert maddpg.networks.random.counter > 0
    for action in sampled:
        torch.testing.assert_close(action.sum(dim=-1), torch.ones(3, 12))
        assert bool((action >= 0).all()) and not bool(((action == 0) | (action == 1)).all())


def test_discrete_samples_follow_the_policy() -> None:
    maddpg = make(DISCRETE, (0,))
    logits = torch.tensor([1.0, 0.0, -1.0])
    with torch.no_grad():
        maddpg.networks.actors[1].output.weight.zero_()
        maddpg.networks.actors[1].output.bias.copy_(logits)
    observations = (torch.zeros(1, 20_000, 3), torch.zeros(1, 20_000, 2))
    chosen = maddpg.networks.act(observations, observations)[1].argmax(dim=-1)
    torch.testing.assert_close(
        one_hot(chosen, 3).double().mean(dim=(0, 1)), logits.softmax(-1).double(), atol=0.02, rtol=0
    )


def test_discrete_updates_sample_target_actions_and_own_actions() -> None:
    maddpg, batch = make(DISCRETE), make_batch(DISCRETE)
    maddpg.update(batch)
    # Next actions of both agents, and each agent's own: 12 transitions of 5 and of 3 numbers, twice.
    assert maddpg.networks.random.counter == 2 * 12 * (5 + 3)


# Refusals


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValidationError, match="2 numbers of at least 0, one for each context"):
        MADDPGConfig(contexts=2, context_weights=(1.0,))
    with pytest.raises(ValidationError, match="at least 0"):
        MADDPGConfig(contexts=1, context_weights=(-1.0,))
    with pytest.raises(ValidationError, match="normalisation"):
        MADDPGConfig(normalisation="batch")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="gama"):
        MADDPGConfig(gama=0.9)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="one of each per agent"):
        AgentSpaces((1, 2), (1,))
    with pytest.raises(ValueError, match="one factor for each feature"):
        AgentSpaces((1, 2), (1, 1), observation_scales=((1.0,), (1.0,)))
    for discrete in ((True, False), "no", 1):
        with pytest.raises(ValueError, match="discrete says of all agents alike"):
            AgentSpaces((1, 2), (1, 1), discrete=discrete)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="each seed once"):
        make(seeds=(1, 1))
    with pytest.raises(ValueError, match="by_hand or by autograd, not 'by_magic'"):
        MADDPG(SPACES, MADDPGConfig(), SEEDS, gradients="by_magic")  # type: ignore[arg-type]
