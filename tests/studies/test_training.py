from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from soo_marl.agents.maddpg import MADDPG, UpdateStatistics
from soo_marl.agents.trainer import Trainer
from soo_marl.engines import Compute, Interrupted
from soo_marl.storage.files import RunDirectoryError, read_json
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.storage.tensor_files import write_tensors
from soo_marl.studies.baselines.study import open_study
from soo_marl.studies.baselines.training import plan, train_baselines, train_shard
from soo_marl.studies.learning import phases
from soo_marl.studies.learning.agents_on_disk import Stop, agent_file, load_agents, read_stop
from soo_marl.studies.learning.checkpoints import ShardCheckpoint
from soo_marl.studies.learning.recipes import BaselineConfig, with_changes

Tiny = Callable[..., BaselineConfig]
Trained = tuple[BaselineConfig, StudyDirectory]

CHUNKS = 15
"""Log intervals, and so chances to stop, of a shard of the tiny study: five phases of three."""


class Killed(BaseException):
    """Stands for a process that is gone: nothing catches it."""


@pytest.fixture(scope="module")
def config(trained: Trained) -> BaselineConfig:
    """The first shard of the study that was trained without interruption, as a study of its own."""
    return trained[0].model_copy(update={"seeds": (0, 1)})


def train(config: BaselineConfig, path: Path, stop_at: int | None = None) -> list[float]:
    """Train a shard, stopping at the n-th chance; returns what it reported."""
    chances, reports = 0, []

    def stop() -> bool:
        nonlocal chances
        chances += 1
        return chances == stop_at

    open_study(path, config)
    train_shard(config, path, config.seeds, "cpu", report=reports.append, stop=stop)
    return reports


def same_agents(path: Path, expected: StudyDirectory, seeds: tuple[int, ...] = (0, 1)) -> None:
    """All files of trained agents agree bit for bit."""
    for condition in ("red", "honest", "deceptive"):
        for seed in seeds:
            folder = Path(condition) / f"seed_{seed}"
            ours, theirs = (load_file(root / folder / "agent.safetensors") for root in (path, expected.path))
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs), folder
            assert read_json(path / folder / "curves.json") == read_json(expected.path / folder / "curves.json")


def test_a_sessions_default_type_changes_nothing(config: BaselineConfig, trained: Trained, tmp_path: Path) -> None:
    directory = open_study(tmp_path / "study", config)
    torch.set_default_dtype(torch.float64)
    try:
        train_baselines(config, directory, compute=Compute(workers=0))
        assert torch.get_default_dtype() == torch.float64
        agents = load_agents(directory, "honest", config.seeds, config.game, config.maddpg)
        actions = agents.act([torch.zeros(2, 3, size, dtype=torch.float32) for size in agents.spaces.observation_sizes])
    finally:
        torch.set_default_dtype(torch.float32)
    assert {action.dtype for action in actions} == {torch.float32}
    same_agents(directory.path, trained[1])


def test_plan_of_both_regimes(tiny: Tiny) -> None:
    staged = [(phase.condition, phase.stage, phase.first, phase.last) for phase in plan(tiny())]
    assert staged == [
        ("red", "follow", True, True),
        ("honest", "lure", True, False),
        ("honest", "settle", False, True),
        ("deceptive", "lure", True, False),
        ("deceptive", "settle", False, True),
    ]
    joint = [(phase.condition, phase.stage, phase.updates_before) for phase in plan(tiny(regime="joint"))]
    assert joint == [
        (kind, *stage) for kind in ("honest", "deceptive") for stage in (("follow", 0), ("lure", 6), ("settle", 12))
    ]


@pytest.mark.parametrize("chance", [1, 6, 9, CHUNKS])
def test_stopped_and_continued_equals_uninterrupted(
    chance: int, config: BaselineConfig, trained: Trained, study: Path
) -> None:
    # Chances 6, 9 and 15 are the ends of phases.
    with pytest.raises(Interrupted):
        train(config, study, stop_at=chance)
    train(config, study)
    same_agents(study, trained[1])


