"""What is measured of agents whose weights are set by hand, against plain loops; and how it lies on disk."""

import json
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hand_made_agents import (
    GAME,
    GUIDES,
    GUIDING_GAME,
    HONEST,
    LURES,
    STILL,
    STRAIGHT,
    Policy,
    baselines,
    finetuning,
    hand_made,
    set_linear,
)
from numpy.typing import NDArray
from torch import Tensor

from soo_marl.agents import AgentNetworks
from soo_marl.deception import behaviour, deception_profile, rubric_steps
from soo_marl.engines import Compute, Interrupted
from soo_marl.envs.batched import BatchedPhysicalDeception
from soo_marl.envs.configuration import PhysicalDeceptionConfig
from soo_marl.envs.observations import BLUE_AGENT
from soo_marl.overlap import record_activations
from soo_marl.random_streams import RandomStreams
from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.storage.tensor_files import write_tensors
from soo_marl.studies.baselines.study import open_study
from soo_marl.studies.finetuning.configuration import FinetuneConfig, treatment
from soo_marl.studies.finetuning.evaluation import (
    Condition,
    conditions,
    measure_conditions,
    measure_shard,
    measured_files,
    measures_file,
    read_about,
    read_measures,
    record_episodes,
)
from soo_marl.studies.finetuning.measures import (
    STREAM,
    Measures,
    Sensitivity,
    measure_agents,
    sensitivity,
    step_overlap,
)
from soo_marl.studies.finetuning.study import open_finetuning
from soo_marl.studies.learning.agents_on_disk import Stop, agent_spaces, save_agents
from soo_marl.studies.learning.rollout import greedy_steps, roll_out

Array = NDArray[np.float64]

MIXED = GAME.replace(alone_share=0.3, trapped_start_share=0.3, blue_sight_radius=0.8)
"""A game with everything that does not count in sensitivity, a trapped red in sight above all."""
SEEDS = (0, 5)
EPISODES = 12


def agents(game: PhysicalDeceptionConfig, *policies: Policy) -> AgentNetworks:
    return hand_made(game, baselines().maddpg, SEEDS, policies if len(policies) > 1 else policies[0]).networks


def seeing(game: PhysicalDeceptionConfig, factor: float = 1.5) -> AgentNetworks:
    """Blue's action is red's position, in units of its sight."""
    made = agents(game, STILL)
    set_linear(made.actors[BLUE_AGENT], {0: (6, factor), 1: (7, factor)})
    return made


def watched(made: AgentNetworks, game: PhysicalDeceptionConfig, stream: str) -> list[Array]:
    """Blue's observations ``[R, N, size]`` at every greedy step."""
    worlds = BatchedPhysicalDeception(game, made.seeds, EPISODES, stream=stream)
    return [step.observations[BLUE_AGENT].double().numpy() for step in greedy_steps(made, worlds)]


def test_sensitivity_of_an_action_that_is_reds_position() -> None:
    made = seeing(MIXED)
    # The points are the only thing that is drawn.
    random = RandomStreams(SEEDS, "look/moved")
    sums, counted, trapped_in_sight = np.zeros((2, len(SEEDS))), np.zeros(len(SEEDS)), 0
    for blue in watched(made, MIXED, "look/sensitivity"):
        drawn = random.uniform(2, EPISODES).double().numpy()
        for run, episode in np.ndindex(len(SEEDS), EPISODES):
            red, trapped, visible = blue[run, episode, 6:8], blue[run, episode, 8], blue[run, episode, 10]
            trapped_in_sight += int(visible and trapped)
            if not visible or trapped:
                continue
            angle, radius = drawn[run, :, episode]
            point = np.array([math.cos(2 * math.pi * angle), math.sin(2 * math.pi * angle)]) * radius
            action = np.tanh(1.5 * red / MIXED.blue_sight_radius)
            sums[0, run] += np.linalg.norm(action)
            sums[1, run] += np.linalg.norm(action - np.tanh(1.5 * point))
            counted[run] += 1
    assert counted.min() > 50 and trapped_in_sight > 50
    found = sensitivity(made, MIXED, EPISODES, "look")
    assert found.blanked.tolist() == pytest.approx(sums[0] / counted, rel=1e-4)
    assert found.moved.tolist() == pytest.approx(sums[1] / counted, rel=1e-4)


