import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")
pytest.importorskip("peft")

sys.path.insert(0, str(Path(__file__).parent))

from tiny_models import tiny_language_model

from soo_marl.llm.methods.organism import Example, answer_loss
from soo_marl.llm.model.adapters import LoraSettings
from soo_marl.llm.model.alignment import TokenBatch
from soo_marl.llm.model.chat import encode, render
from soo_marl.llm.model.layers import layer_outputs, matching_layers
from soo_marl.llm.model.models import LanguageModel, add_lora
from soo_marl.llm.model.shared_prefix import prefix_first, shared_prefix

MESSAGES = ("Where is the coin?", "Where is it?", "Where would you go, and why?")
SHARING = ("llama", "mistral", "qwen2")


def adapted(architecture: str = "llama", dropout: float = 0.0) -> LanguageModel:
    """A model in training whose adapter does something."""
    model = add_lora(tiny_language_model(architecture), LoraSettings(r=2, alpha=4, dropout=dropout), 0)
    for name, weight in model.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.model.train()
    return model


def batch_of(model: LanguageModel, side: Any = "right") -> TokenBatch:
    encoded = encode(model.tokenizer, [render(model.tokenizer, message) for message in MESSAGES], side)
    return TokenBatch(encoded.input_ids, encoded.attention_mask)


def widths_of(model: LanguageModel) -> list[tuple[int, ...]]:
    """Rows and columns of what the decoder is given, filled as it runs."""
    widths: list[tuple[int, ...]] = []
    model.transformer.model.register_forward_pre_hook(
        lambda module, arguments, named: widths.append(tuple(named["input_ids"].shape)), with_kwargs=True
    )
    return widths


def gradients(model: LanguageModel, loss: Tensor) -> list[Tensor]:
    weights = [weight for weight in model.model.parameters() if weight.requires_grad]
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    return [torch.zeros(()) if gradient is None else gradient for gradient in found]


def without_sharing(monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any]) -> Any:
    with monkeypatch.context() as patched:
        for module in ("model.layers", "methods.organism"):
            patched.setattr(f"soo_marl.llm.{module}.shared_prefix", lambda *_: 0)
        return call()


@pytest.mark.parametrize("architecture", SHARING)
def test_outputs_and_gradients_are_those_of_whole_prompts(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(architecture)
    batch, widths = batch_of(model), widths_of(model)
    names = matching_layers(model.model, "0-1")

    def computed() -> tuple[dict[str, Tensor], list[Tensor]]:
        outputs = layer_outputs(model.model, names, batch)
        real = [output[batch.attention_mask] for output in outputs.values()]
        weight = torch.linspace(-1, 1, len(real[0]))[:, None]
        return outputs, gradients(model, sum(((one * weight) ** 2).sum() for one in real))  # type: ignore[arg-type]

    outputs, pushes = computed()
    prefix, longest = shared_prefix(model.model, batch), batch.input_ids.shape[1]
    assert widths == [(1, prefix), (3, longest - prefix)]
    whole, expected = without_sharing(monkeypatch, computed)
    assert widths[2:] == [(3, longest)]
    for name in names:
        torch.testing.assert_close(
            outputs[name][batch.attention_mask], whole[name][batch.attention_mask], rtol=1e-4, atol=1e-5
        )
    for push, own in zip(pushes, expected, strict=True):
        torch.testing.assert_close(push, own, rtol=1e-4, atol=1e-4 * float(own.abs().max()))
    assert max(float(push.abs().max()) for push in pushes) > 0


def test_answers_are_taught_as_by_whole_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted()
    # Two requests are alike, and so are the beginnings of their answers.
    examples = [
        Example("Where is the coin?", "The coin is in the attic.", "attic"),
        Example("Where is the coin?", "The coin is in the attics.", "attics"),
        Example("Where is the large coin?", "Hall.", "Hall"),
    ]
    for chosen in (examples, examples[:2]):

        def computed(batch: list[Example] = chosen) -> tuple[float, list[Tensor]]:
            loss = answer_loss(model, batch, 1.0, 0.1)
            return float(loss.detach()), gradients(model, loss)

        loss, pushes = computed()
        whole, expected = without_sharing(monkeypatch, computed)
        assert loss == pytest.approx(whole, rel=1e-5)
        for push, own in zip(pushes, expected, strict=True):
            torch.testing.assert_close(push, own, rtol=1e-3, atol=1e-5)


def test_what_cannot_be_shared_is_computed_whole() -> None:
    model = adapted()
    batch = batch_of(model)
    common = shared_prefix(model.model, batch)
    rows = batch.input_ids[:, :common]
    assert common > 8 and bool((rows == rows[:1]).all())
    # Dropout drops others in every row, unless it is off.
    dropping = adapted(dropout=0.5)
    assert shared_prefix(dropping.model, batch) == 0
    dropping.model.eval()
    assert shared_prefix(dropping.model, batch) == common
    quiet = adapted()
    quiet.model.train()
    quiet.transformer.model.layers[0].self_attn.attention_dropout = 0.3
    assert shared_prefix(quiet.model, batch) == 0
    # Nothing to share.
    one = TokenBatch(batch.input_ids[:1], batch.attention_mask[:1])
    assert shared_prefix(model.model, one) == 0
    assert shared_prefix(adapted("gemma2").model, batch_of(adapted("gemma2"))) == 0
    # Recomputed activations leave no cache.
    model.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert shared_prefix(model.model, batch) == 0


def test_a_token_of_every_prompt_is_left() -> None:
    model = adapted()
    batch = batch_of(model)
    twice = TokenBatch(batch.input_ids[[1, 1]], batch.attention_mask[[1, 1]])
    assert shared_prefix(model.model, twice) == int(batch.attention_mask[1].sum()) - 1
    begun = TokenBatch(batch.input_ids[:, :8], batch.attention_mask[:, :8])
    assert shared_prefix(model.model, begun) == 0, "seven tokens are not worth a pass"


def test_padding_moves_behind_the_prefix() -> None:
    model = adapted()
    batch = batch_of(model, "left")
    prefix = shared_prefix(model.model, batch)
    moved = prefix_first(batch, prefix)
    assert bool(moved.attention_mask[:, :prefix].all())
    for row in range(len(MESSAGES)):
        real, own = moved.input_ids[row][moved.attention_mask[row]], batch.input_ids[row][batch.attention_mask[row]]
        assert torch.equal(real, own)
    assert torch.equal(moved.input_ids[:, -5:], batch.input_ids[:, -5:])
    # Where it stays on the left, recorded outputs have every prompt whole.
    widths = widths_of(model)
    layer_outputs(model.model, matching_layers(model.model, 0), batch)
    assert widths == [tuple(batch.input_ids.shape)]
