"""Environment steps per second: the PettingZoo wrapper and the batched worlds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from benchmarks.cases import Case
from benchmarks.measurements import Measurement, best, measurement
from benchmarks.reference import episodes, reference_work
from benchmarks.settings import Settings
from benchmarks.timing import Work, interleaved
from soo_marl.envs.batched import BatchedPhysicalDeception
from soo_marl.envs.batched_simple_adversary import BatchedSimpleAdversary, SimpleAdversaryConfig
from soo_marl.envs.configuration import PhysicalDeceptionConfig, preset
from soo_marl.envs.physical_deception import PhysicalDeception

GAMES: dict[str, PhysicalDeceptionConfig | SimpleAdversaryConfig] = {
    "stock": SimpleAdversaryConfig(),
    "stock_continuous": SimpleAdversaryConfig(continuous_actions=True),
    "paper": preset("paper"),
    "trackable": preset("trackable"),
}
"""``stock`` is simple_adversary with two good agents and discrete actions; the other two are ours."""

WORLDS = (1, 64, 1_024, 8_192, 65_536)
QUICK_WORLDS = (1, 64)

_DRAWN = 5
"""Random actions are drawn before timing, for so many steps, and taken again and again."""


class _Step(Protocol):
    @property
    def truncated(self) -> bool: ...


class _Worlds(Protocol):
    shape: tuple[int, int]
    action_sizes: tuple[int, ...]

    def reset(self) -> tuple[Tensor, ...]: ...

    def step(self, actions: Sequence[Tensor]) -> _Step: ...


def cases(quick: bool) -> list[Case]:
    """The wrapper, and every game at every number of worlds."""
    batched = [
        Case(f"env/batched/{game}/worlds_{worlds}", measure_batched, (game, worlds))
        for game in GAMES
        for worlds in (QUICK_WORLDS if quick else WORLDS)
    ]
    return [Case("env/wrapper/trackable", measure_wrapper), *batched]


def headlines(measurements: Sequence[Measurement]) -> list[Measurement]:
    """The best number of worlds of each game."""
    return [
        found
        for game in GAMES
        for found in best(measurements, f"env/batched/{game}/worlds_*/ratio", f"env/batched/{game}/ratio")
    ]


def measure_wrapper(settings: Settings) -> list[Measurement]:
    """One environment of ours through PettingZoo's parallel API."""
    environment = PhysicalDeception("trackable")
    environment.reset(seed=0)
    return _against_reference("env/wrapper/trackable", episodes(environment), settings)


def measure_batched(settings: Settings, game: str, worlds: int) -> list[Measurement]:
    """One run of so many worlds."""
    return _against_reference(f"env/batched/{game}/worlds_{worlds}", batched_work(GAMES[game], worlds), settings)


def batched_work(game: PhysicalDeceptionConfig | SimpleAdversaryConfig, worlds: int) -> Work:
    """One episode of one run of so many worlds, its reset included; counts a step of each world."""
    if isinstance(game, SimpleAdversaryConfig):
        return _episodes(BatchedSimpleAdversary(game, (0,), worlds), game.continuous_actions)
    return _episodes(BatchedPhysicalDeception(game, (0,), worlds), game.continuous_actions)


def _episodes(worlds: _Worlds, continuous: bool) -> Work:
    generator = torch.Generator().manual_seed(0)
    drawn = [
        tuple(_random_action((*worlds.shape, size), continuous, generator) for size in worlds.action_sizes)
        for _ in range(_DRAWN)
    ]

    def episode() -> float:
        worlds.reset()
        steps, truncated = 0, False
        while not truncated:
            truncated = worlds.step(drawn[steps % _DRAWN]).truncated
            steps += 1
        return steps * worlds.shape[1]

    return episode


def _random_action(shape: tuple[int, int, int], continuous: bool, generator: torch.Generator) -> Tensor:
    if continuous:
        return torch.rand(shape, generator=generator) * 2.0 - 1.0
    moves: Tensor = nn.functional.one_hot(torch.randint(shape[-1], shape[:-1], generator=generator), shape[-1])
    return moves.float()


def _against_reference(name: str, work: Work, settings: Settings) -> list[Measurement]:
    rates = interleaved({"subject": work, "reference": reference_work()}, settings.repeats, settings.seconds)
    return [
        measurement(f"{name}/ratio", rates["subject"] / rates["reference"], "× R"),
        measurement(f"{name}/steps_per_second", rates["subject"], "steps/s"),
        reference_measurement(rates["reference"]),
    ]


def reference_measurement(rates: ArrayLike) -> Measurement:
    """R itself, as timed beside one subject."""
    remark = "R, as timed beside every subject that is given as a multiple of it"
    return measurement("env/reference/steps_per_second", rates, "steps/s", remark)
