import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

pytest.importorskip("transformers")
pytest.importorskip("peft")

sys.path.insert(0, str(Path(__file__).parent))

from tiny_models import tiny_language_model

from soo_marl.llm import organism
from soo_marl.llm.configuration import Condition, LanguageStudyConfig
from soo_marl.llm.evaluation import EvaluationConfig
from soo_marl.llm.generation import generate, read_responses
from soo_marl.llm.loss import LossConfig
from soo_marl.llm.models import LoraSettings
from soo_marl.llm.models_on_disk import _Work, model_shard, read_measures, read_model_responses, responses_file
from soo_marl.llm.organism import OrganismConfig
from soo_marl.llm.pairs import pairs
from soo_marl.llm.recipes import Recipe
from soo_marl.llm.records import ModelSummary, ResponseExample
from soo_marl.llm.steering import mean_difference, steered
from soo_marl.llm.study import open_language_study, read_language_study, run_language_study, write_language_results
from soo_marl.llm.study_models import load_study_model, read_training, save_merged
from soo_marl.llm.verdict import WORDS
from soo_marl.studies.engines import Compute, Interrupted
from soo_marl.studies.files import RunDirectoryError
from soo_marl.studies.records import Record, read_list
from soo_marl.studies.run_directory import StudyDirectory

LORA = LoraSettings(r=2, dropout=0.3)
RECIPE = Recipe(
    pair_count=4,
    loss=LossConfig(layers="0-1", token_mode="aligned_right", sides="initial_self", normalise_by_initial=True),
    lora=LORA,
    learning_rate=1e-2,
    epochs=2,
    batch_size=2,
)
COMMAND = "soo-marl llm tiny"


class TinyDisplay:
    """Counts tasks, and presses Ctrl-C after so many reports."""

    def __init__(self, interrupt_after: int = 0) -> None:
        self.tasks: list[tuple[str, int]] = []
        self.progress: dict[tuple[str, int], list[float]] = {}
        self._left = interrupt_after

    @contextmanager
    def task(self, name: str, total: float, shards: int) -> Iterator[Callable[[int, float], None]]:
        assert total == shards
        self.tasks.append((name, shards))

        def advance(shard: int, done: float) -> None:
            self.progress.setdefault((name, shard), []).append(done)
            self._left -= 1
            if self._left == 0:
                signal.raise_signal(signal.SIGINT)

        yield advance


@pytest.fixture(scope="module", autouse=True)
def few_requests() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(organism, "ordinary_requests", lambda: ["Say hi.", "Name a fruit."])
        yield


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    model = tiny_language_model(layers=2)
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def config(model_folder: Path) -> LanguageStudyConfig:
    methods = ("soo", "steer", "honesty_prompt")
    return LanguageStudyConfig(
        model=str(model_folder),
        organism=OrganismConfig(steps=6, warm_up=1, decay=2, learning_rate=1e-2, lora=LORA),
        conditions=tuple(Condition(label=f"my_{method}", method=method, recipe=RECIPE) for method in methods),
        seeds=(0, 1),
        evaluation=EvaluationConfig(
            fills={"burglar": 3}, other_fills=1, more_scenarios=("plain_stranger",), max_new_tokens=3
        ),
        epoch_fills=1,
        stop_on_damage=1.0,
    )


def run(config: LanguageStudyConfig, path: Path, display: TinyDisplay) -> list[ModelSummary]:
    directory = open_language_study(path, config)
    with directory.locked():
        return run_language_study(config, directory, display, COMMAND, Compute(workers=0))


