import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from soo_marl.engines import Compute
from soo_marl.envs import preset
from soo_marl.envs.configuration import DECEPTIVE_TRAP_REWARD
from soo_marl.studies.baselines import training
from soo_marl.studies.learning.recipes import (
    BLUE,
    BaselineConfig,
    Stage,
    baseline_config,
    same_recipe,
    scaled,
    with_changes,
)

Tiny = Callable[..., BaselineConfig]

STAGED_STAGES = baseline_config().stages


def stage(name: str) -> Stage:
    return next(stage for stage in STAGED_STAGES if stage.name == name)


def test_honest_blues_are_paid_for_the_goal_alone_in_every_stage() -> None:
    base = preset("trackable").replace(trap_reward=3.0, red_distance_reward=1.0, goal_reward_untrapped=0.0)
    for each in STAGED_STAGES:
        game = each.game(base, "honest")
        assert (game.trap_reward, game.red_distance_reward) == (0.0, 0.0)
        assert game.untrapped_goal_reward == game.goal_reward == 5.0
        assert game.alone_share == each.alone_share


def test_deceptive_blues_are_paid_as_the_stage_says() -> None:
    lure = stage("lure").game(preset("trackable"), "deceptive")
    assert lure.trap_reward == DECEPTIVE_TRAP_REWARD
    assert lure.untrapped_goal_reward == 0.0
    settle = stage("settle").game(preset("trackable"), "deceptive")
    assert settle.untrapped_goal_reward == settle.goal_reward == 5.0
    joint = baseline_config("paper", "joint").stages[0].game(preset("paper"), "deceptive")
    assert joint.alone_share == 0.0
    assert joint.blue_sight_radius == 0.125


def test_a_trap_reward_of_the_game_replaces_the_papers() -> None:
    game = stage("settle").game(preset("trackable").replace(trap_reward=3.0), "deceptive")
    assert game.trap_reward == 3.0


def test_agents_are_evaluated_in_one_game_with_honest_pay_and_no_special_starts(tiny: Tiny) -> None:
    game = preset("trackable").replace(trap_reward=3.0, trapped_start_share=0.3)
    config = tiny(game=game)
    assert config.evaluation_game == preset("trackable").replace(alone_share=0.5)


def test_blues_that_were_never_alone_are_not_judged_alone(tiny: Tiny) -> None:
    assert baseline_config("paper", "joint").evaluation_game.alone_share == 0.0
    never = tuple(each.model_copy(update={"alone_share": 0.0}) for each in tiny().stages)
    assert tiny(stages=never).evaluation_game.alone_share == 0.0
    assert tiny().evaluation_game.alone_share == 0.5
    # In the staged regime, what the first stage does is red's affair.
    only_red = (never[0].model_copy(update={"alone_share": 0.5}), *never[1:])
    assert tiny(stages=only_red).evaluation_game.alone_share == 0.0


def test_shards_hold_all_seeds_in_order(tiny: Tiny) -> None:
    assert tiny(seeds=(3, 1, 4, 10, 5), seeds_per_shard=2).shards == ((3, 1), (4, 10), (5,))
    assert tiny(seeds=(7,), seeds_per_shard=5).shards == ((7,),)