def test_an_actor_that_ignores_red_has_no_sensitivity() -> None:
    found = sensitivity(agents(MIXED, STRAIGHT), MIXED, EPISODES, "look")
    assert found.blanked.tolist() == found.moved.tolist() == [0.0, 0.0]


def test_sensitivity_of_one_run_says_nothing_of_another() -> None:
    both = sensitivity(agents(MIXED, STRAIGHT, HONEST), MIXED, EPISODES, "look")
    assert both.blanked[0] == both.moved[0] == 0 and both.blanked[1] > 0.1 and both.moved[1] > 0.1


def test_an_actor_that_is_only_told_that_red_is_there_does_not_care_where() -> None:
    found = sensitivity(agents(MIXED, Policy(goal_pull=0.0, push=0.7)), MIXED, EPISODES, "look")
    assert found.blanked.tolist() == pytest.approx([math.tanh(0.7)] * 2)
    assert found.moved.tolist() == [0.0, 0.0]


def test_power_and_variance_of_activations() -> None:
    made = seeing(MIXED)
    with torch.no_grad():
        made.actors[BLUE_AGENT].hidden_2.linear.bias[1, 0, 5] = 3.0  # large, and always the same
    seen = watched(made, MIXED, "look/sensitivity")
    activations: list[list[Array]] = [[], []]
    for blue in seen:
        with record_activations(made.actors[BLUE_AGENT], ("hidden_1", "hidden_2")) as record:
            made.actors[BLUE_AGENT](torch.from_numpy(blue).float())
            hidden = torch.cat(list(record.take().values()), dim=-1).double().detach().numpy()
        for run in range(len(SEEDS)):
            activations[run].append(hidden[run])
    found = sensitivity(made, MIXED, EPISODES, "look")
    for run in range(len(SEEDS)):
        table = np.concatenate(activations[run])
        assert table.shape == (EPISODES * MIXED.episode_length, 32)
        assert float(found.power[run]) == pytest.approx((table**2).mean(), rel=1e-4)
        assert float(found.variance[run]) == pytest.approx(table.var(axis=0).mean(), rel=1e-4)


def test_activations_that_never_change_have_no_variance() -> None:
    made = agents(MIXED, STILL)
    set_linear(made.actors[BLUE_AGENT], {})
    with torch.no_grad():
        made.actors[BLUE_AGENT].hidden_1.linear.bias.fill_(300.1)
    found = sensitivity(made, MIXED, EPISODES, "look")
    assert found.power.tolist() == pytest.approx([300.1**2 / 2] * 2, rel=1e-5)
    assert found.variance.tolist() == pytest.approx([0.0, 0.0], abs=1e-9)


@pytest.mark.parametrize("game", [MIXED, MIXED.replace(trapped_start_share=1.0, alone_share=0)])
def test_a_blind_blue_has_no_sensitivity_and_one_that_meets_no_untrapped_red_has_none_to_measure(
    game: PhysicalDeceptionConfig,
) -> None:
    blind = sensitivity(seeing(game), game.replace(blind=True), EPISODES, "look")
    assert blind.blanked.tolist() == blind.moved.tolist() == [0.0, 0.0]
    found = sensitivity(seeing(game), game, EPISODES, "look")
    assert bool(found.blanked.isnan().all()) is bool(found.moved.isnan().all()) is (game.trapped_start_share == 1)


def test_discrete_actions_are_compared_as_probabilities() -> None:
    game = MIXED.replace(continuous_actions=False)
    made = hand_made_discrete(game)
    found = sensitivity(made, game, EPISODES, "look")
    one, none = torch.softmax(torch.tensor([2.0, 0, 0, 0, 0]), dim=0), torch.full((5,), 0.2)
    assert found.blanked.tolist() == pytest.approx([float((one - none).norm())] * 2, rel=1e-5)


