from types import SimpleNamespace
from typing import Any

import pytest
import torch

from soo_marl.llm.measures.latent import LatentOverlap, LayerGap, LayerOverlap, overlap_and_gap
from soo_marl.llm.model.alignment import TokenBatch
from soo_marl.llm.model.layers import layer_outputs

pytest.importorskip("transformers")


def tiny(layers: int = 2) -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return transformers.LlamaForCausalLM(config).train()


def batch(seed: int, rows: int, tokens: int) -> TokenBatch:
    ids = torch.randint(3, 50, (rows, tokens), generator=torch.Generator().manual_seed(seed))
    return TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool))


def single(batch: TokenBatch, row: int) -> TokenBatch:
    real = batch.attention_mask[row]
    return TokenBatch(batch.input_ids[row : row + 1, real], real[real].unsqueeze(0))


def padded(batch: TokenBatch, left: int, right: int) -> TokenBatch:
    pad = (left, right)
    return TokenBatch(
        torch.nn.functional.pad(batch.input_ids, pad, value=2), torch.nn.functional.pad(batch.attention_mask, pad)
    )


def test_values_by_hand_with_a_shared_prompt_length() -> None:
    model = tiny()
    self_batch, other_batch = batch(0, 3, 4), batch(1, 3, 4)
    measured, _ = overlap_and_gap(model, self_batch, other_batch)
    assert [(value.layer, value.site) for value in measured.values] == [
        (0, "self_attn.o_proj"),
        (0, "mlp"),
        (1, "self_attn.o_proj"),
        (1, "mlp"),
    ]
    assert (measured.pairs, measured.token_mode, measured.skip_header) == (3, "full_masked", 0)
    assert model.training
    for value in measured.values:
        name = f"model.layers.{value.layer}.{value.site}"
        with torch.no_grad():
            one, two = (layer_outputs(model, [name], side)[name].double() for side in (self_batch, other_batch))
        raw, power = (one - two).square().mean().item(), ((one.square() + two.square()) / 2).mean().item()
        assert value.raw == pytest.approx(raw, rel=1e-5)
        assert value.power == pytest.approx(power, rel=1e-5)
        assert value.normalised == pytest.approx(raw / power, rel=1e-5)
        variance = sum(side[:, -1].var(0, unbiased=False).mean().item() for side in (one, two)) / 2
        assert value.prompt_variance == pytest.approx(variance, rel=1e-5)


def test_every_pair_weighs_the_same_however_long() -> None:
    model = tiny()
    ragged = TokenBatch(
        batch(2, 3, 6).input_ids, torch.tensor([[1] * 6, [0, 0, 0, 0, 1, 1], [1, 1, 0, 0, 0, 0]]).bool()
    )
    others = padded(batch(3, 3, 5), 2, 0)
    measured, _ = overlap_and_gap(model, ragged, others)
    alone = [overlap_and_gap(model, single(ragged, row), single(others, row))[0] for row in range(3)]
    for index, value in enumerate(measured.values):
        parts = [one.values[index] for one in alone]
        assert value.raw == pytest.approx(sum(part.raw or 0 for part in parts) / 3, rel=1e-4)
        assert value.power == pytest.approx(sum(part.power or 0 for part in parts) / 3, rel=1e-4)
        assert value.prompt_variance is not None and all(part.prompt_variance is None for part in parts)


def attention(measured: LatentOverlap) -> list[LayerOverlap]:
    return [value for value in measured.values if value.site == "self_attn.o_proj"]


def test_variance_shows_a_collapse_that_power_misses() -> None:
    model = tiny()
    pairs = (batch(0, 4, 5), batch(1, 4, 5))
    before = attention(overlap_and_gap(model, *pairs)[0])
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.bias = torch.nn.Parameter(torch.full((32,), 0.01))
            layer.self_attn.o_proj.weight.mul_(1e-3)
    after = attention(overlap_and_gap(model, *pairs)[0])
    for old, new in zip(before, after, strict=True):
        assert new.power is not None and old.power is not None and new.power > old.power
        assert new.prompt_variance is not None and old.prompt_variance is not None
        assert new.prompt_variance < 1e-4 * old.prompt_variance


def test_values_are_the_same_under_fresh_adapters_and_survive_json() -> None:
    peft = pytest.importorskip("peft")
    pairs = (batch(0, 2, 4), batch(1, 2, 4))
    plain, _ = overlap_and_gap(tiny(), *pairs, "aligned_right")
    adapted = peft.get_peft_model(tiny(), peft.LoraConfig(r=2, target_modules=["q_proj", "o_proj"])).eval()
    wrapped, _ = overlap_and_gap(SimpleNamespace(model=adapted), *pairs, "aligned_right")
    for one, two in zip(plain.values, wrapped.values, strict=True):
        assert (one.layer, one.site) == (two.layer, two.site)
        assert one.raw == pytest.approx(two.raw, rel=1e-5)
    assert LatentOverlap.model_validate_json(plain.model_dump_json()) == plain


def test_layer_gap_is_the_relative_difference_at_the_last_token() -> None:
    model = tiny(layers=3)
    self_batch, other_batch = padded(batch(0, 2, 4), 2, 0), padded(batch(1, 2, 3), 0, 2)
    _, gap = overlap_and_gap(model, self_batch, other_batch)
    assert (gap.layers, gap.pairs, gap.site) == ((0, 1, 2), 2, "self_attn.o_proj")
    names = [f"model.layers.{n}.self_attn.o_proj" for n in range(3)]
    with torch.no_grad():
        one, two = layer_outputs(model, names, batch(0, 2, 4)), layer_outputs(model, names, batch(1, 2, 3))
    for name, value in zip(names, gap.relative, strict=True):
        first, second = one[name][:, -1], two[name][:, -1]
        expected = (first - second).square().mean() / ((first.square() + second.square()) / 2).mean()
        assert value == pytest.approx(expected.item(), rel=1e-4)
    assert LayerGap.model_validate_json(gap.model_dump_json()) == gap


def test_equal_prompts_overlap_fully_in_every_mode() -> None:
    for mode in ("full_masked", "aligned_right", "last", "mean", "full"):
        right = 1 if mode != "full" else 3
        left = padded(batch(0, 2, 4), 3 if mode != "full" else 0, 0 if mode != "full" else 3)
        measured, _ = overlap_and_gap(tiny(), left, padded(batch(0, 2, 4), 0, right), mode)  # type: ignore[arg-type]
        assert all(value.normalised == pytest.approx(0, abs=1e-9) for value in measured.values)


def test_hooks_come_off_and_what_is_not_there_is_refused() -> None:
    model = tiny()
    overlap_and_gap(model, batch(0, 2, 4), batch(1, 2, 4))
    assert all(not module._forward_hooks for module in model.modules())
    with pytest.raises(ValueError, match="no decoder layer has a site"):
        overlap_and_gap(model, batch(0, 2, 4), batch(1, 2, 4), site="self_attn.out")
    with pytest.raises(ValueError, match="one prompt per pair"):
        overlap_and_gap(model, batch(0, 2, 4), batch(1, 3, 4))