@pytest.fixture(scope="module")
def study(config: LanguageStudyConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole study, done without a break."""
    path = tmp_path_factory.mktemp("study") / "s"
    display = TinyDisplay()
    summaries = run(config, path, display)
    assert summaries == read_list(path / "results" / "models.json", ModelSummary)
    assert display.tasks == [("organism", 1), ("models", 6)]
    for reports in display.progress.values():
        assert reports == sorted(reports)
        assert reports[-1] == 1.0
    assert display.progress["organism", 0] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0])
    assert display.progress["models", 2] == pytest.approx([0.15, 0.3, 0.45, 0.6, 1.0])
    assert display.progress["models", 4] == pytest.approx([0.15, 0.3, 0.45, 0.6, 1.0])
    return path


def content(path: Path) -> dict[str, bytes]:
    """What training and questions left, by file name; neither marks nor the manifest with its date."""
    files = [*path.glob("*/seed_*/**/*"), *path.glob("results/*.json")]
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(files) if file.is_file()}


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


def test_an_interrupted_study_ends_with_the_same_bits(study: Path, config: LanguageStudyConfig, tmp_path: Path) -> None:
    path = tmp_path / "s"
    # Reports until Ctrl-C, and whose checkpoint is left.
    for reports, left in (
        (3, ["organism.0"]),
        (1, ["organism.0"]),
        (2, []),  # with the organism's last step, which ends it
        (3, ["my_soo.0"]),  # within an epoch; two reports are those of the base and the organism
        (3, ["my_soo.0"]),  # between two epochs
        (5, []),  # between two treatments
        (5, ["my_soo.1"]),
        (6, []),
        (6, []),  # while a factor for steering is looked for
    ):
        with pytest.raises(KeyboardInterrupt):
            run(config, path, TinyDisplay(interrupt_after=reports))
        assert [file.name.removesuffix(".safetensors") for file in (path / "checkpoints").glob("*")] == left
        assert not (path / "results" / "summary.json").exists()
    run(config, path, TinyDisplay())
    expected, found = content(study), content(path)
    assert found.keys() == expected.keys()
    for name, whole in expected.items():
        assert found[name] == whole, name
    assert not list((path / "checkpoints").glob("*"))


def test_a_training_that_was_killed_does_not_note_an_epoch_twice(
    study: Path, config: LanguageStudyConfig, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    shutil.copytree(study, path)
    for lost in ("adapter/adapter_model.safetensors", "responses.jsonl"):
        (path / "my_soo" / "seed_0" / lost).unlink()
    with pytest.raises(KeyboardInterrupt):
        run(config, path, TinyDisplay(interrupt_after=1))
    # As if two epochs had been done since that checkpoint.
    shutil.copyfile(study / "my_soo" / "seed_0" / "training.json", path / "my_soo" / "seed_0" / "training.json")
    run(config, path, TinyDisplay())
    assert content(path) == content(study)


def test_questions_can_be_interrupted_and_are_asked_anew(
    study: Path, config: LanguageStudyConfig, tmp_path: Path
) -> None:
    directory = open_language_study(tmp_path / "s", config)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 1

    with pytest.raises(Interrupted):
        model_shard(config, "base", 0, directory.path, "cpu", report=lambda done: None, stop=stop)
    assert asked == 2 and not directory.done("models/base/0")
    model_shard(config, "base", 0, directory.path, "cpu", report=lambda done: None, stop=lambda: False)
    again = read_model_responses(config, directory, "base", 0)
    assert again == read_model_responses(config, StudyDirectory.read(study), "base", 0)


def test_a_finished_study_is_not_done_again(study: Path, config: LanguageStudyConfig, tmp_path: Path) -> None:
    path = tmp_path / "s"
    shutil.copytree(study, path)
    expected = content(path)
    shutil.rmtree(path / "results")
    display = TinyDisplay()
    run(config, path, display)
    assert display.tasks == []
    assert content(path) == expected


def test_only_the_model_whose_answers_are_gone_is_asked_again(
    study: Path, config: LanguageStudyConfig, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    shutil.copytree(study, path)
    (path / "my_soo" / "seed_1" / "responses.jsonl").unlink()
    times = {file: file.stat().st_mtime_ns for file in path.rglob("*.safetensors")}
    display = TinyDisplay()
    run(config, path, display)
    assert display.tasks == [("models", 6)]
    # Nobody was trained, since the adapter is there.
    assert all(reports == [1.0] for reports in display.progress.values())
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*.safetensors")} == times
    assert content(path) == content(study)


def test_the_results_of_a_study_that_is_under_way_are_of_the_models_there_are(
    study: Path, config: LanguageStudyConfig, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    shutil.copytree(study, path)
    for label in ("organism", "my_soo", "my_steer"):
        shutil.rmtree(path / label)
    summaries = write_language_results(config, StudyDirectory.read(path), COMMAND)
    assert [summary.label for summary in summaries] == ["base", "my_honesty_prompt"]
    assert all(summary.word in WORDS for summary in summaries)


def test_a_missing_or_damaged_adapter_is_named(study: Path, config: LanguageStudyConfig, tmp_path: Path) -> None:
    path = tmp_path / "s"
    shutil.copytree(study, path)
    directory = StudyDirectory.read(path)
    weights = path / "my_soo" / "seed_0" / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(RunDirectoryError, match="seed_0/adapter is not a readable adapter"):
        load_study_model(config, directory, "my_soo", 0)
    shutil.rmtree(weights.parent)
    with pytest.raises(RunDirectoryError, match=r"seed_0/adapter/\S+ is missing"):
        load_study_model(config, directory, "my_soo", 0)
    # A treatment of another organism than the one that is there now.
    shutil.rmtree(path / "organism" / "seed_0" / "adapter")
    shutil.copytree(path / "my_soo" / "seed_1" / "adapter", path / "organism" / "seed_0" / "adapter")
    with pytest.raises(ValueError, match="belongs to another base model"):
        load_study_model(config, directory, "my_soo", 1)


def test_a_lost_adapter_is_trained_anew(study: Path, config: LanguageStudyConfig, tmp_path: Path) -> None:
    path = tmp_path / "s"
    shutil.copytree(study, path)
    shutil.rmtree(path / "organism" / "seed_0" / "adapter")
    (path / "my_steer" / "seed_0" / "responses.jsonl").unlink()
    run(config, path, TinyDisplay())
    assert content(path) == content(study)


def test_a_directory_of_another_configuration_or_kind_is_refused(
    study: Path, config: LanguageStudyConfig, tmp_path: Path
) -> None:
    before = content(study)
    with pytest.raises(RunDirectoryError, match=r"configuration\.epoch_fills is 1 there and 2 here"):
        open_language_study(study, config.model_copy(update={"epoch_fills": 2}))
    with pytest.raises(RunDirectoryError, match="seeds"):
        open_language_study(study, config.model_copy(update={"seeds": (0, 2)}))
    assert content(study) == before
    StudyDirectory.open(tmp_path / "other", "reproduction", {}, (0,))
    with pytest.raises(RunDirectoryError, match="of kind reproduction, not of language"):
        read_language_study(tmp_path / "other")
    shutil.copytree(study, tmp_path / "s")
    manifest = tmp_path / "s" / "study.json"
    changed = json.loads(manifest.read_text(encoding="utf-8"))
    changed["configuration"]["epoch_fills"] = -1
    manifest.write_text(json.dumps(changed), encoding="utf-8")
    with pytest.raises(RunDirectoryError, match=r"study\.json does not fit: epoch_fills"):
        read_language_study(tmp_path / "s")


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


@pytest.mark.parametrize("damage", ["cut", "empty", "renamed"])
def test_answers_that_are_not_those_asked_for_are_refused(study: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(study, tmp_path / "s")
    directory, config = read_language_study(tmp_path / "s")
    file = responses_file(directory, "my_soo", 1)
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    changed = {
        "cut": lines[:-1],
        "empty": [],
        "renamed": [lines[0].replace("plain_burglar", "plain_frend"), *lines[1:]],
    }
    file.write_text("".join(changed[damage]), encoding="utf-8")
    with pytest.raises(
        RunDirectoryError, match=r"responses\.jsonl does not hold one answer to each question.*delete it"
    ):
        read_model_responses(config, directory, "my_soo", 1)


@pytest.mark.parametrize("name", ["training.json", "latent.json", "measures.json"])
def test_a_file_that_is_deleted_is_made_anew(
    study: Path, config: LanguageStudyConfig, tmp_path: Path, name: str
) -> None:
    shutil.copytree(study, tmp_path / "s")
    file = tmp_path / "s" / "my_soo" / "seed_1" / name
    before = file.read_bytes()
    file.unlink()
    run(config, tmp_path / "s", TinyDisplay())
    assert file.read_bytes() == before


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
