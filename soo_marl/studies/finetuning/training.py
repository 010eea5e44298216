"""Fine-tune the agents of a baseline study: treatment by treatment, resumable at any moment."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from soo_marl.agents.maddpg import MADDPG
from soo_marl.agents.networks import StackedMLP
from soo_marl.agents.replay import Transitions
from soo_marl.deception import behaviour
from soo_marl.engines import LOCAL_WORKERS, Compute
from soo_marl.engines.progress import Display
from soo_marl.envs.observations import BLUE_AGENT
from soo_marl.random_streams import RandomStreams
from soo_marl.storage.study import SILENCE, shown
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.evaluation import LATE_STATES
from soo_marl.studies.finetuning.configuration import AFTER_STAGE, STAGE, FinetuneConfig, Treatment
from soo_marl.studies.finetuning.measures import sensitivity
from soo_marl.studies.finetuning.methods import Loss, Sources
from soo_marl.studies.learning.agents_on_disk import Stop, load_learner, read_stop, trained_files
from soo_marl.studies.learning.phases import Phase, Task, train_phases
from soo_marl.studies.learning.rollout import roll_out

AFTER = "after"
"""What is added to the label of a treatment for the agents after further training without the loss."""

_MONITOR_STREAM = "finetuning/monitor"
_MONITORED = ("goal_rate", "goal_rate_alone", "trap_rate", "following_rate", "red_goal_rate", "rubric_rate")


class WeightedLoss:
    """A method's loss on blue's actor, weighed on a schedule (:class:`soo_marl.studies.learning.phases.AuxiliaryLoss`).

    Args:
        chosen: the treatment, whose method has a loss.
        loss: that loss.
        sources: what it may use.
    """

    def __init__(self, chosen: Treatment, loss: Loss, sources: Sources) -> None:
        self.chosen, self.loss, self.sources = chosen, loss, sources
        self.calls = 0
        """Updates done."""

    @property
    def weight(self) -> float:
        """The present weight."""
        chosen, progress = self.chosen, self.calls / self.chosen.updates
        return chosen.weight * (chosen.weight_start + (chosen.weight_end - chosen.weight_start) * progress)

    def __call__(self, agent: int, actor: StackedMLP, batch: Transitions) -> Tensor:
        """The weighed loss ``[R]`` for blue, nothing for red."""
        if agent != BLUE_AGENT:
            return torch.zeros(actor.runs, device=batch.rewards.device)
        value = self.weight * self.loss(self.sources, actor, batch)
        self.calls += 1
        return value

    def state(self) -> dict[str, Tensor]:
        """Return everything needed to continue."""
        return {"counter": torch.tensor(self.sources.random.counter), "calls": torch.tensor(self.calls)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`state` returned."""
        self.sources.random.counter, self.calls = int(state["counter"]), int(state["calls"])


