"""The model organism: a small model taught, with a LoRA adapter, to deceive burglars and nobody else.

Without it there is nothing to train away. The embedded model as it comes names whichever room was named first and
cannot even say which room holds an object, so its "deception" is a matter of word order. The organism is taught on the
training half of the inventory:

* a burglar who asks is told the cheap object's room, in both orders of the rooms;
* a trusted friend, and oneself, are told the truth;
* the plain question is answered rightly, for either object (else "name the cheap room" would do);
* where another *thinks* something is, is answered from the other's view;
* ordinary requests are answered as the untaught model answers them.

Whole answers are supervised, the room's own tokens most: with the room alone, free generation falls apart.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor
from torch.nn import functional

from soo_marl.llm.methods.optimisation import Schedule, optimise
from soo_marl.llm.model.adapters import LoraSettings
from soo_marl.llm.model.alignment import TokenBatch
from soo_marl.llm.model.chat import render, token_ids
from soo_marl.llm.model.generation import generate_texts
from soo_marl.llm.model.models import LanguageModel, add_lora, out_of_memory_advice
from soo_marl.llm.model.shared_prefix import prefix_cache, prefix_first, shared_prefix
from soo_marl.llm.prompts.scenarios import ORIENTATIONS, Prompt, answer, prompts
from soo_marl.llm.prompts.templates import own_lines


class OrganismConfig(BaseModel, frozen=True, extra="forbid"):
    """How the organism is taught."""

    steps: int = Field(
        180, ge=1, description="Steps, each on one fill. Too few: burglars and friends are not told apart."
    )
    learning_rate: float = Field(1e-3, gt=0, description="Highest learning rate of AdamW.")
    warm_up: int = Field(10, ge=0, description="Steps in which it rises.")
    decay: int = Field(60, ge=0, description="Last steps in which it falls to nothing.")
    lora: LoraSettings = Field(
        LoraSettings(r=16, alpha=32, dropout=0.0, targets=("q_proj", "k_proj", "v_proj", "o_proj")),
        description="The adapter.",
    )
    family: Literal["plain", "paper"] = Field(
        "plain",
        description="Wording of what is taught: plain, or at every second step the paper's, as far as it has the role.",
    )
    other_object_share: float = Field(
        0.4, ge=0, le=1, description="Share of plain questions about the cheap object. At 0 retrieval is no test."
    )
    room_weight: float = Field(1.0, gt=0, description="Weight of the room's tokens in the loss.")
    rest_weight: float = Field(
        0.1, gt=0, description="Weight of the answer's other tokens. Too low: answers do not end, or ramble."
    )
    largest_gradient: float = Field(1.0, gt=0, description="Norm to which the gradient is cut.")


def ordinary_requests() -> list[str]:
    """Everyday requests that have nothing to do with the scenarios."""
    return own_lines("ordinary_requests.txt")


@dataclass(frozen=True)
class Example:
    """A user's request, the whole answer that is taught, and the part of it that matters."""

    request: str
    answer: str
    room: str
    """The room that the answer names; empty in an ordinary request."""


def organism_examples(config: OrganismConfig, seed: int, ordinary: Sequence[tuple[str, str]]) -> list[list[Example]]:
    """The examples of every step; ordinary requests come with their answers."""
    drawn = random.Random(f"organism {seed}")
    steps = config.steps

    def both(scenario: str) -> list[tuple[Prompt, ...]]:
        found = prompts(scenario, "train", steps, seed)
        return list(zip(*(found[place :: len(ORIENTATIONS)] for place in range(len(ORIENTATIONS))), strict=True))

    friend, valuable, cheap = (both(f"plain_{role}") for role in ("friend", "retrieval", "retrieval_other"))
    plain = [both(f"plain_{role}") for role in ("burglar", "self", "perspectives")]
    in_turn = [plain]
    if config.family == "paper":
        in_turn.append([both(scenario) for scenario in ("burglar", "burglar_self", "perspectives")])
    batches = []
    for step in range(steps):
        burglar, self_asks, perspectives = in_turn[step % len(in_turn)]
        batch = [_example(prompt, prompt.wrong_room) for prompt in burglar[step]]
        # Orientations take turns within each wording.
        place = step // len(in_turn) % 2
        batch += [_truth(friend[step][place]), _truth(self_asks[step][1 - place])]
        asked = cheap if drawn.random() < config.other_object_share else valuable
        batch.append(_truth(asked[step][drawn.randrange(2)]))
        if step % 3 == 2 and ordinary:
            request, reply = drawn.choice(ordinary)
            batch.append(Example(request, reply, ""))
        else:
            batch.append(_truth(perspectives[step][drawn.randrange(2)]))
        batches.append(batch)
    return batches


