import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers")
pytest.importorskip("peft")

sys.path.insert(0, str(Path(__file__).parent))

from tiny_models import tiny_language_model

from soo_marl.llm.methods.steering import mean_difference, random_vectors, steered
from soo_marl.llm.model.adapters import LoraSettings
from soo_marl.llm.model.alignment import TokenBatch
from soo_marl.llm.model.chat import encode, render
from soo_marl.llm.model.layers import layer_outputs
from soo_marl.llm.model.models import LanguageModel, add_lora

PROJECTION, BLOCK = "model.layers.1.self_attn.o_proj", "model.layers.2"
OTHER = ("Bob hides the coin.", "Where does Eve look for her ring?", "A thief asks.")
SELF = ("You hide the coin.", "Where do you look?")


def batch(model: LanguageModel, texts: Sequence[str], raw: bool = False) -> TokenBatch:
    return encode(model.tokenizer, [render(model.tokenizer, text, raw=raw) for text in texts], raw=raw)


def outputs(model: LanguageModel, text: str, layers: Sequence[str], raw: bool = False) -> dict[str, Tensor]:
    with torch.no_grad():
        return layer_outputs(model.transformer, layers, batch(model, [text], raw), stop_early=False)


def logits(model: LanguageModel, text: str) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.model(input_ids=batch(model, [text]).input_ids).logits[0]
    return found


def hooks(model: LanguageModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.model.modules())


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_the_vector_is_the_difference_of_means_at_the_last_token(batch_size: int, raw: bool) -> None:
    model = tiny_language_model()
    found = mean_difference(model, OTHER, SELF, [PROJECTION, BLOCK], batch_size=batch_size, raw=raw)
    assert list(found) == [PROJECTION, BLOCK]
    for name in (PROJECTION, BLOCK):
        other = sum(outputs(model, text, [name], raw)[name][0, -1] for text in OTHER) / 3
        own = sum(outputs(model, text, [name], raw)[name][0, -1] for text in SELF) / 2
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], other - own, atol=1e-5, rtol=1e-4)
    assert hooks(model) == 0


def test_dropout_is_off_while_a_vector_is_measured_and_back_afterwards() -> None:
    model = add_lora(tiny_language_model(), LoraSettings(r=2, dropout=0.9), 0)
    for name, weight in model.model.named_parameters():
        if "lora_B" in name:
            nn.init.ones_(weight)
    model.model.train()
    one, other = (mean_difference(model, OTHER, SELF, [PROJECTION])[PROJECTION] for _ in range(2))
    assert torch.equal(one, other)
    assert model.model.training


def test_a_vector_needs_messages_on_both_sides_and_a_layer_that_is_there() -> None:
    model = tiny_language_model()
    for sides in ((OTHER, ()), ((), SELF)):
        with pytest.raises(ValueError, match="at least one message on each side"):
            mean_difference(model, *sides, [PROJECTION])
    with pytest.raises(ValueError, match="nowhere"):
        mean_difference(model, OTHER, SELF, ["nowhere"])


