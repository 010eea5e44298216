"""Hold MADDPG against the world: learning curves of stock ``simple_adversary``, the game with published curves.

Settings are those of openai/maddpg (``experiments/train.py``, ``maddpg/trainer/maddpg.py``), the code of Lowe et al.
2017: discrete actions as relaxed Gumbel-softmax samples, both networks 2 x 64 ReLU, Adam 0.01, gamma 0.95, tau 0.01,
batch 1,024, one update of all agents per 100 steps, 25,600 transitions of warm-up, each tensor's gradient clipped at
norm 0.5, and 0.001 times the mean squared logits added to the actor loss. The 1,024 episodes of warm-up count into the
first point of a curve, but not into its number of episodes.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from soo_marl.agents.configuration import AgentSpaces, MADDPGConfig
from soo_marl.agents.maddpg import MADDPG
from soo_marl.agents.trainer import Trainer, TrainingConfig
from soo_marl.envs.batched_simple_adversary import BatchedSimpleAdversary, SimpleAdversaryConfig
from soo_marl.storage.files import write_text

Dialect = Literal["openai", "mpe2"]
"""``openai``: velocity-first integration and the adversary's squared distance, as published. ``mpe2``: as mpe2."""

PUBLISHED = {"good": 8.2, "adversary": -13.4}
"""Mean episode returns at 60,000 episodes in the ``openai`` dialect, 10 seeds."""

REFERENCE_MADDPG = MADDPGConfig(
    actor_learning_rate=0.01, critic_learning_rate=0.01, tau=0.01, pre_squash_penalty=1e-3, clip_scope="tensor"
)

_EPISODE_LENGTH = 25
_STEPS_PER_UPDATE = 100
_WORLDS = 4


@dataclass(frozen=True)
class ReferenceCurve:
    """Mean episode returns during training, over windows of ``episodes[1] - episodes[0]`` episodes."""

    dialect: Dialect
    seeds: tuple[int, ...]
    episodes: NDArray[np.int64]
    """``[points]``: episodes done at the end of each window."""
    good: NDArray[np.float64]
    """``[seeds, points]``: return of the good team (its agents share one reward)."""
    adversary: NDArray[np.float64]
    """``[seeds, points]``."""

    def write_csv(self, path: Path) -> None:
        """Write one row per seed and window. Raises RunDirectoryError: the file cannot be written."""
        rows = (
            f"{self.dialect},{seed},{episodes},{self.good[row, point]:.4f},{self.adversary[row, point]:.4f}"
            for row, seed in enumerate(self.seeds)
            for point, episodes in enumerate(self.episodes)
        )
        write_text(path, "\n".join(["dialect,seed,episodes,good,adversary", *rows]) + "\n")

    @staticmethod
    def read_csv(path: Path) -> ReferenceCurve:
        """Read what :meth:`write_csv` wrote.

        Raises:
            OSError: the file cannot be read.
            ValueError, KeyError: it is no such file.
        """
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if not rows:
            raise ValueError(f"{path} holds no curve: train one first")
        seeds = tuple(dict.fromkeys(int(row["seed"]) for row in rows))
        episodes = np.array(list(dict.fromkeys(int(row["episodes"]) for row in rows)), dtype=np.int64)
        shape = (len(seeds), len(episodes))
        dialect: Dialect = "openai" if rows[0]["dialect"] == "openai" else "mpe2"
        good, adversary = (
            np.array([row[team] for row in rows], dtype=np.float64).reshape(shape) for team in ("good", "adversary")
        )
        return ReferenceCurve(dialect, seeds, episodes, good, adversary)


def train_reference(
    dialect: Dialect,
    seeds: Sequence[int],
    episodes: int = 60_000,
    *,
    window: int = 1_000,
    device: str = "cpu",
    progress: Callable[[int, float, float], None] | None = None,
) -> ReferenceCurve:
    """Train MADDPG on stock ``simple_adversary`` with two good agents and record the training returns.

    Args:
        dialect: which version of the game.
        seeds: one run per seed, all in one stack.
        episodes: episodes per seed (published curves: 60,000), a multiple of ``window``.
        window: episodes per point of the curve, a multiple of 4.
        device: where to compute.
        progress: called as ``progress(episodes, good return, adversary return)`` at each point.

    Raises:
        ValueError: episodes are not a multiple of the window, or the window is not a multiple of 4.
    """
    if episodes % window or window % 4:
        raise ValueError(f"episodes ({episodes}) must be a multiple of the window ({window}), and the window of 4")
    openai = dialect == "openai"
    game = SimpleAdversaryConfig(integration="classic" if openai else "mpe2", squared_adversary_distance=openai)
    worlds = BatchedSimpleAdversary(game, seeds, _WORLDS, device)
    maddpg = MADDPG(
        AgentSpaces(worlds.observation_sizes, worlds.action_sizes, discrete=True), REFERENCE_MADDPG, seeds, device
    )
    points: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []

    def log(updates: int, metrics: Mapping[str, Tensor]) -> None:
        adversary, good = ((metrics[f"reward/{agent}"].double().cpu() * _EPISODE_LENGTH).numpy() for agent in (0, 1))
        points.append((good, adversary))
        if progress is not None:
            progress(updates * _STEPS_PER_UPDATE // _EPISODE_LENGTH, float(good.mean()), float(adversary.mean()))

    config = TrainingConfig(
        worlds=_WORLDS,
        updates=episodes * _EPISODE_LENGTH // _STEPS_PER_UPDATE,
        steps_per_update=_STEPS_PER_UPDATE // _WORLDS,
        batch_size=1024,
        replay_capacity=1_000_000,
        warm_up=25_600,
        log_every=window * _EPISODE_LENGTH // _STEPS_PER_UPDATE,
    )
    Trainer(maddpg, worlds, config, seeds, log=log).run()
    good, adversary = (np.stack(curves, axis=1) for curves in zip(*points, strict=True))
    return ReferenceCurve(dialect, tuple(seeds), np.arange(window, episodes + 1, window), good, adversary)