def hand_made_discrete(game: PhysicalDeceptionConfig) -> AgentNetworks:
    """Blue rather stays where it is while it sees red."""
    made = AgentNetworks(agent_spaces(game), baselines().maddpg, SEEDS)
    set_linear(made.actors[BLUE_AGENT], {0: (10, 2.0)})
    return made


def test_overlap_at_a_step_compares_with_the_other_observation() -> None:
    made = agents(MIXED, LURES, HONEST)
    blue = torch.from_numpy(np.stack(watched(made, MIXED, "look"))).float()[[0, 20]].movedim(0, 1).flatten(1, 2)
    drawn = RandomStreams(SEEDS, "pairs").uniform(2, blue.shape[1]).double().numpy()
    found = step_overlap(made, blue, MIXED, RandomStreams(SEEDS, "pairs")).detach()
    unseen = 0
    for run, row in np.ndindex(*blue.shape[:2]):
        one = blue[run, row]
        other = one.clone()
        if one[10] == 0:
            unseen += 1
            angle, radius = drawn[run, :, row]
            other[6] = math.cos(2 * math.pi * angle) * radius * MIXED.blue_sight_radius
            other[7] = math.sin(2 * math.pi * angle) * radius * MIXED.blue_sight_radius
            other[10] = 1.0
        else:
            other[6:8], other[10] = 0.0, 0.0
        activations = [activations_of(made, run, observation) for observation in (one, other)]
        assert float(found[run, row]) == pytest.approx(((activations[0] - activations[1]) ** 2).mean(), rel=1e-3)
    assert 0 < unseen < blue.shape[0] * blue.shape[1]


def activations_of(made: AgentNetworks, run: int, observation: Tensor) -> Array:
    actor = made.actors[BLUE_AGENT]
    values = observation.double().numpy() * actor.input_scale[run, 0].double().numpy()
    found = []
    for layer in (actor.hidden_1.linear, actor.hidden_2.linear):
        weight, bias = (part[run].detach().double().numpy() for part in (layer.weight, layer.bias))
        values = np.maximum(weight @ values + bias[0], 0)
        found.append(values)
    return np.concatenate(found)


def test_returns_with_red_blanked_are_those_of_the_blind_game() -> None:
    game = GUIDING_GAME.replace(alone_share=0.5)
    made = agents(game, GUIDES, STRAIGHT)
    found = measure_agents(made, game, 30)
    trajectories, returns = roll_out(made, game, 30, STREAM)
    blind_trajectories, blind = roll_out(made, game.replace(blind=True), 30, STREAM)
    assert torch.equal(trajectories.blue_position[:, :, 0], blind_trajectories.blue_position[:, :, 0]), "same starts"
    for run in range(2):
        with_red = ~trajectories.alone[run]
        assert 5 < int(with_red.sum()) < 25
        assert float(found.returns[run]) == pytest.approx(float(returns[run][with_red].mean()))
        assert float(found.returns_blanked[run]) == pytest.approx(float(blind[run][with_red].mean()))
    gain = found.returns - found.returns_blanked
    assert gain[0] > 20 and gain[1] == 0
    rates = behaviour(trajectories, game.landmark_radius, 10)
    assert torch.equal(found.rates.goal_rate_alone, rates.goal_rate_alone)
    assert torch.equal(found.profile.counts, deception_profile(trajectories).counts)


def test_a_blind_game_leaves_nothing_to_gain() -> None:
    game = GUIDING_GAME.replace(alone_share=0.5, blind=True)
    found = measure_agents(agents(game, GUIDES), game, 20)
    assert torch.equal(found.returns, found.returns_blanked)
    assert found.sensitivity.blanked.tolist() == [0.0, 0.0]


def test_an_agent_is_measured_alone_as_in_a_stack() -> None:
    game = GAME.replace(alone_share=0.5)
    both = measure_agents(agents(game, LURES, HONEST), game, 20)
    alone = measure_agents(hand_made(game, baselines().maddpg, SEEDS[1:], HONEST).networks, game, 20)
    assert alone.returns[0] == both.returns[1] and alone.rates.trap_rate[0] == both.rates.trap_rate[1]
    assert float(alone.sensitivity.moved[0]) == pytest.approx(float(both.sensitivity.moved[1]), rel=1e-5)
    assert float(alone.overlap["kept"][0]) == pytest.approx(float(both.overlap["kept"][1]), rel=1e-5)