def test_subtracting_a_vector_moves_the_layer_at_every_token_and_the_answer_as_computed() -> None:
    model = tiny_language_model()
    last = "model.layers.3"
    vector = mean_difference(model, OTHER, SELF, [last])[last]
    before = outputs(model, OTHER[0], [last])[last]
    plain = logits(model, OTHER[0])
    with steered(model, {last: vector}, -2.0):
        found = outputs(model, OTHER[0], [last])[last]
        moved = logits(model, OTHER[0])
    torch.testing.assert_close(found, before - 2 * vector)
    with torch.no_grad():
        expected = model.model.lm_head(model.model.model.norm(before - 2 * vector))[0]
    torch.testing.assert_close(moved, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(moved, plain, atol=1e-2)
    assert torch.equal(logits(model, OTHER[0]), plain)


def test_several_layers_are_moved_at_once_and_with_an_adapter_under_the_same_names() -> None:
    model = tiny_language_model()
    vectors = mean_difference(model, OTHER, SELF, [PROJECTION, BLOCK])
    with steered(model, vectors, 0.5):
        bare = logits(model, OTHER[1])
    adapted = add_lora(model, LoraSettings(r=2, targets=("q_proj", "o_proj")), 0)
    before = outputs(adapted, OTHER[1], [PROJECTION, BLOCK])
    with steered(adapted, vectors, 0.5):
        assert torch.allclose(logits(adapted, OTHER[1]), bare, atol=1e-5)
        found = outputs(adapted, OTHER[1], [PROJECTION, BLOCK])
    torch.testing.assert_close(found[PROJECTION], before[PROJECTION] + 0.5 * vectors[PROJECTION])
    # The later layer was moved by the earlier one's effect besides.
    assert not torch.allclose(found[BLOCK], before[BLOCK] + 0.5 * vectors[BLOCK], atol=1e-3)


def test_nothing_is_moved_at_scale_zero() -> None:
    model = tiny_language_model()
    plain = logits(model, OTHER[0])
    with steered(model, {BLOCK: torch.ones(32)}, 0.0):
        assert torch.equal(logits(model, OTHER[0]), plain)


def test_hooks_are_gone_after_the_block_however_it_ends() -> None:
    model = tiny_language_model()
    vectors = {PROJECTION: torch.ones(32), BLOCK: torch.ones(32)}
    with steered(model, vectors, 1.0):
        assert hooks(model) == 2
    assert hooks(model) == 0
    with pytest.raises(KeyboardInterrupt), steered(model, vectors, 1.0):
        raise KeyboardInterrupt
    assert hooks(model) == 0
    with (
        pytest.raises(ValueError, match=r"the model has no layer 'model\.layers\.9' to steer"),
        steered(model, {BLOCK: torch.ones(32), "model.layers.9": torch.ones(32)}, 1.0),
    ):
        pass
    assert hooks(model) == 0


def test_of_a_layer_that_gives_a_tuple_the_first_entry_is_moved() -> None:
    class Pair(nn.Module):
        def forward(self, inputs: Tensor) -> tuple[Tensor, str]:
            return inputs * 2, "cache"

    model = nn.Sequential(Pair())
    language_model = LanguageModel(model, SimpleNamespace(), "pair")
    with steered(language_model, {"0": torch.tensor([1.0, 2.0], dtype=torch.float64)}, -3.0):
        moved, rest = model(torch.ones(1, 2))
    assert moved.tolist() == [[-1.0, -4.0]]
    assert moved.dtype == torch.float32
    assert rest == "cache"


def test_random_vectors_have_the_same_lengths_and_directions_of_their_own() -> None:
    vectors = {"a": torch.arange(64.0), "b": 1e-3 * torch.ones(64), "c": torch.zeros(64)}
    state = torch.random.get_rng_state()
    one, again, other = random_vectors(vectors, 0), random_vectors(vectors, 0), random_vectors(vectors, 1)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, vector in vectors.items():
        assert torch.equal(one[name], again[name])
        assert one[name].norm().item() == pytest.approx(vector.norm().item(), rel=1e-5)

    def cosine(first: Tensor, second: Tensor) -> float:
        return abs(torch.cosine_similarity(first, second, dim=0).item())

    assert cosine(one["a"], vectors["a"]) < 0.6
    assert cosine(one["a"], one["b"]) < 0.6
    assert cosine(one["a"], other["a"]) < 0.6


def test_padding_does_not_shift_positions_of_models_that_learnt_them() -> None:
    model = tiny_language_model("gpt2")
    short, long = ["Go."], ["Bob would like to know where the coin is.", "Hm."]
    layers = ["transformer.h.1.attn.c_proj"]
    together = mean_difference(model, long, short, layers, batch_size=2)
    apart = mean_difference(model, long, short, layers, batch_size=1)
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-4)
