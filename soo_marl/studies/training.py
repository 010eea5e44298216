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
from soo_marl.studies.agents_on_disk import agent_spaces, load_agents, save_agents
from soo_marl.studies.files import read_json, read_tensors, write_json, write_tensors
from soo_marl.studies.recipes import BLUE, RED, BaselineConfig, Kind, Stage
from soo_marl.studies.run_directory import StudyDirectory
from soo_marl.studies.workers import Interrupted, run_shards

RED_CONDITION = "red"
"""Condition under which the reds of the staged regime are stored, with the honest blues they grew up with."""

CURVES_FILE = "curves.json"

HIDDEN_LAYERS = ("hidden_1", "hidden_2")
"""Layers of the actor whose activations self-other overlap compares (paper: both hidden layers)."""

_CHECKPOINT_SECONDS = 20.0
_OVERLAP_SAMPLE = 512


@dataclass(frozen=True)
class Phase:
    """One stage for one condition: a line in the plan of a shard."""

    condition: str
    kind: Kind
    stage: Stage
    first: bool
    """The condition's first stage: agents start afresh."""
    last: bool
    """The condition's last stage: agents are saved after it."""

    @property
    def stream(self) -> str:
        """Prefix of the random streams of this phase."""
        return f"{self.condition}/{self.stage.name}"


