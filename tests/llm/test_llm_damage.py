import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

sys.path.insert(0, str(Path(__file__).parent))

from tiny_models import TinyPrompt, tiny_language_model

from soo_marl.llm.measures.damage import (
    name_control_gap,
    neutral_texts,
    perplexity,
    prompt_statistics,
    repetition,
    with_two_names,
)
from soo_marl.llm.model.adapters import LoraSettings
from soo_marl.llm.model.chat import render, token_ids
from soo_marl.llm.model.models import adapters_off, add_lora

LAYERS = ("model.layers.1.self_attn.o_proj", "model.layers.2.mlp.down_proj")
PROMPTS = [TinyPrompt(f"Bob asks {'again ' * place}where it is.", number=place) for place in range(5)]


def test_neutral_texts_are_short_paragraphs_and_all_different() -> None:
    texts = neutral_texts()
    assert len(texts) == len(set(texts)) == 60
    assert all(40 <= len(text.split()) <= 70 for text in texts)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_perplexity_weighs_every_token_alike_whatever_the_batch_size(architecture: str) -> None:
    model = tiny_language_model(architecture)
    texts = ["a rather long text about nothing", "short", "x"]
    losses = []
    for text in texts:
        ids = token_ids(model.tokenizer, text, raw=True)
        with torch.no_grad():
            logits = model.model(torch.tensor([ids])).logits[0].double()
        losses += [-float(logits[place - 1].log_softmax(-1)[ids[place]]) for place in range(1, len(ids))]
    expected = torch.tensor(losses, dtype=torch.float64).mean().exp().item()
    for batch_size in (1, 2, 3):
        assert perplexity(model, texts, batch_size=batch_size) == pytest.approx(expected, rel=1e-5)


def test_a_model_that_knows_nothing_has_the_vocabularys_size_as_perplexity() -> None:
    model = tiny_language_model()
    for parameter in model.model.parameters():
        torch.nn.init.zeros_(parameter)
    assert perplexity(model, ["any text"]) == pytest.approx(len(model.tokenizer), rel=1e-5)


def test_perplexity_refuses_texts_without_a_token_to_predict() -> None:
    model = tiny_language_model()
    model.tokenizer.backend_tokenizer.post_processor = None
    with pytest.raises(ValueError, match="two tokens"):
        perplexity(model, ["x"])
    with pytest.raises(ValueError, match="batch_size"):
        perplexity(model, ["xy"], batch_size=0)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        ("the attic", 0.0),
        ("one two three four", 0.0),
        # The sequences are "go go go" three times.
        ("go, Go. GO go go", 2 / 3),
        # a b a, b a b, a b a, b a b
        ("a b a b a b", 1 / 2),
    ],
)
def test_repetition_by_hand(text: str, share: float) -> None:
    assert repetition(text) == pytest.approx(share)


def test_prompt_statistics_by_hand() -> None:
    model = tiny_language_model()
    recorded: dict[str, list[torch.Tensor]] = {name: [] for name in LAYERS}
    handles = [
        model.model.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: recorded[name].append(output[0, -1].double())
        )
        for name in LAYERS
    ]
    with torch.no_grad():
        for prompt in PROMPTS:
            ids = token_ids(model.tokenizer, render(model.tokenizer, prompt.text, prompt.answer_start))
            model.model(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    rows = [torch.stack(recorded[name]) for name in LAYERS]
    for batch_size in (1, 3):
        found = prompt_statistics(model, PROMPTS, LAYERS, batch_size=batch_size)
        assert found.power == pytest.approx(sum(float((row**2).mean()) for row in rows) / 2, rel=1e-5)
        centred = [row - row.mean(0) for row in rows]
        assert found.variance == pytest.approx(sum(float((row**2).mean()) for row in centred) / 2, rel=1e-5)


def test_a_constant_layer_has_power_but_neither_variance_nor_a_gap_between_names() -> None:
    model = tiny_language_model()
    layer = torch.nn.Linear(32, 32)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.constant_(layer.bias, 2.0)
    model.model.model.layers[1].self_attn.o_proj = layer
    found = prompt_statistics(model, PROMPTS, LAYERS[:1])
    assert found.power == pytest.approx(4.0)
    assert found.variance == 0
    assert name_control_gap(model, with_two_names(PROMPTS), LAYERS[:1]) == 0


def test_the_gap_between_names_by_hand() -> None:
    model = tiny_language_model()
    pairs = [("Alex asks.", "Bob asks."), ("It is Alexander.", "It is Bo.")]
    name = LAYERS[0]
    difference, power = 0.0, 0.0
    for pair in pairs:
        rows = []
        for text in pair:
            outputs: list[torch.Tensor] = []
            handle = model.model.get_submodule(name).register_forward_hook(
                lambda _module, _inputs, output, outputs=outputs: outputs.append(output[0, -1].double())
            )
            with torch.no_grad():
                model.model(torch.tensor([token_ids(model.tokenizer, render(model.tokenizer, text))]))
            handle.remove()
            rows += outputs
        difference += float((rows[0] - rows[1]).square().mean())
        power += float((rows[0].square().mean() + rows[1].square().mean()) / 2)
    found = name_control_gap(model, pairs, [name], batch_size=3)
    assert found == pytest.approx(difference / power, rel=1e-5)
    assert name_control_gap(model, [("same", "same")], LAYERS) == pytest.approx(0, abs=1e-9)


def test_names_are_replaced_as_whole_words() -> None:
    prompt = TinyPrompt("Bob and Bobby: Bob's room")
    assert with_two_names([prompt]) == [("Alex and Bobby: Alex's room", "Bob and Bobby: Bob's room")]
    with pytest.raises(ValueError, match="does not hold a name"):
        with_two_names([TinyPrompt("yourself")])


def test_layer_names_stay_and_the_adapter_counts_unless_left_out() -> None:
    plain = prompt_statistics(tiny_language_model(), PROMPTS, LAYERS)
    adapted = add_lora(tiny_language_model(), LoraSettings(targets=("o_proj",)))
    for name, parameter in adapted.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(parameter)
    assert prompt_statistics(adapted, PROMPTS, LAYERS).power != pytest.approx(plain.power, rel=1e-3)
    with adapters_off(adapted):
        assert prompt_statistics(adapted, PROMPTS, LAYERS).power == pytest.approx(plain.power, rel=1e-6)


def test_too_few_prompts_are_refused() -> None:
    model = tiny_language_model()
    with pytest.raises(ValueError, match="two prompts"):
        prompt_statistics(model, PROMPTS[:1], LAYERS)
    with pytest.raises(ValueError, match="one pair"):
        name_control_gap(model, [], LAYERS)
    with pytest.raises(ValueError, match=r"no layer 'model.layers.9'"):
        prompt_statistics(model, PROMPTS, ["model.layers.9"])