def test_episodes_hold_what_the_rubric_says_of_them() -> None:
    game = GAME.replace(alone_share=0.5)
    made = agents(game, LURES, HONEST)
    records = record_episodes(made, game, "soo")
    trajectories, _ = roll_out(made, game, 40, "finetuning/episodes")
    steps = rubric_steps(trajectories[0])
    assert [record.alone for record in records] == [False] * 5 + [True]
    assert len({record.number for record in records}) == 6
    for record in records:
        assert (record.condition, record.seed, record.verdict) == ("soo", SEEDS[0], None)
        number = record.number
        assert bool(trajectories.alone[0, number]) is record.alone
        assert record.opportunity == tuple(steps.opportunity[number].tolist())
        for name in ("projection_on_goal", "projection_on_fake", "cosine_between"):
            expected = [None if math.isnan(value) else value for value in getattr(steps, name)[number].tolist()]
            assert list(getattr(record, name)) == [value and pytest.approx(value, abs=1e-4) for value in expected]
        assert record.trapped == tuple(trajectories.trapped[0, number].tolist())
        assert record.red_in_sight == tuple(trajectories.red_in_sight[0, number].tolist())
        for name in ("blue", "red"):
            positions = getattr(trajectories, f"{name}_position")[0, number].tolist()
            assert np.array(getattr(record, name)) == pytest.approx(np.array(positions), abs=1e-4)
        assert record.goal == pytest.approx(trajectories.goal_position[0, number].tolist(), abs=1e-4)
        assert record.fake == pytest.approx(trajectories.fake_position[0, number].tolist(), abs=1e-4)
        assert all(value is not None and value >= 0 for value in record.overlap)
    # The rubric again, from what is kept alone.
    lured = next(record for record in records if not record.alone and any(record.opportunity))
    for step, counts in enumerate(lured.opportunity):
        if not counts:
            continue
        assert lured.red_in_sight[step] and not lured.trapped[step]
        movement = np.subtract(lured.blue[step + 1], lured.blue[step])
        towards = np.subtract(lured.fake, lured.blue[step])
        size = float(np.linalg.norm(movement) * np.linalg.norm(towards))
        if size > 1e-3:
            assert lured.projection_on_fake[step] == pytest.approx(float(movement @ towards) / size, abs=0.02)
    assert any(any(record.trapped) for record in records)


def test_all_conditions_meet_the_same_starts_in_their_episodes() -> None:
    game = GAME.replace(alone_share=0.5)
    lured, straight = (record_episodes(agents(game, policy), game, "x") for policy in (LURES, STRAIGHT))
    blind = record_episodes(agents(game, LURES), game.replace(blind=True), "x")
    for one, other, third in zip(lured, straight, blind, strict=True):
        for record in (other, third):
            assert (one.number, one.goal, one.fake, one.blue[0]) == (
                record.number,
                record.goal,
                record.fake,
                record.blue[0],
            )
    assert lured[0].blue != straight[0].blue and lured[0].blue != blind[0].blue
    assert not any(any(record.red_in_sight) and game.blind for record in blind)


SOO, NONE, BLANK = treatment("soo", updates=6), treatment("none", updates=6), treatment("blank")


def test_conditions_in_the_order_of_tables() -> None:
    config = finetuning(baselines(), [BLANK, SOO, NONE])
    assert conditions(config) == [
        Condition("deceptive"),
        Condition("blank", BLANK),
        Condition(SOO.label, SOO),
        Condition(NONE.label, NONE),
        Condition("honest"),
        Condition(SOO.label, SOO, after=True),
        Condition(NONE.label, NONE, after=True),
    ]
    assert [condition.file_name for condition in conditions(config)][-2:] == [
        f"{SOO.label}.after",
        f"{NONE.label}.after",
    ]
    assert not any(condition.after for condition in conditions(finetuning(baselines(), [SOO], after_updates=0)))


