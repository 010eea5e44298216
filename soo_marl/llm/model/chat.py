"""From a user's message to the tokens that the model reads: through its own chat template, with the answer begun.

Whether a chat template was used changes what a model does (the paper's text uses it, its public code does not:
Carauleanu et al. 2024, arXiv 2412.16325; agencyenterprise/SOO-Honest-AI), so both ways are here and ``raw`` says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import torch
from torch import Tensor

from soo_marl.llm.model.thoughts import thought_closed
from soo_marl.storage.files import quoted

Side = Literal["left", "right"]
"""Where shorter texts of a batch are filled up."""

ChatDate = Literal["2024-07-26"]
"""What chat templates that ask for today's date are told, so that a study reads the same prompts on every day.

Some templates name this date themselves where they are given none."""

CHAT_DATE: ChatDate = "2024-07-26"

_DATED = "".join(
    f".replace('{code}', '{date.fromisoformat(CHAT_DATE).strftime(code)}')"
    for code in (*(f"%{letter}" for letter in "aAbBcdfHIjmMpSUwWxXyYZDeF"), "%-d", "%-m", "%%")
)
_DATED_TEMPLATE = "{% macro strftime_now(format) %}{{ format" + _DATED + " }}{% endmacro %}"
"""Put before a template, this takes the place of the clock that transformers gives it."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """A batch of B texts as tokens, filled up to the T tokens of the longest."""

    input_ids: Tensor
    """Token numbers [B, T]."""

    attention_mask: Tensor
    """Booleans [B, T], true where a token belongs to the text, as the tokenizer says: padding often shares the number
    of the end token."""

    @property
    def position_ids(self) -> Tensor:
        """Position of every token in its text [B, T], from 0; padding on the left has 0."""
        return (self.attention_mask.long().cumsum(-1) - 1).clamp(min=0)

    @property
    def last(self) -> Tensor:
        """Index of every text's last token [B]."""
        steps = torch.arange(self.attention_mask.shape[1], device=self.attention_mask.device)
        return torch.where(self.attention_mask, steps, 0).amax(-1)


def render(tokenizer: Any, text: str, answer_start: str = "", raw: bool = False) -> str:
    """The text that the model is to continue.

    Args:
        tokenizer: the model's tokenizer, with its chat template.
        text: the user's message.
        answer_start: what the model's answer begins with; it follows the template's generation prompt directly, whose
            thought, if it begins one, is closed, or in raw text the message and a space.
        raw: leave the chat template out.

    Raises:
        ValueError: the model has no chat template, or its template refuses the message.
    """
    if raw:
        return f"{text} {answer_start}" if answer_start else text
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            "this is a model without a chat template: use an instruction-tuned one, or a recipe with raw = true for "
            "text as it is"
        )
    message = [{"role": "user", "content": text}]
    try:
        template = tokenizer.get_chat_template()
        rendered = tokenizer.apply_chat_template(
            message,
            chat_template=_DATED_TEMPLATE + template if "strftime_now" in template else template,
            tokenize=False,
            add_generation_prompt=True,
        )
    except Exception as error:  # Templates are programs of others and raise what they like.
        raise ValueError(
            f"the model's chat template refuses a plain user message ({quoted(error)}): use a recipe with raw = true"
        ) from error
    # Where there is a beginning, it is the answer's, not the thought's.
    return f"{thought_closed(rendered)}{answer_start}" if answer_start else str(rendered)


def encode(
    tokenizer: Any,
    texts: Sequence[str],
    side: Side = "left",
    device: torch.device | str = "cpu",
    *,
    raw: bool = False,
) -> Encoded:
    """Tokenise a batch of texts that :func:`render` made.

    A rendered text holds the template's own special tokens, so none are added; to raw text the tokenizer adds those of
    its own, unless the text begins with the first of them already. The tokenizer is left as it was.

    Args:
        tokenizer: the model's tokenizer.
        texts: B texts.
        side: where shorter texts are filled up: ``left`` to generate or score, ``right`` to compare from the start.
        device: where the tensors go.
        raw: whether the texts were rendered with ``raw=True``.

    Raises:
        ValueError: there is no text, or one has no tokens.
    """
    token_lists = [token_ids(tokenizer, text, raw=raw) for text in texts]
    if not token_lists or not all(token_lists):
        raise ValueError("give at least one text, and none without tokens")
    if side not in ("left", "right"):
        raise ValueError(f"side must be left or right, not {side!r}")
    # A tokenizer without a padding token pads with the first one: the mask says where, and nothing looks at it.
    ids = torch.full((len(token_lists), max(map(len, token_lists))), tokenizer.pad_token_id or 0)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for row, tokens in enumerate(token_lists):
        place = slice(len(tokens)) if side == "right" else slice(-len(tokens), None)
        ids[row, place] = torch.tensor(tokens)
        mask[row, place] = True
    return Encoded(ids.to(device), mask.to(device))


def token_ids(tokenizer: Any, text: str, *, raw: bool = False) -> list[int]:
    """Token numbers of one text, with special tokens as :func:`encode` has them."""
    begun = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
    return list(tokenizer(text, add_special_tokens=raw and not begun)["input_ids"])
