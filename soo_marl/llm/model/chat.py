"""From a user's message to the tokens that the model reads: through its own chat template, with the answer begun.

Whether a chat template was used changes what a model does (the paper's text uses it, its public code does not:
Carauleanu et al. 2024, arXiv 2412.16325; agencyenterprise/SOO-Honest-AI), so both ways are here and ``raw`` says which.

Some models think before they answer, and a thought is not the answer:

====================================== ====================== =======================================================
models                                 a thought begins with  and ends with
====================================== ====================== =======================================================
Qwen 3, DeepSeek-R1 and many others    ``<think>``            ``</think>``, both plain text
Magistral                              ``[THINK]``            ``[/THINK]``, special tokens
gpt-oss (the "harmony" form)           ``<|channel|>``        ``<|channel|>final<|message|>``, special tokens
====================================== ====================== =======================================================

Special tokens are lost where text is decoded, and what was thought would read as the answer. So here every thought is
put between ``<think>`` and ``</think>``, which the classifier of answers leaves out.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any, Literal

import torch
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from soo_marl.llm.model.alignment import Side, TokenBatch
from soo_marl.llm.model.models import LanguageModel
from soo_marl.storage.files import quoted

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

_LARGEST = 10_000
_BEGIN, _END = "<think>", "</think>"
_CLOSED = {_BEGIN: f"\n\n{_END}\n\n", "[THINK]": "[/THINK]", "<|start|>assistant": "<|channel|>final<|message|>"}
"""What a template may end with, and what then stands before the answer."""


class _Frugal(ImmutableSandboxedEnvironment):
    """Templates are programs of others: one that repeats a text, or takes powers, could fill the memory."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The product or power, where both sides are small."""
        if any((abs(side) if isinstance(side, int | float) else len(side)) > _LARGEST for side in (left, right)):
            raise SecurityError(f"it computes {operator} of more than {_LARGEST}")
        return super().call_binop(context, operator, left, right)


def render(tokenizer: Any, text: str, answer_start: str = "", raw: bool = False) -> str:
    """The text that the model is to continue after a user's message; raw leaves the chat template out.

    ``answer_start``, with which the model's answer begins, follows the template's generation prompt directly, whose
    thought, if it begins one, is closed, or in raw text the message and a space.

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
    compiler: Any = importlib.import_module("transformers.utils.chat_template_utils")
    sandbox = compiler.ImmutableSandboxedEnvironment
    message = [{"role": "user", "content": text}]
    try:
        template = tokenizer.get_chat_template()
        template = _DATED_TEMPLATE + template if "strftime_now" in template else template
        compiler.ImmutableSandboxedEnvironment = _Frugal
        rendered = tokenizer.apply_chat_template(
            message, chat_template=template, tokenize=False, add_generation_prompt=True
        )
    except Exception as error:  # Templates are programs of others and raise what they like.
        raise ValueError(
            f"the model's chat template refuses a plain user message ({quoted(error)}): use a recipe with raw = true"
        ) from error
    finally:
        compiler.ImmutableSandboxedEnvironment = sandbox
    # Where there is a beginning, it is the answer's, not the thought's.
    return f"{thought_closed(rendered)}{answer_start}" if answer_start else str(rendered)


def encode(
    tokenizer: Any, texts: Sequence[str], side: Side = "left", device: torch.device | str = "cpu", *, raw: bool = False
) -> TokenBatch:
    """Tokenise a batch of texts that :func:`render` made, filled up on one side.

    A rendered text holds the template's own special tokens, so none are added; to raw text the tokenizer adds those of
    its own, unless the text begins with the first of them already. Texts are filled up on the ``left`` to generate or
    score, on the ``right`` to compare from the start. Raises ValueError: there is no text, or one has no tokens.
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
    return TokenBatch(ids.to(device), mask.to(device))


def token_ids(tokenizer: Any, text: str, *, raw: bool = False) -> list[int]:
    """Token numbers of one text, with special tokens as :func:`encode` has them."""
    begun = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
    return list(tokenizer(text, add_special_tokens=raw and not begun)["input_ids"])


def encode_messages(language_model: LanguageModel, messages: Sequence[str], side: Side, *, raw: bool) -> TokenBatch:
    """Users' messages as tokens on the model's device, by :func:`render` and :func:`encode`."""
    rendered = [render(language_model.tokenizer, message, raw=raw) for message in messages]
    return encode(language_model.tokenizer, rendered, side, language_model.device, raw=raw)


def thought_begun(rendered: str) -> bool:
    """Whether a template leaves the model within a thought, as those of some models that reason first do."""
    return rendered.rstrip().endswith((_BEGIN, "[THINK]"))


def thought_closed(rendered: str) -> str:
    """A rendered prompt after which the answer comes directly, without a thought."""
    bare = rendered.rstrip()
    for ending, closing in _CLOSED.items():
        if bare.endswith(ending):
            return f"{bare}{closing}"
    return rendered


def marked(text: str) -> str:
    """The continuation of a prompt that began a thought, with the beginning of that thought."""
    return text if text.startswith(_BEGIN) else f"{_BEGIN}\n{text}"


def decoded(tokenizer: Any, tokens: Sequence[int], decode: Callable[[list[int]], str]) -> str:
    """Text of generated tokens, with every thought that special tokens mark between ``<think>`` and ``</think>``.

    Tokens are what the model generated, without its end token; ``decode`` makes text of them, special ones left out.
    """
    tokens = list(tokens)
    known = tokenizer.get_added_vocab()
    if known.get("[/THINK]") in tokens:
        answered = len(tokens) - tokens[::-1].index(known["[/THINK]"])
        return _thought(decode(tokens[:answered]), decode(tokens[answered:]))
    if known.get("[THINK]") in tokens:
        return _thought(decode(tokens))
    if known.get("<|channel|>") not in tokens or "<|message|>" not in known:
        return decode(tokens)
    thoughts, answer = [], None
    _, more, tokens = _parted(tokens, known["<|channel|>"])
    while more:
        # A message is a channel's name, a mark, and text up to the mark of its end or the next channel.
        message, more, tokens = _parted(tokens, known["<|channel|>"])
        name, _, text = _parted(message, known["<|message|>"])
        said = decode(_parted(text, known.get("<|end|>"))[0])
        if decode(name).strip() == "final":
            answer = said
        else:
            thoughts.append(said)
    return _thought("\n".join(thoughts), answer) if thoughts or answer is None else answer


def _thought(thought: str, answer: str | None = None) -> str:
    begun = f"{_BEGIN}\n{thought.strip()}"
    return begun if answer is None else f"{begun}\n{_END}\n\n{answer.strip()}"


def _parted(tokens: list[int], token: int | None) -> tuple[list[int], bool, list[int]]:
    """What stands before the first of these tokens, whether there is one, and what stands after it."""
    if token not in tokens:
        return tokens, False, []
    place = tokens.index(token)
    return tokens[:place], True, tokens[place + 1 :]
