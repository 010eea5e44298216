from pathlib import Path

import pytest
from pydantic import ValidationError

from soo_marl.llm.measures.evaluation import EvaluationConfig
from soo_marl.llm.methods.recipes import recipe
from soo_marl.llm.prompts.scenarios import prompts
from soo_marl.llm.prompts.templates import own_toml
from soo_marl.llm.study.configuration import Condition, LanguageStudyConfig
from soo_marl.llm.study.presets import (
    LEFT_OUT,
    ONE_SEED_PER_ORGANISM,
    demo_study,
    treatment_study,
)
from soo_marl.storage.files import RunDirectoryError

FULL = own_toml("studies.toml")["full"]
LIMIT_SCENARIOS, LIMIT_MODELS = FULL["limit_scenarios"], FULL["limit_models"]


def test_the_full_scale_contains_the_demonstration() -> None:
    standard, full = demo_study("standard"), demo_study("full")
    for condition in standard.conditions:
        same = full.condition(condition.label)
        assert (same.method, same.recipe) == (condition.method, condition.recipe)
    assert full.organism == standard.organism
    assert full.evaluation.prompts("burglar") == standard.evaluation.prompts("burglar")


def test_the_full_scale_has_three_organisms_five_seeds_and_every_control() -> None:
    full = demo_study("full")
    seeds = {condition.label: full.seeds_of(condition) for condition in full.conditions}
    assert [seed for label, seed in full.models if label == "organism"] == [0, 1, 2]
    for label in ("soo", "sham", "shuffled", "shuffled_partners", "random_target"):
        assert seeds[label] == (0, 1, 2, 3, 4)
    for label in ("steer", "repe", "honesty_prompt", *ONE_SEED_PER_ORGANISM):
        assert seeds[label] == (0, 1, 2)
    assert [full.start_of(seed) for seed in seeds["soo"]] == [("organism", seed) for seed in (0, 1, 2, 0, 1)]


def test_one_ingredient_is_left_out_at_a_time() -> None:
    full, ours = demo_study("full"), recipe("embedded")
    changed = {}
    for label in LEFT_OUT:
        other = full.condition(label).recipe
        fields = {name for name in type(ours).model_fields if getattr(other, name) != getattr(ours, name)}
        if "loss" in fields:
            fields.remove("loss")
            fields |= {
                name for name in type(ours.loss).model_fields if getattr(other.loss, name) != getattr(ours.loss, name)
            }
        changed[label] = fields
    assert changed == {
        "soo_fragments": {"pairs"},
        "soo_both_sides": {"sides", "kept", "kept_count"},
        "soo_one_layer": {"layers"},
        "soo_not_kept": {"kept", "kept_count"},
    }


def test_further_scenarios_are_asked_of_some_models_only() -> None:
    full = demo_study("full")
    for label, _ in full.models:
        asked = {name for scenarios in full.evaluation_of(label).all_roles.values() for name in scenarios}
        further = {*LIMIT_SCENARIOS, "burglar", "perspectives"}
        assert asked & further == (further if label in LIMIT_MODELS else set())
        assert full.evaluation_of(label).prompts("burglar") == full.evaluation.prompts("burglar")


def test_all_models_are_asked_everything_where_none_is_named() -> None:
    study = treatment_study(recipe("embedded"), ("soo",), (0,), more_scenarios=("plain_thief",))
    assert {study.evaluation_of(label).more_scenarios for label, _ in study.models} == {("plain_thief",)}


@pytest.mark.parametrize("scenario", LIMIT_SCENARIOS)
def test_every_further_scenario_has_prompts(scenario: str) -> None:
    assert len(prompts(scenario, "test", 2, 0)) == 4


def test_labels_that_are_no_models_are_refused() -> None:
    with pytest.raises(ValidationError, match="asked_more names 'sou', which is no model of the study"):
        LanguageStudyConfig(
            conditions=(Condition(label="soo", method="soo"),),
            evaluation=EvaluationConfig(more_scenarios=("plain_thief",)),
            asked_more=("soo", "sou"),
        )


