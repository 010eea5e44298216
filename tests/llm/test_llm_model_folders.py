"""Models come from folders that were looked at first: no code of theirs runs, no pickle is read, no hub is asked."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent))
from tiny_models import tiny_language_model, tiny_tokenizer

from soo_marl.llm.methods.loss import padding_token
from soo_marl.llm.model import model_folders
from soo_marl.llm.model.adapters import LoraSettings, target_names
from soo_marl.llm.model.chat import encode
from soo_marl.llm.model.models import load_model


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Hosts that were asked for."""
    asked: list[Any] = []

    def refuse(host: Any, *_: Any, **__: Any) -> Any:
        asked.append(host)
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return asked


def edit(file: Path, **fields: Any) -> None:
    content = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.mark.parametrize("with_weights", [True, False])
@pytest.mark.parametrize("kind", ["model", "tokenizer", "generation"])
def test_code_in_a_models_folder_never_runs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, with_weights: bool
) -> None:
    mark = tmp_path / "ran"
    monkeypatch.setattr("builtins.input", lambda *_: mark.write_text("asked") and "y")
    code = (
        f"open({str(mark)!r}, 'w').write('x')\nclass C: pass\nclass M: pass\nclass T: pass\ndef generate(**_): pass\n"
    )
    (folder / "evil.py").write_text(code)
    if kind == "model":
        edit(
            folder / "config.json",
            model_type="evil",
            auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"},
        )
    elif kind == "tokenizer":
        edit(folder / "tokenizer_config.json", tokenizer_class="T", auto_map={"AutoTokenizer": [None, "evil.T"]})
    else:
        (folder / "custom_generate").mkdir()
        shutil.copy(folder / "evil.py", folder / "custom_generate" / "generate.py")
    try:
        load_model(str(folder), weights=with_weights)
    except ValueError as error:
        assert "trust_remote_code" not in str(error) and "\n" not in str(error)
    else:
        assert kind != "model"
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("runs/organsm", "there is no folder 'runs/organsm'"),
        ("./organsm", "no folder"),
        ("~/organsm-that-is-not-here", "no folder"),
        ("/nowhere/organsm", "no folder"),
        ("here/organsm", "no folder"),
        ("organsm/", "no folder"),
        ("some/deep/organsm", "no folder"),
        ("organsm.gguf", "GGUF files are not read"),
        ("file", "is no folder"),
    ],
)
def test_what_looks_like_a_path_is_not_asked_of_the_hub(
    name: str, fault: str, no_network: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=fault):
        load_model(name)
    assert not no_network


@pytest.mark.parametrize("name", ["organisation/model", "gpt-of-nobody"])
def test_a_name_on_the_hub_is_asked_for_without_retries(
    name: str, no_network: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match=f"no language model '{name}' here or on the model hub"):
        load_model(name)
    assert 1 <= len(no_network) <= 2 and not caplog.records, "no retries, nothing in the log"


def test_what_the_hubs_cache_holds_is_used_without_the_hub(
    folder: Path, no_network: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    snapshot = cache / "models--somebody--tiny" / "snapshots" / ("0" * 40)
    shutil.copytree(folder, snapshot)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    assert model_folders.model_folder("somebody/tiny") == snapshot
    assert load_model("somebody/tiny").name == "somebody/tiny" and not no_network


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda f: (f / "adapter_config.json").write_text("{}"), "holds an adapter"),
        (lambda f: ((f / "config.json").unlink(), (f / "m.gguf").touch()), "GGUF files are not read"),
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (lambda f: (f / "config.json").write_text("{"), "not readable JSON"),
        (lambda f: (f / "config.json").write_text("[" * 100_000), "not readable JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "no settings"),
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "a pickle"),
        (lambda f: edit(f / "config.json", attn_implementation="somebody/kernel"), "names code from elsewhere"),
        (lambda f: edit(f / "config.json", eos_token_id=["x"]), "config.json names 'x' as an end token"),
        (lambda f: edit(f / "generation_config.json", eos_token_id=10**30), "generation_config.json names 1000"),
        (lambda f: edit(f / "generation_config.json", cache_implementation="none such"), "no usable language model"),
        (lambda f: (f / "generation_config.json").write_text("[" * 100_000), "generation_config.json is not readable"),
        (lambda f: (f / "tokenizer.json").write_text("[" * 100_000), "no usable language model"),
        (lambda f: edit(f / "tokenizer_config.json", model_max_length="long"), "no usable language model"),
        (lambda f: edit(f / "config.json", hidden_size="x"), "no usable language model"),
        (lambda f: edit(f / "config.json", num_attention_heads=0), "no usable language model"),
        (lambda f: edit(f / "config.json", dtype="os.system"), "no usable language model"),
        (lambda f: edit(f / "config.json", rope_parameters="x"), "no usable language model"),
        (lambda f: os.mkfifo(f / "chat_template.jinja2"), "no regular file"),
        (
            lambda f: (
                (f / "model.safetensors").unlink(),
                (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../other.safetensors"}}'),
            ),
            "a file of another folder",
        ),
        (
            lambda f: edit(f / "config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
            "are quantised, and what that needs is not here",
        ),
    ],
)
def test_a_folder_that_cannot_be_loaded_is_refused_before_its_weights_are_read(
    folder: Path, no_network: list[Any], damage: Any, fault: str, weights: bool
) -> None:
    damage(folder)
    with pytest.raises(ValueError, match=fault) as caught:
        load_model(str(folder), weights=weights)
    assert "\n" not in str(caught.value) and not no_network


def test_a_padding_token_that_the_embedding_does_not_have_is_replaced(folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    loaded = load_model(str(folder))
    known = len(loaded.model.get_input_embeddings().weight)
    assert tokenizer.pad_token_id >= known and loaded.tokenizer.pad_token == loaded.tokenizer.eos_token
    assert int(encode(loaded.tokenizer, ["ab", "c"]).input_ids.max()) < known
    loaded.model.config.pad_token_id = known
    assert padding_token(loaded.model) == loaded.model.config.eos_token_id


def test_an_output_layer_that_is_the_embedding_takes_no_adapter() -> None:
    model = tiny_language_model(layers=1)
    assert target_names(model.model, LoraSettings(targets=("lm_head",))) == ["lm_head"]
    model.model.lm_head.weight = model.model.get_input_embeddings().weight
    with pytest.raises(ValueError, match="lm_head shares its weight with the embedding"):
        target_names(model.model, LoraSettings(targets=("q_proj", "lm_head")))
