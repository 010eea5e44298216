import warnings
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from soo_marl.llm.methods.loss import LanguageOverlapLoss, LossConfig, padding_token
from soo_marl.llm.model.alignment import TokenBatch, TokenMode
from soo_marl.llm.model.layers import layer_outputs
from soo_marl.overlap import overlap_loss, record_activations

pytest.importorskip("transformers")
pytest.importorskip("peft")

FAMILIES = ("Mistral", "Gemma2", "Qwen2", "Llama")
MODES: tuple[TokenMode, ...] = ("full_masked", "aligned_right", "last", "mean", "full")


def tiny(family: str = "Llama", layers: int = 3, lora: bool = True, trained: bool = False, **settings: Any) -> Any:
    """A tiny model in evaluation mode, with fresh LoRA on the query and value projections, or LoRA that does much."""
    import peft
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        **settings,
    )
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    if not lora:
        return model
    torch.manual_seed(1)
    adapter = peft.LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=not trained)
    return peft.get_peft_model(model, adapter)


def batch(seed: int, *lengths: int, columns: int = 8, side: str = "right") -> TokenBatch:
    """Prompts of random tokens; the padding is a token that prompts contain too."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((len(lengths), columns), 2)
    mask = torch.zeros(len(lengths), columns, dtype=torch.bool)
    for row, length in enumerate(lengths):
        place = slice(0, length) if side == "right" else slice(columns - length, columns)
        ids[row, place] = torch.randint(2, 50, (length,), generator=generator)
        mask[row, place] = True
    return TokenBatch(ids, mask)


SELF, OTHER = batch(0, 5, 7, side="left"), batch(1, 6, 4, columns=6)


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_same_gradients(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, gradient in one.items():
        torch.testing.assert_close(gradient, two[name], msg=name)


def hooks(model: Any) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_moves_the_adapters_up_to_the_layer_and_nothing_else(family: str) -> None:
    model = tiny(family, layers=4)
    loss = LanguageOverlapLoss(LossConfig(layers=2))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    hooks_before = hooks(model)
    values = []
    for _ in range(8):
        value = loss(model, SELF, OTHER)
        grads = gradients(model, value)
        optimizer.step()
        values.append(value.item())
    assert hooks(model) == hooks_before
    assert values[-1] < 0.9 * values[0]
    layers = {name: int(name.split(".layers.")[1].split(".")[0]) for name in before if "lora_" in name}
    assert {name for name, layer in layers.items() if layer <= 2} == grads.keys()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (layers.get(name, 4) > 2), name


def test_the_value_is_the_core_loss_of_what_a_plain_recording_gives() -> None:
    model = tiny(lora=False)
    name = "model.layers.1.self_attn.o_proj"
    one, two = batch(0, 5, 5, columns=5), batch(1, 5, 5, columns=5)
    with record_activations(model, [name]) as record:
        model(one.input_ids)
        first = record.take()
        model(two.input_ids)
        expected = overlap_loss(first, record.take())
    for mode in ("full_masked", "aligned_right", "full"):
        torch.testing.assert_close(
            LanguageOverlapLoss(LossConfig(layers=1, token_mode=mode))(model, one, two), expected
        )


def test_several_layers_weigh_the_same() -> None:
    model = tiny()
    value = LanguageOverlapLoss(LossConfig(layers="0-2"))(model, SELF, OTHER)
    alone = [LanguageOverlapLoss(LossConfig(layers=n))(model, SELF, OTHER) for n in range(3)]
    torch.testing.assert_close(value, sum(alone) / 3)
    assert value.requires_grad


@pytest.mark.parametrize("mode", MODES)
def test_equal_prompts_give_zero_unequal_ones_do_not_and_padding_side_does_not_matter(mode: TokenMode) -> None:
    model = tiny(trained=True)
    loss = LanguageOverlapLoss(LossConfig(layers=1, token_mode=mode))
    left, right = batch(5, 4, 6, columns=9, side="left"), batch(5, 4, 6, columns=6)
    assert loss(model, left, right).item() == pytest.approx(0, abs=1e-10)
    other = batch(6, 5, 3, columns=7, side="left")
    assert loss(model, left, other).item() > 1e-7
    torch.testing.assert_close(loss(model, left, other), loss(model, right, other), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", ["full_masked", "last"])
def test_stopping_early_changes_neither_loss_nor_gradient(family: str, mode: TokenMode) -> None:
    model = tiny(family, trained=True)
    results = []
    for stop_early in (False, True):
        config = LossConfig(layers="0-1", token_mode=mode, stop_early=stop_early)
        value = LanguageOverlapLoss(config)(model, SELF, OTHER)
        results.append((value.detach(), gradients(model, value)))
    assert torch.equal(results[0][0], results[1][0])
    assert_same_gradients(results[0][1], results[1][1])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stop_early", [False, True])
def test_checkpointing_that_is_not_reentrant_gives_the_same_gradients(family: str, stop_early: bool) -> None:
    model = tiny(family, trained=True).train()
    loss = LanguageOverlapLoss(LossConfig(layers="0-1", stop_early=stop_early))
    plain = loss(model, SELF, OTHER)
    expected = gradients(model, plain)
    checkpointing(model, use_reentrant=False)
    calls = []
    handle = model.get_base_model().model.layers[0].self_attn.o_proj.register_forward_hook(lambda *_: calls.append(1))
    value = loss(model, SELF, OTHER)
    torch.testing.assert_close(value, plain)
    assert_same_gradients(gradients(model, value), expected)
    handle.remove()
    assert len(calls) > 2, "checkpointing was not in use: the layers did not run again"


def test_reentrant_checkpointing_is_refused() -> None:
    model = tiny().train()
    checkpointing(model, use_reentrant=True)
    with pytest.raises(ValueError, match="reentrant gradient checkpointing detaches"):
        LanguageOverlapLoss(LossConfig(layers=1))(model, SELF, OTHER)
    with torch.no_grad():
        assert LanguageOverlapLoss(LossConfig(layers=1))(model, SELF, OTHER).item() > 0


def checkpointing(model: Any, use_reentrant: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model.get_base_model().gradient_checkpointing_enable({"use_reentrant": use_reentrant})


@pytest.mark.parametrize("kind", ["mse_hidden", "kl_logits"])
def test_towards_self_the_gradient_is_that_of_the_other_side_alone(kind: Any) -> None:
    model = tiny(trained=True)
    mode: TokenMode = "full"
    settings = {"kind": kind, "layers": 1, "token_mode": mode, "padded_length": 8}
    both, to_self, to_initial = (
        LanguageOverlapLoss(LossConfig(**settings, sides=sides))  # type: ignore[arg-type]
        for sides in ("both", "other_to_self", "initial_self")
    )
    # The self of the moment, stored, is what the other side moves towards.
    targets = to_initial.frozen_targets(model, [SELF])
    values = [both(model, SELF, OTHER), to_self(model, SELF, OTHER), to_initial(model, SELF, OTHER, targets)]
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(values[0], values[2])
    grads = [gradients(model, value) for value in values]
    assert_same_gradients(grads[1], grads[2])
    assert any(not torch.allclose(grads[0][name], grads[1][name]) for name in grads[0])


@pytest.mark.parametrize("mode", ["full_masked", "aligned_right", "last", "mean"])
def test_the_frozen_self_is_what_the_model_gave_before_training(mode: TokenMode) -> None:
    model = tiny()
    loss = LanguageOverlapLoss(LossConfig(layers="0-1", token_mode=mode, sides="initial_self"))
    targets = loss.frozen_targets(model, [SELF, batch(7, 3, columns=3)])
    assert targets.mask.sum(1).tolist() == [5, 7, 3]
    plain = layer_outputs(tiny(lora=False), ["model.layers.1.self_attn.o_proj"], SELF)[
        "model.layers.1.self_attn.o_proj"
    ]
    stored = targets.activations["base_model.model.model.layers.1.self_attn.o_proj"]
    torch.testing.assert_close(stored[:2], plain)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.ones_(parameter)
    value = loss(model, SELF, OTHER, targets.rows([0, 1]))
    swapped = [TokenBatch(b.input_ids[[1, 0]], b.attention_mask[[1, 0]]) for b in (SELF, OTHER)]
    torch.testing.assert_close(value, loss(model, *swapped, targets.rows(torch.tensor([1, 0]))))
    other = LanguageOverlapLoss(LossConfig(layers="0-1", token_mode=mode, sides="other_to_self"))(model, SELF, OTHER)
    assert not torch.allclose(value, other, rtol=1e-3)


def test_computing_the_frozen_self_leaves_modes_and_frozen_adapters_as_they_were() -> None:
    model = tiny(trained=True).train()
    for name, parameter in model.named_parameters():
        if ".layers.2." in name:
            parameter.requires_grad_(False)
    before = [(name, p.requires_grad) for name, p in model.named_parameters()]
    LanguageOverlapLoss(LossConfig(layers=1, sides="initial_self")).frozen_targets(model, [SELF])
    assert [(name, p.requires_grad) for name, p in model.named_parameters()] == before
    assert model.training and model.get_model_status().enabled is True


def test_a_frozen_self_needs_targets_from_before_training() -> None:
    model = tiny(lora=False)
    loss = LanguageOverlapLoss(LossConfig(layers=1, sides="initial_self"))
    with pytest.raises(ValueError, match="computed before training"):
        loss(model, SELF, OTHER)
    targets = loss.frozen_targets(model, [SELF])
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(1.5)
    equal = LanguageOverlapLoss(LossConfig(layers=1))(model, SELF, SELF)
    assert equal.item() == 0 and loss(model, SELF, SELF, targets).item() > 1e-6


def test_divided_by_its_initial_value_every_layer_starts_at_one() -> None:
    model = tiny(family="Gemma2")
    one = (batch(3, 5, columns=5), batch(4, 5, columns=5))
    for layers in ("0-2", 0, 1, 2):
        loss = LanguageOverlapLoss(LossConfig(layers=layers, normalise_by_initial=True))
        with pytest.raises(ValueError, match="measure_initial"):
            loss(model, *one)
        loss.measure_initial(model, [one])
        assert loss.initial is not None and len(loss.initial) == (3 if layers == "0-2" else 1)
        assert loss(model, *one).item() == pytest.approx(1)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    loss(model, *one).backward()
    optimizer.step()
    assert loss(model, *one).item() < 0.999


def test_the_initial_value_is_the_mean_over_pairs_however_they_are_batched() -> None:
    model = tiny().train()
    more = (batch(8, 4, 4, 4, columns=4), batch(9, 5, 5, 5, columns=5))
    loss = LanguageOverlapLoss(LossConfig(layers=1, normalise_by_initial=True))
    initial = list(loss.measure_initial(model, [(SELF, OTHER), more]).values())
    raw, pairs = LanguageOverlapLoss(LossConfig(layers=1)), [(SELF, OTHER), more]
    model.eval()
    alone = [
        raw(model, *(TokenBatch(b.input_ids[[row]], b.attention_mask[[row]]) for b in pair)).item()
        for pair in pairs
        for row in range(len(pair[0].input_ids))
    ]
    model.train()
    assert initial == pytest.approx([sum(alone) / 5])
    assert loss(model.eval(), SELF, OTHER).item() == pytest.approx(raw(model, SELF, OTHER).item() / initial[0])


def test_the_initial_value_towards_a_frozen_self_uses_every_prompts_own_target() -> None:
    model = tiny(trained=True)
    more = (batch(8, 4, 4, columns=4), batch(9, 5, 3, columns=5))
    loss = LanguageOverlapLoss(LossConfig(layers=1, sides="initial_self", normalise_by_initial=True))
    stored = loss.measure_initial(model, [(SELF, OTHER), more], loss.frozen_targets(model, [SELF, more[0]]))
    moment = LanguageOverlapLoss(LossConfig(layers=1)).measure_initial(model, [(SELF, OTHER), more])
    assert list(stored.values()) == pytest.approx(list(moment.values()))


def test_nothing_can_be_divided_by_a_loss_of_zero() -> None:
    with pytest.raises(ValueError, match="turn normalise_by_initial off"):
        LanguageOverlapLoss(LossConfig(layers=1, normalise_by_initial=True)).measure_initial(tiny(), [(SELF, SELF)])


@pytest.mark.parametrize("side", ["left", "right"])
def test_divergence_of_logits_as_in_the_public_code(side: Any) -> None:
    model = tiny()
    config = LossConfig(kind="kl_logits", token_mode="full", padded_length=12, padding_side=side, pad_token=2)
    one, two = batch(0, 5, 7, columns=12, side=side), batch(1, 6, 4, columns=12, side=side)
    probabilities = [model(b.input_ids, attention_mask=b.attention_mask.long()).logits.softmax(-1) for b in (one, two)]
    by_hand = (probabilities[1] * (probabilities[1] / probabilities[0]).log()).sum() / 2
    value = LanguageOverlapLoss(config)(model, SELF, OTHER)
    torch.testing.assert_close(value, by_hand, rtol=1e-4, atol=1e-6)
    reached = {int(name.split(".layers.")[1].split(".")[0]) for name in gradients(model, value)}
    assert reached == {0, 1, 2}


def test_errors_of_half_precision_models_are_computed_in_single_precision() -> None:
    model = tiny(trained=True).to(torch.bfloat16)
    loss = LanguageOverlapLoss(LossConfig(layers=1))
    value = loss(model, SELF, OTHER)
    assert value.dtype == torch.float32
    name = "base_model.model.model.layers.1.self_attn.o_proj"
    one, two = (layer_outputs(model, [name], b)[name].float() for b in (batch(3, 5, columns=5), batch(4, 5, columns=5)))
    torch.testing.assert_close(
        loss(model, batch(3, 5, columns=5), batch(4, 5, columns=5)), (one - two).square().mean(), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("stop_early", [False, True])
def test_hooks_come_off_when_the_forward_pass_fails(stop_early: bool) -> None:
    model = tiny()
    before = hooks(model)
    broken = TokenBatch(torch.full((1, 4), 1000), torch.ones(1, 4, dtype=torch.bool))
    with pytest.raises(IndexError):
        LanguageOverlapLoss(LossConfig(layers=1, stop_early=stop_early))(model, SELF, broken)
    with pytest.raises(IndexError):
        LanguageOverlapLoss(LossConfig(layers=1, stop_early=stop_early))(model, broken, SELF)
    assert hooks(model) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "kl_logits"}, "set token_mode to full"),
        ({"skip_header": 2}, "only with token_mode aligned_right"),
        ({"sides": "initial_self", "token_mode": "full"}, "set padded_length"),
        ({"layer": 3}, "Extra inputs"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LossConfig(**settings)


def test_settings_survive_json() -> None:
    config = LossConfig(layers=(8, "10-12"), token_mode="aligned_right", skip_header=2, sides="initial_self")
    assert LossConfig.model_validate_json(config.model_dump_json()) == config


def test_unwanted_or_unfit_targets_are_refused() -> None:
    model = tiny()
    frozen = LanguageOverlapLoss(LossConfig(layers=1, sides="initial_self"))
    targets = frozen.frozen_targets(model, [SELF])
    with pytest.raises(ValueError, match="leave them out"):
        LanguageOverlapLoss(LossConfig(layers=1))(model, SELF, OTHER, targets)
    with pytest.raises(ValueError, match="compute them anew"):
        LanguageOverlapLoss(LossConfig(layers=2, sides="initial_self"))(model, SELF, OTHER, targets)
    with pytest.raises(ValueError, match="one prompt per pair"):
        frozen(model, SELF, OTHER, targets.rows([0]))


def test_padding_token_falls_back_to_the_end_token() -> None:
    assert padding_token(tiny(pad_token_id=7)) == 7
    assert padding_token(tiny(pad_token_id=None, eos_token_id=[4, 5])) == 4
    assert padding_token(tiny(pad_token_id=None, eos_token_id=None)) == 0
