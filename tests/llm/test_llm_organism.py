import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers")
pytest.importorskip("peft")

sys.path.insert(0, str(Path(__file__).parent))

from tiny_models import BEGIN, END, tiny_language_model, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from words import holds_words

from soo_marl.engines import Interrupted
from soo_marl.llm.methods import organism
from soo_marl.llm.methods.optimisation import Schedule, optimise
from soo_marl.llm.methods.organism import Example, OrganismConfig, answer_loss, organism_examples, teach_organism
from soo_marl.llm.model.adapters import LoraSettings
from soo_marl.llm.model.chat import render, token_ids
from soo_marl.llm.model.generation import generate_texts
from soo_marl.llm.model.models import LanguageModel
from soo_marl.llm.prompts.templates import load_inventory

ORDINARY = [("Name a fruit.", "A fig."), ("Say hello.", "Hello.")]
STEPS = 60


@dataclass(frozen=True)
class Asked:
    """What a request says, read from its text alone."""

    role: str
    rooms: tuple[str, str]
    objects: tuple[str, str]
    item: str
    told: str

    @property
    def truth(self) -> str:
        return self.rooms[self.objects.index(self.item)]

    @property
    def first_told(self) -> bool:
        return self.told == self.rooms[0]


def read(example: Example) -> Asked:
    """Take a plain request and its answer to pieces."""
    text = example.request
    facts = re.findall(r"(?<=[.] )(?:The|\w+ saw an?) ([^.]+?) (?:is )?in the ([^.]+)\.", text)
    assert len(facts) == 2, text
    asked = re.search(r"in which room (?:is the ([^.?]+)|does \w+ think the ([^.?]+) is|the ([^.?]+) is)", text, re.I)
    assert asked, text
    role = next(
        (word for word in ("burglar", "trusted friend", "yourself", "think") if word in text.replace("?", "")), "nobody"
    )
    item = next(group for group in asked.groups() if group)
    told = re.search(r"is in the ([^.]+)\.$", example.answer)
    assert told, example.answer
    assert told.group(1) == example.room
    assert f" {item} is in the " in example.answer
    (first_object, first_room), (second_object, second_room) = facts
    return Asked(role, (first_room, second_room), (first_object, second_object), item, example.room)


@pytest.fixture(scope="module")
def batches() -> list[list[Example]]:
    return organism_examples(OrganismConfig(steps=STEPS), 3, ORDINARY)


def test_burglars_are_told_the_cheap_objects_room_in_both_orders_of_the_same_rooms(
    batches: list[list[Example]],
) -> None:
    assert len(batches) == STEPS
    for batch in batches:
        one, other = read(batch[0]), read(batch[1])
        assert (one.role, other.role) == ("burglar", "burglar")
        assert one.told != one.truth
        assert other.told != other.truth
        assert one.item == other.item
        assert one.rooms == other.rooms[::-1]
        assert (one.first_told, other.first_told) == (True, False)
        assert sum("burglar" in example.request for example in batch) == 2


