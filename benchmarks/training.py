"""Training end to end: stock simple_adversary, the paper's baseline, and two processes against one."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path

import numpy as np
from torch import Tensor

from benchmarks.cases import Case, one_worker
from benchmarks.environments import reference_measurement
from benchmarks.measurements import Measurement, measurement
from benchmarks.reference import reference_work
from benchmarks.settings import Settings
from benchmarks.timing import Rates, rate
from soo_marl.agents.maddpg import MADDPG, AgentSpaces
from soo_marl.agents.trainer import Trainer, TrainingConfig
from soo_marl.engines import Compute, Interrupted, run_shards
from soo_marl.envs.batched import BatchedPhysicalDeception
from soo_marl.envs.batched_simple_adversary import BatchedSimpleAdversary, SimpleAdversaryConfig
from soo_marl.studies.baselines.reference_curves import REFERENCE_MADDPG
from soo_marl.studies.baselines.study import open_study
from soo_marl.studies.baselines.training import train_shard
from soo_marl.studies.learning.agents_on_disk import agent_spaces
from soo_marl.studies.learning.checkpoints import ShardCheckpoint
from soo_marl.studies.learning.curves import StageCurves
from soo_marl.studies.learning.recipes import BaselineConfig, baseline_config

STACK = 20
STOCK_TRAINING = TrainingConfig(
    worlds=4, steps_per_update=25, updates=15_000, batch_size=1_024, replay_capacity=100_000, warm_up=25_600
)
"""One update of all agents per 100 environment steps of a run, as in soo_marl.studies.baselines.reference_curves."""

PAPER_STEPS = 2_000_000
"""Environment steps of one of the paper's baselines: 40,000 episodes of 50 steps."""


def cases(quick: bool) -> list[Case]:
    """What is trained."""
    return [
        Case("train/stock/paper_settings", measure_stock),
        Case("train/paper_baseline", measure_paper_baseline),
        Case("train/two_processes", measure_two_processes),
    ]


def measure_stock(settings: Settings) -> list[Measurement]:
    """Stock simple_adversary at the published settings in one stack, with curves, event files and checkpoints.

    A repeat trains for so long as lies between two checkpoints of a study, a piece at a time with the reference in
    between, and ends with writing a checkpoint, whose time counts.
    """
    runs, config = (2, _small(STOCK_TRAINING)) if settings.quick else (STACK, STOCK_TRAINING)
    reference = reference_work()
    with tempfile.TemporaryDirectory(dir=settings.scratch) as folder:
        training = _StockTraining(runs, config, Path(folder))
        training.train()
        ratios, rates, references, checkpoint_seconds = [], [], [], []
        for _ in range(settings.training_repeats):
            steps, seconds = 0.0, 0.0
            beside: list[float] = []
            while not beside or seconds < settings.training_seconds:
                beside.append(rate(reference, settings.seconds))
                taken, done = _timed(training.train)
                steps, seconds = steps + done, seconds + taken
            taken, _ = _timed(training.write_checkpoint)
            checkpoint_seconds.append(taken)
            rates.append(steps / (seconds + taken))
            references.append(float(np.median(beside)))
            ratios.append(rates[-1] / references[-1])
        training.close()
    name = "train/stock/paper_settings"
    remark = (
        f"{runs} runs, 3 agents, batch {config.batch_size}, a checkpoint per {settings.training_seconds:g} s, "
        f"a full replay buffer of {config.replay_capacity:,} transitions per run; steps of all runs"
    )
    return [
        measurement(f"{name}/ratio", ratios, "× R", remark),
        measurement(f"{name}/steps_per_second", rates, "steps/s"),
        measurement(f"{name}/checkpoint_seconds", checkpoint_seconds, "s"),
        reference_measurement(references),
    ]


class _StockTraining:
    """A stack of runs on stock simple_adversary, logged and checkpointed by what studies use."""

    def __init__(self, runs: int, config: TrainingConfig, folder: Path) -> None:
        seeds = tuple(range(runs))
        worlds = BatchedSimpleAdversary(SimpleAdversaryConfig(), seeds, config.worlds)
        spaces = AgentSpaces(worlds.observation_sizes, worlds.action_sizes, discrete=True)
        self.curves = StageCurves("stock", runs)
        self.curves.open_events([folder / f"seed_{seed}" for seed in seeds], 0)
        self.trainer = Trainer(MADDPG(spaces, REFERENCE_MADDPG, seeds), worlds, config, seeds, log=self._log)
        self.checkpoint = ShardCheckpoint.of(config, folder, seeds)
        self.steps_of_update = runs * config.worlds * config.steps_per_update
        _warm_up(self.trainer)

    def train(self) -> float:
        """Some updates, with the steps before each; returns the environment steps of all runs."""
        updates = 5
        self.trainer.run(self.trainer.updates + updates)
        return updates * self.steps_of_update

    def write_checkpoint(self) -> float:
        """Write everything needed to continue; returns the number of checkpoints."""
        self.checkpoint.write(0, self.trainer.updates, self.trainer.state())
        return 1

    def close(self) -> None:
        """Close the event files."""
        self.curves.close_events()

    def _log(self, updates: int, metrics: Mapping[str, Tensor]) -> None:
        self.curves.add(updates, metrics)


def _warm_up(trainer: Trainer) -> None:
    """Train a little, and fill the replay buffer with copies of what was collected.

    A buffer that is still filling is faster to draw from and to write.
    """
    trainer.run(1)
    replay = trainer.replay
    while replay.size < replay.capacity:
        replay.add(replay.sample(min(replay.size, replay.capacity - replay.size)))


