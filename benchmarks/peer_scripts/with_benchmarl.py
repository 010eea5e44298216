"""BenchMARL's MADDPG on the simple_adversary of VMAS, 100 worlds at a time.

PYTHONPATH=. <python with benchmarl, vmas and mpe2> benchmarks/peer_scripts/with_benchmarl.py <repeats> <seconds>
"""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

import torch
from benchmarl.algorithms import MaddpgConfig
from benchmarl.environments import VmasTask
from benchmarl.experiment import Callback, Experiment, ExperimentConfig
from benchmarl.models.mlp import MlpConfig
from interleaving import arguments, print_result

from benchmarks.reference import reference_work
from benchmarks.timing import Work, rate

STEPS_PER_UPDATE = WORLDS = 100
WARM_UP = 20
SETTINGS = {
    "share_policy_params": False,
    "gamma": 0.95,
    "lr": 0.01,
    "polyak_tau": 0.01,
    "clip_grad_val": 0.5,
    "max_n_frames": None,
    "max_n_iters": 1_000_000,
    "off_policy_collected_frames_per_batch": STEPS_PER_UPDATE,
    "off_policy_n_envs_per_worker": WORLDS,
    "off_policy_n_optimizer_steps": 1,
    "off_policy_train_batch_size": 1024,
    "off_policy_memory_size": 100_000,
    "exploration_anneal_frames": 1_000_000,
    "evaluation": False,
    "render": False,
    "loggers": ["csv"],
    "create_json": False,
}


class Finished(Exception):
    """All repeats are measured."""


class Timing(Callback):  # type: ignore[misc]
    """BenchMARL's loop, watched from within: it calls this in every iteration, a step of all worlds and an update."""

    def __init__(self, repeats: int, seconds: float) -> None:
        super().__init__()
        self.repeats, self.seconds = repeats, seconds
        self.reference: Work | None = None
        self.iterations, self.steps, self.start = 0, 0, 0.0
        self.training: list[float] = []
        self.beside: list[float] = []

    def on_batch_collected(self, batch: Any) -> None:
        """Once in every iteration."""
        self.iterations += 1
        elapsed = time.perf_counter() - self.start
        if self.iterations > WARM_UP + 1:
            self.steps += batch.numel()
            if elapsed < self.seconds:
                return
            self.training.append(self.steps / elapsed)
            # Made here, since BenchMARL pickles its callbacks when it starts.
            self.reference = self.reference or reference_work()
            self.beside.append(rate(self.reference, self.seconds))
            if len(self.training) == self.repeats:
                raise Finished
        self.steps, self.start = 0, time.perf_counter()


def main() -> None:
    torch.set_num_threads(1)
    timing = Timing(*arguments())
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        config = ExperimentConfig.get_from_yaml()
        config.save_folder = folder
        for name, value in SETTINGS.items():
            setattr(config, name, value)
        algorithm = MaddpgConfig.get_from_yaml()
        algorithm.share_param_critic = False
        task = VmasTask.SIMPLE_ADVERSARY.get_from_yaml()
        task.config["max_steps"] = 25
        network = MlpConfig(num_cells=[64, 64], layer_class=torch.nn.Linear, activation_class=torch.nn.ReLU)
        experiment = Experiment(
            task=task,
            algorithm_config=algorithm,
            model_config=network,
            critic_model_config=network,
            seed=0,
            config=config,
            callbacks=[timing],
        )
        try:
            experiment.run()
        except Finished:
            print_result(
                timing.training,
                timing.beside,
                ("benchmarl", "vmas", "torch"),
                f"simple_adversary of VMAS, {WORLDS} worlds, continuous actions, critics see the own team, CSV on",
            )


if __name__ == "__main__":
    main()
