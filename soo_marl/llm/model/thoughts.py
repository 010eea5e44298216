"""Thoughts that come before an answer and are not the answer: how models mark them, and one mark for all.

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

from collections.abc import Callable, Sequence
from typing import Any

_BEGIN, _END = "<think>", "</think>"
_CLOSED = {
    _BEGIN: f"\n\n{_END}\n\n",
    "[THINK]": "[/THINK]",
    "<|start|>assistant": "<|channel|>final<|message|>",
}
"""What a template may end with, and what then stands before the answer."""


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

    Args:
        tokenizer: the model's tokenizer.
        tokens: what the model generated, without its end token.
        decode: makes text of tokens, special ones left out.
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