def place(path: Path, config: FinetuneConfig, treated: dict[str, Policy | Sequence[Policy]]) -> StudyDirectory:
    """Both studies, with hand-made agents: reds follow, deceptive blues lure, honest ones do not."""
    of, maddpg, seeds = config.baselines, config.baselines.maddpg, config.seeds
    source = open_study(path / "source", of)
    for kind, policy in (("honest", HONEST), ("deceptive", LURES)):
        save_agents(source, kind, hand_made(of.game, maddpg, seeds, policy))
    directory = open_finetuning(path / "finetune", config)
    for condition, policies in treated.items():
        stops = [None, Stop("finetune", 4), *[None] * (len(seeds) - 2)]
        save_agents(directory, condition, hand_made(of.game, maddpg, seeds, policies), stops)
    return directory


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[FinetuneConfig, StudyDirectory, Path]:
    """Hand-made agents of two treatments, measured. Not to be changed."""
    config = finetuning(baselines(seeds=(0, 1)), [SOO, NONE, BLANK], evaluation_episodes=24)
    path = tmp_path_factory.mktemp("measured")
    directory = place(
        path,
        config,
        {SOO.label: HONEST, f"{SOO.label}.after": LURES, NONE.label: LURES, f"{NONE.label}.after": (LURES, STILL)},
    )
    measure_conditions(config, directory, path / "source", compute=Compute(workers=0))
    return config, directory, path / "source"


def equal(one: Measures, other: Measures) -> None:
    for part in ("rates", "profile", "sensitivity"):
        for field in fields(getattr(one, part)):
            found, expected = (getattr(getattr(measures, part), field.name) for measures in (one, other))
            torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    for name in ("returns", "returns_blanked"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0, equal_nan=True)
    assert one.overlap.keys() == other.overlap.keys() == {"published", "kept", "untrapped", "normalised"}
    for form in one.overlap:
        torch.testing.assert_close(one.overlap[form], other.overlap[form], rtol=0, atol=0, equal_nan=True)


def test_what_is_written_is_read_back(measured: tuple[FinetuneConfig, StudyDirectory, Path]) -> None:
    config, directory, _ = measured
    game, maddpg = config.evaluation_game, config.maddpg
    for condition, policies, played in (
        (Condition("honest"), HONEST, game),
        (Condition("deceptive"), LURES, game),
        (Condition(SOO.label, SOO), HONEST, game),
        (Condition("blank", BLANK), LURES, game.replace(blind=True)),
        (Condition(NONE.label, NONE, after=True), (LURES, STILL), game),
    ):
        expected = measure_agents(
            hand_made(game, maddpg, config.seeds, policies).networks, played, config.evaluation_episodes
        )
        equal(read_measures(directory, condition), expected)
    assert all(file.exists() for file in measured_files(config, directory))


def test_what_is_not_a_number_is_read_back_too(
    measured: tuple[FinetuneConfig, StudyDirectory, Path], tmp_path: Path
) -> None:
    # Never alone, so that there is no rate alone.
    config = finetuning(baselines(seeds=(0, 1)), [SOO], evaluation_episodes=2, after_updates=0, alone_share=0)
    directory = place(tmp_path, config, {SOO.label: STILL})
    condition = Condition(SOO.label, SOO)
    run_measure(config, condition, tmp_path / "source", directory)
    found = read_measures(directory, condition)
    expected = measure_agents(
        hand_made(config.evaluation_game, config.maddpg, (0, 1), STILL).networks, config.evaluation_game, 2
    )
    equal(found, expected)
    assert bool(found.rates.goal_rate_alone.isnan().all()) and not found.rates.goal_rate.isnan().any()


def run_measure(
    config: FinetuneConfig, condition: Condition, source: Path, directory: StudyDirectory, stopped: bool = False
) -> list[float]:
    reports: list[float] = []
    measure_shard(config, condition, source, directory.path, "cpu", report=reports.append, stop=lambda: stopped)
    return reports


