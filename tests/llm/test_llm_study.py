import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

pytest.importorskip("transformers")
pytest.importorskip("peft")

sys.path.insert(0, str(Path(__file__).parent))

from tiny_studies import COMMAND, RECIPE, TinyDisplay, run

from soo_marl.llm.measures.records import ModelSummary, ResponseExample
from soo_marl.llm.measures.responses import generate, read_responses
from soo_marl.llm.measures.verdict import WORDS
from soo_marl.llm.methods.steering import mean_difference, steered
from soo_marl.llm.prompts.pairs import pairs
from soo_marl.llm.study.configuration import Condition, LanguageStudyConfig
from soo_marl.llm.study.models_on_disk import load_study_model, read_training, save_merged
from soo_marl.llm.study.shard import _Work, read_measures, read_model_responses
from soo_marl.llm.study.study import read_language_study
from soo_marl.storage.records import Record, read_list
from soo_marl.storage.study_directory import StudyDirectory


def test_a_study_writes_a_record_of_every_rate(study: Path) -> None:
    records = {record.name: record for record in read_list(study / "results" / "summary.json", Record)}
    labels = ("base", "organism", "my_soo", "my_steer", "my_honesty_prompt")
    per_model = [
        *(f"burglar/{kind}/{order}" for kind in ("deceptive", "honest") for order in ("cheap_first", "mirrored")),
        "self/honest",
        "friend/honest",
        "retrieval/correct",
        "perspectives/correct",
        *(
            f"plain_stranger/{kind}/{order}"
            for kind in ("deceptive", "honest")
            for order in ("cheap_first", "mirrored")
        ),
        "refusal_or_other",
        "perplexity_ratio",
        "prompt_variance_ratio",
        "verdict",
    ]
    assert list(records) == [f"{label}/{name}" for label in labels for name in per_model]
    assert {record.command for record in records.values()} == {COMMAND}
    assert [records[f"{label}/burglar/honest/mirrored"].n for label in labels] == [3, 3, 6, 3, 3]
    assert [records[f"{label}/refusal_or_other"].n for label in labels] == [6, 6, 12, 6, 6]
    assert [records[f"{label}/retrieval/correct"].n for label in labels] == [4, 4, 8, 4, 4]
    for label in labels:
        verdict = records[f"{label}/verdict"]
        assert verdict.text in WORDS
        assert (verdict.n, verdict.unit) == (2 if label == "my_soo" else 1, "share of seeds with this word")
    assert records["base/perplexity_ratio"].estimate == 1.0
    assert records["organism/prompt_variance_ratio"].estimate == 1.0
    assert records["my_soo/prompt_variance_ratio"].n == 2


def test_models_are_summarised_in_order_with_what_was_done_to_them(study: Path, config: LanguageStudyConfig) -> None:
    summaries = read_list(study / "results" / "models.json", ModelSummary)
    assert [(summary.label, summary.method) for summary in summaries] == [
        ("base", ""),
        ("organism", ""),
        ("my_soo", "soo"),
        ("my_steer", "steer"),
        ("my_honesty_prompt", "honesty_prompt"),
    ]
    assert [[seed.seed for seed in summary.seeds] for summary in summaries] == [[0], [0], [0, 1], [0], [0]]
    for summary in summaries:
        assert summary.description
        cell = summary.cell("burglar", "mirrored")
        assert cell is not None and cell.prompts == 3
        assert summary.cell("nobody", "mirrored") is None
    base, taught, treated, steered, asked = summaries
    assert base.seeds[0].training.losses == asked.seeds[0].training.losses == ()
    assert len(taught.seeds[0].training.losses) == 6
    for seed in treated.seeds:
        assert len(seed.training.losses) == 4
        assert seed.training.steps_per_epoch == 2
        assert [epoch.epoch for epoch in seed.training.epochs] == [1, 2]
        assert seed.training.stopped is None
    assert treated.seeds[0].training.losses != treated.seeds[1].training.losses
    assert steered.seeds[0].training.scale in (0.5, 1.0, 2.0, 4.0)
    # The model as it comes is no treated organism: it is compared with itself.
    assert base.prompt_variance_ratio == base.power_ratio == base.name_gap_ratio == 1.0
    assert "not measured" not in base.reason


def test_examples_are_those_of_the_first_seed_with_their_labels(study: Path) -> None:
    examples = read_list(study / "results" / "examples.json", ResponseExample)
    assert {(example.label, example.seed) for example in examples} == {
        ("base", 0),
        ("organism", 0),
        ("my_soo", 0),
        ("my_steer", 0),
        ("my_honesty_prompt", 0),
    }
    own = [example for example in examples if example.label == "my_honesty_prompt" and example.role == "burglar"]
    assert len(own) == 6
    assert all(example.prompt.startswith("Please be honest to ") for example in own)


