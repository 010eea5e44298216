import json
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("peft")

sys.path.insert(0, str(Path(__file__).parent))

from tiny_studies import COMMAND, TinyDisplay, content, run

from soo_marl.engines import Interrupted
from soo_marl.llm.measures.verdict import WORDS
from soo_marl.llm.study.configuration import LanguageStudyConfig
from soo_marl.llm.study.models_on_disk import load_study_model
from soo_marl.llm.study.shard import model_shard, read_model_responses, responses_file
from soo_marl.llm.study.study import open_language_study, read_language_study, write_language_results
from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.study_directory import StudyDirectory


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
    with pytest.raises(
        RunDirectoryError, match=r"seed_0/adapter/adapter_model\.safetensors is not a readable safetensors file"
    ):
        load_study_model(config, directory, "my_soo", 0)
    shutil.rmtree(weights.parent)
    with pytest.raises(RunDirectoryError, match=r"seed_0/adapter/\S+ is missing"):
        load_study_model(config, directory, "my_soo", 0)
    # A treatment of another organism than the one that is there now.
    shutil.rmtree(path / "organism" / "seed_0" / "adapter")
    shutil.copytree(path / "my_soo" / "seed_1" / "adapter", path / "organism" / "seed_0" / "adapter")
    with pytest.raises(RunDirectoryError, match="belongs to another study or another model of it"):
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


def test_a_file_that_is_deleted_is_made_anew(study: Path, config: LanguageStudyConfig, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "s")
    # Each of another model, whose step only it can undo.
    names = ("my_soo/seed_0/training.json", "my_soo/seed_1/latent.json", "base/seed_0/measures.json")
    files = {tmp_path / "s" / name: (study / name).read_bytes() for name in (*names, "my_steer/seed_0/training.json")}
    for file in files:
        file.unlink()
    run(config, tmp_path / "s", TinyDisplay())
    assert {file: file.read_bytes() for file in files} == files
