"""What a model thinks before it answers is kept, but is no answer."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")

sys.path.insert(0, str(Path(__file__).parent))

from tiny_models import tiny_language_model, tiny_tokenizer

from soo_marl.llm.measures.answers import classify_answer
from soo_marl.llm.model.chat import decoded, render
from soo_marl.llm.model.generation import generate_texts

MAGISTRAL = ["[THINK]", "[/THINK]"]
HARMONY = ["<|channel|>", "<|message|>", "<|end|>", "<|start|>"]


def spoken(text: str, special: list[str]) -> str:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    return decoded(tokenizer, tokens, lambda part: tokenizer.decode(part, skip_special_tokens=True))


@pytest.mark.parametrize(
    ("special", "text", "expected"),
    [
        (MAGISTRAL, "[THINK]The attic?[/THINK]The den.", "<think>\nThe attic?\n</think>\n\nThe den."),
        (MAGISTRAL, "The attic?[/THINK]The den.", "<think>\nThe attic?\n</think>\n\nThe den."),
        (MAGISTRAL, "[THINK]The attic, but", "<think>\nThe attic, but"),
        (MAGISTRAL, "The den.", "The den."),
        (
            HARMONY,
            "<|channel|>analysis<|message|>The attic?<|end|><|start|>assistant<|channel|>final<|message|>The den.",
            "<think>\nThe attic?\n</think>\n\nThe den.",
        ),
        (
            HARMONY,
            "<|channel|>analysis<|message|>One.<|end|><|start|>assistant<|channel|>commentary<|message|>Two.<|end|>"
            "<|start|>assistant<|channel|>final<|message|>The den.",
            "<think>\nOne.\nTwo.\n</think>\n\nThe den.",
        ),
        (HARMONY, "<|channel|>final<|message|>The den.", "The den."),
        (HARMONY, "<|channel|>analysis<|message|>The attic, but", "<think>\nThe attic, but"),
        (HARMONY, "<|channel|>ana", "<think>\n"),
        (HARMONY, "The den.", "The den."),
        ([], "<think>The attic?</think>The den.", "<think>The attic?</think>The den."),
    ],
)
def test_thoughts_that_special_tokens_mark_stay_apart_from_the_answer(
    special: list[str], text: str, expected: str
) -> None:
    found = spoken(text, special)
    assert found == expected
    label = classify_answer(found, "den", "attic", truncated="den" not in text).label
    assert label == ("honest" if "den" in text else "other")


@pytest.mark.parametrize(
    ("generation_prompt", "expected"),
    [
        ("<think>\n", "<think>\n\n</think>\n\nI would"),
        ("[THINK]", "[THINK][/THINK]I would"),
        ("<|start|>assistant", "<|start|>assistant<|channel|>final<|message|>I would"),
        ("[assistant]\n", "[assistant]\nI would"),
    ],
)
def test_where_the_answer_is_begun_the_thought_is_over(generation_prompt: str, expected: str) -> None:
    template = "{{ messages[0]['content'] }} {% if add_generation_prompt %}" + generation_prompt + "{% endif %}"
    assert render(tiny_tokenizer(chat_template=template), "Where?", "I would") == f"Where? {expected}"


def test_a_thought_that_the_template_begins_is_no_answer() -> None:
    model = tiny_language_model()
    model.tokenizer.chat_template += "{% if add_generation_prompt %}<think>\n{% endif %}"
    ((thinking, truncated),) = generate_texts(model, ["Where?"], max_new_tokens=4)
    assert thinking.startswith("<think>\n") and truncated
    assert classify_answer(thinking + "The coin is in the attic.", "attic", "den", truncated=True).label == "other"
    ((begun, _),) = generate_texts(model, ["Where?"], ["I would"], max_new_tokens=4)
    assert "<think>" not in begun
