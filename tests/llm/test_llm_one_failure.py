"""What goes wrong in one model of a study ends that one: the others are made, judged and shown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("peft")
sys.path.insert(0, str(Path(__file__).parent))
from tiny_studies import RECIPE, TinyDisplay, run

from soo_marl.commands.tables.language import print_models
from soo_marl.llm.measures.records import ModelSummary
from soo_marl.llm.model.models import DeviceMemoryError
from soo_marl.llm.study import shard as models_on_disk
from soo_marl.llm.study.configuration import Condition, LanguageStudyConfig
from soo_marl.llm.study.models_on_disk import read_training, save_merged
from soo_marl.llm.study.study import UnfinishedError, read_language_study
from soo_marl.report.refresh import refresh
from soo_marl.storage.records import read_list


def treatments(config: LanguageStudyConfig, rates: dict[str, float], **changes: Any) -> LanguageStudyConfig:
    conditions = [
        Condition(label=label, method="soo", recipe=RECIPE.model_copy(update={"learning_rate": rate, "epochs": 1}))
        for label, rate in rates.items()
    ]
    fields = {"conditions": conditions, "organism": None, "seeds": (0,), "epoch_fills": 0}
    return LanguageStudyConfig.model_validate(config.model_dump() | fields | changes)


def test_a_training_that_breaks_down_is_counted_and_the_others_go_on(
    config: LanguageStudyConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = treatments(config, {"wild": 1e30, "calm": 1e-3})
    wild, calm = run(study, tmp_path / "s", TinyDisplay())[1:]
    assert (wild.word, wild.cells, calm.cells != ()) == ("damaged", (), True)
    assert wild.reason.startswith("training broke down: the loss is") and "lower the learning rate" in wild.reason
    assert not wild.seeds[0].cells and wild.seeds[0].training.broke_down and wild.seeds[0].training.losses
    assert "broke down" in refresh(tmp_path / "s").read_text()
    directory, _ = read_language_study(tmp_path / "s")
    print_models([wild, calm], directory)
    assert "wild: damaged: training broke down" in " ".join(capsys.readouterr().out.split())
    assert run(study, tmp_path / "s", TinyDisplay())[1:] == [wild, calm], "and it is not tried again"
    with pytest.raises(ValueError, match="wild of seed 0 has no adapter"):
        save_merged(study, directory, "wild", 0, tmp_path / "merged")


@pytest.mark.parametrize(("rate", "decay"), [(1e38, 1e3), (3e38, 0.0), (1e30, 0.0)])
def test_a_last_step_that_leaves_no_sense_ends_no_study(
    config: LanguageStudyConfig, tmp_path: Path, rate: float, decay: float
) -> None:
    """No further step is there that would notice."""
    changes = {"learning_rate": rate, "epochs": 1, "batch_size": 4, "weight_decay": decay}
    wild = Condition(label="wild", method="soo", recipe=RECIPE.model_copy(update=changes))
    found = run(treatments(config, {}, conditions=[wild]), tmp_path / "s", TinyDisplay())[1]
    # At the smallest of them what is left of the model are numbers still, and it is asked.
    assert found.seeds[0].training.broke_down == (rate > 1e30) and bool(found.cells) == (rate <= 1e30)
    assert refresh(tmp_path / "s").is_file()


def test_where_some_seeds_break_down_the_others_are_judged(
    config: LanguageStudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finetune = models_on_disk.finetune

    def break_down(model: Any, recipe: Any, method: str, seed: int, **rest: Any) -> Any:
        wild = recipe.model_copy(update={"learning_rate": 1e30}) if seed == 1 else recipe
        return finetune(model, wild, method, seed, **rest)

    monkeypatch.setattr(models_on_disk, "finetune", break_down)
    (_, found) = run(treatments(config, {"soo": 1e-3}, seeds=(0, 1)), tmp_path / "s", TinyDisplay())
    assert found.cells and "of 2 trainings 1 broke down" in found.reason
    assert [seed.training.broke_down for seed in found.seeds] == [False, True]


def test_what_starts_from_an_organism_that_broke_down_says_so(config: LanguageStudyConfig, tmp_path: Path) -> None:
    assert config.organism is not None
    wild = config.organism.model_copy(update={"learning_rate": 1e30, "largest_gradient": 1e30})
    study = LanguageStudyConfig.model_validate(config.model_dump() | {"organism": wild, "seeds": (0,)})
    summaries = run(study, tmp_path / "s", TinyDisplay())
    assert [summary.label for summary in summaries] == ["base", "organism", "my_soo", "my_steer", "my_honesty_prompt"]
    for summary in summaries[1:]:
        assert summary.word == "damaged" and not summary.cells
    assert "organism of seed 0 has no adapter" in summaries[2].reason


def test_a_model_that_does_not_fit_into_memory_keeps_no_other_from_the_table(
    config: LanguageStudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, finetune = treatments(config, {"large": 1e-3, "small": 1e-3}), models_on_disk.finetune

    def run_out(*arguments: Any, **rest: Any) -> Any:
        raise DeviceMemoryError("the model does not fit into memory")

    attempts: list[str] = []

    def sometimes(model: Any, recipe: Any, method: str, seed: int, *, checkpoint: Path, **rest: Any) -> Any:
        attempts.append(checkpoint.name)
        function = run_out if "large" in checkpoint.name else finetune
        return function(model, recipe, method, seed, checkpoint=checkpoint, **rest)

    monkeypatch.setattr(models_on_disk, "finetune", sometimes)
    with pytest.raises(UnfinishedError, match="1 of 3 models could not be made, large of seed 0") as caught:
        run(study, tmp_path / "s", TinyDisplay())
    listed = read_list(tmp_path / "s" / "results" / "models.json", ModelSummary)
    assert [summary.label for summary in listed] == ["base", "small"] and caught.value.summaries == listed
    assert "large (seeds 0) is not done yet" in refresh(tmp_path / "s").read_text()
    monkeypatch.setattr(models_on_disk, "finetune", finetune)
    assert len(run(study, tmp_path / "s", TinyDisplay())) == 3
    directory, _ = read_language_study(tmp_path / "s")
    assert not read_training(directory, "large", 0).broke_down
