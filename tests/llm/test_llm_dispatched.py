"""One model whose layers lie on several devices."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("accelerate")

sys.path.insert(0, str(Path(__file__).parent))

import accelerate
from tiny_models import tiny_language_model
from tiny_treatments import CONDITIONS, assert_close, recipe, study, weights_of

from soo_marl.llm.methods.finetuning import finetune
from soo_marl.llm.model.adapters import LoraSettings, fingerprint, same_base
from soo_marl.llm.model.chat import encode, render
from soo_marl.llm.model.generation import generate_texts
from soo_marl.llm.model.models import (
    DeviceMemoryError,
    LanguageModel,
    add_lora,
    load_adapter,
    load_model,
    merged,
    save_adapter,
)


def dispatched(model: LanguageModel, last_layer: str = "cpu", folder: Path | None = None) -> LanguageModel:
    """The model as accelerate loads one whose layers lie in several places, with its hooks at every module."""
    parts = ["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"]
    places = {name: "cpu" for name in [*parts, *(f"model.layers.{number}" for number in range(3))]}
    hooked = accelerate.dispatch_model(
        model.model,
        places | {"model.layers.3": last_layer},
        main_device="cpu",
        offload_dir=None if folder is None else str(folder),
        force_hooks=True,
    )
    return LanguageModel(hooked, model.tokenizer, model.name)


def logits(model: LanguageModel) -> Tensor:
    batch = encode(model.tokenizer, [render(model.tokenizer, "You hide the coin.")], device=model.device)
    with torch.no_grad():
        output: Any = model.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask.long())
    return torch.as_tensor(output.logits)


def test_a_dispatched_model_trains_answers_and_merges_as_any_other(tmp_path: Path) -> None:
    chosen = recipe(**CONDITIONS["frozen"][1])
    expected, losses = finetune(tiny_language_model(), chosen, "soo", 0)
    found, own = finetune(dispatched(tiny_language_model()), chosen, "soo", 0)
    assert own == losses
    assert_close(weights_of(found), weights_of(expected))
    assert generate_texts(found, ["Hi"], max_new_tokens=4) == generate_texts(expected, ["Hi"], max_new_tokens=4)
    assert same_base(fingerprint(found.transformer, "one"), fingerprint(expected.transformer, "other"))
    save_adapter(found, tmp_path / "adapter")
    torch.testing.assert_close(
        logits(load_adapter(dispatched(tiny_language_model()), tmp_path / "adapter")), logits(found)
    )


def test_merging_leaves_a_dispatched_model_as_it_is() -> None:
    model = add_lora(dispatched(tiny_language_model()), LoraSettings(r=2), 0)
    for name, weight in model.model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(0))
    before = logits(model)
    whole = merged(model)
    torch.testing.assert_close(logits(whole), before, rtol=0, atol=1e-3)
    with torch.no_grad():
        for weight in whole.model.parameters():
            weight.zero_()
    assert not logits(whole).any()
    assert torch.equal(logits(model), before)


def test_tokens_go_to_where_accelerate_brings_the_embedding(tmp_path: Path) -> None:
    model = tiny_language_model()
    embedding = model.transformer.get_input_embeddings()
    for place, device in ((torch.device("cpu"), "cpu"), ("cuda:1", "cuda:1"), (1, "cuda:1")):
        embedding._hf_hook = accelerate.hooks.AlignDevicesHook(execution_device=place)
        assert model.device == torch.device(device)


def test_auto_is_the_cpu_where_there_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study(tmp_path, "study")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    model = load_model(str(tmp_path / "model"), device="auto")
    assert model.device == torch.device("cpu")
    assert torch.equal(logits(model), logits(tiny_language_model()))
    with pytest.raises(ValueError, match="4-bit quantisation needs a CUDA device"):
        load_model(str(tmp_path / "model"), device="auto", quantisation="4bit")


@pytest.mark.parametrize("fits", [True, False])
def test_auto_leaves_it_to_accelerate_where_layers_go(
    fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    study(tmp_path, "study")
    large = str(tmp_path / "model")

    def load(folder: str, **options: Any) -> Any:
        asked.append(options)
        return dispatched(tiny_language_model(), "cpu" if fits else "disk", tmp_path).model

    monkeypatch.setattr("soo_marl.llm.model.models._usable_device", lambda device: torch.device("cuda"))
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", load)
    if fits:
        load_model(large, device="auto")
    else:
        with pytest.raises(DeviceMemoryError, match=r"^the model does not fit on the GPUs: use more of them"):
            load_model(large, device="auto")
    assert [options.get("device_map") for options in asked] == ["auto"]
