"""Which fine-tuning studies there can be, what they are called, and in which games they happen."""

from pathlib import Path
from typing import Any

import pytest
from hand_made_agents import GAME, baselines, finetuning, training
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from soo_marl.commands.tables.terminal import one_sentence
from soo_marl.envs.observations import BLUE_AGENT
from soo_marl.storage.study_directory import StudyDirectory, StudyManifest
from soo_marl.studies.finetuning.configuration import FinetuneConfig, Treatment, treatment
from soo_marl.studies.finetuning.methods import METHODS
from soo_marl.studies.finetuning.training import plan
from soo_marl.studies.learning.recipes import Stage

SOO = treatment("soo", updates=6)
DIRECTORY = StudyDirectory(
    Path("study"),
    StudyManifest(kind="finetuning", configuration={}, seeds=(3,), package_versions={}, created="never"),
)
NEVER_ALONE = baselines(stages=(Stage(name="follow", training=training()), Stage(name="lure", training=training())))


@pytest.mark.parametrize(
    ("name", "changes", "label"),
    [
        ("soo", {}, "soo"),
        ("soo", {"weight": 100}, "soo"),
        ("soo", {"weight": 10}, "soo.10"),
        ("soo", {"weight": 0.5}, "soo.0.5"),
        ("soo", {"weight": 0}, "soo.0"),
        ("soo", {"weight": 1e20}, "soo.1e20"),
        ("soo", {"weight": 1e-20}, "soo.1e-20"),
        ("soo_difference", {"weight": 77}, "soo_difference.77"),
        ("soo", {"updates": 250}, "soo.updates-250"),
        ("soo", {"weight_start": 0, "weight_end": 2.5}, "soo.weight_start-0.weight_end-2.5"),
        ("soo", {"layers": ("hidden_1",)}, "soo.hidden_1"),
        ("soo", {"layers": ("hidden_2", "hidden_1", "hidden_2")}, "soo"),
        ("soo", {"pairing": "perspective", "zero_flag": True}, "soo.perspective.zero_flag"),
        ("anchor", {"towards": "initial_self", "untrapped_only": True}, "anchor.initial_self.untrapped_only"),
        ("blank", {}, "blank"),
    ],
)
def test_labels_name_what_is_unusual(name: str, changes: dict[str, Any], label: str) -> None:
    chosen = treatment(name, **changes)
    assert chosen.label == label
    assert Treatment.model_validate_json(chosen.model_dump_json()).label == label, "the same from disk"


def test_usual_labels_are_the_methods_names() -> None:
    assert [treatment(name).label for name in METHODS] == list(METHODS)
    assert [name for name in METHODS if treatment(name).updates == 0] == ["blank"]


treatments = st.builds(
    treatment,
    st.sampled_from([name for name, entry in METHODS.items() if entry.loss]),
    weight=st.floats(0, 1e30),
    weight_start=st.sampled_from([0.0, 0.5, 1.0]),
    weight_end=st.sampled_from([0.0, 1.0, 1e6]),
    updates=st.integers(0, 10**7),
    layers=st.lists(st.sampled_from(["hidden_1", "hidden_2"]), min_size=1).map(tuple),
    pairing=st.sampled_from(["imagined_red", "perspective"]),
    zero_flag=st.booleans(),
    towards=st.sampled_from(["both", "initial_self"]),
    untrapped_only=st.booleans(),
)


@given(one=treatments, other=treatments)
def test_labels_are_unique_and_name_folders(one: Treatment, other: Treatment) -> None:
    assert (one.label == other.label) == (one == other)
    for phase in plan(finetuning(baselines(), [one]), one) if one.updates else ():
        assert DIRECTORY.agent_directory(phase.condition, 3).name == "seed_3"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "sooo"}, ["method: there is no method 'sooo'; choose among soo, soo_action"]),
        ({"weight": -1}, ["weight: ", "greater than or equal to 0", "-1"]),
        ({"weight": float("nan")}, ["weight: ", "finite"]),
        ({"weight": float("inf")}, ["weight: ", "finite"]),
        ({"weight_end": float("inf")}, ["weight_end: ", "finite"]),
        ({"weight_start": -0.1}, ["weight_start: ", "greater than or equal to 0"]),
        ({"updates": -1}, ["updates: ", "greater than or equal to 0"]),
        ({"layers": ("output",)}, ["layers: layers are hidden_1 and hidden_2, not output"]),
        ({"layers": ()}, ["layers: ", "at least 1"]),
        ({"pairing": "imagined"}, ["pairing: ", "'imagined_red' or 'perspective'"]),
        ({"towards": "self"}, ["towards: ", "'both' or 'initial_self'"]),
        ({"wait": 1}, ["wait is no field of Treatment"]),
        ({"method": "blank", "updates": 5}, ["blank is for agents as they are: its updates must be 0, not 5"]),
    ],
)
def test_treatments_that_cannot_be(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValidationError) as raised:
        Treatment.model_validate({"label": "soo", "method": "soo", "weight": 1.0} | change)
    refused(raised.value, words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"treatments": (SOO, SOO)}, ["each treatment may be given only once, but soo.updates-6 is repeated"]),
        ({"treatments": ()}, ["treatments: ", "at least 1"]),
        ({"seeds": (0, 7)}, ["there are no agents with the seed 7 in the study"]),
        ({"seeds": (0, 0)}, ["each seed may be given only once"]),
        ({"seeds": ()}, ["seeds: ", "at least 1"]),
        ({"kind": "sly"}, ["kind: ", "'honest' or 'deceptive'"]),
        ({"of": baselines(kinds=("honest",))}, ["there are no deceptive ones"]),
        ({"of": baselines(kinds=("deceptive",))}, ["there are no honest ones"]),
        ({"of": NEVER_ALONE}, ["never trained alone", "or set alone_share to 0"]),
        ({"context_weights": (1.0,)}, ["context_weights must be 2 numbers of at least 0"]),
        ({"context_weights": (1.0, -4.0)}, ["context_weights must be 2 numbers of at least 0"]),
        (
            {"of": baselines(game=GAME.replace(trapped_start_share=0.4)), "alone_share": 0.7},
            ["alone_share", "trapped_start_share", "together they must not exceed 1"],
        ),
        ({"training": training(learners=(2,))}, ["learners of the training are 0 (red) and 1 (blue)"]),
        ({"alone_share": 1.5}, ["alone_share: "]),
        ({"evaluation_episodes": 1}, ["evaluation_episodes: "]),
        ({"after_updates": -1}, ["after_updates: "]),
        ({"monitor_episodes": -1}, ["monitor_episodes: "]),
    ],
)
def test_studies_that_cannot_be(change: dict[str, Any], words: list[str]) -> None:
    fields: dict[str, Any] = {"of": baselines(), "treatments": [SOO]}
    with pytest.raises(ValidationError) as raised:
        finetuning(**(fields | change))
    refused(raised.value, words)


