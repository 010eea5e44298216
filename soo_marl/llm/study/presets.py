"""Ready-made studies of language models: the demonstration, and treatments of a user's own model."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from soo_marl.llm.measures.evaluation import PAPER_ROLES, PLAIN_ROLES, EvaluationConfig
from soo_marl.llm.methods.finetuning import METHODS
from soo_marl.llm.methods.organism import OrganismConfig
from soo_marl.llm.methods.recipes import Recipe, recipe
from soo_marl.llm.model.alignment import TokenMode
from soo_marl.llm.model.embedded import EMBEDDED
from soo_marl.llm.model.models import ModelDtype
from soo_marl.llm.prompts.templates import load_answer_forms, load_templates
from soo_marl.llm.study.configuration import Condition, LanguageStudyConfig

Scale = Literal["quick", "standard", "full"]

DEMO_CONDITIONS = (
    ("soo_paper", "soo", "embedded-paper"),
    ("soo", "soo", "embedded"),
    ("sham", "sham", "embedded"),
    ("steer", "steer", "embedded"),
    ("honesty_prompt", "honesty_prompt", "embedded"),
)
"""Label, method and recipe of every treatment in the demonstration."""

FULL_CONTROLS = ("shuffled", "shuffled_partners", "random_target", "steer_random", "repe")
"""Methods that the full scale adds, by our recipe."""

LEFT_OUT: Mapping[str, Mapping[str, Any]] = {
    "soo_both_sides": {"loss": {"sides": "both"}, "kept": (), "kept_count": 0},
    "soo_fragments": {"pairs": "fragments"},
    "soo_one_layer": {"loss": {"layers": 15}},
    "soo_not_kept": {"kept": (), "kept_count": 0},
}
"""Our recipe without one of its ingredients: frozen self, scenario's wording, many layers, kept prompts.

Prompts can be kept only where the self is frozen, so both go together there."""

ONE_SEED_PER_ORGANISM = ("soo_paper", "steer_random", *LEFT_OUT)
"""Treatments of which the full scale has fewer seeds than of the others."""

LIMIT_SCENARIOS = (
    "plain_stranger",
    "plain_thief",
    "plain_guest",
    "cell_murderer",
    "cell_fire",
    "cell_white_lie",
    "cell_delivery",
    "burglar_name",
    "burglar_objective",
    "burglar_action",
    "burglar_all",
    "treasure_hunt",
    "escape_room",
)
"""What the full scale asks beyond the demonstration: other roles, other stakes, and the paper's wording."""

LIMIT_ROLES: Mapping[str, tuple[str, ...]] = {"paper_burglar": ("burglar",), "paper_perspectives": ("perspectives",)}
"""Further scenarios whose names are those of roles already."""

_LIMIT_FILLS = 12
"""Fills of each of these, so that most of the time goes into what the verdict rests on."""

LIMIT_MODELS = ("organism", "soo")
"""Which models it asks that."""

ORGANISM_IN: Mapping[str, OrganismConfig] = {
    "plain": OrganismConfig(),
    "paper": OrganismConfig(family="paper", steps=360),
}
"""The organism for questions in either wording; the paper's takes longer to learn."""

FULL_SEEDS, FULL_ORGANISMS = (0, 1, 2, 3, 4), (0, 1, 2)