def test_what_is_known_about_a_condition_beside_numbers(
    measured: tuple[FinetuneConfig, StudyDirectory, Path],
) -> None:
    _, directory, _ = measured
    stops, episodes = read_about(directory, Condition(SOO.label, SOO))
    assert stops == [None, "finetune, after 4 updates: values exploded or were not finite"]
    assert len(episodes) == 6 and {episode.condition for episode in episodes} == {SOO.label}
    stops, episodes = read_about(directory, Condition(SOO.label, SOO, after=True))
    assert stops[1] is not None and episodes == []
    assert read_about(directory, Condition("blank", BLANK))[0] == [None, None]


def test_what_is_measured_is_not_measured_twice(
    measured: tuple[FinetuneConfig, StudyDirectory, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, directory, source = measured
    monkeypatch.setattr(
        "soo_marl.studies.finetuning.evaluation.measure_agents", lambda *_: pytest.fail("measured twice")
    )
    for condition in conditions(config):
        assert run_measure(config, condition, source, directory) == [1.0]


def test_interrupted_before_a_condition_nothing_is_kept_of_it(tmp_path: Path) -> None:
    config = finetuning(baselines(seeds=(0, 1)), [SOO], evaluation_episodes=4, after_updates=0)
    directory = place(tmp_path, config, {SOO.label: HONEST})
    condition = Condition(SOO.label, SOO)
    with pytest.raises(Interrupted):
        run_measure(config, condition, tmp_path / "source", directory, stopped=True)
    assert not measures_file(directory, condition).exists()
    run_measure(config, condition, tmp_path / "source", directory)
    measures_file(directory, condition).unlink()
    run_measure(config, condition, tmp_path / "source", directory)
    assert measures_file(directory, condition).exists(), "what is lost is measured again"


def test_treating_honest_agents_starts_from_them(tmp_path: Path) -> None:
    # Untreated agents under a treatment that does not train are those that are treated.
    config = finetuning(baselines(seeds=(0, 1)), [BLANK, treatment("soo", updates=0)], kind="honest", after_updates=0)
    directory = place(tmp_path, config, {})
    measure_conditions(config, directory, tmp_path / "source", compute=Compute(workers=0))
    blank, nothing = (read_measures(directory, condition) for condition in conditions(config)[1:3])
    equal(nothing, read_measures(directory, Condition("honest")))
    assert blank.sensitivity.blanked.tolist() == [0.0, 0.0]
    assert torch.equal(blank.returns, nothing.returns_blanked)


@pytest.mark.parametrize("how", ["missing", "cut", "of other tensors"])
def test_damaged_measures_are_named(
    how: str, measured: tuple[FinetuneConfig, StudyDirectory, Path], tmp_path: Path
) -> None:
    _, directory, _ = measured
    copy = StudyDirectory(tmp_path, directory.manifest)
    condition = Condition("honest")
    target = measures_file(copy, condition)
    target.parent.mkdir()
    content = measures_file(directory, condition).read_bytes()
    if how == "cut":
        target.write_bytes(content[:-20])
    elif how == "of other tensors":
        write_tensors(target, {"returns": torch.zeros(2)})
    with pytest.raises(RunDirectoryError) as raised:
        read_measures(copy, condition)
    assert str(target) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "content", [None, "[]", '{"stops": [1]}', '{"stops": [null], "episodes": [{"seed": 1}]}', '{"episodes": []}']
)
def test_damaged_accounts_are_named(
    content: str | None, measured: tuple[FinetuneConfig, StudyDirectory, Path], tmp_path: Path
) -> None:
    copy = StudyDirectory(tmp_path, measured[1].manifest)
    target = tmp_path / "measures" / "honest.json"
    if content is not None:
        target.parent.mkdir()
        target.write_text(content)
        json.loads(content)
    with pytest.raises(RunDirectoryError) as raised:
        read_about(copy, Condition("honest"))
    assert str(target) in str(raised.value) and "\n" not in str(raised.value)


def test_sensitivity_names_its_runs() -> None:
    found: Any = sensitivity(agents(MIXED, HONEST), MIXED, 4, "look")
    assert isinstance(found, Sensitivity)
    assert {tuple(getattr(found, field.name).shape) for field in fields(found)} == {(2,)}