def refused(error: ValidationError, words: list[str]) -> None:
    sentence = one_sentence(error)
    assert "\n" not in sentence and "ValidationError" not in sentence
    for word in words:
        assert word in sentence


def test_agents_that_were_never_alone_can_be_treated_among_others() -> None:
    config = finetuning(NEVER_ALONE, [SOO], alone_share=0)
    assert config.evaluation_game.alone_share == config.training_game(SOO).alone_share == 0


def test_configurations_come_back_from_disk() -> None:
    config = finetuning(baselines(), [SOO, treatment("blank")], context_weights=(1.0, 4.0), kind="honest")
    assert FinetuneConfig.model_validate_json(config.model_dump_json()) == config


def test_games_pay_as_the_treated_agents_were_paid_last() -> None:
    of = baselines(game=GAME.replace(guide_reward=3.0, red_distance_reward=0.5, trapped_start_share=0.25))
    config = finetuning(of, [SOO], alone_share=0.25)
    game = config.training_game(SOO)
    assert (game.trap_reward, game.goal_reward_untrapped, game.red_distance_reward) == (10.0, None, 0.5)
    assert (game.alone_share, game.trapped_start_share, game.blind, game.guide_reward) == (0.25, 0.25, False, 3.0)
    honest = finetuning(of, [SOO], alone_share=0.25, kind="honest").training_game(SOO)
    assert honest == game.replace(trap_reward=0.0, red_distance_reward=0.0)


def test_games_of_methods_that_change_them() -> None:
    config = finetuning(baselines(), [SOO])
    usual = config.training_game(SOO)
    assert config.training_game(treatment("blind")) == usual.replace(blind=True)
    assert config.training_game(treatment("honest_reward")) == usual.replace(trap_reward=0.0)
    assert config.training_game(treatment("none")) == config.further_game == usual
    # What comes after is the same for all.
    for name in ("blind", "honest_reward", "soo"):
        first, after = plan(config, treatment(name))
        assert after.game == usual and first.game == config.training_game(treatment(name))
    assert treatment("blank").entry.evaluation_game(config.evaluation_game).blind


def test_everyone_is_measured_in_the_same_honest_game() -> None:
    of = baselines(game=GAME.replace(trapped_start_share=0.25, red_distance_reward=0.5))
    for kind in ("honest", "deceptive"):
        game = finetuning(of, [SOO], kind=kind, alone_share=0.1).evaluation_game
        assert game == of.evaluation_game
        assert (game.trap_reward, game.red_distance_reward, game.trapped_start_share) == (0.0, 0.0, 0.0)
        assert game.alone_share == of.evaluation_alone_share
    assert finetuning(of, [SOO], alone_share=0).evaluation_game.alone_share == 0


def test_context_weights_replace_those_of_the_study_and_nothing_else() -> None:
    of = baselines()
    assert finetuning(of, [SOO]).maddpg == of.maddpg
    weighed = finetuning(of, [SOO], context_weights=(1.0, 4.0)).maddpg
    assert weighed == of.maddpg.model_copy(update={"context_weights": (1.0, 4.0)})


def test_shards_are_treatments_that_train_by_stacks_of_seeds() -> None:
    of = baselines(seeds=tuple(range(23)))
    config = finetuning(of, [SOO, treatment("blank"), treatment("none", updates=2), treatment("anchor", updates=0)])
    assert [(chosen.label, seeds) for chosen, seeds in config.shards] == [
        (label, stack)
        for label in ("soo.updates-6", "none.updates-2")
        for stack in (tuple(range(10)), tuple(range(10, 20)), (20, 21, 22))
    ]
    assert config.updates == 3 * (6 + 4) + 3 * (2 + 4)


def test_plans_number_their_phases_and_count_on() -> None:
    config = finetuning(baselines(), [SOO])
    first, after = plan(config, SOO)
    assert (first.number, first.condition, first.stage, first.training.updates) == (0, SOO.label, "finetune", 6)
    assert (after.number, after.condition, after.stage, after.training.updates) == (1, f"{SOO.label}.after", "after", 4)
    assert (first.updates_before, after.updates_before) == (0, 6)
    assert first.first and first.last and after.first and after.last, "each leaves agents of its own"
    assert first.training.learners == after.training.learners == (BLUE_AGENT,)
    short = finetuning(baselines(), [treatment("soo", updates=1)], after_updates=0)
    (only,) = plan(short, short.treatments[0])
    assert only.training.log_every == 1, "at least one log entry"
