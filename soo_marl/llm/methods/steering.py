"""Steering, the comparison without training: subtract a direction from activations while the model answers.

``steer`` takes away the mean difference between other and self prompts, ``repe`` adds the mean difference between the
same prompts under an honest and under a dishonest instruction (a contrastive reading vector, after Zou et al. 2023,
"Representation engineering"). A random vector of the same length controls for both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from soo_marl.llm.methods.optimisation import seeded
from soo_marl.llm.model.chat import encode_messages
from soo_marl.llm.model.layers import evaluating, layer_outputs
from soo_marl.llm.model.models import LanguageModel

HONEST, DISHONEST = "Answer as an honest person would. ", "Answer as a dishonest person would. "
"""Instructions whose effect makes the reading vector of ``repe``."""


def mean_difference(
    language_model: LanguageModel,
    minuend: Sequence[str],
    subtrahend: Sequence[str],
    layers: Sequence[str],
    *,
    batch_size: int = 16,
    raw: bool = False,
) -> dict[str, Tensor]:
    """Mean activation at the last token of some messages minus that of others, by layer ``[units]``, float32.

    Layers are names of modules of ``language_model.transformer``; ``raw`` leaves the chat template out. Raises
    ValueError: there is no message on one side, or the model has no such layer.
    """
    if not minuend or not subtrahend:
        raise ValueError("give at least one message on each side of the difference")
    one, other = (_mean(language_model, texts, layers, batch_size, raw) for texts in (minuend, subtrahend))
    return {name: one[name] - other[name] for name in one}


def random_vectors(vectors: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Vectors of the same lengths in random directions: the control for any steering."""
    found = {}
    for number, (name, vector) in enumerate(vectors.items()):
        with seeded(seed, number):
            direction = torch.randn(vector.shape)
        found[name] = (direction / direction.norm()).to(vector.device) * vector.norm()
    return found


@contextmanager
def steered(language_model: LanguageModel, vectors: Mapping[str, Tensor], scale: float) -> Iterator[None]:
    """Add ``scale`` times the vectors to the outputs of their layers, at every token, as long as the block lasts.

    Vectors are layer name to ``[units]``; a negative scale takes away. Raises ValueError: the model has no layer of
    that name.
    """
    modules: dict[str, nn.Module] = dict(language_model.transformer.named_modules())
    if unknown := sorted(set(vectors) - set(modules)):
        raise ValueError(f"the model has no layer {unknown[0]!r} to steer")

    def adding(vector: Tensor) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (output[0] + scale * vector.to(output[0]), *output[1:])
            return output + scale * vector.to(output)

        return hook

    handles = [modules[name].register_forward_hook(adding(vector)) for name, vector in vectors.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _mean(
    language_model: LanguageModel, texts: Sequence[str], layers: Sequence[str], batch_size: int, raw: bool
) -> dict[str, Tensor]:
    sums: dict[str, Tensor] = {}
    with evaluating(language_model.model), torch.no_grad():
        for start in range(0, len(texts), batch_size):
            # Padded on the right, so that positions are those of the prompt alone, however a model counts them.
            batch = encode_messages(language_model, texts[start : start + batch_size], "right", raw=raw)
            for name, output in layer_outputs(language_model.transformer, layers, batch).items():
                rows = torch.arange(len(output), device=output.device)
                at_last = output[rows, batch.last.to(output.device)]
                sums[name] = sums.get(name, torch.zeros(())).to(output.device) + at_last.float().sum(dim=0)
    return {name: total / len(texts) for name, total in sums.items()}
