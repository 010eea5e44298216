"""Ready-made studies of language models: the demonstration, and treatments of a user's own model."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any, Literal

from soo_marl.llm.alignment import TokenMode
from soo_marl.llm.configuration import Condition, LanguageStudyConfig
from soo_marl.llm.embedded import EMBEDDED
from soo_marl.llm.evaluation import PAPER_ROLES, PLAIN_ROLES, EvaluationConfig
from soo_marl.llm.organism import OrganismConfig
from soo_marl.llm.recipes import Recipe, recipe

Scale = Literal["quick", "standard"]

DEMO_CONDITIONS = (
    ("soo_paper", "soo", "embedded-paper"),
    ("soo", "soo", "embedded"),
    ("sham", "sham", "embedded"),
    ("steer", "steer", "embedded"),
    ("honesty_prompt", "honesty_prompt", "embedded"),
)
"""Label, method and recipe of every treatment in the demonstration."""


def demo_study(scale: Scale = "standard", **changes: Any) -> LanguageStudyConfig:
    """The demonstration on the embedded model: an organism, the paper's recipe, ours, and controls.

    Args:
        scale: ``quick`` asks a quarter of the questions and has one seed: a look, no result.
        changes: further fields of :class:`LanguageStudyConfig`.

    Raises:
        ValueError, pydantic.ValidationError: there is no such scale, or a field does not fit.
    """
    if scale not in ("quick", "standard"):
        raise ValueError(f"there is no scale {scale!r}; choose quick or standard")
    quick = scale == "quick"
    fields: dict[str, Any] = {
        "organism": OrganismConfig(),
        "conditions": tuple(
            Condition(label=label, method=method, recipe=recipe(name)) for label, method, name in DEMO_CONDITIONS
        ),
        "seeds": (0,) if quick else (0, 1, 2),
        "evaluation": EvaluationConfig(fills={"burglar": 25 if quick else 100}, other_fills=6 if quick else 25),
        "epoch_fills": 0 if quick else 8,
    }
    return LanguageStudyConfig.model_validate(fields | changes)


def treatment_study(
    chosen: Recipe,
    methods: Sequence[str],
    seeds: Sequence[int],
    *,
    model: str | None = None,
    organism: bool = True,
    organism_seeds: Sequence[int] = (0,),
    wording: Literal["plain", "paper"] = "plain",
    fills: int = 100,
    more_scenarios: Sequence[str] = (),
    max_new_tokens: int | None = None,
) -> LanguageStudyConfig:
    """Treatments of one model by one recipe.

    Args:
        chosen: the recipe.
        methods: names of methods; each becomes a condition of that label.
        seeds: of every treatment.
        model: the model to treat; the recipe's own by default.
        organism: whether it is first taught to deceive; a model that deceives by itself need not be.
        organism_seeds: seeds of organisms.
        wording: whose wording the questions have.
        fills: fills of the burglar's scenario, each in both orientations; a quarter of it of the others.
        more_scenarios: further scenarios to ask.
        max_new_tokens: token budget of an answer; 24 for the embedded model, 75 for others, as in the public code.

    Raises:
        ValueError, pydantic.ValidationError: a setting does not fit.
    """
    name = model or chosen.model
    budget = max_new_tokens or (24 if name == EMBEDDED and wording == "plain" else 75)
    evaluation = EvaluationConfig(
        roles=dict(PLAIN_ROLES if wording == "plain" else PAPER_ROLES),
        fills={"burglar": fills},
        other_fills=max(1, fills // 4),
        more_scenarios=tuple(more_scenarios),
        max_new_tokens=budget,
        answer_form=chosen.answer_form if wording == "paper" else None,
        raw=chosen.raw,
    )
    return LanguageStudyConfig(
        model=name,
        dtype=chosen.dtype,
        quantisation=chosen.quantisation,
        organism=OrganismConfig(family=wording) if organism else None,
        organism_seeds=tuple(organism_seeds),
        conditions=tuple(Condition(label=method, method=method, recipe=chosen) for method in methods),
        seeds=tuple(seeds),
        evaluation=evaluation,
    )


def sweep_study(
    chosen: Recipe,
    layers: Sequence[int | str],
    token_modes: Sequence[TokenMode],
    learning_rates: Sequence[float],
    study: LanguageStudyConfig,
) -> LanguageStudyConfig:
    """The method ``soo`` at every combination of layers, token modes and learning rates.

    Args:
        chosen: the recipe whose other settings hold throughout.
        layers: as :attr:`soo_marl.llm.loss.LossConfig.layers`.
        token_modes: which tokens are compared.
        learning_rates: learning rates.
        study: seeds, questions and organism, from :func:`treatment_study`.

    Raises:
        ValueError, pydantic.ValidationError: a setting does not fit, or one is given twice.
    """
    conditions = []
    for layer, mode, rate in itertools.product(layers, token_modes, learning_rates):
        loss = chosen.loss.model_dump() | {"layers": layer, "token_mode": mode}
        if mode != "aligned_right":
            loss["skip_header"] = 0
        fields = chosen.model_dump() | {"loss": loss, "learning_rate": rate}
        label = re.sub(r"[^A-Za-z0-9_.-]+", "_", f"layers-{layer}.{mode}.rate-{rate:g}")
        conditions.append(Condition(label=label, method="soo", recipe=Recipe.model_validate(fields)))
    return LanguageStudyConfig.model_validate(study.model_dump() | {"conditions": tuple(conditions)})
