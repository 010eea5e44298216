import re
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")
pytest.importorskip("peft")

sys.path.insert(0, str(Path(__file__).parent))

from tiny_models import tiny_language_model

from soo_marl.engines import Interrupted
from soo_marl.llm.methods.finetuning import METHODS, finetune, kept_pairs, method_named, training_pairs
from soo_marl.llm.methods.loss import LanguageOverlapLoss, LossConfig
from soo_marl.llm.methods.recipes import Recipe
from soo_marl.llm.model.adapters import LoraSettings
from soo_marl.llm.model.chat import encode, render
from soo_marl.llm.model.generation import generate_texts
from soo_marl.llm.model.layers import layer_outputs
from soo_marl.llm.model.models import LanguageModel, add_lora
from soo_marl.llm.prompts.pairs import PromptPair, pairs
from soo_marl.llm.prompts.scenarios import prompts
from soo_marl.storage.files import RunDirectoryError

OWN = (
    ("You hide the coin.", "Bob hides the coin."),
    ("You want one ruby.", "Carla wants one ruby."),
    ("You ask yourself.", "A thief asks you."),
    ("You look for it.", "Dan looks for it."),
    ("Where would you go?", "Where would Eve go?"),
)
LAYERS = ("model.layers.1.self_attn.o_proj", "model.layers.2.self_attn.o_proj")


def recipe(**changes: Any) -> Recipe:
    loss = {"layers": "1-2", "token_mode": "last"} | changes.pop("loss", {})
    lora = {"r": 2, "dropout": 0.0} | changes.pop("lora", {})
    fields: dict[str, Any] = {"own_pairs": OWN[:4], "learning_rate": 1e-2, "epochs": 2, "batch_size": 2} | changes
    return Recipe(loss=LossConfig(**loss), lora=LoraSettings(**lora), **fields)


def tiny() -> LanguageModel:
    return tiny_language_model()


def adapter(model: LanguageModel) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.model.named_parameters() if "lora_" in name}


