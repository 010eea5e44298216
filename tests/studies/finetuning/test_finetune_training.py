"""Fine-tuning on disk: from the right agents, in the right games, stopped and killed and continued."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hand_made_agents import finetuning, training
from safetensors.torch import load_file
from torch import Tensor

from soo_marl.agents.maddpg import MADDPG
from soo_marl.agents.trainer import Trainer
from soo_marl.engines import Compute, Interrupted
from soo_marl.envs.observations import BLUE_AGENT, RED_AGENT
from soo_marl.storage.files import RunDirectoryError, read_json, write_json
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.study import open_study
from soo_marl.studies.finetuning.configuration import FINETUNING_TRAINING, FinetuneConfig, Treatment, treatment
from soo_marl.studies.finetuning.measures import measure_agents
from soo_marl.studies.finetuning.methods import METHODS
from soo_marl.studies.finetuning.study import open_finetuning
from soo_marl.studies.finetuning.training import (
    WeightedLoss,
    finetune,
    finetune_shard,
    finetune_task,
    plan,
    treated_files,
)
from soo_marl.studies.learning import phases
from soo_marl.studies.learning.agents_on_disk import Stop, agent_file, load_learner, read_stop, save_agents
from soo_marl.studies.learning.checkpoints import ShardCheckpoint
from soo_marl.studies.learning.curves import read_curves
from soo_marl.studies.learning.recipes import BaselineConfig

Trained = tuple[BaselineConfig, StudyDirectory]
Make = Callable[..., FinetuneConfig]

TREATMENTS = (
    treatment("soo", updates=6, weight_start=0.5, weight_end=2.0),
    treatment("soo_action", updates=6),
    treatment("shuffled", updates=6),
    treatment("random", updates=6),
    treatment("none", updates=6),
    treatment("blind", updates=6),
    treatment("honest_reward", updates=6),
    treatment("blank"),
)
CHUNKS = 5
"""Log intervals, and so chances to stop, of a shard: three with the loss and two without."""


class Killed(BaseException):
    """Stands for a process that is gone: nothing catches it."""


@pytest.fixture(scope="session")
def make(trained: Trained) -> Make:
    """Makes configurations over the tiny study, whose agents learnt nothing."""

    def make(*treatments: Treatment, **changes: Any) -> FinetuneConfig:
        return finetuning(trained[0], treatments or TREATMENTS, **({"seeds": (0, 1)} | changes))

    return make


@pytest.fixture(scope="module")
def tuned(make: Make, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[FinetuneConfig, Path]:
    """Every treatment, never interrupted. Not to be changed."""
    config, path = make(), tmp_path_factory.mktemp("tuned") / "study"
    finetune(config, open_finetuning(path, config), trained[1].path, compute=Compute(workers=0))
    return config, path


def run(config: FinetuneConfig, chosen: Treatment, source: Path, path: Path, stop_at: int | None = None) -> list[float]:
    """Apply one treatment, stopping at the n-th chance; returns what it reported."""
    chances = 0
    reports: list[float] = []

    def stop() -> bool:
        nonlocal chances
        chances += 1
        return chances == stop_at

    open_finetuning(path, config)
    finetune_shard(config, chosen, source, path, config.seeds, "cpu", report=reports.append, stop=stop)
    return reports


def networks(directory: Path, condition: str, seed: int) -> dict[str, Tensor]:
    return load_file(directory / condition / f"seed_{seed}" / "agent.safetensors")


def same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


def same_results(path: Path, expected: Path, chosen: Treatment, seeds: tuple[int, ...] = (0, 1)) -> None:
    """Agents and curves of a treatment and of its aftermath agree bit for bit."""
    for condition in (chosen.label, f"{chosen.label}.after"):
        for seed in seeds:
            assert same(networks(path, condition, seed), networks(expected, condition, seed)), (condition, seed)
            curves = [root / condition / f"seed_{seed}" / "curves.json" for root in (path, expected)]
            assert curves[0].read_bytes() == curves[1].read_bytes()


RESUMED = [chosen for chosen in TREATMENTS if chosen.method in ("soo", "soo_action", "shuffled", "random", "none")]


@pytest.mark.parametrize("chosen", RESUMED, ids=lambda chosen: chosen.method)
def test_stopped_at_every_chance_it_still_ends_with_the_same_agents(
    chosen: Treatment, tuned: tuple[FinetuneConfig, Path], trained: Trained, study: Path
) -> None:
    config, expected = tuned
    stops = 0
    while True:
        try:
            run(config, chosen, trained[1].path, study, stop_at=1)
        except Interrupted:
            stops += 1
        else:
            break
    assert stops == CHUNKS
    same_results(study, expected, chosen)
    assert not list((study / "checkpoints").iterdir()), "a finished shard leaves no checkpoint"


@pytest.mark.parametrize("write", range(1, 8))
def test_killed_right_after_a_checkpoint(
    write: int, tuned: tuple[FinetuneConfig, Path], trained: Trained, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Four checkpoints with the loss, the fourth at its end, and three without.
    config, expected = tuned
    chosen = TREATMENTS[0]
    real, writes = ShardCheckpoint.write, 0

    def kill_after(self: ShardCheckpoint, *content: Any) -> None:
        nonlocal writes
        real(self, *content)
        writes += 1
        if writes == write:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(phases, "_CHECKPOINT_SECONDS", 0.0)
        patched.setattr(ShardCheckpoint, "write", kill_after)
        with pytest.raises(Killed):
            run(config, chosen, trained[1].path, study)
    run(config, chosen, trained[1].path, study)
    same_results(study, expected, chosen)


@pytest.mark.parametrize("place", ["save_agents", "mark_done"])
@pytest.mark.parametrize("call", [1, 2])
def test_killed_between_two_phases(
    place: str,
    call: int,
    tuned: tuple[FinetuneConfig, Path],
    trained: Trained,
    study: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, expected = tuned
    owner: Any = {"save_agents": phases, "mark_done": StudyDirectory}[place]
    real, calls = getattr(owner, place), 0

    def kill_before(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Killed
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(owner, place, kill_before)
        with pytest.raises(Killed):
            run(config, TREATMENTS[0], trained[1].path, study)
    run(config, TREATMENTS[0], trained[1].path, study)
    same_results(study, expected, TREATMENTS[0])


def test_a_finished_treatment_is_not_done_twice(
    tuned: tuple[FinetuneConfig, Path], trained: Trained, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, chosen = tuned[0], TREATMENTS[0]
    with pytest.raises(Interrupted):
        run(config, chosen, trained[1].path, study, stop_at=2)
    done: list[int] = []
    real = Trainer.run

    def counted(self: Trainer, until: int | None = None) -> None:
        done.append(until or 0)
        real(self, until)

    monkeypatch.setattr(Trainer, "run", counted)
    reports = run(config, chosen, trained[1].path, study)
    assert done == [6, 2, 4] and reports[0] == 4 and reports[-1] == 10
    done.clear()
    assert run(config, chosen, trained[1].path, study) == [10]
    assert not done
    # The whole study, of which one treatment is done.
    both = replace_treatments(config, chosen, treatment("none", updates=6))
    again = study.with_name("both")
    run(both, both.treatments[0], trained[1].path, again)
    done.clear()
    finetune(both, StudyDirectory.read(again), trained[1].path, compute=Compute(workers=0))
    assert done == [2, 4, 6, 2, 4]


def replace_treatments(config: FinetuneConfig, *treatments: Treatment) -> FinetuneConfig:
    return config.model_copy(update={"treatments": treatments})


def test_a_lost_agent_is_treated_again_to_the_same_weights(
    tuned: tuple[FinetuneConfig, Path], trained: Trained, study: Path
) -> None:
    config, expected = tuned
    chosen = TREATMENTS[2]
    run(config, chosen, trained[1].path, study)
    agent_file(StudyDirectory.read(study), chosen.label, 1).unlink()
    run(config, chosen, trained[1].path, study)
    same_results(study, expected, chosen)


def test_every_treatment_leaves_agents_and_curves(tuned: tuple[FinetuneConfig, Path]) -> None:
    config, path = tuned
    files = treated_files(config, StudyDirectory.read(path))
    assert len(files) == 7 * 2 * 2 * 2 and all(file.exists() for file in files)
    conditions = {file.parent.parent.name for file in files}
    assert conditions == {
        f"{chosen.label}{ending}" for chosen in TREATMENTS if chosen.updates for ending in ("", ".after")
    }
    assert not (path / "blank").exists()


def test_all_treatments_begin_with_the_same_agents_and_end_apart(
    tuned: tuple[FinetuneConfig, Path], trained: Trained
) -> None:
    _, path = tuned
    name = "actor/1/hidden_1.linear.weight"
    source = networks(trained[1].path, "deceptive", 1)[name]
    found = {chosen.method: networks(path, chosen.label, 1)[name] for chosen in TREATMENTS if chosen.updates}
    # Six steps of Adam.
    assert all(0 < float((tensor - source).abs().max()) < 6.5 * 0.003 for tensor in found.values())
    # All meet the same episodes, and these two are paid alike until red is trapped, which takes longer.
    assert torch.equal(found.pop("honest_reward"), found["none"])
    assert not any(torch.equal(found[one], found[other]) for one, other in itertools.combinations(found, 2))


def test_no_loss_equals_a_weight_of_zero(make: Make, trained: Trained, study: Path, tmp_path: Path) -> None:
    none, weightless = treatment("none", updates=6), treatment("soo", updates=6, weight=0)
    config = make(none, weightless)
    for chosen in config.treatments:
        run(config, chosen, trained[1].path, study)
    for ending in ("", ".after"):
        for seed in config.seeds:
            found = [networks(study, f"{chosen.label}{ending}", seed) for chosen in config.treatments]
            assert same(*found)


def test_red_stays_as_it_was_unless_it_learns(
    tuned: tuple[FinetuneConfig, Path], make: Make, trained: Trained, study: Path
) -> None:
    source = trained[1].path
    for chosen in TREATMENTS:
        for ending in ("", ".after") if chosen.updates else ():
            ours, theirs = networks(tuned[1], f"{chosen.label}{ending}", 0), networks(source, "deceptive", 0)
            for name in theirs:
                fixed = name.split("/")[1] == str(RED_AGENT) or name.endswith("input_scale")
                assert torch.equal(ours[name], theirs[name]) is fixed, (chosen.label, name)
    both = treatment("soo", updates=6)
    config = make(
        both, training=FINETUNING_TRAINING.model_copy(update=training(learners=None).model_dump(exclude_unset=True))
    )
    run(config, both, source, study)
    ours, theirs = networks(study, "soo.updates-6", 0), networks(source, "deceptive", 0)
    assert not any(torch.equal(ours[name], theirs[name]) for name in theirs if name.endswith("linear.weight"))


@pytest.mark.parametrize("kind", ["deceptive", "honest"])
def test_each_stage_begins_with_the_right_agents(kind: str, make: Make, trained: Trained, study: Path) -> None:
    chosen = treatment("soo", updates=6)
    config = make(chosen, kind=kind, seeds=(2, 0))
    directory = open_finetuning(study, config)
    task = finetune_task(config, chosen, trained[1].path)
    first, after = task.phases
    learner, stops = task.begin(directory, first, config.seeds, "cpu")
    expected = load_learner(trained[1], kind, config.seeds, trained[0].game, trained[0].maddpg)
    assert same(learner.networks_state(), expected.networks_state()) and stops == [None, None]
    with pytest.raises(RunDirectoryError, match=r"soo\.updates-6/seed_2/agent\.safetensors is missing"):
        task.begin(directory, after, config.seeds, "cpu")
    treated = MADDPG(expected.spaces, config.maddpg, config.seeds, stream="treated")
    save_agents(directory, chosen.label, treated, [None, Stop("finetune", 4)])
    learner, stops = task.begin(directory, after, config.seeds, "cpu")
    assert same(learner.networks_state(), treated.networks_state())
    assert stops == [None, Stop("finetune", 4)]


def test_what_comes_after_starts_from_the_treated_agents(
    tuned: tuple[FinetuneConfig, Path], trained: Trained, study: Path
) -> None:
    # From other treated agents, others come.
    config, expected = tuned
    chosen = TREATMENTS[0]
    directory = open_finetuning(study, config)
    run(config, chosen, trained[1].path, study)
    moved = load_learner(
        directory, "soo.weight_start-0.5.weight_end-2.updates-6", (0, 1), trained[0].game, config.maddpg
    )
    with torch.no_grad():
        moved.networks.actors[BLUE_AGENT].output.bias[1].add_(0.5)
    save_agents(directory, chosen.label, moved)
    for mark in (study / "steps" / "train").rglob("0_*.json"):
        write_json(mark, list(read_json(mark)["files"]))  # as earlier versions wrote it, without digests
    for seed in config.seeds:
        agent_file(directory, f"{chosen.label}.after", seed).unlink()
    run(config, chosen, trained[1].path, study)
    name = "actor/1/output.bias"
    changes = [
        networks(study, f"{chosen.label}.after", seed)[name] - networks(expected, f"{chosen.label}.after", seed)[name]
        for seed in config.seeds
    ]
    assert not changes[0].any(), "the first run is what it was"
    assert float((changes[1] - 0.5).abs().max()) < 0.05


def test_stopped_agents_stay_as_they_are(make: Make, trained: Trained, study: Path, tmp_path: Path) -> None:
    chosen = treatment("soo", updates=6)
    config = make(chosen)
    source = open_study(tmp_path / "source", trained[0])
    agents = load_learner(trained[1], "deceptive", (0, 1), trained[0].game, trained[0].maddpg)
    stops = [None, Stop("settle", 2)]
    save_agents(source, "deceptive", agents, stops)
    run(config, chosen, source.path, study)
    for condition in (chosen.label, f"{chosen.label}.after"):
        assert [read_stop(StudyDirectory.read(study), condition, seed) for seed in (0, 1)] == stops
        changed = [
            not same(networks(study, condition, seed), networks(source.path, "deceptive", seed)) for seed in (0, 1)
        ]
        assert changed == [True, False]
        assert set(read_curves(study / condition / "seed_1" / "curves.json").popitem()[1]["trap_rate"]) == {None}


def test_weights_follow_their_schedule(make: Make, trained: Trained) -> None:
    chosen = treatment("soo", updates=4, weight=10.0, weight_start=0.5, weight_end=2.5)
    config = make(chosen)
    task = finetune_task(config, chosen, trained[1].path)
    learner, _ = task.begin(trained[1], task.phases[0], config.seeds, "cpu")
    loss = task.auxiliary_loss(task.phases[0], learner)
    assert isinstance(loss, WeightedLoss)
    loss.loss = lambda sources, actor, batch: sources.random.uniform(1)[:, 0] * 0.0 + 1.0
    batch: Any = None
    weights = []
    actor = learner.networks.actors[BLUE_AGENT]
    red = loss(RED_AGENT, learner.networks.actors[RED_AGENT], replace_rewards())
    assert red.tolist() == [0.0, 0.0] and loss.calls == 0, "red's updates do not count"
    for _ in range(4):
        weights.append(loss(BLUE_AGENT, actor, batch).tolist())
    assert weights == [[value, value] for value in (5.0, 10.0, 15.0, 20.0)]
    assert loss.weight == 25.0
    state = loss.state()
    assert (int(state["calls"]), int(state["counter"])) == (4, 4)
    again = task.auxiliary_loss(task.phases[0], learner)
    assert again is not None
    again.load_state(state)
    assert isinstance(again, WeightedLoss) and again.weight == 25.0 and again.sources.random.counter == 4


def replace_rewards() -> Any:
    """A minibatch of which only the device is looked at."""

    class Batch:
        rewards = torch.zeros(2, 3, 2)

    return Batch()


def test_losses_are_there_in_the_first_stage_of_methods_that_have_one(make: Make, trained: Trained) -> None:
    for name, entry in METHODS.items():
        chosen = treatment(name, updates=6) if entry.trains else treatment(name)
        config = make(chosen)
        task = finetune_task(config, chosen, trained[1].path)
        first, after = plan(config, chosen)
        learner, _ = task.begin(trained[1], first, config.seeds, "cpu")
        assert (task.auxiliary_loss(first, learner) is None) is (entry.loss is None)
        assert task.auxiliary_loss(after, learner) is None


def test_the_actor_of_before_is_kept_as_it_was(make: Make, trained: Trained) -> None:
    chosen = treatment("anchor", updates=6)
    config = make(chosen)
    task = finetune_task(config, chosen, trained[1].path)
    learner, _ = task.begin(trained[1], task.phases[0], config.seeds, "cpu")
    loss = task.auxiliary_loss(task.phases[0], learner)
    assert isinstance(loss, WeightedLoss)
    before = {name: tensor.clone() for name, tensor in loss.sources.initial.state_dict().items()}
    assert same(before, learner.networks.actors[BLUE_AGENT].state_dict())
    with torch.no_grad():
        for parameter in learner.networks.actors[BLUE_AGENT].parameters():
            parameter.add_(1.0)
    assert same(before, loss.sources.initial.state_dict())


def test_settings_of_a_treatment_reach_its_loss(make: Make, trained: Trained) -> None:
    chosen = treatment(
        "soo", layers=("hidden_2",), towards="initial_self", untrapped_only=True, pairing="perspective", zero_flag=True
    )
    config = make(chosen)
    task = finetune_task(config, chosen, trained[1].path)
    learner, _ = task.begin(trained[1], task.phases[0], config.seeds, "cpu")
    loss = task.auxiliary_loss(task.phases[0], learner)
    assert isinstance(loss, WeightedLoss)
    sources = loss.sources
    assert (sources.layers, sources.towards_initial, sources.untrapped_only) == (("hidden_2",), True, True)
    assert sources.sight_radius == trained[0].game.blue_sight_radius and not sources.discrete
    red, blue = torch.ones(2, 1, 6), torch.full((2, 1, 10), 0.5)
    pairs = sources.pairing(red, blue, sources.random)
    assert bool(pairs.valid.all()) and not pairs.other_observation[..., 8:10].any(), "perspective, flag zeroed"


def test_two_workers_do_what_one_process_does(
    tuned: tuple[FinetuneConfig, Path], trained: Trained, study: Path
) -> None:
    config = replace_treatments(tuned[0], TREATMENTS[0], TREATMENTS[2])
    progress: dict[int, float] = {}

    class Progress:
        @contextmanager
        def task(self, name: str, total: float, shards: int) -> Iterator[Callable[[int, float], None]]:
            yield lambda shard, done: progress.update({shard: done})

    finetune(config, open_finetuning(study, config), trained[1].path, Progress(), Compute(workers=2))
    for chosen in config.treatments:
        same_results(study, tuned[1], chosen)
    assert progress == {0: 10.0, 1: 10.0}


def test_a_checkpoint_of_another_treatment_is_refused(
    tuned: tuple[FinetuneConfig, Path], trained: Trained, study: Path
) -> None:
    config = tuned[0]
    for chosen in TREATMENTS[:2]:
        with pytest.raises(Interrupted):
            run(config, chosen, trained[1].path, study, stop_at=1)
    ours, theirs = (ShardCheckpoint.of(config, study, config.seeds, chosen.label).path for chosen in TREATMENTS[:2])
    ours.write_bytes(theirs.read_bytes())
    with pytest.raises(RunDirectoryError, match="is a checkpoint of another configuration"):
        run(config, TREATMENTS[0], trained[1].path, study)


def test_curves_hold_behaviour_on_the_same_episodes(tuned: tuple[FinetuneConfig, Path], trained: Trained) -> None:
    config, path = tuned
    for chosen in TREATMENTS:
        for condition, stage, updates in (
            (chosen.label, "finetune", [2.0, 4.0, 6.0]),
            (f"{chosen.label}.after", "after", [2.0, 4.0]),
        ):
            if not chosen.updates:
                continue
            curves = read_curves(path / condition / "seed_1" / "curves.json")
            assert set(curves) == {stage} and curves[stage]["updates"] == updates
            assert {
                "goal_rate",
                "goal_rate_alone",
                "trap_rate",
                "following_rate",
                "red_goal_rate",
                "rubric_rate",
                "greedy_return",
                "sensitivity",
                "overlap",
                "noise",
                "return_blue",
            } <= set(curves[stage])
            settings = config.training
            noise = [settings.noise_start, settings.noise_end]
            assert curves[stage]["noise"] == pytest.approx(np.interp(updates, [0, updates[-1]], noise))
            blind = chosen.method == "blind" and stage == "finetune"
            assert (set(curves[stage]["sensitivity"]) == {0.0}) is blind


def test_monitoring_measures_the_agents_as_they_are(make: Make, trained: Trained, tmp_path: Path) -> None:
    chosen = treatment("none", updates=6)
    config = make(chosen, monitor_episodes=16)
    task = finetune_task(config, chosen, trained[1].path)
    learner, _ = task.begin(trained[1], task.phases[0], config.seeds, "cpu")
    first, again = (task.measure(task.phases[0], learner) for _ in range(2))
    for name in first:
        torch.testing.assert_close(first[name], again[name], equal_nan=True)
    # As many episodes elsewhere give nearly the same; the return is the honest one, of episodes with red.
    measures = measure_agents(learner.networks, config.evaluation_game, 200)
    assert first["greedy_return"].tolist() == pytest.approx(measures.returns.tolist(), abs=20)
    assert not any(math.isnan(value) for name in first for value in first[name].tolist())
    assert task.measure(task.phases[0], learner).keys() == first.keys()
    silent = make(chosen, monitor_episodes=0)
    assert finetune_task(silent, chosen, trained[1].path).measure(task.phases[0], learner) == {}