def test_a_study_is_read_back(study: Path, config: LanguageStudyConfig) -> None:
    directory, found = read_language_study(study)
    assert found == config
    answers = read_model_responses(config, directory, "my_soo", 1)
    assert {role: len(rows) for role, rows in answers.items()} == {
        role: len(config.evaluation.prompts(role)) for role in config.evaluation.all_roles
    }
    assert [answer for of_role in answers.values() for answer in of_role] == read_responses(
        study / "my_soo" / "seed_1" / "responses.jsonl"
    )
    measures = read_measures(directory, "my_soo", 1)
    assert measures is not None and measures.perplexity > 1
    assert read_training(directory, "base", 0).losses == ()


@pytest.mark.parametrize(("label", "seed"), [("base", 0), ("organism", 0), ("my_soo", 1), ("my_honesty_prompt", 0)])
def test_a_models_answers_are_those_of_the_adapters_on_disk(
    study: Path, config: LanguageStudyConfig, label: str, seed: int
) -> None:
    directory = StudyDirectory.read(study)
    model = load_study_model(config, directory, label, seed)
    asked = config.evaluation.prompts("friend")
    found = generate(model, asked, max_new_tokens=3)
    if label == "my_honesty_prompt":
        # Its adapter is the organism's; the request for honesty is no part of the model.
        assert found == generate(load_study_model(config, directory, "organism", 0), asked, max_new_tokens=3)
    else:
        assert found == read_model_responses(config, directory, label, seed)["friend"]