def assert_same_bits(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, weight in one.items():
        assert torch.equal(weight, other[name]), name


def pairs_of(method: str, chosen: Recipe, seed: int = 3) -> list[PromptPair]:
    return method_named(method).pairs(chosen, seed)


@pytest.mark.parametrize("kind", ["fragments", "scenario", "friend"])
def test_soo_and_random_targets_have_the_recipes_pairs(kind: Any) -> None:
    chosen = Recipe(pairs=kind, pair_count=6)
    assert pairs_of("soo", chosen) == pairs_of("random_target", chosen) == pairs(kind, 6, 3, "train")
    assert [name for name, method in METHODS.items() if method.random_target] == ["random_target"]


@pytest.mark.parametrize("kind", ["scenario", "friend", "sham"])
def test_a_sham_compares_one_burglar_with_another(kind: Any) -> None:
    chosen = Recipe(pairs=kind, pair_count=6)
    for sham, real in zip(pairs_of("sham", chosen), pairs_of("soo", chosen), strict=True):
        assert sham.other_text == real.other_text
        assert sham.self_text != sham.other_text
        names = [re.search(r"burglar (\w+)", text) for text in (sham.self_text, sham.other_text)]
        assert names[0] and names[1]
        assert sham.self_text.replace(names[0].group(1), names[1].group(1)) == sham.other_text


@pytest.mark.parametrize("kind", ["fragments", "sham_fragments"])
def test_a_sham_of_fragments_compares_one_name_with_another(kind: Any) -> None:
    chosen = Recipe(pairs=kind, pair_count=6)
    for sham, real in zip(pairs_of("sham", chosen), pairs_of("soo", chosen), strict=True):
        assert sham.other_text == real.other_text
        assert "Bob" not in sham.self_text
        assert not re.search(r"\b[Yy]ou\b", sham.self_text.split(".")[0])


def test_shuffled_sides_exchange_some_pairs_and_shuffled_partners_break_all() -> None:
    chosen = Recipe(pairs="scenario", pair_count=20)
    real = pairs_of("soo", chosen)
    exchanged = [found != pair for found, pair in zip(pairs_of("shuffled", chosen), real, strict=True)]
    assert 0 < sum(exchanged) < 20
    for found, pair in zip(pairs_of("shuffled", chosen), real, strict=True):
        assert {found.self_text, found.other_text} == {pair.self_text, pair.other_text}
    broken = pairs_of("shuffled_partners", chosen)
    assert [pair.self_text for pair in broken] == [pair.self_text for pair in real]
    assert Counter(pair.other_text for pair in broken) == Counter(pair.other_text for pair in real)
    assert all(found.other_text != pair.other_text for found, pair in zip(broken, real, strict=True))


def test_own_pairs_take_the_place_of_the_recipes_in_every_method() -> None:
    chosen = recipe(own_pairs=OWN)
    real = [PromptPair(*texts, number) for number, texts in enumerate(OWN)]
    others = [other for _, other in OWN]
    assert pairs_of("soo", chosen) == pairs_of("random_target", chosen) == real
    sham = pairs_of("sham", chosen)
    assert sorted(pair.self_text for pair in sham) == sorted(pair.other_text for pair in sham) == sorted(others)
    assert all(pair.self_text != pair.other_text for pair in sham)
    for method in ("shuffled", "shuffled_partners"):
        found = pairs_of(method, chosen)
        assert len(found) == len(OWN)
        assert sorted(text for pair in found for text in (pair.self_text, pair.other_text)) == sorted(
            text for texts in OWN for text in texts
        )


@pytest.mark.parametrize("method", METHODS)
def test_pairs_follow_from_the_seed(method: str) -> None:
    chosen = Recipe(pair_count=12)
    assert pairs_of(method, chosen, 1) == pairs_of(method, chosen, 1) != pairs_of(method, chosen, 2)


def move(adapted: LanguageModel) -> None:
    """Let the adapter do much."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in adapted.model.named_parameters():
        if "lora_B" in name:
            weight.data.copy_(torch.randn(weight.shape, generator=generator))


def test_targets_towards_the_initial_self_come_from_the_model_before_training() -> None:
    chosen = recipe(loss={"sides": "initial_self", "token_mode": "aligned_right"})
    loss, real = LanguageOverlapLoss(chosen.loss), pairs_of("soo", chosen)
    adapted = add_lora(tiny(), LoraSettings(r=2, dropout=0.5), 0)
    adapted.model.train()
    found = training_pairs(adapted, real, chosen, loss, 0)
    assert found.targets is not None
    move(adapted)
    untouched = tiny()
    for row, pair in enumerate(real):
        text = render(untouched.tokenizer, pair.self_text)
        batch = encode(untouched.tokenizer, [text])
        with torch.no_grad():
            expected = layer_outputs(untouched.model, LAYERS, batch)
            now = layer_outputs(adapted.transformer, LAYERS, batch)
        length = batch.input_ids.shape[1]
        assert found.targets.mask[row].sum() == length
        for name in LAYERS:
            target = found.targets.activations[f"base_model.model.{name}"][row, :length]
            torch.testing.assert_close(target, expected[name][0])
            assert not torch.allclose(target, now[name][0], atol=1e-2)
    assert adapted.model.training


def test_other_losses_have_no_targets_and_both_sides_are_rendered_as_the_recipe_says() -> None:
    model = tiny()
    for raw in (False, True):
        chosen = recipe(raw=raw)
        found = training_pairs(model, pairs_of("soo", chosen), chosen, LanguageOverlapLoss(chosen.loss), 0)
        assert found.targets is None
        for side, place in ((found.self_side, 0), (found.other_side, 1)):
            for row, texts in zip(side, OWN, strict=False):
                expected = "<|begin|>" + (texts[place] if raw else f"[user]{texts[place]}[/][assistant]")
                assert model.tokenizer.decode(row.input_ids[0]) == expected


def distances(chosen: Recipe, model: LanguageModel) -> dict[str, float]:
    """Mean squared difference of self and other at each layer, pair by pair, by hand."""
    sums = dict.fromkeys(LAYERS, 0.0)
    for texts in chosen.own_pairs:
        self_side, other_side = (
            layer_outputs(model.model, LAYERS, encode(model.tokenizer, [render(model.tokenizer, text)]))
            for text in texts
        )
        for name in LAYERS:
            difference = self_side[name][0, -1] - other_side[name][0, -1]
            sums[name] += difference.square().mean().item() / len(chosen.own_pairs)
    return sums


@pytest.mark.parametrize("sides", ["both", "initial_self"])
def test_random_targets_lie_as_far_from_other_as_self_does(sides: str) -> None:
    model = tiny()
    chosen = recipe(loss={"sides": sides})
    with torch.no_grad():
        expected = distances(chosen, model)
    adapted = add_lora(model, chosen.lora, 0)
    loss = LanguageOverlapLoss(chosen.loss)
    found = training_pairs(adapted, pairs_of("random_target", chosen), chosen, loss, 0, random_target=True)
    assert found.targets is not None
    assert loss.config.sides == "initial_self"
    for row, batch in enumerate(found.other_side):
        assert batch is found.self_side[row]
        values = [loss(adapted.model, batch, batch, found.targets.rows([row])).item()]
        assert values == pytest.approx([sum(expected.values()) / len(LAYERS)], rel=1e-4)

    def directions(seed: int) -> list[Tensor]:
        own = LanguageOverlapLoss(chosen.loss)
        drawn = training_pairs(adapted, pairs_of("random_target", chosen), chosen, own, seed, random_target=True)
        assert drawn.targets is not None
        return [
            drawn.targets.activations[f"base_model.model.{name}"][0, -1]
            - layer_outputs(adapted.transformer, LAYERS, found.other_side[0])[name][0, -1]
            for name in LAYERS
        ]

    with torch.no_grad():
        one, again, other = directions(0), directions(0), directions(1)
    assert all(torch.equal(*pair) for pair in zip(one, again, strict=True))
    cosines = [
        torch.cosine_similarity(*pair, dim=0).item() for pair in [*zip(one, other, strict=True), (one[0], one[1])]
    ]
    assert all(abs(cosine) < 0.9 for cosine in cosines)


def test_random_targets_start_at_the_overlap_of_soo() -> None:
    one_step = recipe(epochs=1, batch_size=4)
    assert finetune(tiny(), one_step, "random_target", 0)[1] == pytest.approx(
        finetune(tiny(), one_step, "soo", 0)[1], rel=1e-4
    )


def test_random_targets_are_refused_where_there_are_no_activations_to_move() -> None:
    chosen = recipe(loss={"kind": "kl_logits", "token_mode": "full", "padded_length": 64})
    with pytest.raises(ValueError, match="use them with the loss mse_hidden"):
        finetune(tiny(), chosen, "random_target", 0)


def test_random_targets_by_all_columns_need_a_length_to_pad_to() -> None:
    with pytest.raises(ValueError, match="set padded_length"):
        finetune(tiny(), recipe(loss={"token_mode": "full"}), "random_target", 0)
    losses = finetune(tiny(), recipe(loss={"token_mode": "full", "padded_length": 64}), "random_target", 0)[1]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "loss",
    [
        {"token_mode": "last"},
        {"token_mode": "mean", "sides": "initial_self", "normalise_by_initial": True},
        {"kind": "kl_logits", "token_mode": "full", "padded_length": 64, "padding_side": "left"},
    ],
    ids=["last", "initial self", "logits"],
)
def test_accumulation_gives_what_one_large_batch_gives(loss: dict[str, Any]) -> None:
    # With other seeds a weight may have so small a gradient that rounding decides where its first step goes.
    large, large_losses = finetune(tiny(), recipe(loss=loss, own_pairs=OWN, batch_size=4), "soo", 2)
    parts, losses = finetune(tiny(), recipe(loss=loss, own_pairs=OWN, batch_size=2, accumulation=2), "soo", 2)
    assert len(losses) == 4  # two passes of four pairs and one
    assert losses == pytest.approx(large_losses, rel=1e-3)
    for name, weight in adapter(large).items():
        torch.testing.assert_close(adapter(parts)[name], weight, atol=1e-4, rtol=1e-2, msg=name)


def test_each_epoch_sees_every_pair_once_in_an_order_of_its_own() -> None:
    model = tiny()
    chosen = recipe(own_pairs=OWN, batch_size=1, epochs=3, learning_rate=1e-12)
    losses = finetune(model, chosen, "soo", 0)[1]
    epochs = [losses[start : start + 5] for start in (0, 5, 10)]
    for epoch in epochs[1:]:
        assert sorted(epoch) == pytest.approx(sorted(epochs[0]))
    assert len({tuple(epoch) for epoch in epochs}) == 3
    with torch.no_grad():
        alone = [
            sum(distances(chosen.model_copy(update={"own_pairs": (texts,)}), tiny()).values()) / 2 for texts in OWN
        ]
    assert sorted(epochs[0]) == pytest.approx(sorted(alone), rel=1e-4)


@pytest.mark.parametrize(
    ("method", "loss"),
    [
        ("soo", {}),
        ("soo", {"sides": "initial_self", "token_mode": "aligned_right", "normalise_by_initial": True}),
        ("soo", {"kind": "kl_logits", "token_mode": "full", "padded_length": 64}),
        ("sham", {}),
        ("random_target", {}),
    ],
)
def test_the_loss_goes_down_and_the_models_own_weights_stay(method: str, loss: dict[str, Any]) -> None:
    model, losses = finetune(tiny(), recipe(loss=loss, epochs=10, batch_size=4), method, 0)
    assert losses[-1] < 0.7 * losses[0]
    if loss.get("normalise_by_initial"):
        assert losses[0] == pytest.approx(1, rel=0.3)
    base = {name: weight for name, weight in model.model.named_parameters() if "lora_" not in name}
    untouched = dict(tiny().model.named_parameters())
    assert len(base) == len(untouched)
    for name, weight in base.items():
        assert torch.equal(weight, untouched[name.removeprefix("base_model.model.").replace(".base_layer", "")]), name
    assert not any(module.training for module in model.model.modules())
    # Adapters above the trained layer learn nothing: the output of layer 2 does not depend on layer 3.
    if loss.get("kind") is None:
        assert all(not weight.any() for name, weight in adapter(model).items() if "layers.3" in name and "_B" in name)


def test_after_each_epoch_the_model_is_shown_at_rest_and_may_be_left() -> None:
    shown: list[tuple[int, bool]] = []
    reports: list[float] = []

    def after_epoch(epoch: int, model: LanguageModel) -> bool:
        shown.append((epoch, any(module.training for module in model.model.modules())))
        assert generate_texts(model, ["Hi."], max_new_tokens=2)
        return epoch == 3

    chosen = recipe(lora={"dropout": 0.3}, own_pairs=OWN, epochs=5)
    model, losses = finetune(tiny(), chosen, "soo", 0, after_epoch=after_epoch, report=reports.append)
    assert shown == [(1, False), (2, False), (3, False)]
    assert len(losses) == 3 * chosen.steps_per_epoch == 9
    assert reports == list(range(1, 10))
    # To look changes nothing, and to end early neither.
    unseen, whole = finetune(tiny(), chosen.model_copy(update={"epochs": 3}), "soo", 0)
    assert whole == losses
    assert_same_bits(adapter(model), adapter(unseen))


@pytest.mark.parametrize(("method", "stopped_after"), [("soo", 1), ("soo", 3), ("random_target", 4)])
def test_fine_tuning_that_was_stopped_ends_with_the_same_bits(tmp_path: Path, method: str, stopped_after: int) -> None:
    loss = {"sides": "initial_self", "token_mode": "aligned_right", "normalise_by_initial": True}
    chosen = recipe(loss=loss, lora={"dropout": 0.3}, own_pairs=OWN)
    whole, losses = finetune(tiny(), chosen, method, 5)
    assert len(losses) == 6
    checkpoint, asked = tmp_path / "c.safetensors", iter(range(1, 9))
    with pytest.raises(Interrupted):
        finetune(tiny(), chosen, method, 5, checkpoint=checkpoint, stop=lambda: next(asked) == stopped_after)
    epochs: list[int] = []

    def after_epoch(epoch: int, _: LanguageModel) -> bool:
        epochs.append(epoch)
        return False

    resumed, again = finetune(tiny(), chosen, method, 5, checkpoint=checkpoint, after_epoch=after_epoch)
    assert again == losses
    assert epochs == ([1, 2] if stopped_after < 3 else [2])
    assert_same_bits(adapter(resumed), adapter(whole))


def test_a_checkpoint_belongs_to_one_recipe_method_and_seed(tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.safetensors"
    with pytest.raises(Interrupted):
        finetune(tiny(), recipe(), "soo", 5, checkpoint=checkpoint, stop=lambda: True)
    for other in ((recipe(), "soo", 6), (recipe(), "sham", 5), (recipe(weight_decay=0.0), "soo", 5)):
        with pytest.raises(RunDirectoryError, match="something else"):
            finetune(tiny(), *other, checkpoint=checkpoint)


def test_weights_decay_as_the_recipe_says() -> None:
    # In the first step the adapter's inner weights have no gradient, since the outer ones are 0.
    plain, decayed = (
        adapter(finetune(tiny(), recipe(epochs=1, batch_size=4, weight_decay=decay), "soo", 0)[0])
        for decay in (0.0, 0.5)
    )
    inner = [name for name in plain if "layers.0" in name and "lora_A" in name]
    assert inner
    for name in inner:
        torch.testing.assert_close(decayed[name], plain[name] * (1 - 1e-2 * 0.5))


def test_seeds_differ_in_adapter_order_and_dropout() -> None:
    chosen = recipe(lora={"dropout": 0.3}, epochs=1)
    one, other = finetune(tiny(), chosen, "soo", 0), finetune(tiny(), chosen, "soo", 1)
    assert one[1] != other[1]
    starts = [weight for name, weight in adapter(one[0]).items() if "lora_A" in name and "layers.3" in name]
    others = [weight for name, weight in adapter(other[0]).items() if "lora_A" in name and "layers.3" in name]
    assert starts
    assert not any(torch.equal(weight, another) for weight, another in zip(starts, others, strict=True))


def test_checkpointed_gradients_are_the_same() -> None:
    plain, losses = finetune(tiny(), recipe(), "soo", 0)
    saving, again = finetune(tiny(), recipe(gradient_checkpointing=True), "soo", 0)
    assert again == pytest.approx(losses, rel=1e-5)
    for name, weight in adapter(plain).items():
        torch.testing.assert_close(adapter(saving)[name], weight, msg=name)
    assert generate_texts(saving, ["Hi."], max_new_tokens=3) == generate_texts(plain, ["Hi."], max_new_tokens=3)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no method 'so'; choose among soo, sham, shuffled, "):
        finetune(tiny(), recipe(), "so", 0)
    with pytest.raises(ValueError, match="no decoder layer 19: the model has 4 layers"):
        finetune(tiny(), recipe(loss={"layers": 19}), "soo", 0)
    with pytest.raises(ValueError, match="has an adapter already"):
        finetune(add_lora(tiny(), LoraSettings(), 0), recipe(), "soo", 0)
    with pytest.raises(ValueError, match="allow 1 to 90 different pairs, not 91"):
        finetune(tiny(), recipe(own_pairs=(), pairs="fragments", pair_count=91), "soo", 0)
    with pytest.raises(ValueError, match="give more pairs of different fills"):
        finetune(tiny(), recipe(own_pairs=OWN[:1]), "sham", 0)
    model = tiny()
    model.tokenizer.chat_template = None
    with pytest.raises(ValueError, match="without a chat template"):
        finetune(model, recipe(), "soo", 0)


def test_kept_prompts_meet_themselves_in_both_orientations() -> None:
    kept = ("plain_retrieval", "plain_perspectives")
    chosen = recipe(kept=kept, kept_count=6, loss={"sides": "initial_self"})
    found = kept_pairs(chosen, 3)
    assert len(found) == 6 and all(pair.self_text == pair.other_text for pair in found)
    assert len({pair.self_text for pair in found}) == 6
    asked = {scenario: prompts(scenario, "train", 3, 3 + 500_009) for scenario in chosen.kept}
    assert found[0].self_text == asked["plain_retrieval"][0].text
    assert found[3].self_text == asked["plain_perspectives"][3].text, "the second fill, mirrored"


def test_random_targets_leave_kept_prompts_where_they_are() -> None:
    chosen = recipe(kept=("plain_perspectives",), kept_count=2, loss={"sides": "initial_self"})
    adapted = add_lora(tiny(), chosen.lora, 0)

    def distances_with(kept: list[PromptPair]) -> list[float]:
        loss = LanguageOverlapLoss(chosen.loss)
        found = training_pairs(adapted, pairs_of("random_target", chosen) + kept, chosen, loss, 0, random_target=True)
        return [
            float(loss(adapted.model, batch, batch, found.targets and found.targets.rows([row])))
            for row, batch in enumerate(found.other_side)
        ]

    with torch.no_grad():
        alone, beside = distances_with([]), distances_with(kept_pairs(chosen, 0))
    assert beside[-2:] == pytest.approx([0.0, 0.0], abs=1e-12)
    assert beside[:-2] == pytest.approx(alone, rel=1e-4), "kept prompts do not shorten the way of the others"
    assert min(alone) > 1e-6
    assert len(finetune(tiny(), chosen, "random_target", 0)[1]) == len(finetune(tiny(), chosen, "soo", 0)[1])