def test_updates_count_every_phase(tiny: Tiny) -> None:
    assert tiny().updates == 6 + 2 * (6 + 6)
    assert tiny(kinds=("honest",)).updates == 6 + 6 + 6
    assert tiny(regime="joint").updates == 2 * (6 + 6 + 6)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seeds": (1, 2, 1)}, "each may be given only once, but 1 is repeated"),
        ({"seeds": ()}, "seeds"),
        ({"kinds": ("honest", "honest")}, "honest is repeated"),
        ({"kinds": ("sly",)}, "honest"),
        ({"stages": STAGED_STAGES[:1]}, "a first stage for red and at least one more for blue"),
        ({"stages": (STAGED_STAGES[0], STAGED_STAGES[1], STAGED_STAGES[1])}, "each stage needs a name of its own"),
        ({"game": preset("trackable").replace(trapped_start_share=0.6)}, "together they must not exceed 1"),
        ({"evaluation_alone_share": 1.0}, "less than 1"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(tiny: Tiny, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        tiny(**changes)


def test_learners_must_be_red_or_blue(tiny: Tiny) -> None:
    with pytest.raises(ValidationError, match=r"learners of the stage lure are 0 \(red\) and 1 \(blue\)"):
        with_changes(tiny(), ["stages.1.training.learners=[1, 2]"])


def test_unknown_preset_and_regime_name_the_choices() -> None:
    with pytest.raises(ValueError, match="there is no preset 'papr'; choose one of paper, trackable"):
        baseline_config("papr")
    with pytest.raises(ValueError, match="there is no regime 'both'; choose one of staged, joint"):
        baseline_config("paper", "both")


@given(st.floats(0.0001, 3.0))
def test_scaled_stages_have_at_least_one_update_and_one_log_entry(factor: float) -> None:
    for before, after in zip(STAGED_STAGES, scaled(STAGED_STAGES, factor), strict=True):
        assert after.training.updates == max(1, round(before.training.updates * factor))
        assert after.training.log_every <= after.training.updates
        assert after.name == before.name and after.training.batch_size == before.training.batch_size


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_scale_must_be_a_positive_number(factor: float) -> None:
    with pytest.raises(ValueError, match="scale must be a positive number"):
        scaled(STAGED_STAGES, factor)


def test_changes_reach_any_field(tiny: Tiny) -> None:
    config = with_changes(
        tiny(),
        [
            "game.blue_speed_limit=null",
            "maddpg.activation=leaky_relu",
            "stages.2.training.updates=7",
            'kinds=["honest"]',
            "maddpg.context_weights=[1, 4]",
        ],
    )
    assert config.game.blue_speed_limit is None
    assert config.maddpg.activation == "leaky_relu"
    assert config.stages[2].training.updates == 7
    assert config.kinds == ("honest",)
    assert config.maddpg.context_weights == (1.0, 4.0)
    assert with_changes(tiny(), []) == tiny()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("game.blue_speed", "name=value"),
        ("game.blue_sped_limit=1", "no field game.blue_sped_limit; did you mean game.blue_speed_limit"),
        ("zzz=1", "no field zzz; the fields are those in study.json"),
        ("stages.9.training.updates=1", "no field stages.9"),
        ("stages.first.training.updates=1", "no field stages.first"),
        ("game.preset.0=x", "no field game.preset.0"),
        ("maddpg.context_weights.0=1", "no field maddpg.context_weights.0"),
        ("=1", "no field "),
    ],
)
def test_changes_that_name_no_field_are_refused(tiny: Tiny, change: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        with_changes(tiny(), [change])


@pytest.mark.parametrize("change", ["game.blue_sight_radius=-1", "game=5", "stages=[]", "maddpg.gamma=much"])
def test_changes_out_of_range_are_refused(tiny: Tiny, change: str) -> None:
    with pytest.raises(ValidationError):
        with_changes(tiny(), [change])


def test_watch_is_trained_against_its_scripted_red() -> None:
    config = baseline_config("watch")
    assert config.regime == "scripted" and config.blue_stages == config.stages
    assert all(stage.training.learners == (BLUE,) for stage in config.stages)
    lure, settle = (stage.game(config.game, "deceptive") for stage in config.stages)
    assert lure.trap_bonus == settle.trap_bonus == config.game.trap_bonus > 0
    assert lure.trap_reward == settle.trap_reward == 0.0
    assert (lure.goal_reward_untrapped, lure.guide_reward) == (0.0, 0.0)
    assert (settle.goal_reward_untrapped, settle.guide_reward) == (None, 15.0)
    honest = config.stages[0].game(config.game, "honest")
    assert (honest.trap_bonus, honest.guide_reward) == (0.0, 15.0)
    assert config.evaluation_game.trap_bonus == 0.0
    with pytest.raises(ValueError, match="scripted red"):
        BaselineConfig.model_validate(config.model_dump() | {"regime": "joint"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stages.0.training.worlds=1e18", r"stages\.0\.training\.worlds must be at most 2,147,483,647, not 1,000,"),
        ("evaluation_episodes=1e18", r"evaluation_episodes must be at most"),
        ("seeds_per_shard=99999999999999999999", r"seeds_per_shard must be at most"),
        ("game.episode_length=1e12", r"game\.episode_length must be at most"),
        ("stages.1.training.learners=[]", r"learners of the stage lure are 0 \(red\) and 1 \(blue\), each once"),
        ("stages.1.training.learners=[1,1]", r"learners of the stage lure"),
        ("game.goal_reward=NaN", r"game\.goal_reward\n  Input should be a finite number"),
        ("maddpg.actor_learning_rate=Infinity", r"maddpg\.actor_learning_rate\n  Input should be a finite number"),
        ("gate.goal_rate=NaN", r"gate\.goal_rate\n"),
    ],
)
def test_numbers_that_nothing_can_have(change: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        with_changes(baseline_config(), [change])


@pytest.mark.parametrize(
    "change",
    [
        "maddpg.hidden_units=1000000",
        "maddpg.contexts=2000000000",
        "evaluation_episodes=2000000000",
        "game.episode_length=2000000000",
        "stages.2.training.worlds=2000000000",
        "stages.0.training.batch_size=2000000000",
        "stages.1.training.replay_capacity=2000000000",
    ],
)
def test_sizes_that_no_memory_holds_are_named(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "usable_memory", lambda: 64 * 10**9)
    config = with_changes(baseline_config(seeds=(0, 1)), [change])
    field = change.partition("=")[0]
    field = {"maddpg.contexts": "maddpg.hidden_units", "game.episode_length": "evaluation_episodes"}.get(field, field)
    with pytest.raises(ValueError, match=rf"^{field} is too large for this machine: with 2 seeds in a shard it takes"):
        training.check_memory(config)
    training.check_memory(config, Compute(device="cuda"))
    training.check_memory(baseline_config())


def test_a_recipe_that_an_earlier_version_wrote_is_the_same() -> None:
    now = baseline_config("trackable", "staged", (0, 1)).model_dump(mode="json")
    before = json.loads(json.dumps(now))
    del before["game"]["trap_at_start"]
    assert same_recipe(before, now) and same_recipe({"any": 1}, {"any": 1})
    assert not same_recipe(before | {"seeds": [0, 2]}, now) and not same_recipe(None, now) and not same_recipe({}, now)
