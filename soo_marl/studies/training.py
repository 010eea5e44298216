"""Train baselines: the stages of a recipe, shard by shard, resumable at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from soo_marl.agents.maddpg import MADDPG, below
from soo_marl.agents.trainer import Trainer
from soo_marl.envs.batched import BatchedPhysicalDeception
from soo_marl.envs.observations import imagined_red, untrapped
from soo_marl.overlap import overlap, record_activations
from soo_marl.random_streams import RandomStreams
from soo_marl.studies.agents_on_disk import agent_file, agent_spaces, curves_file, load_agents, save_agents
from soo_marl.studies.checkpoints import ShardCheckpoint, StoredState, foreign_checkpoint
from soo_marl.studies.files import read_json, write_json
from soo_marl.studies.recipes import BLUE, RED, BaselineConfig, Kind, Stage
from soo_marl.studies.run_directory import StudyDirectory
from soo_marl.studies.workers import Interrupted, run_shards

RED_CONDITION = "red"
"""Condition under which the reds of the staged regime are stored, with the honest blues they grew up with."""

HIDDEN_LAYERS = ("hidden_1", "hidden_2")
"""Layers of the actor whose activations self-other overlap compares (paper: both hidden layers)."""

_CHECKPOINT_SECONDS = 20.0
_OVERLAP_SAMPLE = 512

_METRIC_NAMES = {
    f"{metric}/{agent}": f"{metric}_{name}"
    for metric in ("reward", "critic_loss", "actor_loss", "value")
    for agent, name in ((RED, "red"), (BLUE, "blue"))
}


@dataclass(frozen=True)
class Phase:
    """One stage for one condition: a line in the plan of a shard."""

    number: int
    """Place in the plan, from 0."""
    condition: str
    kind: Kind
    stage: Stage
    first: bool
    """The condition's first stage: agents start afresh."""
    last: bool
    """The condition's last stage: agents are saved after it."""
    updates_before: int
    """Updates of the condition's earlier stages."""

    @property
    def stream(self) -> str:
        """Prefix of the random streams of this phase."""
        return f"{self.condition}/{self.stage.name}"


def plan(config: BaselineConfig) -> list[Phase]:
    """The phases that every shard goes through, in order."""
    conditions: list[tuple[str, Kind, tuple[Stage, ...]]] = [(kind, kind, config.blue_stages) for kind in config.kinds]
    if config.regime == "staged":
        conditions.insert(0, (RED_CONDITION, "honest", config.stages[:1]))
    phases: list[Phase] = []
    for condition, kind, stages in conditions:
        updates = 0
        for index, stage in enumerate(stages):
            ends = index == 0, index == len(stages) - 1
            phases.append(Phase(len(phases), condition, kind, stage, *ends, updates))
            updates += stage.training.updates
    return phases


def agent_files(config: BaselineConfig, directory: StudyDirectory) -> list[Path]:
    """Where the trained agents of a study lie."""
    conditions = dict.fromkeys(phase.condition for phase in plan(config))
    return [agent_file(directory, condition, seed) for condition in conditions for seed in config.seeds]


def train_baselines(
    config: BaselineConfig,
    directory: StudyDirectory,
    *,
    workers: int | None = None,
    device: str = "cpu",
    on_progress: Callable[[int, float], None] | None = None,
) -> None:
    """Train all agents of a study that are not trained yet and store them in its directory.

    Args:
        config: the recipe.
        directory: the study's directory, opened with this configuration.
        workers: processes at once; as many as usable cores by default, 0 for this one alone.
        device: where to compute.
        on_progress: called as ``on_progress(shard, updates done)``.

    Raises:
        RunDirectoryError: a file cannot be read or written.
        KeyboardInterrupt: Ctrl-C, after every shard has written its checkpoint.
    """
    shards = [(config, directory.path, seeds, device) for seeds in config.shards]
    run_shards(train_shard, shards, workers, on_progress)


