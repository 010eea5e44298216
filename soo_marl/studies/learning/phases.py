"""Train the phases of a shard one after another, resumable at any moment; what they are, a :class:`Task` says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from pydantic import BaseModel
from torch import Tensor

from soo_marl.agents.agent_networks import below
from soo_marl.agents.maddpg import MADDPG
from soo_marl.agents.networks import HIDDEN_LAYERS, StackedMLP
from soo_marl.agents.replay import Transitions
from soo_marl.agents.trainer import Trainer, TrainingConfig
from soo_marl.engines import Interrupted
from soo_marl.envs.batched import BatchedPhysicalDeception
from soo_marl.envs.configuration import PhysicalDeceptionConfig
from soo_marl.envs.observations import BLUE_AGENT, RED_AGENT, imagined_red, untrapped
from soo_marl.overlap import activations_of, overlap
from soo_marl.random_streams import RandomStreams
from soo_marl.storage.lock import worker_lock
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.learning.agents_on_disk import Stop, agent_file, curves_file, from_tensor, save_agents, to_tensor
from soo_marl.studies.learning.checkpoints import ShardCheckpoint, StoredState, foreign_checkpoint
from soo_marl.studies.learning.curves import StageCurves, read_curves

_CHECKPOINT_SECONDS = 20.0
"""Between two checkpoints; longer where writing takes over a second, so that it never takes more than a twentieth."""

_OVERLAP_SAMPLE = 512

_METRIC_NAMES = {
    f"{metric}/{agent}": f"{metric}_{name}"
    for metric in ("reward", "critic_loss", "actor_loss", "value")
    for agent, name in ((RED_AGENT, "red"), (BLUE_AGENT, "blue"))
}


@dataclass(frozen=True)
class Phase:
    """One stage for one condition: a line in the plan of a shard."""

    number: int
    """Place in the plan, from 0."""
    condition: str
    """Names the folders of its agents."""
    kind: str
    """Kind of blue, as learning curves name it."""
    stage: str
    game: PhysicalDeceptionConfig
    training: TrainingConfig
    first: bool
    """The condition's first stage: its agents begin as the task says."""
    last: bool
    """The condition's last stage: agents are saved after it."""
    updates_before: int
    """Updates of the condition's earlier stages."""
    stream: str
    """Prefix of the random streams of this phase; phases that share it meet the same episodes and noise."""


class AuxiliaryLoss(Protocol):
    """An auxiliary actor loss that draws random numbers or follows a schedule, and so has a state."""

    def __call__(self, agent: int, actor: StackedMLP, batch: Transitions) -> Tensor:
        """The loss ``[R]``, see :data:`soo_marl.agents.maddpg.AuxiliaryActorLoss`."""

    def state(self) -> dict[str, Tensor]:
        """Return everything needed to continue."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned."""


@dataclass(frozen=True)
class Task:
    """What a shard trains."""

    identity: BaseModel
    """The configuration that a checkpoint must belong to."""
    phases: Sequence[Phase]
    """In order."""
    stage_names: Sequence[str]
    """Every stage in which a run can have been stopped."""
    begin: Callable[[StudyDirectory, Phase, Sequence[int], str], tuple[MADDPG, list[Stop | None]]]
    """``begin(directory, phase, seeds, device)``: the agents with which a phase starts, and where they were stopped.

    Raises RunDirectoryError: an agent's file cannot be read."""
    label: str = ""
    """Name of the shard among those of its study that share its seeds."""
    auxiliary_loss: Callable[[Phase, MADDPG], AuxiliaryLoss | None] = lambda phase, learner: None
    """What is added to the actors' loss, from agents as ``begin`` returned them."""
    measure: Callable[[Phase, MADDPG], Mapping[str, Tensor]] = lambda phase, learner: {}
    """Further metrics ``[R]`` for a log entry; the same random numbers every time."""


