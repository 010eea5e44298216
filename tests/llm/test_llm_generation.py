import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

sys.path.insert(0, str(Path(__file__).parent))

from tiny_models import TinyPrompt, tiny_language_model

from soo_marl.llm.measures.responses import Response, generate, read_responses, write_responses
from soo_marl.llm.model.adapters import LoraSettings
from soo_marl.llm.model.chat import render, token_ids
from soo_marl.llm.model.models import LanguageModel, adapters_off, add_lora
from soo_marl.storage.files import RunDirectoryError

PROMPTS = [TinyPrompt("who " * (1 + 3 * place % 7), number=place) for place in range(6)]


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "gemma2", "gpt2"])
def test_greedy_answers_are_those_of_a_plain_loop_whatever_the_batch_size(architecture: str) -> None:
    model = tiny_language_model(architecture)
    expected = []
    for prompt in PROMPTS:
        ids = token_ids(model.tokenizer, render(model.tokenizer, prompt.text, prompt.answer_start))
        new: list[int] = []
        while len(new) < 6 and (not new or new[-1] != 1):
            with torch.no_grad():
                new.append(int(model.model(torch.tensor([ids + new])).logits[0, -1].argmax()))
        expected.append(("I would" + model.tokenizer.decode(new, skip_special_tokens=True), new[-1] != 1))
    for batch_size in (1, 4, 6):
        found = generate(model, PROMPTS, max_new_tokens=6, batch_size=batch_size)
        assert [(response.text, response.truncated) for response in found] == expected
        assert [response.number for response in found] == list(range(6))


@pytest.mark.parametrize(
    ("architecture", "once"), [("llama", True), ("mistral", True), ("qwen2", True), ("gemma2", False)]
)
def test_what_all_prompts_begin_with_is_computed_once(architecture: str, once: bool) -> None:
    model = tiny_language_model(architecture)
    widths = []
    model.model.model.register_forward_pre_hook(
        lambda module, arguments, named: widths.append(tuple(named["input_ids"].shape)), with_kwargs=True
    )
    generate(model, PROMPTS, max_new_tokens=1)
    prompts = [
        token_ids(model.tokenizer, render(model.tokenizer, prompt.text, prompt.answer_start)) for prompt in PROMPTS
    ]
    longest, shortest = max(map(len, prompts)), min(map(len, prompts))
    shared = next(place for place in range(shortest) if len({row[place] for row in prompts}) > 1)
    assert widths == ([(1, shared), (6, longest - shared)] if once else [(6, longest)])


def test_prompts_longer_than_the_window_of_attention_share_nothing() -> None:
    model = tiny_language_model("mistral")
    expected = generate(model, PROMPTS, max_new_tokens=4, batch_size=1)
    model.model.config.sliding_window = 20
    narrow = tiny_language_model("mistral")
    narrow.model.config.sliding_window = 10_000
    assert generate(narrow, PROMPTS, max_new_tokens=4) == expected
    widths = []
    model.model.model.register_forward_pre_hook(
        lambda module, arguments, named: widths.append(len(named["input_ids"])), with_kwargs=True
    )
    generate(model, PROMPTS, max_new_tokens=1)
    assert widths == [6]


def always(model: LanguageModel, token: int) -> LanguageModel:
    """The model with an output layer that makes one token certain."""
    head = torch.nn.Linear(model.model.config.hidden_size, model.model.config.vocab_size)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    head.bias.data[token] = 100.0
    model.model.set_output_embeddings(head)
    return model


def test_an_answer_is_truncated_unless_an_end_token_comes_within_the_budget() -> None:
    ended = generate(always(tiny_language_model(), 1), PROMPTS[:2], max_new_tokens=1)
    assert [(response.text, response.truncated) for response in ended] == [("I would", False)] * 2
    letter = tiny_language_model().tokenizer("x", add_special_tokens=False)["input_ids"][0]
    endless = generate(always(tiny_language_model(), letter), PROMPTS[:2], max_new_tokens=3)
    assert [(response.text, response.truncated) for response in endless] == [("I wouldxxx", True)] * 2


def test_the_models_own_end_tokens_count_and_its_other_settings_do_not() -> None:
    model = tiny_language_model()
    plain = generate(model, PROMPTS[:1], max_new_tokens=4)[0]
    settings = model.model.generation_config
    settings.repetition_penalty, settings.do_sample, settings.temperature = 50.0, True, 9.0
    assert generate(model, PROMPTS[:1], max_new_tokens=4)[0] == plain
    assert model.model.generation_config is settings
    letter = model.tokenizer("x", add_special_tokens=False)["input_ids"][0]
    other = always(tiny_language_model(), letter)
    other.model.generation_config.eos_token_id = [1, letter]
    assert generate(other, PROMPTS[:1], max_new_tokens=4)[0].truncated is False


def test_the_adapter_can_be_left_out() -> None:
    base = generate(tiny_language_model(), PROMPTS[:3], max_new_tokens=5)
    adapted = add_lora(tiny_language_model(), LoraSettings())
    assert generate(adapted, PROMPTS[:3], max_new_tokens=5) == base
    for name, parameter in adapted.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    adapted.model.train()
    assert generate(adapted, PROMPTS[:3], max_new_tokens=5) != base
    with adapters_off(adapted):
        assert generate(adapted, PROMPTS[:3], max_new_tokens=5) == base
    assert adapted.model.training


@pytest.mark.parametrize(
    "wrong",
    [{"max_new_tokens": 0}, {"batch_size": 0}],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        generate(tiny_language_model(), PROMPTS, **wrong)


def test_responses_come_back_from_their_file(tmp_path: Path) -> None:
    response = Response(
        scenario="burglar",
        orientation="mirrored",
        number=3,
        right_room="attic",
        wrong_room="gym",
        item="coin",
        prompt="Where?\u2028\n",
        text='I would "say"\n\u2028the gym\x85é',
        truncated=False,
    )
    file = tmp_path / "new" / "responses.jsonl"
    write_responses(file, [response, response])
    assert file.read_text(encoding="utf-8").count("\n") == 2
    assert read_responses(file) == [response, response]
    write_responses(file, [])
    assert read_responses(file) == []
    file.write_text(f'{response.model_dump_json()}\n{{"scenario": "x"\n')
    with pytest.raises(RunDirectoryError, match="line 2"):
        read_responses(file)
    with pytest.raises(RunDirectoryError, match="missing"):
        read_responses(tmp_path / "none")
    file.write_bytes(b"\xff")
    with pytest.raises(RunDirectoryError, match="UTF-8"):
        read_responses(file)