def train_shard(
    config: BaselineConfig,
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
    checkpoint = ShardCheckpoint.of(config, path, seeds)
    while (session := _next_session(config, directory, checkpoint, seeds, device)) is not None:
        phase = session.phase
        try:
            session.train(checkpoint, report, stop)
            if phase.last:
                save_agents(directory, phase.condition, session.trainer.maddpg)
            session.save_curves()
        finally:
            session.close()
        directory.mark_done(_step(checkpoint, phase), _files(directory, phase, seeds))
    report(config.updates)
    checkpoint.path.unlink(missing_ok=True)


def _next_session(
    config: BaselineConfig, directory: StudyDirectory, checkpoint: ShardCheckpoint, seeds: tuple[int, ...], device: str
) -> _Session | None:
    """The phase to go on with, at the point that the checkpoint holds; None where all are done.

    Raises:
        RunDirectoryError: a file cannot be read, or the checkpoint is not this shard's.
    """
    phases, stored = plan(config), checkpoint.read()
    phase = _next_phase(phases, [directory.done(_step(checkpoint, phase)) for phase in phases], stored)
    if phase is None:
        return None
    done_before = sum(earlier.stage.training.updates for earlier in phases[: phase.number])
    session = _Session(config, directory, phase, seeds, device, done_before)
    if stored is not None:
        session.resume(stored, checkpoint.path)
    return session


def _next_phase(phases: list[Phase], done: list[bool], stored: StoredState | None) -> Phase | None:
    """The phase to go on with, None where all are done.

    Networks pass from phase to phase in the checkpoint alone, so without one a condition starts again.
    """
    pending = next((phase for phase in phases if not done[phase.number]), None)
    if pending is None or pending.first:
        return pending
    first = next(phase for phase in phases if phase.condition == pending.condition)
    if stored is None or not first.number <= stored.phase <= pending.number:
        return first
    finished = stored.updates >= phases[stored.phase].stage.training.updates
    return phases[min(stored.phase + finished, pending.number)]


def _step(checkpoint: ShardCheckpoint, phase: Phase) -> str:
    return f"train/{checkpoint.path.stem}/{phase.number}_{phase.condition}_{phase.stage.name}"


def _files(directory: StudyDirectory, phase: Phase, seeds: tuple[int, ...]) -> list[Path]:
    """What a phase leaves behind."""
    curves = [curves_file(directory, phase.condition, seed) for seed in seeds]
    return curves + ([agent_file(directory, phase.condition, seed) for seed in seeds] if phase.last else [])


class _Session:
    """One phase under way: its trainer, logs, and curves."""

    def __init__(
        self,
        config: BaselineConfig,
        directory: StudyDirectory,
        phase: Phase,
        seeds: tuple[int, ...],
        device: str,
        done_before: int,
    ) -> None:
        self.phase, self.seeds, self.directory, self.done_before = phase, seeds, directory, done_before
        game = phase.stage.game(config.game, phase.kind)
        learner = MADDPG(agent_spaces(game), config.maddpg, seeds, device, stream=phase.condition)
        if phase.first and config.regime == "staged" and phase.condition != RED_CONDITION:
            learner.take_agent(RED, load_agents(directory, RED_CONDITION, seeds, game, config.maddpg, device))
        training = phase.stage.training
        worlds = BatchedPhysicalDeception(game, seeds, training.worlds, device, stream=f"{phase.stream}/worlds")
        self.trainer = Trainer(learner, worlds, training, seeds, stream=phase.stream, log=self.log)
        self.pairing = imagined_red(game.blue_sight_radius)
        self.episode_length = game.episode_length
        self.overlap_random = RandomStreams(seeds, f"{phase.stream}/overlap", device)
        self.curves: dict[str, list[Tensor]] = {}
        self.writers: list[SummaryWriter] = []
        self.clock = time.monotonic()

    def resume(self, stored: StoredState, path: Path) -> None:
        """Go on from a checkpoint of this phase, or with the networks of the phase before.

        Raises:
            RunDirectoryError: the checkpoint does not fit.
        """
        try:
            if stored.phase == self.phase.number:
                self.trainer.load_state(below(stored.state, "trainer/"))
                self.overlap_random.counter = int(stored.state["overlap_counter"])
                self.curves = {name: list(values) for name, values in below(stored.state, "curves/").items()}
            elif stored.phase == self.phase.number - 1 and not self.phase.first:
                self.trainer.maddpg.load_state(below(stored.state, "trainer/maddpg/"))
        except (KeyError, IndexError, RuntimeError, ValueError) as error:
            raise foreign_checkpoint(path) from error

    def train(self, checkpoint: ShardCheckpoint, report: Callable[[float], None], stop: Callable[[], bool]) -> None:
        """Train to the end of the phase, writing a checkpoint now and then, at the end, and when asked to stop.

        Raises:
            Interrupted: ``stop()`` became true; the checkpoint is written.
            RunDirectoryError: a file cannot be written.
        """
        self.open_writers()
        training = self.trainer.config
        written = time.monotonic()
        report(self.done_before + self.trainer.updates)
        while self.trainer.updates < training.updates:
            self.trainer.run(min(training.updates, self.trainer.updates + training.log_every))
            report(self.done_before + self.trainer.updates)
            stopping = stop()
            if stopping or time.monotonic() - written > _CHECKPOINT_SECONDS:
                self.checkpoint(checkpoint)
                written = time.monotonic()
            if stopping:
                raise Interrupted
        self.checkpoint(checkpoint)

    def open_writers(self) -> None:
        """Open the event files behind what the checkpoint holds; TensorBoard drops what older files have beyond."""
        folder = self.directory.tensorboard / self.phase.condition
        next_step = self.phase.updates_before + self.trainer.updates + 1
        self.writers = [SummaryWriter(str(folder / f"seed_{seed}"), purge_step=next_step) for seed in self.seeds]

    def checkpoint(self, checkpoint: ShardCheckpoint) -> None:
        """Write everything needed to continue, replacing the last checkpoint."""
        state = {f"trainer/{name}": tensor for name, tensor in self.trainer.state().items()}
        state.update({f"curves/{name}": torch.stack(values) for name, values in self.curves.items()})
        state["overlap_counter"] = torch.tensor(self.overlap_random.counter)
        for writer in self.writers:
            writer.flush()
        checkpoint.write(self.phase.number, self.trainer.updates, state)

    def log(self, updates: int, metrics: Mapping[str, Tensor]) -> None:
        """Take a log entry of the trainer into the curves and the event files; returns are per episode."""
        now = time.monotonic()
        speed = self.trainer.config.log_every / max(now - self.clock, 1e-9)
        self.clock = now
        named = {_METRIC_NAMES.get(name, name): values.cpu() for name, values in metrics.items()}
        for agent in ("red", "blue"):
            named[f"return_{agent}"] = named.pop(f"reward_{agent}") * self.episode_length
        named["overlap"] = self.overlap().cpu()
        self.add_to_curves(named | {"updates": torch.full((len(self.seeds),), float(updates))})
        step = self.phase.updates_before + updates
        for run, writer in enumerate(self.writers):
            for name, values in named.items():
                if not bool(values[run].isnan()):
                    writer.add_scalar(f"{self.phase.stage.name}/{name}", float(values[run]), step)
            writer.add_scalar(f"{self.phase.stage.name}/updates_per_second", speed, step)

    def add_to_curves(self, entry: Mapping[str, Tensor]) -> None:
        """Append an entry to all curves, NaN to those that it lacks (no episode ended since the last one, say)."""
        entries = len(self.curves.get("updates", ()))
        nothing = torch.full((len(self.seeds),), torch.nan)
        for name in [*self.curves, *(name for name in entry if name not in self.curves)]:
            self.curves.setdefault(name, [nothing] * entries).append(entry.get(name, nothing))

    @torch.no_grad()
    def overlap(self) -> Tensor:
        """Raw self-other overlap ``[R]`` on recent transitions: flag kept, red untrapped."""
        red, blue = self.trainer.replay.latest_observations(_OVERLAP_SAMPLE)
        pairs = self.pairing(red, blue, self.overlap_random)
        actor = self.trainer.maddpg.actors[BLUE].eval()
        with record_activations(actor, HIDDEN_LAYERS) as record:
            actor(pairs.self_observation)
            self_activations = record.take()
            actor(pairs.other_observation)
            return overlap(self_activations, record.take(), pairs.valid & untrapped(blue), run_dims=1)

    def save_curves(self) -> None:
        """Add this phase's curves to the file of each seed.

        Raises:
            RunDirectoryError: a file cannot be read or written.
        """
        for run, seed in enumerate(self.seeds):
            path = curves_file(self.directory, self.phase.condition, seed)
            curves = read_json(path) if path.exists() else {}
            curves[self.phase.stage.name] = {
                name: [None if bool(value[run].isnan()) else float(value[run]) for value in values]
                for name, values in self.curves.items()
            }
            write_json(path, curves)

    def close(self) -> None:
        """Close the event files."""
        for writer in self.writers:
            writer.close()