def test_the_type_of_the_weights_can_be_chosen() -> None:
    assert demo_study("quick", dtype="bfloat16").dtype == "bfloat16"
    assert treatment_study(recipe("embedded"), ("soo",), (0,)).dtype == "float32"
    assert treatment_study(recipe("embedded"), ("soo",), (0,), dtype="bfloat16").dtype == "bfloat16"


OWN = (
    """
[answer_forms.short]
description = "A room, no more."
suffix = " Answer with a room."
[scenarios.pirate]
description = "A pirate asks."
source = "me"
answer = "short"
text = """
    + '"""'
    + """
The {first_object} is in the {first_room}. The {second_object} is in the {second_room}.
Pirate {name} asks where the {item} is."""
    + '"""'
    + """
[scenarios.plain_self]
description = "Other words for yourself."
source = "me"
text = "The {first_object}: {first_room}. The {second_object}: {second_room}. Where is the {item}?"
"""
)


def test_the_papers_wording_is_taught_asked_and_paired() -> None:
    study = treatment_study(recipe("embedded-paper-wording"), ("soo", "sham"), (0,), wording="paper", fills=4)
    assert study.organism is not None and study.organism.family == "paper"
    (burglar,) = {prompt.scenario for prompt in study.evaluation.prompts("burglar")}
    assert burglar == "burglar"
    # Only where the paper has a form of answer is one asked for.
    assert all(prompt.answer_start == "I would" for prompt in study.evaluation.prompts("burglar"))
    assert not any(prompt.answer_start for prompt in study.evaluation.prompts("retrieval"))
    assert treatment_study(recipe("embedded"), ("soo",), (0,)).organism == demo_study("standard").organism


def test_scenarios_of_ones_own_are_asked_and_stand_in_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(OWN)
    study = treatment_study(recipe("embedded"), ("soo",), (0,), scenario_file=file, fills=4)
    again = LanguageStudyConfig.model_validate_json(study.model_dump_json())
    assert again == study
    file.unlink()
    assert again.evaluation.more_scenarios == ("pirate",)
    asked = again.evaluation.prompts("pirate")
    assert len(asked) == 2 and asked[0].text.startswith("The ") and asked[0].text.endswith("Answer with a room.")
    assert "Pirate " in asked[0].text
    assert again.evaluation.prompts("self")[0].text.startswith(f"The {asked[0].fill.cheap_object}: ")
    assert "burglar" in again.evaluation.prompts("burglar")[0].text


def test_an_own_scenario_that_is_asked_by_name_is_asked_once(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(OWN)
    study = treatment_study(
        recipe("embedded"), ("soo",), (0,), more_scenarios=("pirate", "plain_thief"), scenario_file=file
    )
    assert study.evaluation.more_scenarios == ("pirate", "plain_thief")


def test_a_scenario_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"missing\.toml"):
        treatment_study(recipe("embedded"), ("soo",), (0,), scenario_file=tmp_path / "missing.toml")


def test_a_scenario_with_the_name_of_a_role_is_asked_beside_it() -> None:
    asked = treatment_study(recipe("embedded"), ("soo",), (0,), more_scenarios=("burglar", "plain_burglar")).evaluation
    assert [prompt.scenario for prompt in asked.prompts("scenario_burglar")[:1]] == ["burglar"]
    assert asked.prompts("burglar")[0].scenario == "plain_burglar"
    assert asked.more_scenarios == (), "what a role asks already is not asked again"


def test_an_own_scenario_with_the_name_of_ours_is_asked_where_ours_would_not_be(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(OWN.replace("pirate", "burglar"))
    plain = treatment_study(recipe("embedded"), ("soo",), (0,), scenario_file=file).evaluation
    assert plain.prompts("scenario_burglar")[0].text.endswith("Answer with a room.")
    paper = treatment_study(recipe("embedded"), ("soo",), (0,), scenario_file=file, wording="paper").evaluation
    assert paper.prompts("burglar")[0].text.endswith("Answer with a room.")
    assert "scenario_burglar" not in paper.roles


def test_a_models_folder_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    for given, stored in (("mine", str(tmp_path.resolve() / "mine")), ("some/name", "some/name")):
        assert treatment_study(recipe("embedded"), ("soo",), (0,), model=given).model == stored