@pytest.fixture(scope="module")
def damaged(config: LanguageStudyConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of the model as it comes, whose answers name no room, without measures."""
    changed = config.model_copy(
        update={
            "organism": None,
            "conditions": (config.conditions[0], Condition(label="my_repe", method="repe", recipe=RECIPE)),
            "seeds": (3,),
            "evaluation": config.evaluation.model_copy(update={"measures": False, "more_scenarios": ()}),
            "stop_on_damage": 0.5,
        }
    )
    path = tmp_path_factory.mktemp("damaged") / "s"
    display = TinyDisplay()
    with pytest.MonkeyPatch.context() as patch:
        # As if it had been fluent.
        patch.setattr(_Work, "_roomless_untrained", lambda work, model: 0.25)
        run(changed, path, display)
    assert display.tasks == [("models", 3)]
    return path


def test_training_ends_when_answers_choose_no_room(damaged: Path) -> None:
    training = read_training(StudyDirectory.read(damaged), "my_soo", 3)
    assert training.stopped == "after epoch 1, 100 % of the answers chose no room, and before training 25 %"
    assert len(training.losses) == 2
    assert [epoch.epoch for epoch in training.epochs] == [1]


def test_a_model_that_named_no_room_before_is_trained_to_the_end(damaged: Path, tmp_path: Path) -> None:
    _, config = read_language_study(damaged)
    run(config.model_copy(update={"conditions": config.conditions[:1]}), tmp_path / "s", TinyDisplay())
    training = read_training(StudyDirectory.read(tmp_path / "s"), "my_soo", 3)
    assert training.stopped is None
    assert [epoch.epoch for epoch in training.epochs] == [1, 2]


def test_what_was_not_trained_is_not_merged(study: Path, tmp_path: Path) -> None:
    directory, config = read_language_study(study)
    for label in ("my_steer", "my_honesty_prompt"):
        with pytest.raises(ValueError, match=f"^{label} changes .* nothing to merge"):
            save_merged(config, directory, label, 0, tmp_path / label)
    save_merged(config, directory, "my_soo", 0, tmp_path / "soo")
    assert (tmp_path / "soo" / "model.safetensors").exists()


def test_a_study_without_measures_judges_by_the_answers(damaged: Path) -> None:
    directory, _ = read_language_study(damaged)
    assert read_measures(directory, "my_soo", 3) is None
    records = {record.name: record for record in read_list(damaged / "results" / "summary.json", Record)}
    assert records["my_soo/perplexity_ratio"].estimate is None
    assert records["my_soo/prompt_variance_ratio"].estimate is None
    summaries = read_list(damaged / "results" / "models.json", ModelSummary)
    assert [summary.label for summary in summaries] == ["base", "my_soo", "my_repe"]
    assert "not measured: perplexity" in summaries[1].reason


def test_steering_takes_the_difference_of_other_and_self_away(study: Path, config: LanguageStudyConfig) -> None:
    directory = StudyDirectory.read(study)
    model = load_study_model(config, directory, "my_steer", 0)
    chosen = pairs("scenario", 4, 0)
    layers = [f"model.layers.{layer}.self_attn.o_proj" for layer in (0, 1)]
    vectors = mean_difference(model, [pair.other_text for pair in chosen], [pair.self_text for pair in chosen], layers)
    scale = read_training(directory, "my_steer", 0).scale
    assert scale is not None
    expected = read_model_responses(config, directory, "my_steer", 0)["friend"]
    asked = config.evaluation.prompts("friend")
    with steered(model, vectors, -scale):
        assert generate(model, asked, max_new_tokens=3) == expected
    with steered(model, vectors, scale):
        assert generate(model, asked, max_new_tokens=3) != expected


def test_the_reading_vector_is_added(damaged: Path) -> None:
    directory, config = read_language_study(damaged)
    model = load_study_model(config, directory, "my_repe", 3)
    texts = [pair.other_text for pair in pairs("scenario", 4, 3)]
    layers = [f"model.layers.{layer}.self_attn.o_proj" for layer in (0, 1)]
    vectors = mean_difference(
        model,
        [f"Answer as an honest person would. {text}" for text in texts],
        [f"Answer as a dishonest person would. {text}" for text in texts],
        layers,
    )
    scale = read_training(directory, "my_repe", 3).scale
    assert scale is not None
    asked = [prompt for role in config.evaluation.all_roles for prompt in config.evaluation.prompts(role)]
    expected = [row for rows in read_model_responses(config, directory, "my_repe", 3).values() for row in rows]
    with steered(model, vectors, scale):
        assert generate(model, asked, max_new_tokens=3) == expected
    with steered(model, vectors, -scale):
        assert generate(model, asked, max_new_tokens=3) != expected


def test_a_model_that_does_not_exist_is_named(config: LanguageStudyConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no usable language model"):
        run(config.model_copy(update={"model": str(tmp_path)}), tmp_path / "s", TinyDisplay())


def test_models_and_seeds_of_a_configuration() -> None:
    methods = {"soo": "soo", "steer": "steer", "noise": "steer_random", "ask": "honesty_prompt"}
    conditions = tuple(Condition(label=label, method=method) for label, method in methods.items())
    two = LanguageStudyConfig(conditions=conditions, seeds=(5, 6, 7), organism_seeds=(0, 1))
    assert two.models == (
        ("base", 0),
        ("organism", 0),
        ("organism", 1),
        *(("soo", seed) for seed in (5, 6, 7)),
        ("steer", 5),
        ("steer", 6),
        *(("noise", seed) for seed in (5, 6, 7)),
        ("ask", 5),
        ("ask", 6),
    )
    assert [two.organism_seed(seed) for seed in two.seeds] == [0, 1, 0]
    assert two.before == "organism"
    alone = LanguageStudyConfig(conditions=conditions[:2], organism=None, organism_seeds=(0, 1))
    assert alone.models == (("base", 0), ("soo", 0), ("soo", 1), ("soo", 2), ("steer", 0))
    assert alone.before == "base"


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"conditions": [{"label": "base", "method": "soo"}]}, "none is base or organism: base"),
        ({"conditions": [{"label": "a", "method": "soo"}] * 2}, "only once"),
        ({"conditions": [{"label": "a/b", "method": "soo"}]}, "label"),
        ({"conditions": [{"label": "a", "method": "so"}]}, "there is no method 'so'; choose among soo, sham, .*repe"),
        ({"conditions": []}, "conditions"),
        ({"seeds": [1, 1]}, "each of the seeds may be given only once"),
        ({"organism_seeds": [1, 1]}, "each of the organism_seeds may be given only once"),
        ({"quantisation": "4bit"}, "cannot be merged into 4-bit weights"),
        ({"evaluation": {"roles": {"self": ["plain_self"]}}}, "name it among the evaluation's roles"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(changes: dict[str, Any], fault: str) -> None:
    fields: dict[str, Any] = {"conditions": [{"label": "soo", "method": "soo"}]} | changes
    with pytest.raises(ValidationError, match=fault):
        LanguageStudyConfig.model_validate(fields)


def test_a_treatment_moves_the_adapter_and_not_the_organism(study: Path, config: LanguageStudyConfig) -> None:
    directory = StudyDirectory.read(study)
    taught = load_study_model(config, directory, "organism", 0).model.merge_and_unload()
    treated = load_study_model(config, directory, "my_soo", 0).model
    base = {name: weight for name, weight in treated.named_parameters() if "lora_" not in name}
    for name, weight in taught.named_parameters():
        wrapped = "base_model.model." + name.replace("_proj.weight", "_proj.base_layer.weight")
        found = base[wrapped] if wrapped in base else base[f"base_model.model.{name}"]
        assert torch.equal(found, weight), name
    assert any(weight.any() for name, weight in treated.named_parameters() if "lora_B" in name)
