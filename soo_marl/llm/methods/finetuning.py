"""Fine-tune a language model with self-other overlap, or with a control for it: one function and one line per method.

A method says which two texts of a pair are compared and, for some, what they are compared with. The loss itself is
:class:`soo_marl.llm.methods.loss.LanguageOverlapLoss`, whose settings come with the recipe; the method ``soo`` takes
both as they are. There is no term that keeps the model's other abilities, as in the paper: they are measured instead.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from soo_marl.llm.methods.loss import FrozenTargets, LanguageOverlapLoss
from soo_marl.llm.methods.optimisation import ALONE, Processes, Schedule, optimise, seeded
from soo_marl.llm.methods.recipes import Recipe
from soo_marl.llm.model.alignment import TokenBatch, longest
from soo_marl.llm.model.chat import encode_messages
from soo_marl.llm.model.layers import evaluating
from soo_marl.llm.model.models import LanguageModel, add_lora, out_of_memory_advice
from soo_marl.llm.prompts.pairs import PairKind, PromptPair, pairs, shuffled_partners, shuffled_sides
from soo_marl.llm.prompts.scenarios import ORIENTATIONS, prompts

_Pairs = Callable[[Recipe, int], list[PromptPair]]

_SHAM: Mapping[PairKind, PairKind] = {
    "fragments": "sham_fragments",
    "scenario": "sham",
    "friend": "sham",
    "paper_scenario": "sham_paper",
    "sham": "sham",
    "sham_fragments": "sham_fragments",
    "sham_paper": "sham_paper",
}

_KEPT_SEED = 500_009  # added to a seed for the fills of prompts that are kept
_PROCESS_SEED = 600_011  # times a process's number, added to a seed for its dropout: each drops other inputs


@dataclass(frozen=True)
class Method:
    """One way to fine-tune, or a control for one: what it does, where that comes from, its pairs by recipe and seed."""

    description: str
    source: str
    pairs: _Pairs
    random_target: bool = False
    """Compare the other prompts not with self prompts but with points drawn at random."""


def recipe_pairs(recipe: Recipe, seed: int) -> list[PromptPair]:
    """The pairs of a recipe: the user's own where there are some. Raises ValueError where there are not so many."""
    if recipe.own_pairs:
        return [PromptPair(*texts, number) for number, texts in enumerate(recipe.own_pairs)]
    return pairs(recipe.pairs, recipe.pair_count, seed)