def train_phases(
    task: Task,
    path: Path,
    seeds: tuple[int, ...],
    device: str,
    *,
    report: Callable[[float], None],
    stop: Callable[[], bool],
) -> None:
    """Train the runs of one shard as one stack through all phases, from the last checkpoint where there is one.

    A finished phase is not done again, unless a file that it wrote is gone: then the condition's agents are trained
    once more from its first stage, to the same weights.

    Raises:
        Interrupted: ``stop()`` became true; the checkpoint is written.
        RunDirectoryError: a file cannot be read or written, or the checkpoint is not this shard's.
    """
    directory = StudyDirectory.read(path)
    checkpoint = ShardCheckpoint.of(task.identity, path, seeds, task.label)
    with worker_lock(path):
        done = _done(task.phases, directory, checkpoint, seeds)
        while (session := _next_session(task, directory, checkpoint, seeds, device, done)) is not None:
            phase = session.phase
            session.train(checkpoint, report, stop)
            files = [curves_file(directory, phase.condition, seed) for seed in seeds]
            if phase.last:
                save_agents(directory, phase.condition, session.trainer.maddpg, session.stops)
            session.curves.save(files)
            if phase.last:
                files += [agent_file(directory, phase.condition, seed) for seed in seeds]
            directory.mark_done(_step(checkpoint, phase), files)
            done[phase.number] = True
        report(sum(phase.training.updates for phase in task.phases))
        checkpoint.path.unlink(missing_ok=True)


