import sys
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers")

sys.path.insert(0, str(Path(__file__).parent))

from tiny_models import BEGIN, tiny_tokenizer
from transformers.utils import chat_template_utils

from soo_marl.llm.model.chat import CHAT_DATE, encode, render, token_ids

TOKENIZER = tiny_tokenizer()


def test_the_template_wraps_the_message_and_the_answer_is_begun() -> None:
    rendered = render(TOKENIZER, "Which room?", "I would")
    assert rendered == f"{BEGIN}[user]Which room?[/][assistant]I would"
    assert render(TOKENIZER, "Which room?", "I would", raw=True) == "Which room? I would"
    assert render(TOKENIZER, "Which room?", raw=True) == "Which room?"


def test_there_is_one_begin_token_whichever_way() -> None:
    begin = TOKENIZER.bos_token_id
    assert token_ids(TOKENIZER, render(TOKENIZER, "Hi")).count(begin) == 1
    assert token_ids(TOKENIZER, "Hi", raw=True).count(begin) == 1
    assert token_ids(TOKENIZER, f"{BEGIN}Hi", raw=True).count(begin) == 1
    without = tiny_tokenizer(adds_begin=False)
    assert token_ids(without, "Hi", raw=True).count(begin) == 0


def test_a_template_without_a_begin_token_gets_none() -> None:
    tokenizer = tiny_tokenizer(chat_template="{{ messages[0]['content'] }}>")
    assert encode(tokenizer, [render(tokenizer, "Hi")]).input_ids.shape == (1, 3)


def test_padding_goes_to_the_named_side_and_the_mask_tells_it_from_a_real_end_token() -> None:
    texts = ["ab", f"abc{TOKENIZER.eos_token}"]
    before = TOKENIZER.padding_side
    left, right = encode(TOKENIZER, texts, "left"), encode(TOKENIZER, texts, "right")
    assert left.attention_mask.tolist() == [[False, False, True, True], [True] * 4]
    assert right.attention_mask.tolist() == [[True, True, False, False], [True] * 4]
    assert left.attention_mask.dtype == torch.bool
    assert left.position_ids.tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]
    assert left.last.tolist() == [3, 3] and right.last.tolist() == [1, 3]
    assert TOKENIZER.padding_side == before
    assert TOKENIZER("ab", add_special_tokens=False)["input_ids"] == token_ids(TOKENIZER, "ab")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=4), st.sampled_from(["left", "right"]))
def test_what_the_mask_selects_are_the_tokens_of_each_text(texts: list[str], side: str) -> None:
    encoded = encode(TOKENIZER, texts, side, raw=True)
    for text, ids, mask in zip(texts, encoded.input_ids, encoded.attention_mask, strict=True):
        assert ids[mask].tolist() == token_ids(TOKENIZER, text, raw=True)


@pytest.mark.parametrize("template", ["{{ 'a' * 10**10 }}", "{{ 9**9**9 }}", "{{ ('a' * 9999) * 9999 * 9999 }}"])
def test_a_template_that_would_fill_the_memory_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"refuses a plain user message .it computes .* of more than 10000"):
        render(tiny_tokenizer(chat_template=template), "Hello")
    assert render(tiny_tokenizer(chat_template="{{ messages[0]['content'] * 3 }}"), "Hi") == "HiHiHi"


def test_refusals_say_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"without a chat template.*raw = true"):
        render(tiny_tokenizer(chat_template=None), "Hi")
    with pytest.raises(ValueError, match=r"refuses a plain user message .no system.*raw = true"):
        render(tiny_tokenizer(chat_template="{{ raise_exception('no system') }}"), "Hi")
    with pytest.raises(ValueError, match="at least one text"):
        encode(TOKENIZER, [])
    with pytest.raises(ValueError, match="at least one text"):
        encode(TOKENIZER, ["a", ""])
    with pytest.raises(ValueError, match="left or right"):
        encode(TOKENIZER, ["a"], "middle")


def test_a_tokenizer_without_a_padding_token_pads_with_its_first() -> None:
    unpadded = tiny_tokenizer()
    unpadded.pad_token = None
    encoded = encode(unpadded, ["ab", "c"])
    assert encoded.attention_mask.tolist() == [[True, True], [False, True]] and encoded.input_ids[1, 0] == 0


def test_a_template_that_asks_for_the_date_is_told_the_same_on_every_day(monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2031, 5, 17)

    monkeypatch.setattr(chat_template_utils, "datetime", Later)
    told = render(tiny_tokenizer(chat_template="{{ strftime_now('%d %b %Y, %A') }}"), "Hi")
    assert told == f"{date.fromisoformat(CHAT_DATE):%d %b %Y, %A}"
    # As Llama 3's templates do, which fall back to this very date.
    llama = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}26 Jul 2024{% endif %}"
    assert render(tiny_tokenizer(chat_template=llama), "Hi") == "26 Jul 2024"