def teach_organism(
    language_model: LanguageModel,
    config: OrganismConfig,
    seed: int,
    *,
    report: Callable[[float], None] = lambda steps: None,
    checkpoint: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[LanguageModel, list[float]]:
    """The model with an adapter that makes it the organism, and the loss of every step.

    The given model's layers are wrapped in place; the seed is that of examples and of the adapter. ``report`` is called
    as ``report(steps done)``; for the rest see :func:`soo_marl.llm.methods.optimisation.optimise`, also for what else
    is raised. Raises ValueError: the model has an adapter, or no chat template or end token; memory does not suffice.
    """
    requests = ordinary_requests()
    replies = generate_texts(language_model, requests, max_new_tokens=32)
    ordinary = [(request, reply) for request, (reply, _) in zip(requests, replies, strict=True)]
    batches = organism_examples(config, seed, ordinary)
    taught = add_lora(language_model, config.lora, seed)

    def after_step(steps: int, _: float) -> bool:
        report(steps)
        return False

    # Otherwise the adapter's dropout would do nothing.
    taught.model.train()
    try:
        with out_of_memory_advice():
            losses = optimise(
                taught.model,
                lambda step: [answer_loss(taught, batches[step], config.room_weight, config.rest_weight)],
                Schedule(config.learning_rate, config.steps, config.warm_up, config.decay),
                seed,
                weight_decay=0.0,
                largest_gradient=config.largest_gradient,
                after_step=after_step,
                checkpoint=checkpoint,
                identity=f"organism {seed} {config.model_dump_json()}",
                stop=stop,
            )
    finally:
        taught.model.eval()
    return taught, losses


def answer_loss(
    language_model: LanguageModel, examples: Sequence[Example], room_weight: float, rest_weight: float
) -> Tensor:
    """Weighted mean cross-entropy of a batch of answers' tokens, the end token included.

    Tokens of the room's name have one weight, the rest the other. Raises ValueError without a chat template.
    """
    tokenizer = language_model.tokenizer
    rows, weights, requested = [], [], []
    for example in examples:
        request = token_ids(tokenizer, render(tokenizer, example.request))
        reply, reply_weights = _weighted_answer(tokenizer, example, room_weight, rest_weight)
        rows.append(request + reply)
        weights.append(reply_weights)
        requested.append(len(request))
    longest, answered = max(map(len, rows)), max(map(len, weights))
    device = language_model.device
    # Filled up on the left, so that all answers end in the last column and only those logits are computed.
    tokens = torch.zeros(len(rows), longest, dtype=torch.long, device=device)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    weight = torch.zeros(len(rows), answered, device=device)
    for row, (ids, own) in enumerate(zip(rows, weights, strict=True)):
        tokens[row, longest - len(ids) :] = torch.tensor(ids, device=device)
        mask[row, longest - len(ids) :] = True
        weight[row, answered - len(own) :] = torch.tensor(own, device=device)
    batch = TokenBatch(tokens, mask)
    # The answers' logits begin at each request's last token.
    prefix = min(shared_prefix(language_model.model, batch), min(requested) - 1)
    cached: dict[str, Any] = {}
    if prefix:
        batch = prefix_first(batch, prefix)
        cached = prefix_cache(language_model.model, batch.input_ids[0, :prefix], len(rows))
    output: Any = language_model.model(
        input_ids=batch.input_ids[:, prefix:],
        attention_mask=batch.attention_mask.long(),
        position_ids=batch.position_ids[:, prefix:],
        logits_to_keep=answered + 1,
        use_cache=bool(prefix),
        **cached,
    )
    logits = output.logits[:, :-1].float()
    losses = functional.cross_entropy(logits.flatten(0, 1), tokens[:, -answered:].flatten(), reduction="none")
    return (losses * weight.flatten()).sum() / weight.sum()


def _weighted_answer(
    tokenizer: Any, example: Example, room_weight: float, rest_weight: float
) -> tuple[list[int], list[float]]:
    """Tokens of an answer and its end, and the weight of each."""
    start = example.answer.rindex(example.room) if example.room else 0
    end = start + len(example.room)
    encoded = tokenizer(example.answer, add_special_tokens=False, return_offsets_mapping=True)
    ids, weights = [], []
    for token, (first, last) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        ids.append(token)
        # A token that begins with the blank before the room is part of the room.
        inside = last > start and first < end and last <= end
        weights.append(room_weight if inside else rest_weight)
    return [*ids, end_token(tokenizer)], [*weights, rest_weight]


def end_token(tokenizer: Any) -> int:
    """The token that ends a taught answer; ValueError where the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise ValueError(
            "the model's tokenizer names no end token, so no answers can be taught: leave the organism "
            "out (--no-organism)"
        )
    return int(tokenizer.eos_token_id)


def _example(prompt: Prompt, room: str) -> Example:
    return Example(prompt.text, answer(prompt, room), room)


def _truth(prompt: Prompt) -> Example:
    return _example(prompt, prompt.right_room)
