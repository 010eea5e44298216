"""Updates per second, and what share of a plain matrix multiplication's rate they reach."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks.cases import Case
from benchmarks.flops import update_flops
from benchmarks.measurements import Measurement, best, measurement
from benchmarks.settings import Settings
from benchmarks.timing import Work, interleaved
from soo_marl.agents.gradients import AutogradGradients
from soo_marl.agents.maddpg import MADDPG, AgentSpaces, MADDPGConfig
from soo_marl.agents.replay import ReplayBuffer, Transitions
from soo_marl.envs.configuration import preset
from soo_marl.random_streams import RandomStreams
from soo_marl.studies.learning.agents_on_disk import agent_spaces
from soo_marl.studies.learning.recipes import baseline_config

SPACES = agent_spaces(preset("paper"))
"""Two agents with observations of 6 and 10 numbers and actions of 2."""

BATCHES = (256, 1_024)
RUNS = (1, 4, 20, 100)
QUICK_RUNS = (1, 2)
STACK = 20
SQUARE = 1_024
"""Rows and columns of the large square matrices."""

_CAPACITY = 100_000
"""Transitions in the replay buffer, as in a study."""
_FILL = 1_000

JOINT_MADDPG = baseline_config("paper", "joint").maddpg


def cases(quick: bool) -> list[Case]:
    """Every number of runs at every batch size, and a stack against its runs alone."""
    runs = QUICK_RUNS if quick else RUNS
    found = [
        Case(f"update/b{batch}/runs_{count}", measure_update, (batch, count)) for batch in BATCHES for count in runs
    ]
    return found + [Case(f"update/b{batch}/stack{STACK}_vs_separate", measure_stack, (batch,)) for batch in BATCHES]


def headlines(measurements: Sequence[Measurement]) -> list[Measurement]:
    """The best number of runs at each batch size."""
    return [
        found
        for batch in BATCHES
        for share in ("share_of_matmul", "share_of_square_matmul")
        for found in best(measurements, f"update/b{batch}/runs_*/{share}", f"update/b{batch}/{share}")
    ]


def measure_update(settings: Settings, batch: int, runs: int) -> list[Measurement]:
    """Updates of both agents of so many runs, against matrix multiplications of the same total size."""
    hidden, name = JOINT_MADDPG.hidden_units, f"b{batch}/runs_{runs}"
    flops = update_flops(SPACES, hidden, batch)
    works = {
        "update": update_work(SPACES, JOINT_MADDPG, runs, batch, 500 if settings.quick else _CAPACITY),
        "matmul": _matmul_work(flops * runs, runs, batch, hidden, hidden),
        "square": _matmul_work(flops * runs, 1, SQUARE, SQUARE, SQUARE),
    }
    rates = interleaved(works, settings.repeats, settings.seconds)
    shapes = f"[{runs}, {batch}, {hidden}] x [{runs}, {hidden}, {hidden}]"
    return [
        measurement(f"update/{name}/run_updates_per_second", rates["update"], "run-updates/s"),
        measurement(
            f"update/{name}/share_of_matmul", rates["update"] * flops / rates["matmul"], "share", f"of {shapes}"
        ),
        measurement(f"update/{name}/share_of_square_matmul", rates["update"] * flops / rates["square"], "share"),
        measurement(f"matmul/{name}/gflops", rates["matmul"] / 1e9, "GFLOP/s", shapes),
        measurement(
            "matmul/square/gflops", rates["square"] / 1e9, "GFLOP/s", f"{SQUARE} x {SQUARE}, timed beside every update"
        ),
    ]


def measure_stack(settings: Settings, batch: int) -> list[Measurement]:
    """Run-updates per second of one stack over those of a run alone, also where that one uses autograd."""
    capacity = 500 if settings.quick else _CAPACITY
    works = {
        "stack": update_work(SPACES, JOINT_MADDPG, STACK, batch, capacity),
        "one": update_work(SPACES, JOINT_MADDPG, 1, batch, capacity),
        "autograd": update_work(SPACES, JOINT_MADDPG, 1, batch, capacity, AutogradGradients),
    }
    rates = interleaved(works, settings.repeats, settings.seconds)
    name, remark = f"update/b{batch}/stack{STACK}_vs_separate", f"run-updates/s of a stack of {STACK} over those of one"
    return [
        measurement(name, rates["stack"] / rates["one"], "×", f"{remark} run alone"),
        measurement(
            f"{name}_autograd", rates["stack"] / rates["autograd"], "×", f"{remark} run alone by the reference update"
        ),
    ]


def update_work(
    spaces: AgentSpaces,
    config: MADDPGConfig,
    runs: int,
    batch: int,
    capacity: int,
    gradients: type[AutogradGradients] | None = None,
) -> Work:
    """One update of all agents of so many runs, from drawing the minibatch on; counts run-updates.

    Args:
        spaces, config: of the learner.
        runs: ``R``.
        batch: transitions per minibatch.
        capacity: of the replay buffer, which is full.
        gradients: how gradients are computed; as the learner chooses where None.
    """
    seeds = range(runs)
    maddpg = MADDPG(spaces, config, seeds)
    maddpg.gradients = gradients or maddpg.gradients
    replay = ReplayBuffer(
        capacity, spaces.observation_sizes, spaces.action_sizes, RandomStreams(seeds, "benchmark/minibatches")
    )
    transitions = _random_transitions(spaces, runs, min(capacity, _FILL))
    while replay.size < capacity:
        replay.add(transitions)

    def update() -> float:
        maddpg.update(replay.sample(batch))
        return runs

    return update


def _random_transitions(spaces: AgentSpaces, runs: int, count: int) -> Transitions:
    generator = torch.Generator().manual_seed(0)

    def normal(size: int) -> torch.Tensor:
        return torch.randn(runs, count, size, generator=generator)

    nothing = torch.zeros(runs, count, dtype=torch.int64)
    return Transitions(
        observations=tuple(map(normal, spaces.observation_sizes)),
        actions=tuple(normal(size).softmax(dim=-1) for size in spaces.action_sizes),
        rewards=normal(len(spaces.action_sizes)),
        next_observations=tuple(map(normal, spaces.observation_sizes)),
        terminated=nothing,
        context=nothing,
        next_context=nothing,
    )


def _matmul_work(flops: int, stack: int, rows: int, inner: int, columns: int) -> Work:
    """Plain fp32 products ``[stack, rows, inner] x [stack, inner, columns]`` of so many operations in all, or a few
    more; counts operations."""
    left, right = torch.randn(stack, rows, inner), torch.randn(stack, inner, columns)
    product = torch.empty(stack, rows, columns)
    of_one = 2 * stack * rows * inner * columns
    times = -(-flops // of_one)

    def multiply() -> float:
        for _ in range(times):
            torch.bmm(left, right, out=product)
        return times * of_one

    return multiply