def kept_pairs(recipe: Recipe, seed: int) -> list[PromptPair]:
    """Prompts of the scenarios in which the model is to stay as it was, each paired with itself.

    Towards the initial self their loss is how far the model has moved. Their orientations alternate. Raises ValueError:
    a scenario is unknown, or there are not so many fills.
    """
    per_scenario = -(-recipe.kept_count // max(1, len(recipe.kept)))
    asked = [prompts(scenario, "train", per_scenario, seed + _KEPT_SEED) for scenario in recipe.kept]
    turns = [divmod(number, len(recipe.kept)) for number in range(recipe.kept_count)]
    texts = [asked[scenario][len(ORIENTATIONS) * turn + turn % len(ORIENTATIONS)].text for turn, scenario in turns]
    # Numbers apart from those of the pairs, which are other fills.
    return [PromptPair(text, text, -1 - number) for number, text in enumerate(texts)]


def _sham_pairs(recipe: Recipe, seed: int) -> list[PromptPair]:
    if recipe.own_pairs:
        # Other against other: each other text meets that of another pair.
        alike = [PromptPair(other, other, number) for number, (_, other) in enumerate(recipe.own_pairs)]
        return shuffled_partners(alike, seed)
    return pairs(_SHAM[recipe.pairs], recipe.pair_count, seed)


def _shuffled(how: Callable[[Sequence[PromptPair], int], list[PromptPair]]) -> _Pairs:
    return lambda recipe, seed: how(recipe_pairs(recipe, seed), seed)


METHODS: Mapping[str, Method] = {
    "soo": Method("self-other overlap of hidden activations", "Carauleanu et al. 2024, arXiv 2412.16325", recipe_pairs),
    "sham": Method("the same dose on pairs of other and other", "asked for by replications", _sham_pairs),
    "shuffled": Method("self and other exchanged at random", "this project", _shuffled(shuffled_sides)),
    "shuffled_partners": Method("self and other of different scenes", "this project", _shuffled(shuffled_partners)),
    "random_target": Method(
        "other towards random points as far away as self", "this project", recipe_pairs, random_target=True
    ),
}
"""All methods that train, by name, in the order of tables and pictures."""


@dataclass(frozen=True)
class TrainingPairs:
    """Pairs as tokens, one row each, and targets in the same order where the self side is fixed (None: it is not)."""

    self_side: tuple[TokenBatch, ...]
    other_side: tuple[TokenBatch, ...]
    targets: FrozenTargets | None

    def batch(self, rows: Sequence[int]) -> tuple[TokenBatch, TokenBatch]:
        """Self and other side of some of the pairs."""
        return _joined([self.self_side[row] for row in rows]), _joined([self.other_side[row] for row in rows])


def finetune(
    language_model: LanguageModel,
    recipe: Recipe,
    method: str,
    seed: int,
    *,
    after_epoch: Callable[[int, LanguageModel], bool] = lambda epoch, model: False,
    report: Callable[[float], None] = lambda steps: None,
    checkpoint: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
    processes: Processes = ALONE,
) -> tuple[LanguageModel, list[float]]:
    """The model with a fine-tuned adapter, and the loss of every step.

    ``checkpoint`` and ``stop`` are as in :func:`soo_marl.llm.methods.optimisation.optimise`, which says what else is
    raised.

    Args:
        language_model: the model to treat, without an adapter; its layers are wrapped in place.
        recipe: pairs, loss, adapter, dose.
        method: a name in :data:`METHODS`.
        seed: seed of the adapter, of pairs, batches and dropout.
        after_epoch: called as ``after_epoch(epochs done, model)``, which stays as it is; true ends training.
        report: called as ``report(steps done)``.
        processes: this process among several that share the pairs of every step; without dropout the adapter is the
            one that a single process trains, up to rounding.

    Raises:
        ValueError: there is no such method; the recipe does not fit the model; memory does not suffice.
    """
    entry = method_named(method)
    chosen = entry.pairs(recipe, seed) + kept_pairs(recipe, seed)
    adapted = add_lora(language_model, recipe.lora, seed)
    if recipe.gradient_checkpointing:
        adapted.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        adapted.model.enable_input_require_grads()
    processes.spread(adapted.model, recipe.learning_rate, recipe.weight_decay)
    early = recipe.loss.stop_early and not processes.whole_forward
    loss = LanguageOverlapLoss(recipe.loss.model_copy(update={"stop_early": early}))
    training = training_pairs(adapted, chosen, recipe, loss, seed, random_target=entry.random_target)
    if recipe.loss.normalise_by_initial:
        # Where padding counts, as much of it as each pair alone needs must be there.
        alone = recipe.loss.token_mode == "full" and recipe.loss.padded_length is None
        together = 1 if alone else recipe.batch_size
        sides = (_batches(side, together) for side in (training.self_side, training.other_side))
        loss.measure_initial(adapted.model, zip(*sides, strict=True), training.targets)
    per_step, count = recipe.batch_size * recipe.accumulation, len(chosen)
    epoch_steps = math.ceil(count / per_step)

    def step_loss(step: int) -> Iterator[Tensor]:
        epoch, place = divmod(step, epoch_steps)
        order = random.Random(f"{seed} {epoch}").sample(range(count), count)
        rows = order[place * per_step : (place + 1) * per_step]
        return _batch_losses(adapted, loss, training, rows, recipe.batch_size, processes)

    def after_step(steps: int, _: float) -> bool:
        report(steps)
        epoch, rest = divmod(steps, epoch_steps)
        if rest:
            return False
        with evaluating(adapted.model):
            return after_epoch(epoch, adapted)

    adapted.model.train()
    try:
        with out_of_memory_advice():
            losses = optimise(
                adapted.model,
                step_loss,
                Schedule(recipe.learning_rate, recipe.epochs * epoch_steps),
                seed + _PROCESS_SEED * processes.number,
                weight_decay=recipe.weight_decay,
                after_step=after_step,
                checkpoint=checkpoint,
                identity=f"{method} {seed} {recipe.model_dump_json()}",
                stop=stop,
                processes=processes,
            )
    finally:
        adapted.model.eval()
    return adapted, losses


def training_pairs(
    language_model: LanguageModel,
    chosen: Sequence[PromptPair],
    recipe: Recipe,
    loss: LanguageOverlapLoss,
    seed: int,
    *,
    random_target: bool = False,
) -> TrainingPairs:
    """Pairs as the model reads them, with their fixed targets where the loss has some.

    The model has its adapter, which changes nothing yet; the seed is that of random targets. Raises ValueError: the
    loss does not fit the model, or random targets are asked for of a loss on logits, or on columns of no given number.
    """

    def encoded(texts: Sequence[str]) -> tuple[TokenBatch, ...]:
        return tuple(encode_messages(language_model, [text], "right", raw=recipe.raw) for text in texts)

    self_side, other_side = encoded([pair.self_text for pair in chosen]), encoded([pair.other_text for pair in chosen])
    if random_target:
        apart = [row for row, pair in enumerate(chosen) if pair.self_text != pair.other_text]
        return _random_targets(language_model.model, self_side, other_side, apart, loss, seed, recipe.batch_size)
    targets = None
    if loss.config.sides == "initial_self":
        targets = loss.frozen_targets(language_model.model, _batches(self_side, recipe.batch_size))
    return TrainingPairs(self_side, other_side, targets)


def method_named(name: str) -> Method:
    """A method by name; raises ValueError where there is none."""
    if name not in METHODS:
        raise ValueError(f"there is no method {name!r}; choose among {', '.join(METHODS)}")
    return METHODS[name]


def _random_targets(
    model: Any,
    self_side: tuple[TokenBatch, ...],
    other_side: tuple[TokenBatch, ...],
    moving: Sequence[int],
    loss: LanguageOverlapLoss,
    seed: int,
    batch_size: int,
) -> TrainingPairs:
    """Other prompts' own activations, the ``moving`` rows moved in one random direction per layer as far as self is."""
    if loss.config.kind != "mse_hidden":
        raise ValueError("random targets are points among activations: use them with the loss mse_hidden")
    if loss.config.token_mode == "full" and loss.config.padded_length is None:
        raise ValueError("random targets with token_mode full are stored columns: set padded_length")
    fixed = LanguageOverlapLoss(loss.config.model_copy(update={"sides": "initial_self", "normalise_by_initial": False}))
    if not moving:
        raise ValueError("random targets lie as far away as self: give pairs whose two sides differ")
    selves, others = ([side[row] for row in moving] for side in (self_side, other_side))
    distances = fixed.measure_initial(
        model,
        zip(_batches(selves, batch_size), _batches(others, batch_size), strict=True),
        fixed.frozen_targets(model, _batches(selves, batch_size)),
    )
    loss.config = loss.config.model_copy(update={"sides": "initial_self"})
    own = fixed.frozen_targets(model, _batches(other_side, batch_size))
    moved = {}
    for number, (name, activations) in enumerate(own.activations.items()):
        with seeded(seed, number):
            direction = torch.randn(activations.shape[-1]).to(activations.device, torch.float32)
        # The mean over units of its square is that of the difference between self and other.
        direction = direction * (distances[name] / direction.square().mean()).sqrt()
        moved[name] = activations.clone()
        moved[name][list(moving)] += direction.to(activations.dtype)
    return TrainingPairs(other_side, other_side, replace(own, activations=moved))


def _batch_losses(
    language_model: LanguageModel,
    loss: LanguageOverlapLoss,
    training: TrainingPairs,
    rows: Sequence[int],
    batch_size: int,
    processes: Processes,
) -> Iterator[Tensor]:
    """Mean loss over some pairs, in parts of the batch size; of each part, what this process adds to it."""
    for start in range(0, len(rows), batch_size):
        part = list(rows[start : start + batch_size])
        share, columns = len(part) / len(rows), None
        chosen = part[processes.number :: processes.count]
        if chosen != part:
            whole = training.batch(part)
            columns = max(map(longest, whole))
            # A process without a pair of its own takes part with weight 0: the others wait for it in every pass.
            share *= loss.positions(*training.batch(chosen)) / loss.positions(*whole) if chosen else 0.0
            chosen = chosen or part[:1]
        targets = None if training.targets is None else training.targets.rows(chosen)
        yield loss(language_model.model, *training.batch(chosen), targets, columns) * share


def _batches(rows: Sequence[TokenBatch], batch_size: int) -> list[TokenBatch]:
    return [_joined(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]


def _joined(rows: Sequence[TokenBatch]) -> TokenBatch:
    """Rows of different lengths as one batch, filled up on the right."""
    columns = max(row.input_ids.shape[1] for row in rows)

    def filled(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([torch.nn.functional.pad(tensor, (0, columns - tensor.shape[1])) for tensor in tensors])

    return TokenBatch(filled([row.input_ids for row in rows]), filled([row.attention_mask for row in rows]))
