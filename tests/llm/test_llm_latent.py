from types import SimpleNamespace
from typing import Any

import pytest
import torch

from soo_marl.llm.measures.latent import LatentOverlap, LayerGap, latent_overlap, layer_gap
from soo_marl.llm.model.alignment import PaddedBatch
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


def batch(seed: int, rows: int, tokens: int) -> PaddedBatch:
    ids = torch.randint(3, 50, (rows, tokens), generator=torch.Generator().manual_seed(seed))
    return PaddedBatch(ids, torch.ones_like(ids, dtype=torch.bool))


def single(batch: PaddedBatch, row: int) -> PaddedBatch:
    real = batch.attention_mask[row]
    return PaddedBatch(batch.input_ids[row : row + 1, real], real[real].unsqueeze(0))


def padded(batch: PaddedBatch, left: int, right: int) -> PaddedBatch:
    pad = (left, right)
    return PaddedBatch(
        torch.nn.functional.pad(batch.input_ids, pad, value=2), torch.nn.functional.pad(batch.attention_mask, pad)
    )


def test_values_by_hand_with_a_shared_prompt_length() -> None:
    model = tiny()
    self_batch, other_batch = batch(0, 3, 4), batch(1, 3, 4)
    measured = latent_overlap(model, [self_batch], [other_batch])
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


def test_every_pair_weighs_the_same_however_long_and_however_batched() -> None:
    model = tiny()
    ragged = PaddedBatch(batch(2, 2, 6).input_ids, torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1]]).bool())
    self_batches = [padded(batch(0, 1, 2), 0, 4), ragged]
    other_batches = [padded(batch(1, 1, 3), 2, 0), batch(3, 2, 5)]
    measured = latent_overlap(model, self_batches, other_batches)
    alone = [
        latent_overlap(model, [single(self_batches[b], row)], [single(other_batches[b], row)])
        for b, row in ((0, 0), (1, 0), (1, 1))
    ]
    split = latent_overlap(
        model,
        [single(self_batches[b], row) for b, row in ((0, 0), (1, 0), (1, 1))],
        [single(other_batches[b], row) for b, row in ((0, 0), (1, 0), (1, 1))],
    )
    for index, value in enumerate(measured.values):
        parts = [one.values[index] for one in alone]
        assert value.raw == pytest.approx(sum(part.raw or 0 for part in parts) / 3, rel=1e-4)
        assert value.power == pytest.approx(sum(part.power or 0 for part in parts) / 3, rel=1e-4)
        assert value.prompt_variance == pytest.approx(split.values[index].prompt_variance, rel=1e-4)
        assert all(part.prompt_variance is None for part in parts)


def test_variance_shows_a_collapse_that_power_misses() -> None:
    model = tiny()
    pairs = ([batch(0, 4, 5)], [batch(1, 4, 5)])
    before = latent_overlap(model, *pairs, sites=("self_attn.o_proj",))
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.bias = torch.nn.Parameter(torch.full((32,), 0.01))
            layer.self_attn.o_proj.weight.mul_(1e-3)
    after = latent_overlap(model, *pairs, sites=("self_attn.o_proj",))
    for old, new in zip(before.values, after.values, strict=True):
        assert new.power is not None and old.power is not None and new.power > old.power
        assert new.prompt_variance is not None and old.prompt_variance is not None
        assert new.prompt_variance < 1e-4 * old.prompt_variance


def test_all_sites_are_the_linear_maps_also_under_adapters() -> None:
    peft = pytest.importorskip("peft")
    pairs = ([batch(0, 2, 4)], [batch(1, 2, 4)])
    plain = latent_overlap(tiny(), *pairs, sites="all", mode="aligned_right", skip_header=1)
    assert [value.site for value in plain.values if value.layer == 1] == [
        *(f"self_attn.{part}_proj" for part in "qkvo"),
        *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
    ]
    adapted = peft.get_peft_model(tiny(), peft.LoraConfig(r=2, target_modules=["q_proj", "o_proj"])).eval()
    wrapped = latent_overlap(SimpleNamespace(model=adapted), *pairs, sites="all", mode="aligned_right", skip_header=1)
    for one, two in zip(plain.values, wrapped.values, strict=True):
        assert (one.layer, one.site) == (two.layer, two.site)
        assert one.raw == pytest.approx(two.raw, rel=1e-5)


def test_mean_over_layers_and_json() -> None:
    measured = latent_overlap(tiny(), [batch(0, 2, 4)], [batch(1, 2, 4)], sites=("mlp", ""))
    values = [value.raw or 0 for value in measured.values if value.site == "mlp"]
    assert measured.mean("mlp") == pytest.approx(sum(values) / 2)
    assert LatentOverlap.model_validate_json(measured.model_dump_json()) == measured
    with pytest.raises(ValueError, match="sites are , mlp"):
        measured.mean("self_attn")


def test_layer_gap_is_the_relative_difference_at_the_last_token() -> None:
    model = tiny(layers=3)
    self_batch, other_batch = padded(batch(0, 2, 4), 2, 0), padded(batch(1, 2, 3), 0, 2)
    gap = layer_gap(model, [self_batch], [other_batch])
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
        measured = latent_overlap(
            tiny(),
            [padded(batch(0, 2, 4), 3, 0)],
            [padded(batch(0, 2, 4), 0, 1)],
            mode=mode,  # type: ignore[arg-type]
        )
        assert all(value.normalised == pytest.approx(0, abs=1e-9) for value in measured.values)


def test_hooks_come_off_and_what_is_not_there_is_refused() -> None:
    model = tiny()
    latent_overlap(model, [batch(0, 2, 4)], [batch(1, 2, 4)])
    assert all(not module._forward_hooks for module in model.modules())
    with pytest.raises(ValueError, match="no decoder layer has a site"):
        latent_overlap(model, [batch(0, 2, 4)], [batch(1, 2, 4)], sites=("mlp", "self_attn.out"))
    with pytest.raises(ValueError, match="at least one batch"):
        latent_overlap(model, [], [])
    with pytest.raises(ValueError, match="shorter"):
        latent_overlap(model, [batch(0, 2, 4)], [])