def plan(config: BaselineConfig) -> list[Phase]:
    """The phases that every shard goes through, in order."""
    of_red = 1 if config.regime == "staged" else 0
    red_stages, blue_stages = config.stages[:of_red], config.stages[of_red:]
    phases = [Phase(RED_CONDITION, "honest", stage, first=True, last=True) for stage in red_stages]
    for kind in config.kinds:
        for index, stage in enumerate(blue_stages):
            phases.append(Phase(kind, kind, stage, first=index == 0, last=index == len(blue_stages) - 1))
    return phases


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

    Raises:
        Interrupted: ``stop()`` became true; the checkpoint is written.
        RunDirectoryError: a file cannot be read or written.
    """
    directory = StudyDirectory.read(path)
    name = f"seeds_{seeds[0]}-{seeds[-1]}"
    checkpoint = path / "checkpoints" / f"{name}.safetensors"
    updates_before = 0
    learner: MADDPG | None = None
    for number, phase in enumerate(plan(config)):
        length = phase.stage.training.updates
        step = f"train/{name}/{number}_{phase.condition}_{phase.stage.name}"
        if not directory.done(step):
            session = _Session(config, directory, phase, seeds, learner, updates_before, device)
            session.resume(checkpoint, number)
            session.train(checkpoint, number, report, stop)
            learner = session.trainer.maddpg
            if phase.last:
                save_agents(directory, phase.condition, learner)
            session.save_curves()
            session.close()
            directory.mark_done(step)
        updates_before += length
        report(updates_before)
    checkpoint.unlink(missing_ok=True)


class _Session:
    """One phase under way: its trainer, logs, and checkpoints."""

    def __init__(
        self,
        config: BaselineConfig,
        directory: StudyDirectory,
        phase: Phase,
        seeds: tuple[int, ...],
        learner: MADDPG | None,
        updates_before: int,
        device: str,
    ) -> None:
        self.phase, self.seeds, self.directory, self.updates_before = phase, seeds, directory, updates_before
        game = phase.stage.game(config.game, phase.kind, config.maddpg.gamma)
        if phase.first or learner is None:
            learner = MADDPG(agent_spaces(game), config.maddpg, seeds, device, stream=phase.condition)
            if config.regime == "staged" and phase.condition != RED_CONDITION:
                red = load_agents(directory, RED_CONDITION, seeds, game, config.maddpg, device)
                learner.take_agent(RED, red)
        training = phase.stage.training
        worlds = BatchedPhysicalDeception(game, seeds, training.worlds, device, stream=f"{phase.stream}/worlds")
        self.trainer = Trainer(learner, worlds, training, seeds, stream=phase.stream, log=self.log)
        self.pairing = imagined_red(game.blue_sight_radius)
        self.overlap_random = RandomStreams(seeds, f"{phase.stream}/overlap", device)
        self.curves: dict[str, list[Tensor]] = {}
        self.writers: list[SummaryWriter] = []
        self.clock = time.monotonic()

    def resume(self, checkpoint: Path, number: int) -> None:
        """Load the checkpoint if it is of this phase, and open the event files behind what it holds."""
        if checkpoint.exists():
            state, metadata = read_tensors(checkpoint, finite=False)
            if metadata.get("phase") == str(number):
                self.trainer.load_state(below(state, "trainer/"))
                self.overlap_random.counter = int(state["overlap_counter"])
                self.curves = {name: list(values) for name, values in below(state, "curves/").items()}
            elif metadata.get("phase") == str(number - 1) and not self.phase.first:
                # Killed between two phases: the networks go on, everything else starts afresh.
                self.trainer.maddpg.load_state(below(state, "trainer/maddpg/"))
        first_step = self.updates_before + self.trainer.updates + 1
        self.writers = [
            SummaryWriter(
                str(self.directory.tensorboard / self.phase.condition / f"seed_{seed}"), purge_step=first_step
            )
            for seed in self.seeds
        ]

    def train(self, checkpoint: Path, number: int, report: Callable[[float], None], stop: Callable[[], bool]) -> None:
        """Train to the end of the phase, writing a checkpoint now and then, at the end, and when asked to stop."""
        training = self.trainer.config
        written = time.monotonic()
        while self.trainer.updates < training.updates:
            self.trainer.run(min(training.updates, self.trainer.updates + training.log_every))
            report(self.updates_before + self.trainer.updates)
            if stop() or time.monotonic() - written > _CHECKPOINT_SECONDS:
                self.checkpoint(checkpoint, number)
                written = time.monotonic()
            if stop():
                self.close()
                raise Interrupted
        self.checkpoint(checkpoint, number)

    def checkpoint(self, path: Path, number: int) -> None:
        """Write everything needed to continue, replacing the last checkpoint."""
        state = {f"trainer/{name}": tensor for name, tensor in self.trainer.state().items()}
        state.update({f"curves/{name}": torch.stack(values) for name, values in self.curves.items()})
        state["overlap_counter"] = torch.tensor(self.overlap_random.counter)
        for writer in self.writers:
            writer.flush()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, state, {"phase": str(number)})

    def log(self, updates: int, metrics: Mapping[str, Tensor]) -> None:
        """Take a log entry of the trainer into the curves and the event files."""
        now = time.monotonic()
        speed = self.trainer.config.log_every / max(now - self.clock, 1e-9)
        self.clock = now
        named = {_METRIC_NAMES.get(name, name): values.cpu() for name, values in metrics.items()}
        named["overlap"] = self.overlap().cpu()
        for name, values in (named | {"updates": torch.full((len(self.seeds),), float(updates))}).items():
            self.curves.setdefault(name, []).append(values)
        step = self.updates_before + updates
        for run, writer in enumerate(self.writers):
            for name, values in named.items():
                writer.add_scalar(f"{self.phase.stage.name}/{name}", float(values[run]), step)
            writer.add_scalar(f"{self.phase.stage.name}/updates_per_second", speed, step)

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
        """Add this phase's curves to the file of each seed."""
        for run, seed in enumerate(self.seeds):
            folder = self.directory.agent_directory(self.phase.condition, seed)
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / CURVES_FILE
            curves = read_json(path) if path.exists() else {}
            curves[self.phase.stage.name] = {
                name: [None if bool(value[run].isnan()) else float(value[run]) for value in values]
                for name, values in self.curves.items()
            }
            write_json(path, curves)

    def close(self) -> None:
        for writer in self.writers:
            writer.close()


_METRIC_NAMES = {
    f"{metric}/{agent}": f"{metric}_{name}"
    for metric in ("reward", "critic_loss", "actor_loss", "value")
    for agent, name in ((RED, "red"), (BLUE, "blue"))
}