def _next_session(
    task: Task,
    directory: StudyDirectory,
    checkpoint: ShardCheckpoint,
    seeds: tuple[int, ...],
    device: str,
    done: list[bool],
) -> _Session | None:
    """The phase to go on with, at the point that the checkpoint holds; None where all are done."""
    phases = task.phases
    stored = checkpoint.read([phase.training.updates for phase in phases])
    phase = _next_phase(phases, done, stored)
    if phase is None:
        return None
    done_before = sum(earlier.training.updates for earlier in phases[: phase.number])
    learner, stops = task.begin(directory, phase, seeds, device)
    if stored is not None and stored.phase == phase.number - 1 and not phase.first:
        with _refused(checkpoint):
            learner.load_state(below(stored.state, "trainer/maddpg/"))
            stops = from_tensor(stored.state["stops"], task.stage_names)
    session = _Session(task, directory, phase, learner, stops, done_before)
    if stored is not None and stored.phase == phase.number:
        training = phase.training
        stored.check(session.state(), training.replay_capacity, stored.updates // training.log_every)
        with _refused(checkpoint):
            session.load_state(stored.state)
    return session


@contextmanager
def _refused(checkpoint: ShardCheckpoint) -> Iterator[None]:
    """Say of a checkpoint that does not fit that it does not."""
    try:
        yield
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        raise foreign_checkpoint(checkpoint.path) from error


def _next_phase(phases: Sequence[Phase], done: list[bool], stored: StoredState | None) -> Phase | None:
    """The phase to go on with, None where all are done.

    Networks pass from phase to phase in the checkpoint alone, so without one a condition starts again.
    """
    pending = next((phase for phase in phases if not done[phase.number]), None)
    if pending is None or pending.first:
        return pending
    first = next(phase for phase in phases if phase.condition == pending.condition)
    if stored is None or not first.number <= stored.phase <= pending.number:
        return first
    finished = stored.updates >= phases[stored.phase].training.updates
    return phases[min(stored.phase + finished, pending.number)]


def _done(
    phases: Sequence[Phase], directory: StudyDirectory, checkpoint: ShardCheckpoint, seeds: tuple[int, ...]
) -> list[bool]:
    """Which phases are done, nothing of them lost, not even from a file of curves that was begun anew."""
    marked = [directory.done(_step(checkpoint, phase)) for phase in phases]
    stages = {
        condition: [read_curves(curves_file(directory, condition, seed)).keys() for seed in seeds]
        for condition in {phase.condition for phase in phases if marked[phase.number]}
    }
    return [
        marked[phase.number] and all(phase.stage in of_seed for of_seed in stages[phase.condition]) for phase in phases
    ]


def _step(checkpoint: ShardCheckpoint, phase: Phase) -> str:
    return f"train/{checkpoint.path.stem}/{phase.number}_{phase.condition}_{phase.stage}"


class _Session:
    """One phase under way: its trainer, logs, and curves."""

    def __init__(
        self,
        task: Task,
        directory: StudyDirectory,
        phase: Phase,
        learner: MADDPG,
        stops_before: list[Stop | None],
        done_before: int,
    ) -> None:
        self.task, self.phase, self.directory, self.done_before = task, phase, directory, done_before
        self.stops_before = stops_before
        game, training = phase.game, phase.training
        seeds, device = learner.seeds, learner.device
        worlds = BatchedPhysicalDeception(game, seeds, training.worlds, device, stream=f"{phase.stream}/worlds")
        stopped = torch.tensor([-1 if stop is None else stop.updates for stop in stops_before])
        self.auxiliary_loss = task.auxiliary_loss(phase, learner)
        self.trainer = Trainer(
            learner,
            worlds,
            training,
            seeds,
            stream=phase.stream,
            auxiliary_actor_loss=self.auxiliary_loss,
            log=self.log,
            stopped=stopped,
        )
        self.pairing = imagined_red(game.blue_sight_radius)
        self.episode_length = game.episode_length
        self.overlap_random = RandomStreams(seeds, f"{phase.stream}/overlap", device)
        self.curves = StageCurves(phase.stage, len(seeds))

    @property
    def stops(self) -> list[Stop | None]:
        """Where each run was stopped, in this phase or before; None for one that goes on."""
        stopped = self.trainer.stopped.tolist()
        return [
            before or (Stop(self.phase.stage, updates) if updates >= 0 else None)
            for before, updates in zip(self.stops_before, stopped, strict=True)
        ]

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint of this phase; KeyError, IndexError, RuntimeError or ValueError: it does not fit."""
        self.trainer.load_state(below(state, "trainer/"))
        self.overlap_random.counter = int(state["overlap_counter"])
        if self.auxiliary_loss is not None:
            self.auxiliary_loss.load_state(below(state, "auxiliary_loss/"))
        self.curves.load_state(below(state, "curves/"))
        stops = from_tensor(state["stops"], self.task.stage_names)
        self.stops_before = [stop if stop and stop.stage != self.phase.stage else None for stop in stops]

    def train(self, checkpoint: ShardCheckpoint, report: Callable[[float], None], stop: Callable[[], bool]) -> None:
        """Train to the end of the phase, writing a checkpoint now and then, at the end, and when asked to stop."""
        folder = self.directory.path / "tensorboard" / self.phase.condition
        self.curves.open_events(
            [folder / f"seed_{seed}" for seed in self.trainer.maddpg.seeds], self.phase.updates_before
        )
        training = self.trainer.config
        written, pause = time.monotonic(), _CHECKPOINT_SECONDS
        report(self.done_before + self.trainer.updates)
        while self.trainer.updates < training.updates:
            self.trainer.run(min(training.updates, self.trainer.updates + training.log_every))
            report(self.done_before + self.trainer.updates)
            stopping = stop()
            if stopping or time.monotonic() - written > pause:
                began = time.monotonic()
                self.checkpoint(checkpoint)
                written = time.monotonic()
                pause = _CHECKPOINT_SECONDS * max(1.0, written - began)
            if stopping:
                raise Interrupted
        self.checkpoint(checkpoint)

    def checkpoint(self, checkpoint: ShardCheckpoint) -> None:
        """Write everything needed to continue, replacing the last checkpoint."""
        checkpoint.write(self.phase.number, self.trainer.updates, self.state())

    def state(self) -> dict[str, Tensor]:
        """Return copies of everything needed to continue, as named tensors."""
        state = {f"trainer/{name}": tensor for name, tensor in self.trainer.state().items()}
        state.update({f"curves/{name}": tensor for name, tensor in self.curves.state().items()})
        state["overlap_counter"] = torch.tensor(self.overlap_random.counter)
        if self.auxiliary_loss is not None:
            state.update({f"auxiliary_loss/{name}": tensor for name, tensor in self.auxiliary_loss.state().items()})
        state["stops"] = to_tensor(self.stops, self.task.stage_names)
        return state

    def log(self, updates: int, metrics: Mapping[str, Tensor]) -> None:
        """Take a log entry of the trainer into the curves; returns are per episode."""
        named = {_METRIC_NAMES.get(name, name): values for name, values in metrics.items()}
        for agent in ("red", "blue"):
            named[f"return_{agent}"] = named.pop(f"reward_{agent}") * self.episode_length
        measured = {
            name: values.cpu().where(self.trainer.stopped < 0, torch.nan)
            for name, values in self.task.measure(self.phase, self.trainer.maddpg).items()
        }
        self.curves.add(updates, named | {"overlap": self.overlap()} | measured)

    @torch.no_grad()
    def overlap(self) -> Tensor:
        """Raw self-other overlap ``[R]`` on recent transitions: flag kept, red untrapped; NaN for a stopped run."""
        red, blue = self.trainer.replay.latest_observations(_OVERLAP_SAMPLE)
        pairs = self.pairing(red, blue, self.overlap_random)
        actor = self.trainer.maddpg.networks.actors[BLUE_AGENT]
        own, other = activations_of(actor, HIDDEN_LAYERS, pairs.self_observation, pairs.other_observation)
        values = overlap(own, other, pairs.valid & untrapped(blue), run_dims=1)
        return values.cpu().where(self.trainer.stopped < 0, torch.nan)
