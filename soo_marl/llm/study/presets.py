"""Ready-made studies of language models: the demonstration, and treatments of a user's own model.

What they consist of is data: ``data/studies.toml``.
"""

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
from soo_marl.llm.prompts.templates import load_answer_forms, load_templates, own_toml
from soo_marl.llm.study.configuration import Condition, LanguageStudyConfig

Scale = Literal["quick", "standard", "full"]

_STUDIES = own_toml("studies.toml")
_FULL = _STUDIES["full"]

LEFT_OUT: Mapping[str, Mapping[str, Any]] = _FULL["left_out"]
"""Our recipe without one of its ingredients."""

ONE_SEED_PER_ORGANISM = (*_FULL["one_seed_per_organism"], *LEFT_OUT)
"""Treatments of which the full scale has fewer seeds than of the others."""


def demo_study(scale: Scale = "standard", **changes: Any) -> LanguageStudyConfig:
    """The demonstration on the embedded model: an organism, the paper's recipe, ours, and controls.

    ``quick`` asks a quarter of the questions and has one seed: a look, no result. ``full`` has three organisms, five
    seeds, every control, our recipe without each of its ingredients, and more scenarios. Changes are further fields of
    :class:`LanguageStudyConfig`. Raises ValueError, pydantic.ValidationError: no such scale, or a field does not fit.
    """
    if scale not in get_args(Scale):
        raise ValueError(f"there is no scale {scale!r}; choose quick, standard or full")
    quick, full = scale == "quick", scale == "full"
    listed = [(label, method, recipe(name)) for label, method, name in _STUDIES["demo"]["conditions"]]
    if full:
        listed += [(name, name, recipe("embedded")) for name in _FULL["controls"]]
        listed += [(name, "soo", recipe("embedded", **change)) for name, change in LEFT_OUT.items()]
        # Models are made in this order, and what is not trained says least.
        listed.sort(key=lambda entry: entry[1] not in METHODS)
    few, fewer = len(_FULL["organism_seeds"]), ONE_SEED_PER_ORGANISM if full else ()
    fields: dict[str, Any] = {
        "organism": _STUDIES["organism"]["plain"],
        "conditions": tuple(
            Condition(label=label, method=method, recipe=chosen, seed_count=few if label in fewer else None)
            for label, method, chosen in listed
        ),
        "seeds": (0,) if quick else (0, 1, 2),
        "evaluation": EvaluationConfig(fills={"burglar": 25 if quick else 100}, other_fills=6 if quick else 25),
        "epoch_fills": 0 if quick else 8,
    }
    if full:
        asked = (*_FULL["limit_roles"], *_FULL["limit_scenarios"])
        fields |= {
            "organism_seeds": _FULL["organism_seeds"],
            "seeds": _FULL["seeds"],
            "evaluation": EvaluationConfig(
                roles={**PLAIN_ROLES, **_FULL["limit_roles"]},
                more_scenarios=_FULL["limit_scenarios"],
                fills={"burglar": 100} | dict.fromkeys(asked, _FULL["limit_fills"]),
            ),
            "asked_more": _FULL["limit_models"],
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
        methods: names of methods; each becomes a condition of that label, with all seeds.
        model: the model to treat; the recipe's own by default.
        organism: whether it is first taught to deceive; a model that deceives by itself need not be.
        wording: whose wording the questions have.
        fills: fills of the burglar's scenario, each in both orientations; a quarter of it of the others.
        more_scenarios: further scenarios to ask.
        max_new_tokens: token budget of an answer; 24 for the embedded model, 75 for others, as in the public code.
        dtype: type of the model's weights; the recipe's by default.
        scenario_file: a user's own scenarios, see :func:`soo_marl.llm.prompts.templates.load_templates`; all are asked.

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
        organism=OrganismConfig(**_STUDIES["organism"][wording]) if organism else None,
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

    The other settings of the recipe hold throughout; seeds, questions and organism are those of the study, which
    :func:`treatment_study` gives.

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
