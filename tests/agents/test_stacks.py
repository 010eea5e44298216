"""A stack is its members, a seed means one thing, and a stored learner goes on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from soo_marl.agents import MADDPG, AgentSpaces, MADDPGConfig, Trainer, TrainingConfig, Transitions
from soo_marl.envs import BatchedPhysicalDeception, preset
from soo_marl.random_streams import RandomStreams

SEEDS = (6, 0, 3)

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "leaky": {"activation": "leaky_relu", "clip_scope": "tensor"},
    "contexts": {"contexts": 2, "context_weights": (1.0, 4.0)},
}


def make(seeds: Sequence[int], discrete: bool = False, **config: Any) -> MADDPG:
    sizes = (5, 3) if discrete else (2, 1)
    return MADDPG(
        AgentSpaces((3, 2), sizes, discrete), MADDPGConfig(**({"hidden_units": 8, "tau": 0.1} | config)), seeds
    )


def make_batch(seeds: Sequence[int], discrete: bool, draw: int, size: int = 16) -> Transitions:
    random = RandomStreams(seeds, f"batch/{draw}")
    actions = [random.normal(size, width) for width in ((5, 3) if discrete else (2, 1))]
    return Transitions(
        observations=(random.normal(size, 3), random.normal(size, 2)),
        actions=tuple(torch.softmax(action, -1) if discrete else action.tanh() for action in actions),
        rewards=random.normal(size, 2),
        next_observations=(random.normal(size, 3), random.normal(size, 2)),
        terminated=(random.uniform(size) < 0.3).float(),
        context=random.integers(2, size),
        next_context=random.integers(2, size),
    )


def learn(maddpg: MADDPG, discrete: bool, draws: range) -> list[Tensor]:
    losses = []
    for draw in draws:
        batch = make_batch(maddpg.seeds, discrete, draw)
        maddpg.largest_reward.copy_(batch.rewards.abs().amax(dim=1))
        statistics = maddpg.update(batch)
        losses.append(torch.stack([getattr(statistics, field.name) for field in fields(statistics)]))
    return losses


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_stack_learns_as_its_members_do(name: str, discrete: bool) -> None:
    config = CONFIGURATIONS[name]
    stack = make(SEEDS, discrete, **config)
    stack_losses = learn(stack, discrete, range(5))
    for run, seed in enumerate(SEEDS):
        alone = make([seed], discrete, **config)
        for loss, stack_loss in zip(learn(alone, discrete, range(5)), stack_losses, strict=True):
            torch.testing.assert_close(loss[:, 0], stack_loss[:, run], rtol=1e-3, atol=1e-4)
        together = stack.networks_state()
        for key, tensor in alone.networks_state().items():
            torch.testing.assert_close(tensor[0], together[key][run], rtol=1e-3, atol=2e-4)


def test_one_member_gone_wrong_does_not_touch_the_others() -> None:
    good, bad = make(SEEDS), make(SEEDS)
    with torch.no_grad():
        bad.networks.critics[0].networks[0].output.bias[1] = torch.nan  # type: ignore[index, operator, union-attr]
    learn(good, False, range(2))
    learn(bad, False, range(2))
    for key, tensor in bad.networks_state().items():
        for run in (0, 2):
            assert torch.equal(tensor[run], good.networks_state()[key][run])
    assert bool(bad.networks.actors[0].output.weight[1].isnan().any())


def test_target_networks_start_equal_and_agents_start_different() -> None:
    state = make(SEEDS).networks_state()
    for key, tensor in state.items():
        if key.startswith(("actor", "critic")):
            assert torch.equal(tensor, state[f"target_{key}"])
    weights = state["actor/0/hidden_2.linear.weight"], state["actor/1/hidden_2.linear.weight"]
    assert not torch.equal(*weights) and not torch.equal(weights[0][0], weights[0][1])


def test_streams_of_another_name_start_from_other_weights() -> None:
    one, other = (
        MADDPG(AgentSpaces((3,), (2,)), MADDPGConfig(hidden_units=4), SEEDS, stream=name).networks_state()
        for name in ("honest", "deceptive")
    )
    assert not torch.equal(one["actor/0/output.weight"], other["actor/0/output.weight"])


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("before", [0, 3])
def test_a_stored_learner_goes_on_bit_for_bit(name: str, discrete: bool, before: int) -> None:
    config = CONFIGURATIONS[name]
    whole, first = make(SEEDS, discrete, **config), make(SEEDS, discrete, **config)
    whole.scale_learning_rates(0.5)
    learn(whole, discrete, range(6))
    first.scale_learning_rates(0.5)
    learn(first, discrete, range(before))
    stored = save(first.state())
    learn(first, discrete, range(before, 6))  # what comes later must not reach what was stored
    second = make(SEEDS, discrete, **config)
    learn(second, discrete, range(10, 12))  # nor what was there before
    second.load_state(load(stored))
    learn(second, discrete, range(before, 6))
    expected = whole.state()
    for other in (first.state(), second.state()):
        assert other.keys() == expected.keys()
        for key, tensor in expected.items():
            assert torch.equal(tensor, other[key]), key


def test_a_state_is_a_copy_both_ways() -> None:
    maddpg, other = make(SEEDS), make(SEEDS)
    learn(maddpg, False, range(2))
    state = maddpg.state()
    kept = {key: tensor.clone() for key, tensor in state.items()}
    other.load_state(state)
    learn(maddpg, False, range(2, 4))
    learn(other, False, range(2, 4))
    assert all(torch.equal(kept[key], state[key]) for key in kept)
    for tensor in state.values():
        tensor.zero_()
    assert all(torch.equal(tensor, maddpg.state()[key]) for key, tensor in other.state().items())


def test_a_state_of_another_configuration_is_refused() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        make(SEEDS).load_state(make(SEEDS[:2]).state())
    with pytest.raises(RuntimeError, match=r"networks\.1"):
        make(SEEDS).load_state(make(SEEDS, contexts=2).state())


def test_one_agent_can_be_taken_over_with_its_targets() -> None:
    source, maddpg = make(SEEDS), make(SEEDS)
    learn(source, False, range(3))
    before = maddpg.networks_state()
    maddpg.take_agent(0, source)
    for key, tensor in maddpg.networks_state().items():
        expected = source.networks_state() if "/0/" in key else before
        assert torch.equal(tensor, expected[key])
    learn(maddpg, False, range(1))
    assert all(torch.equal(source.networks_state()[key], tensor) for key, tensor in source.networks_state().items())
    with pytest.raises(RuntimeError):
        make(SEEDS[:1]).take_agent(0, source)


def train(seeds: Sequence[int], discrete: bool = False) -> tuple[Trainer, list[dict[str, Tensor]]]:
    game = preset("trackable").replace(alone_share=0.3, trapped_start_share=0.2, continuous_actions=not discrete)
    worlds = BatchedPhysicalDeception(game, seeds, 8)
    config = MADDPGConfig(hidden_units=32, contexts=2, reward_scale=0.1)
    maddpg = MADDPG(AgentSpaces(worlds.observation_sizes, worlds.action_sizes, discrete), config, seeds)
    logged: list[dict[str, Tensor]] = []
    training = TrainingConfig(worlds=8, updates=20 if discrete else 50, batch_size=64, warm_up=300, log_every=10)
    trainer = Trainer(maddpg, worlds, training, seeds, log=lambda updates, metrics: logged.append(dict(metrics)))
    trainer.run()
    return trainer, logged


@pytest.mark.parametrize("discrete", [False, True])
def test_a_run_trains_the_same_alone_as_in_a_stack_of_any_order(discrete: bool) -> None:
    """Updates of real training; rounding is all that differs, and it may grow a little with each update.

    Where actions are discrete there are fewer updates: rounding that changes a choice grows fast on some processors.
    """
    stack, stack_log = train(SEEDS, discrete)
    other, other_log = train((SEEDS[1], 17, SEEDS[0]), discrete)
    alone, alone_log = train(SEEDS[1:2], discrete)
    for trainer, log, run in ((other, other_log, 0), (alone, alone_log, 0)):
        size = trainer.replay.size
        assert size == stack.replay.size
        torch.testing.assert_close(trainer.replay.rows[run, :size], stack.replay.rows[1, :size], rtol=0, atol=5e-3)
        expected = stack.maddpg.networks_state()
        for key, tensor in trainer.maddpg.networks_state().items():
            torch.testing.assert_close(tensor[run], expected[key][1], rtol=0, atol=5e-3)
        for metrics, stack_metrics in zip(log, stack_log, strict=True):
            for name, values in metrics.items():
                torch.testing.assert_close(values[run], stack_metrics[name][1], rtol=5e-3, atol=5e-3, equal_nan=True)
    # The comparison means something: another seed ends elsewhere.
    expected = stack.maddpg.networks_state()["actor/1/output.weight"]
    assert float((expected[0] - expected[1]).abs().max()) > 0.01


def test_the_same_seed_trains_the_same_twice() -> None:
    one, other = train(SEEDS)[0].state(), train(SEEDS)[0].state()
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