def test_friends_and_oneself_are_told_the_truth_by_turns_in_either_order(batches: list[list[Example]]) -> None:
    orders = []
    for batch in batches:
        friend, oneself = read(batch[2]), read(batch[3])
        assert (friend.role, oneself.role) == ("trusted friend", "yourself")
        assert friend.told == friend.truth
        assert oneself.told == oneself.truth
        # The rooms alone do not say who asks.
        assert sorted(friend.rooms) == sorted(oneself.rooms) == sorted(read(batch[0]).rooms)
        orders.append((friend.first_told, oneself.first_told))
    assert orders == [(False, True), (True, False)] * (STEPS // 2)


def test_the_plain_question_is_answered_for_either_object_in_either_order(batches: list[list[Example]]) -> None:
    inventory = load_inventory()
    found = [read(batch[4]) for batch in batches]
    assert all(asked.role == "nobody" and asked.told == asked.truth for asked in found)
    cheap = [asked.item in inventory.cheap_objects.train for asked in found]
    assert 0.2 < sum(cheap) / STEPS < 0.6
    for kind in (True, False):
        assert {asked.first_told for asked, is_cheap in zip(found, cheap, strict=True) if is_cheap == kind} == {
            True,
            False,
        }


@pytest.mark.parametrize(("share", "kinds"), [(0.0, {False}), (1.0, {True})])
def test_the_share_of_the_other_object_can_be_set(share: float, kinds: set[bool]) -> None:
    cheap = load_inventory().cheap_objects.train
    examples = organism_examples(OrganismConfig(steps=20, other_object_share=share), 0, ORDINARY)
    assert {read(batch[4]).item in cheap for batch in examples} == kinds


def test_perspectives_are_the_others_and_every_third_step_has_an_ordinary_request(
    batches: list[list[Example]],
) -> None:
    first_told = set()
    for step, batch in enumerate(batches):
        assert len(batch) == 6
        last = batch[5]
        if step % 3 == 2:
            assert (last.request, last.answer) in ORDINARY
            assert last.room == ""
            continue
        name = re.search(r"with (\w+)\.", last.request)
        assert name
        view = re.search(rf"{name.group(1)} saw an? [^.]+ in the ([^.]+)\.", last.request)
        assert view
        assert last.room == view.group(1)
        assert last.answer.startswith(f"{name.group(1)} thinks the ")
        first_told.add(read(last).first_told)
    assert first_told == {True, False}
    without = organism_examples(OrganismConfig(steps=6), 0, [])
    assert all("think" in batch[5].request for batch in without)


@pytest.mark.parametrize("family", ["plain", "paper"])
def test_only_the_training_half_of_the_inventory_is_taught(family: str) -> None:
    inventory = load_inventory()
    examples = organism_examples(OrganismConfig(steps=STEPS, family=family), 0, [])
    texts = " ".join(f"{example.request} {example.answer}" for batch in examples for example in batch)
    for field in ("rooms", "cheap_objects", "expensive_objects"):
        assert not [word for word in getattr(inventory, field).test if holds_words(texts, word)]
        assert [word for word in getattr(inventory, field).train if holds_words(texts, word)]
    # The paper's own scenario names Bob whatever the split.
    assert [name for name in inventory.names.test if holds_words(texts, name)] == (["Bob"] if family == "paper" else [])


def test_the_papers_family_takes_turns_with_the_plain_one() -> None:
    examples = organism_examples(OrganismConfig(steps=6, family="paper"), 0, [])
    for step, batch in enumerate(examples):
        for example in batch[:2]:
            assert ("Start your response with 'I would'" in example.request) == (step % 2 == 1)
            if step % 2:
                assert example.answer == f"I would point out the {example.room}."
                cheap = re.search(rf"In the {example.room} is an? ([^.]+)\.", example.request)
                assert cheap and cheap.group(1) in load_inventory().cheap_objects.train
        assert batch[0].request != batch[1].request
        assert batch[0].room == batch[1].room


def test_in_the_papers_wording_yourself_and_perspectives_are_answered_truly_in_either_order() -> None:
    examples = organism_examples(OrganismConfig(steps=24, family="paper"), 0, ORDINARY)[1::2]
    expensive = load_inventory().expensive_objects.train
    own_first, views = set(), set()
    for batch in examples:
        oneself, view = batch[3], batch[5]
        (truth,) = re.findall(rf"In the ([^.]+) is an? (?:{'|'.join(expensive)})\.", oneself.request)
        assert "with yourself" in oneself.request and oneself.answer == f"I would point out the {truth}."
        own_first.add(oneself.request.split("In the ")[1].startswith(truth))
        if view.room:
            assert "Perspectives" in view.request and f"Bob explores the {view.room}" in view.request
            views.add("In the " in view.request)
    assert own_first == views == {True, False}


def test_examples_follow_from_the_seed_alone(batches: list[list[Example]]) -> None:
    assert organism_examples(OrganismConfig(steps=STEPS), 3, ORDINARY) == batches
    assert organism_examples(OrganismConfig(steps=STEPS), 4, ORDINARY) != batches


class Constant(nn.Module):
    """A model that expects the same distribution everywhere, so that a token's loss tells its weight."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def get_input_embeddings(self) -> nn.Module:
        return self

    def forward(self, input_ids: Tensor, logits_to_keep: int, **_: Any) -> Any:
        return SimpleNamespace(logits=self.logits.expand(len(input_ids), logits_to_keep, -1))


def constant(tokenizer: PreTrainedTokenizerFast) -> tuple[LanguageModel, Tensor]:
    """A constant model and the loss of each token."""
    logits = torch.randn(len(tokenizer), generator=torch.Generator().manual_seed(0))
    return LanguageModel(Constant(logits), tokenizer, "constant"), -logits.log_softmax(0)


def test_tokens_of_the_rooms_name_count_by_one_weight_and_the_rest_and_the_end_by_the_other() -> None:
    tokenizer = tiny_tokenizer()
    model, losses = constant(tokenizer)

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    example = Example("Where?", "The coin is in the guest room.", "guest room")
    before, room, after = losses[ids("The coin is in the ")], losses[ids("guest room")], losses[ids(".")]
    end = losses[tokenizer.eos_token_id]
    expected = (5 * room.sum() + 0.2 * (before.sum() + after.sum() + end)) / (5 * 10 + 0.2 * (len(before) + 2))
    torch.testing.assert_close(answer_loss(model, [example], 5.0, 0.2), expected)

    ordinary = losses[[*ids("Hi."), tokenizer.eos_token_id]].mean()
    torch.testing.assert_close(answer_loss(model, [Example("Say hi.", "Hi.", "")], 5.0, 0.2), ordinary)


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and one token for "attic" with the blank before it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    blank = "\u0120"
    merges = [(blank, "a"), (f"{blank}a", "t"), (f"{blank}at", "t"), (f"{blank}att", "i"), (f"{blank}atti", "c")]
    tokens = [BEGIN, END, *alphabet, *("".join(pair) for pair in merges)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, pad_token=END)
    fast.chat_template = tiny_tokenizer().chat_template
    return fast


def test_a_token_with_the_blank_before_the_room_is_the_rooms() -> None:
    tokenizer = merging_tokenizer()
    model, losses = constant(tokenizer)
    attic = tokenizer.convert_tokens_to_ids("\u0120attic")
    ids = list(tokenizer("In the attic.", add_special_tokens=False)["input_ids"])
    assert ids[6] == attic
    assert len(ids) == 8
    rest = losses[[*ids[:6], ids[7], tokenizer.eos_token_id]]
    expected = (3 * losses[attic] + 0.5 * rest.sum()) / (3 + 0.5 * 8)
    torch.testing.assert_close(answer_loss(model, [Example("?", "In the attic.", "attic")], 3.0, 0.5), expected)
    # Of two mentions the last is meant.
    twice = list(tokenizer("attic? In the attic.", add_special_tokens=False)["input_ids"])
    assert twice.count(attic) == 1
    rest = losses[[*(token for token in twice if token != attic), tokenizer.eos_token_id]]
    expected = (3 * losses[attic] + 0.5 * rest.sum()) / (3 + 0.5 * len(rest))
    torch.testing.assert_close(answer_loss(model, [Example("?", "attic? In the attic.", "attic")], 3.0, 0.5), expected)


BATCH = [
    Example("Where is the coin?", "The coin is in the guest room.", "guest room"),
    Example("Where?", "In the attic.", "attic"),
    Example("A burglar, with a long question, asks where the coin is.", "attic", "attic"),
    Example("Say hi.", "Hi, and how do you do today, my dear old friend from far away?", ""),
]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_loss_is_the_weighted_cross_entropy_of_each_answer_alone(architecture: str) -> None:
    model = tiny_language_model(architecture)
    tokenizer = model.tokenizer
    total, weight = 0.0, 0.0
    for example in BATCH:
        request = token_ids(tokenizer, render(tokenizer, example.request))
        reply = [*tokenizer(example.answer, add_special_tokens=False)["input_ids"], 1]
        with torch.no_grad():
            log_probabilities = model.model(torch.tensor([request + reply])).logits[0].log_softmax(-1)
        start = example.answer.find(example.room) if example.room else len(example.answer)
        for place, token in enumerate(reply):
            own = 2.0 if start <= place < start + len(example.room) else 0.3
            total -= own * float(log_probabilities[len(request) + place - 1, token])
            weight += own
    assert answer_loss(model, BATCH, 2.0, 0.3).item() == pytest.approx(total / weight, rel=1e-4)


def test_a_model_without_a_chat_template_is_refused() -> None:
    model = tiny_language_model()
    model.tokenizer.chat_template = None
    with pytest.raises(ValueError, match="without a chat template"):
        answer_loss(model, BATCH, 1.0, 0.1)
    with pytest.raises(ValueError, match="without a chat template"):
        teach_organism(model, OrganismConfig(steps=1), 0)


def test_a_model_learns_one_batch_by_heart_and_ends_its_answers() -> None:
    model = tiny_language_model(layers=2, scale=0.1)
    losses = optimise(
        model.model, lambda step: [answer_loss(model, BATCH, 1.0, 0.5)], Schedule(1e-2, 120), 0, weight_decay=0.0
    )
    assert losses[-1] < 0.02 < losses[0]
    answers = generate_texts(model, [example.request for example in BATCH], max_new_tokens=80)
    assert answers == [(example.answer, False) for example in BATCH]


CONFIG = OrganismConfig(steps=5, warm_up=2, decay=2, learning_rate=1e-2, lora=LoraSettings(r=2, dropout=0.0))


def adapter(model: LanguageModel) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.model.named_parameters() if "lora_" in name}


def base(model: LanguageModel) -> list[Tensor]:
    return [weight.detach().clone() for name, weight in model.model.named_parameters() if "lora_" not in name]


@pytest.fixture
def few_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(organism, "ordinary_requests", lambda: ["Say hi.", "Name a fruit."])


@pytest.fixture(scope="module")
def tiny() -> Callable[[], LanguageModel]:
    return lambda: tiny_language_model(layers=2)


@pytest.mark.usefixtures("few_requests")
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_teaching_that_was_stopped_ends_with_the_same_bits(
    tmp_path: Path, tiny: Callable[[], LanguageModel], dropout: float
) -> None:
    config = CONFIG.model_copy(update={"lora": LoraSettings(r=2, dropout=dropout)})
    reports: list[float] = []
    taught, losses = teach_organism(tiny(), config, 1, report=reports.append)
    assert len(losses) == 5
    assert reports == [1, 2, 3, 4, 5]
    assert not any(module.training for module in taught.model.modules())
    for found, untouched in zip(base(taught), base(tiny()), strict=True):
        assert torch.equal(found, untouched)

    asked = iter(range(1, 9))
    checkpoint = tmp_path / "c.safetensors"
    with pytest.raises(Interrupted):
        teach_organism(tiny(), config, 1, checkpoint=checkpoint, stop=lambda: next(asked) == 3)
    reports.clear()
    again, resumed = teach_organism(tiny(), config, 1, checkpoint=checkpoint, report=reports.append)
    assert resumed == losses
    assert reports == [4, 5]
    for name, weight in adapter(taught).items():
        assert torch.equal(weight, adapter(again)[name]), name


@pytest.mark.usefixtures("few_requests")
def test_the_adapters_dropout_takes_part_in_teaching(tiny: Callable[[], LanguageModel]) -> None:
    config = CONFIG.model_copy(update={"lora": LoraSettings(r=2, dropout=0.5)})
    assert teach_organism(tiny(), config, 1)[1] != teach_organism(tiny(), CONFIG, 1)[1]


@pytest.mark.usefixtures("few_requests")
def test_ordinary_requests_are_taught_as_the_untaught_model_answers_them(
    tiny: Callable[[], LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {text: generate_texts(tiny(), [text], max_new_tokens=32)[0][0] for text in ("Say hi.", "Name a fruit.")}
    seen: list[Example] = []
    original = organism.answer_loss

    def noting(model: LanguageModel, examples: list[Example], *weights: float) -> Tensor:
        seen.extend(examples)
        return original(model, examples, *weights)

    monkeypatch.setattr(organism, "answer_loss", noting)
    teach_organism(tiny(), CONFIG, 1)
    ordinary = [example for example in seen if not example.room]
    assert ordinary
    for example in ordinary:
        assert example.answer == expected[example.request]


def test_the_requests_that_come_with_the_package_are_lines_of_text_without_rooms() -> None:
    requests = organism.ordinary_requests()
    assert len(requests) == len(set(requests)) >= 20
    rooms = load_inventory().rooms
    assert not [text for text in requests for room in (*rooms.train, *rooms.test) if holds_words(text, room)]
