from typing import Any

import pytest
import torch
from torch import nn

from soo_marl.llm.model.alignment import TokenBatch
from soo_marl.llm.model.layers import decoder_stack, evaluating, layer_outputs, matching_layers, stack_modules

pytest.importorskip("transformers")
pytest.importorskip("peft")

FAMILIES = ("Mistral", "Gemma2", "Qwen2", "Llama")


def tiny(family: str = "Llama", layers: int = 3) -> Any:
    import transformers

    settings = {
        "vocab_size": 50,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**settings)
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


def with_lora(model: Any, *targets: str, **settings: Any) -> Any:
    import peft

    torch.manual_seed(1)
    return peft.get_peft_model(
        model, peft.LoraConfig(r=2, target_modules=list(targets), init_lora_weights=False, **settings)
    )


def batch(seed: int = 0, rows: int = 2, tokens: int = 5) -> TokenBatch:
    ids = torch.randint(3, 50, (rows, tokens), generator=torch.Generator().manual_seed(seed))
    return TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool))


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.o_proj = nn.Linear(4, 4)


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn = _Attention()
        self.mlp = nn.Linear(4, 4)


class _Tower(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer() for _ in range(layers))


class _Wrapper(nn.Module):
    """A multimodal model whose vision tower, the longer of the two, has modules of the same names."""

    def __init__(self) -> None:
        super().__init__()
        self.vision_tower = _Tower(5)
        self.resampler = _Tower(4)
        self.language_model = _Tower(3)


@pytest.mark.parametrize("family", FAMILIES)
def test_default_site_is_the_attention_output_in_every_family(family: str) -> None:
    model = tiny(family)
    assert len(decoder_stack(model)[1]) == 3
    assert matching_layers(model, 1) == ["model.layers.1.self_attn.o_proj"]
    assert model.get_submodule(matching_layers(model, 1)[0]) is model.model.layers[1].self_attn.o_proj


@pytest.mark.parametrize(
    ("what", "numbers"),
    [
        (0, [0]),
        ([2, 0], [0, 2]),
        ((1, 1), [1]),
        ("1-3", [1, 2, 3]),
        (" 3, 0-1", [0, 1, 3]),
        (["2-3", 1, "model.layers.0.self_attn.o_proj"], [0, 1, 2, 3]),
        ("layers.2.self_attn.o_proj", [2]),
        (r".*layers\.(1|3)\.self_attn\.o_proj", [1, 3]),
        (r"model\.layers\.[0-1]\.self_attn\.o_proj", [0, 1]),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_every_way_to_name_layers_with_and_without_adapters(what: Any, numbers: list[int], wrapped: bool) -> None:
    model = tiny(layers=4)
    prefix = ""
    if wrapped:
        model, prefix = with_lora(model, "q_proj", "o_proj"), "base_model.model."
    assert matching_layers(model, what) == [f"{prefix}model.layers.{n}.self_attn.o_proj" for n in numbers]


def test_site_can_be_another_module_or_the_layer_itself() -> None:
    model = tiny()
    assert matching_layers(model, "0-1", "mlp") == ["model.layers.0.mlp", "model.layers.1.mlp"]
    assert matching_layers(model, 2, "") == ["model.layers.2"]


def test_what_is_recorded_at_a_module_with_an_adapter_includes_the_adapter() -> None:
    model = with_lora(tiny(), "o_proj")
    names = matching_layers(model, 0)
    with torch.no_grad():
        adapted = layer_outputs(model, names, batch())[names[0]]
        with model.disable_adapter():
            plain = layer_outputs(model, names, batch())[names[0]]
    assert (adapted - plain).abs().max() > 1e-4
    assert not any("lora" in name or "base_layer" in name for name in stack_modules(model))


def test_only_the_text_stack_of_a_multimodal_wrapper_is_named() -> None:
    model = _Wrapper()
    assert len(decoder_stack(model)[1]) == 3
    expected = [f"language_model.layers.{n}.self_attn.o_proj" for n in range(3)]
    assert matching_layers(model, "0-2") == expected
    assert matching_layers(model, r".*\.self_attn\.o_proj") == expected
    assert matching_layers(model, "layers.1.mlp") == ["language_model.layers.1.mlp"]
    with pytest.raises(ValueError, match=r"text stack 'language_model\.layers'"):
        matching_layers(model, "vision_tower.layers.4.self_attn.o_proj")
    with pytest.raises(ValueError, match="has 3 layers"):
        matching_layers(model, 4)


def test_a_longer_vision_tower_is_no_text_stack_even_where_the_text_model_has_a_plain_name() -> None:
    model = nn.ModuleDict({"model": _Tower(3), "vision_tower": _Tower(5), "audio_encoder": _Tower(6)})
    assert matching_layers(model, 0) == ["model.layers.0.self_attn.o_proj"]
    assert len(decoder_stack(model)[1]) == 3


@pytest.mark.parametrize(
    ("what", "site", "message"),
    [
        (3, "mlp", "there is no decoder layer 3: the model has 3 layers, 0 to 2"),
        (-1, "mlp", "no decoder layer -1"),
        ("2-9", "mlp", "no decoder layer 3"),
        ("2-1", "mlp", "ends before it begins"),
        (0, "self_attn.out", "decoder layer 0 has no 'self_attn.out': choose among .*self_attn.o_proj"),
        ("self_attn.o_proj", "mlp", "nothing in the text stack"),
        ("lm_head", "mlp", "not part of the text stack"),
        ("layers.(", "mlp", "neither a module's name nor a regular expression"),
        ([], "mlp", "at least one layer"),
    ],
)
def test_what_is_not_there_is_refused(what: Any, site: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        matching_layers(tiny(), what, site)


def test_a_model_without_decoder_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="no list of decoder layers"):
        decoder_stack(nn.Linear(2, 2))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("site", ["self_attn.o_proj", "mlp", "", "self_attn.q_proj"])
def test_stopping_early_gives_the_same_outputs_and_leaves_the_rest_out(family: str, site: str) -> None:
    model = tiny(family)
    names = matching_layers(model, "0-1", site)
    ran = []
    handle = model.model.layers[2].register_forward_hook(lambda *_: ran.append(2))
    with torch.no_grad():
        full = layer_outputs(model, names, batch(), stop_early=False)
        assert ran == [2]
        stopped = layer_outputs(model, names, batch())
        assert ran == [2]
    handle.remove()
    assert list(stopped) == names
    for name in names:
        assert stopped[name].shape[:2] == (2, 5)
        torch.testing.assert_close(stopped[name], full[name], rtol=0, atol=0)


def test_a_model_that_was_stopped_runs_to_its_end_afterwards() -> None:
    model = tiny()
    ids = batch().input_ids
    before = model(input_ids=ids).logits
    layer_outputs(model, matching_layers(model, 0), batch())
    torch.testing.assert_close(model(input_ids=ids).logits, before)


def test_evaluating_gives_every_module_its_mode_back() -> None:
    model = tiny().train()
    model.model.layers[1].eval()
    with pytest.raises(KeyError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert model.model.layers[0].training and model.lm_head.training
    assert not any(module.training for module in model.model.layers[1].modules())