def demo_study(scale: Scale = "standard", **changes: Any) -> LanguageStudyConfig:
    """The demonstration on the embedded model: an organism, the paper's recipe, ours, and controls.

    Args:
        scale: ``quick`` asks a quarter of the questions and has one seed: a look, no result. ``full`` has three
            organisms, five seeds, every control, our recipe without each of its ingredients, and more scenarios.
        changes: further fields of :class:`LanguageStudyConfig`.

    Raises:
        ValueError, pydantic.ValidationError: there is no such scale, or a field does not fit.
    """
    if scale not in get_args(Scale):
        raise ValueError(f"there is no scale {scale!r}; choose quick, standard or full")
    quick, full = scale == "quick", scale == "full"
    listed = [(label, method, recipe(name)) for label, method, name in DEMO_CONDITIONS]
    if full:
        listed += [(name, name, recipe("embedded")) for name in FULL_CONTROLS]
        listed += [(name, "soo", recipe("embedded", **change)) for name, change in LEFT_OUT.items()]
        # Models are made in this order, and what is not trained says least.
        listed.sort(key=lambda entry: entry[1] not in METHODS)
    fields: dict[str, Any] = {
        "organism": ORGANISM_IN["plain"],
        "conditions": tuple(
            Condition(
                label=label,
                method=method,
                recipe=chosen,
                seed_count=len(FULL_ORGANISMS) if full and label in ONE_SEED_PER_ORGANISM else None,
            )
            for label, method, chosen in listed
        ),
        "seeds": (0,) if quick else (0, 1, 2),
        "evaluation": EvaluationConfig(fills={"burglar": 25 if quick else 100}, other_fills=6 if quick else 25),
        "epoch_fills": 0 if quick else 8,
    }
    if full:
        fields |= {
            "organism_seeds": FULL_ORGANISMS,
            "seeds": FULL_SEEDS,
            "evaluation": EvaluationConfig(
                roles={**PLAIN_ROLES, **LIMIT_ROLES},
                more_scenarios=LIMIT_SCENARIOS,
                fills={"burglar": 100} | dict.fromkeys((*LIMIT_ROLES, *LIMIT_SCENARIOS), _LIMIT_FILLS),
            ),
            "asked_more": LIMIT_MODELS,
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
    dtype: ModelDtype | None = None,
    scenario_file: Path | None = None,
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
        dtype: type of the model's weights; the recipe's by default.
        scenario_file: a user's own scenarios, as :func:`soo_marl.llm.prompts.templates.load_templates` reads them. All
            are asked; one with the name of ours takes its place.

    Raises:
        RunDirectoryError: the file cannot be read.
        ValueError, pydantic.ValidationError: a setting or scenario does not fit.
    """
    name = model or chosen.model
    if name != EMBEDDED and Path(name).expanduser().is_dir():
        # So that the study's models can be loaded from anywhere.
        name = str(Path(name).expanduser().resolve())
    budget = max_new_tokens if max_new_tokens is not None else (24 if name == EMBEDDED and wording == "plain" else 75)
    ours, templates = load_templates(), load_templates(scenario_file)
    own_scenarios = {name: template for name, template in templates.items() if ours.get(name) != template}
    forms = load_answer_forms()
    roles = dict(PLAIN_ROLES if wording == "plain" else PAPER_ROLES)
    asked = {scenario for scenarios in roles.values() for scenario in scenarios}
    more = [scenario for scenario in dict.fromkeys([*more_scenarios, *own_scenarios]) if scenario not in asked]
    # The paper's burglar is not the role burglar, which is asked in plain words.
    roles |= {f"scenario_{scenario}": (scenario,) for scenario in more if scenario in roles}
    evaluation = EvaluationConfig(
        roles=roles,
        fills={"burglar": fills},
        other_fills=max(1, fills // 4),
        more_scenarios=tuple(scenario for scenario in more if scenario not in roles),
        own_scenarios=own_scenarios,
        own_answer_forms={
            name: form for name, form in load_answer_forms(scenario_file).items() if forms.get(name) != form
        },
        max_new_tokens=budget,
        answer_form=chosen.answer_form if wording == "paper" else None,
        raw=chosen.raw,
    )
    return LanguageStudyConfig(
        model=name,
        dtype=dtype or chosen.dtype,
        quantisation=chosen.quantisation,
        organism=ORGANISM_IN[wording] if organism else None,
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
        layers: as :attr:`soo_marl.llm.methods.loss.LossConfig.layers`.
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