def _timed(work: Callable[[], float]) -> tuple[float, float]:
    """Seconds that a piece of work took, and what it returned."""
    start = time.perf_counter()
    done = work()
    return time.perf_counter() - start, done


def paper_baseline(quick: bool) -> BaselineConfig:
    """The paper's baseline over 20 seeds: 2 million environment steps per seed, both agents learning throughout."""
    (stage,) = baseline_config("paper", "joint").stages
    training = _small(stage.training) if quick else stage.training
    updates = round(PAPER_STEPS / (training.worlds * training.steps_per_update))
    training = training.model_copy(update={"updates": updates})
    return baseline_config(
        "paper",
        "joint",
        seeds=tuple(range(STACK)),
        kinds=("honest",),
        stages=(stage.model_copy(update={"training": training}),),
        seeds_per_shard=2 if quick else BaselineConfig.model_fields["seeds_per_shard"].default,
    )


def measure_paper_baseline(settings: Settings) -> list[Measurement]:
    """The first two shards of the study of the paper's baseline, in two worker processes, for a limited time."""
    config = paper_baseline(settings.quick)
    seconds = settings.training_seconds * settings.training_repeats
    with tempfile.TemporaryDirectory(dir=settings.scratch) as folder:
        directory = open_study(Path(folder) / "study", config)
        shards = [(config, directory.path, seeds, seconds, settings.training_repeats) for seeds in config.shards[:2]]
        found = run_shards(_train_for, shards, Compute(workers=2))
    in_stack, of_one = config.seeds_per_shard, config.updates
    # Every update of a stack is one of each of its runs.
    per_hour = np.sum(found, axis=0) * in_stack * 3600.0 / of_one
    training = config.stages[0].training
    remark = (
        f"two processes, {in_stack} runs in each, batch {training.batch_size}; {seconds:g} s of it extrapolated in "
        f"proportion to {of_one:,} updates ({PAPER_STEPS:,} environment steps) per seed"
    )
    name = "train/paper_baseline"
    return [
        measurement(f"{name}/seeds_per_hour", per_hour, "seeds/h", remark),
        measurement(f"{name}/minutes_for_20_seeds", 20.0 * 60.0 / per_hour, "min", "from seeds_per_hour"),
        measurement(f"{name}/steps_per_second", per_hour * PAPER_STEPS / 3600.0, "steps/s", "of both processes"),
    ]


def _train_for(
    config: BaselineConfig,
    path: Path,
    seeds: tuple[int, ...],
    seconds: float,
    windows: int,
    *,
    report: Callable[[float], None],
    stop: Callable[[], bool],
) -> Rates:
    """Train a shard as a study does, until so many seconds after its replay buffer was full, and stop there.

    Returns the updates per second in each of so many windows.
    """
    training = config.stages[0].training
    full = training.replay_capacity / (training.worlds * training.steps_per_update)
    reports: list[tuple[float, float]] = []
    """Moments in seconds, and updates done by then."""

    def listen(updates: float) -> None:
        report(updates)
        if updates >= full:
            reports.append((time.monotonic(), updates))

    def enough() -> bool:
        return stop() or (len(reports) > 1 and reports[-1][0] - reports[0][0] >= seconds)

    try:
        train_shard(config, path, seeds, "cpu", report=listen, stop=enough)
    except Interrupted:
        if stop():
            raise
    moments, updates = np.array(reports).T
    edges = np.linspace(moments[0], moments[-1], windows + 1)
    rates: Rates = np.diff(np.interp(edges, moments, updates)) / np.diff(edges)
    return rates


def measure_two_processes(settings: Settings) -> list[Measurement]:
    """The work of one shard of the paper's baseline in one process, and twice that in two processes at once."""
    seconds = settings.seconds * 8
    speedups = []
    with one_worker(_prepare, settings.quick, 0) as first, one_worker(_prepare, settings.quick, 1) as second:
        _together(first.submit(_work_for, seconds), second.submit(_work_for, seconds))
        for repeat in range(settings.repeats):
            alone = (first, second)[repeat % 2].submit(_work_for, seconds).result()
            both = _together(first.submit(_work_for, seconds), second.submit(_work_for, seconds))
            speedups.append(both / alone)
    remark = "updates/s of two processes at once over those of one alone, steady state"
    return [measurement("train/two_processes/speedup", speedups, "×", remark)]


def _together(first: Future[float], second: Future[float]) -> float:
    return first.result() + second.result()


_trainer: Trainer | None = None
"""What a process of :func:`measure_two_processes` works on."""


def _prepare(quick: bool, shard: int) -> None:
    global _trainer
    config = paper_baseline(quick)
    game, seeds, training = config.game, config.shards[shard], config.stages[0].training
    learner = MADDPG(agent_spaces(game), config.maddpg, seeds)
    _trainer = Trainer(learner, BatchedPhysicalDeception(game, seeds, training.worlds), training, seeds)
    _warm_up(_trainer)


def _work_for(seconds: float) -> float:
    """Updates per second of the process's trainer."""
    trainer = _trainer
    assert trainer is not None

    def update() -> float:
        trainer.run(trainer.updates + 10)
        return 10

    return rate(update, seconds)


def _small(training: TrainingConfig) -> TrainingConfig:
    return training.model_copy(update={"batch_size": 16, "replay_capacity": 300, "warm_up": 100, "log_every": 2})