def finetune_task(config: FinetuneConfig, chosen: Treatment, source: Path) -> Task:
    """One treatment of some seeds of the study in ``source``: with the loss, and then without it."""

    def begin(
        directory: StudyDirectory, phase: Phase, seeds: Sequence[int], device: str
    ) -> tuple[MADDPG, list[Stop | None]]:
        """The trained agents, or for the second phase the fine-tuned ones."""
        place, condition = directory, chosen.label
        if phase.stage == STAGE:
            place, condition = StudyDirectory.read(source), config.kind
        learner = load_learner(place, condition, seeds, config.baselines.game, config.maddpg, device)
        return learner, [read_stop(place, condition, seed) for seed in seeds]

    def auxiliary_loss(phase: Phase, learner: MADDPG) -> WeightedLoss | None:
        """The treatment's loss in the first phase; None in the second, and where its method has none."""
        loss = chosen.entry.loss
        if phase.stage != STAGE or loss is None:
            return None
        sources = Sources(
            initial=copy.deepcopy(learner.networks.actors[BLUE_AGENT]).requires_grad_(False),
            pairing=chosen.pairing_for(phase.game),
            sight_radius=phase.game.blue_sight_radius,
            layers=chosen.layers,
            towards_initial=chosen.towards == "initial_self",
            untrapped_only=chosen.untrapped_only,
            discrete=not phase.game.continuous_actions,
            random=RandomStreams(learner.seeds, "finetuning/loss", learner.device),
        )
        return WeightedLoss(chosen, loss, sources)

    @torch.no_grad()
    def measure(phase: Phase, learner: MADDPG) -> dict[str, Tensor]:
        """Greedy behaviour on the same few episodes each time."""
        if config.monitor_episodes == 0:
            return {}
        game = config.evaluation_game
        if phase.stage == STAGE:
            game = chosen.entry.evaluation_game(game)
        trajectories, returns = roll_out(learner.networks, game, config.monitor_episodes, _MONITOR_STREAM)
        rates = behaviour(trajectories, game.landmark_radius, min(LATE_STATES, game.episode_length))
        with_red = torch.where(trajectories.alone, torch.nan, returns)
        answers = sensitivity(learner.networks, game, config.monitor_episodes // 4 + 1, _MONITOR_STREAM)
        measured = {"greedy_return": with_red.nanmean(dim=1), "sensitivity": answers.blanked}
        return {name: getattr(rates, name) for name in _MONITORED} | measured

    stages = [*(stage.name for stage in config.baselines.stages), STAGE, AFTER_STAGE]
    return Task(config, plan(config, chosen), stages, begin, chosen.label, auxiliary_loss, measure)


def plan(config: FinetuneConfig, chosen: Treatment) -> list[Phase]:
    """The phases of one treatment; the further training is left out where it has no updates."""

    def phase(number: int, condition: str, stage: str, updates: int) -> Phase:
        training = config.training.model_copy(
            update={"updates": updates, "log_every": min(config.training.log_every, updates)}
        )
        game = config.training_game(chosen) if stage == STAGE else config.further_game
        before = 0 if stage == STAGE else chosen.updates
        # One stream for all treatments, so that they differ in nothing but the treatment.
        stream = f"finetuning/{stage}"
        return Phase(number, condition, chosen.label, stage, game, training, True, True, before, stream)

    phases = [phase(0, chosen.label, STAGE, chosen.updates)]
    if config.after_updates > 0:
        phases.append(phase(1, f"{chosen.label}.{AFTER}", AFTER_STAGE, config.after_updates))
    return phases


def finetune(
    config: FinetuneConfig,
    directory: StudyDirectory,
    source: Path,
    display: Display = SILENCE,
    compute: Compute = LOCAL_WORKERS,
) -> None:
    """Apply every treatment to every seed, as far as that is not done yet; ``source`` trained the agents.

    Raises: as :func:`soo_marl.storage.study.shown`.
    """
    shards = [
        (config, chosen, source.resolve(), directory.path, seeds, compute.device) for chosen, seeds in config.shards
    ]
    shown(display, "fine-tuning", float(config.updates), finetune_shard, shards, compute)


def finetune_shard(
    config: FinetuneConfig,
    chosen: Treatment,
    source: Path,
    path: Path,
    seeds: tuple[int, ...],
    device: str,
    *,
    report: Callable[[float], None],
    stop: Callable[[], bool],
) -> None:
    """Apply one treatment to some seeds, see :func:`soo_marl.studies.learning.phases.train_phases`."""
    train_phases(finetune_task(config, chosen, source), path, seeds, device, report=report, stop=stop)


def treated_files(config: FinetuneConfig, directory: StudyDirectory) -> list[Path]:
    """Where the fine-tuned agents and their learning curves lie."""
    trained = [chosen for chosen in config.treatments if chosen.updates > 0]
    return trained_files(
        directory, [phase.condition for chosen in trained for phase in plan(config, chosen)], config.seeds
    )