def test_stopped_at_every_chance_it_still_ends_with_the_same_agents(
    config: BaselineConfig, trained: Trained, study: Path
) -> None:
    stops = 0
    while True:
        try:
            train(config, study, stop_at=1)
        except Interrupted:
            stops += 1
        else:
            break
    assert stops == CHUNKS
    same_agents(study, trained[1])
    assert not list((study / "checkpoints").iterdir()), "a finished shard leaves no checkpoint"


@pytest.mark.parametrize("write", [1, 8, 19])
def test_killed_right_after_a_checkpoint(
    write: int, config: BaselineConfig, trained: Trained, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, writes = ShardCheckpoint.write, 0

    def kill_after(self: ShardCheckpoint, *content: Any) -> None:
        nonlocal writes
        real(self, *content)
        writes += 1
        if writes == write:
            raise Killed

    with monkeypatch.context() as patched:
        # After every chunk and at the end of every phase: four checkpoints a phase.
        patched.setattr(phases, "_CHECKPOINT_SECONDS", 0.0)
        patched.setattr(ShardCheckpoint, "write", kill_after)
        with pytest.raises(Killed):
            train(config, study)
    train(config, study)
    same_agents(study, trained[1])


@pytest.mark.parametrize("place", ["save_agents", "mark_done", "save", "read"])
def test_killed_between_two_phases(
    place: str, config: BaselineConfig, trained: Trained, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner: Any = {
        "save_agents": phases,
        "mark_done": StudyDirectory,
        "save": phases.StageCurves,
        "read": ShardCheckpoint,
    }[place]
    real, calls = getattr(owner, place), 0

    def kill_before(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:  # the end of honest/settle, or its beginning
            raise Killed
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(owner, place, kill_before)
        with pytest.raises(Killed):
            train(config, study)
    train(config, study)
    same_agents(study, trained[1])


def test_finished_phases_are_not_done_twice(
    config: BaselineConfig, trained: Trained, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Interrupted):
        train(config, study, stop_at=10)
    done: list[int] = []
    real = Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda self, until: (done.append(until), real(self, until)))
    reports = train(config, study)
    # Phase 3 (deceptive, lure) had 2 of 6 updates; then 6 of phase 4.
    assert done == [4, 6, 2, 4, 6]
    assert reports[0] == 6 * 3 + 2 and reports[-1] == config.updates
    done.clear()
    train(config, study)
    assert not done


@pytest.mark.parametrize("lost", ["agent.safetensors", "curves.json"])
def test_an_agent_with_a_lost_file_is_trained_again_to_the_same_weights(
    lost: str, config: BaselineConfig, trained: Trained, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(config, study)
    (study / "honest" / "seed_1" / lost).unlink()
    ran: list[str] = []
    real = phases._Session.train
    monkeypatch.setattr(
        phases._Session, "train", lambda self, *rest: (ran.append(self.phase.stream), real(self, *rest))
    )
    train(config, study)
    assert ran == ["honest/lure", "honest/settle"]
    same_agents(study, trained[1])


def test_without_its_checkpoint_a_condition_starts_again(config: BaselineConfig, trained: Trained, study: Path) -> None:
    with pytest.raises(Interrupted):
        train(config, study, stop_at=8)  # in honest/settle, whose networks stand in the checkpoint alone
    (checkpoint,) = (study / "checkpoints").iterdir()
    checkpoint.unlink()
    with pytest.raises(Interrupted):
        train(config, study, stop_at=2)  # in honest/lure once more, marked as done though it is
    train(config, study)
    same_agents(study, trained[1])


def test_a_seed_means_the_same_run_in_any_shard(trained: Trained, tiny: Tiny, study: Path) -> None:
    config = tiny(seeds=(2, 1), seeds_per_shard=1)
    directory = open_study(study, config)
    train_baselines(config, directory, compute=Compute(workers=0))
    for condition in ("red", "honest", "deceptive"):
        for seed in (1, 2):
            alone, stacked = (load_file(agent_file(each, condition, seed)) for each in (directory, trained[1]))
            for name in stacked:
                torch.testing.assert_close(alone[name], stacked[name], rtol=1e-4, atol=1e-5)


def test_kinds_share_red_but_not_blue(trained: Trained) -> None:
    config, directory = trained
    red, honest, deceptive = (
        load_agents(directory, condition, config.seeds, config.game, config.maddpg)
        for condition in ("red", "honest", "deceptive")
    )
    for name, weight in red.actors[0].state_dict().items():
        assert torch.equal(weight, honest.actors[0].state_dict()[name])
        assert torch.equal(weight, deceptive.actors[0].state_dict()[name])
    blues = [agents.actors[1].hidden_1.linear.weight for agents in (red, honest, deceptive)]
    assert not any(torch.equal(*pair) for pair in ((blues[0], blues[1]), (blues[1], blues[2])))
    assert not torch.equal(blues[1][0], blues[1][1]), "seeds differ"


def test_joint_regime_trains_both_agents_of_each_kind(tiny: Tiny, study: Path) -> None:
    config = tiny(regime="joint", stages=tiny().stages[:1])
    train(config, study)
    assert not (study / "red").exists()
    reds = [load_file(study / kind / "seed_0" / "agent.safetensors") for kind in ("honest", "deceptive")]
    assert not torch.equal(*(red["actor/0/hidden_1.linear.weight"] for red in reds))


def damage(path: Path, how: str) -> None:
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "garbage":
        path.write_bytes(b"not a checkpoint")
    elif how == "empty":
        path.write_bytes(b"")
    else:
        tensors = load_file(path)
        tensors.pop("trainer/replay/rows")
        save_file(tensors, path, {"owner": how, "phase": "1", "updates": "4"})


@pytest.mark.parametrize("how", ["truncated", "garbage", "empty", "of another owner"])
def test_a_damaged_checkpoint_is_named_with_the_way_out(
    how: str, config: BaselineConfig, trained: Trained, study: Path
) -> None:
    with pytest.raises(Interrupted):
        train(config, study, stop_at=5)
    (checkpoint,) = (study / "checkpoints").iterdir()
    damage(checkpoint, how)
    before = checkpoint.read_bytes()
    with pytest.raises(RunDirectoryError) as raised:
        train(config, study)
    assert str(checkpoint) in str(raised.value) and "delete it to" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert checkpoint.read_bytes() == before, "the user decides what to delete"
    checkpoint.unlink()
    train(config, study)
    same_agents(study, trained[1])


def test_a_checkpoint_that_lacks_something_is_refused(config: BaselineConfig, study: Path) -> None:
    with pytest.raises(Interrupted):
        train(config, study, stop_at=5)
    checkpoint = ShardCheckpoint.of(config, study, config.seeds)
    damage(checkpoint.path, checkpoint.owner)
    with pytest.raises(RunDirectoryError, match=r"seeds_0-1\.safetensors lacks the tensor trainer/replay/rows; delete"):
        train(config, study)


@pytest.mark.parametrize("change", ["seeds=[0, 2]", "maddpg.gamma=0.9", "stages.2.training.updates=8"])
def test_a_checkpoint_of_another_study_is_refused(change: str, config: BaselineConfig, tmp_path: Path) -> None:
    other = with_changes(config, [change])
    with pytest.raises(Interrupted):
        train(other, tmp_path / "other", stop_at=5)
    with pytest.raises(Interrupted):
        train(config, tmp_path / "study", stop_at=5)
    theirs, ours = (next((tmp_path / name / "checkpoints").iterdir()) for name in ("other", "study"))
    ours.write_bytes(theirs.read_bytes())
    with pytest.raises(RunDirectoryError, match="is a checkpoint of another configuration, of other seeds"):
        train(config, tmp_path / "study")


def events(path: Path, condition: str, seed: int) -> EventAccumulator:
    accumulator = EventAccumulator(str(path / "tensorboard" / condition / f"seed_{seed}"))
    accumulator.Reload()
    return accumulator


BLUE_METRICS = {
    "return_red",
    "return_blue",
    "critic_loss_blue",
    "actor_loss_blue",
    "value_blue",
    "goal_rate",
    "goal_rate_alone",
    "trap_rate",
    "following_rate",
    "red_goal_rate",
    "overlap",
    "noise",
}


def test_events_of_every_condition_and_seed(trained: Trained) -> None:
    config, directory = trained
    red_metrics = {"critic_loss_red", "actor_loss_red", "value_red"}
    expected = {
        "red": {f"follow/{name}" for name in (BLUE_METRICS - {"goal_rate_alone"}) | red_metrics},
        "honest": {f"{stage}/{name}" for stage in ("lure", "settle") for name in BLUE_METRICS},
    }
    expected["deceptive"] = expected["honest"]
    for condition, tags in expected.items():
        for seed in config.seeds:
            assert tags == set(events(directory.path, condition, seed).Tags()["scalars"])


def test_events_equal_the_curves_and_share_one_axis_per_condition(trained: Trained) -> None:
    _, directory = trained
    for kind in ("honest", "deceptive"):
        curves = read_json(directory.path / kind / "seed_1" / "curves.json")
        scalars = events(directory.path, kind, 1)
        for stage, before in (("lure", 0), ("settle", 6)):
            found = scalars.Scalars(f"{stage}/return_blue")
            assert [event.step for event in found] == [before + 2, before + 4, before + 6]
            assert [event.value for event in found] == pytest.approx(curves[stage]["return_blue"])
            assert curves[stage]["updates"] == [2.0, 4.0, 6.0]


def test_events_after_a_kill_have_no_double_steps(
    config: BaselineConfig, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, writes = ShardCheckpoint.write, 0

    def kill_before(self: ShardCheckpoint, *content: Any) -> None:
        nonlocal writes
        writes += 1
        if writes == 2:
            raise Killed  # what came since the first checkpoint is in the events, but not in a checkpoint
        real(self, *content)

    with monkeypatch.context() as patched:
        patched.setattr(phases, "_CHECKPOINT_SECONDS", 0.0)
        patched.setattr(ShardCheckpoint, "write", kill_before)
        with pytest.raises(Killed):
            train(config, study)
    train(config, study)
    steps = [event.step for event in events(study, "red", 0).Scalars("follow/return_blue")]
    assert steps == [2, 4, 6]


def test_log_entries_without_the_end_of_an_episode_have_gaps(tiny: Tiny, study: Path) -> None:
    # Twelve steps an episode, three steps an update: rates come with every fourth update only.
    config = with_changes(
        tiny(), [f"stages.{stage}.training.{name}" for stage in range(3) for name in ("log_every=1", "warm_up=0")]
    )
    train(config, study)
    curves = read_json(study / "red" / "seed_0" / "curves.json")["follow"]
    assert [rate is None for rate in curves["goal_rate"]] == [True, True, True, False, True, True]
    assert {len(values) for values in curves.values()} == {6}


def test_alone_rates_are_gaps_where_blue_is_never_alone(trained: Trained) -> None:
    curves = read_json(trained[1].path / "red" / "seed_0" / "curves.json")["follow"]
    assert set(curves["goal_rate_alone"]) == {None}


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Breaks the critic of the second run of a condition in one of its updates, counted from 1 over all stages."""

    def break_down(condition: str, at: int) -> None:
        real, updates = MADDPG.update, 0

        def update(self: MADDPG, *arguments: Any) -> UpdateStatistics:
            nonlocal updates
            meant = self.networks.random.name.startswith(condition)
            updates += meant
            if meant and updates == at:
                with torch.no_grad():
                    next(self.networks.critics[1].parameters())[1] = torch.nan
            return real(self, *arguments)

        monkeypatch.setattr(MADDPG, "update", update)

    return break_down


def stops(path: Path, seed: int) -> list[Stop | None]:
    directory = StudyDirectory.read(path)
    return [read_stop(directory, condition, seed) for condition in ("red", "honest", "deceptive")]


@pytest.mark.parametrize(
    ("condition", "at", "expected"),
    [
        ("red", 4, [Stop("follow", 2)] * 3),
        ("honest", 1, [None, Stop("lure", 0), None]),
        ("honest", 6, [None, Stop("lure", 4), None]),
        ("honest", 10, [None, Stop("settle", 2), None]),
    ],
)
def test_a_run_that_breaks_down_is_stopped_alone(
    condition: str,
    at: int,
    expected: list[Stop | None],
    poison: Callable[[str, int], None],
    config: BaselineConfig,
    trained: Trained,
    study: Path,
) -> None:
    poison(condition, at)
    train(config, study)
    same_agents(study, trained[1], seeds=(0,))
    assert (stops(study, 0), stops(study, 1)) == ([None] * 3, expected)
    for name, stop in zip(("red", "honest", "deceptive"), expected, strict=True):
        if stop is None:
            same = [load_file(root / name / "seed_1" / "agent.safetensors") for root in (study, trained[1].path)]
            assert all(torch.equal(same[0][tensor], same[1][tensor]) for tensor in same[1])
        else:
            curves = read_json(study / name / "seed_1" / "curves.json")
            finite = {
                f"{stage}/{name}": sum(value is not None for value in values)
                for stage, of_stage in curves.items()
                for name, values in of_stage.items()
                if name in ("return_blue", "critic_loss_blue", "overlap", "noise")
            }
            logged = {stage: 3 for stage in curves} | {stop.stage: stop.updates // 2}
            after = list(curves)[list(curves).index(stop.stage) + 1 :] if stop.stage in curves else list(curves)
            logged |= {stage: 0 for stage in after}
            assert finite == {key: logged[key.partition("/")[0]] for key in finite}


def test_a_stopped_run_stays_as_it_was_last_in_order(
    poison: Callable[[str, int], None], config: BaselineConfig, study: Path
) -> None:
    poison("honest", 6)
    with pytest.raises(Interrupted):
        train(config, study, stop_at=5)  # four updates into honest/lure, the last look before the break
    last = load_file(next((study / "checkpoints").iterdir()))
    train(config, study)
    kept = load_file(study / "honest" / "seed_1" / "agent.safetensors")
    for name, tensor in kept.items():
        if name.startswith(("actor/", "critic/")):
            assert torch.equal(tensor[0], last[f"trainer/maddpg/{name}"][1]), name


@pytest.mark.parametrize("chance", [5, 6, 7, 9])
def test_stopped_runs_survive_interruptions(
    chance: int, poison: Callable[[str, int], None], config: BaselineConfig, study: Path, tmp_path: Path
) -> None:
    poison("honest", 3)
    train(config, tmp_path / "uninterrupted")
    poison("honest", 3)
    with pytest.raises(Interrupted):
        train(config, study, stop_at=chance)
    train(config, study)
    same_agents(study, StudyDirectory.read(tmp_path / "uninterrupted"))
    assert stops(study, 1) == stops(tmp_path / "uninterrupted", 1) == [None, Stop("lure", 2), None]


def test_values_that_explode_stop_every_run(tiny: Tiny, study: Path) -> None:
    config = with_changes(tiny(), ["maddpg.critic_learning_rate=1e12"])
    train(config, study)
    assert all(stop is not None for seed in config.seeds for stop in stops(study, seed))
    for path in study.glob("*/seed_*/agent.safetensors"):
        assert all(bool(tensor.isfinite().all()) for tensor in load_file(path).values())


def test_a_file_that_hides_where_its_training_stopped_is_named(trained: Trained, study: Path) -> None:
    path = study / "honest" / "seed_0" / "agent.safetensors"
    write_tensors(path, {"x": torch.zeros(1)}, {"stopped": "somewhere"})
    directory = StudyDirectory(study, trained[1].manifest)
    with pytest.raises(RunDirectoryError, match=r"agent\.safetensors does not say where its training stopped"):
        read_stop(directory, "honest", 0)
