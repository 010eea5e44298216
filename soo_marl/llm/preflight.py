"""Whether a study can be carried out at all, found out before anything is written or trained.

What a treatment would refuse after its organism was taught, an hour later, is refused in seconds. The rest of a study
cannot be known without its weights.
"""

from __future__ import annotations

from soo_marl.llm.chat import render
from soo_marl.llm.configuration import STEERING, LanguageStudyConfig
from soo_marl.llm.finetuning import kept_pairs, method_named, recipe_pairs
from soo_marl.llm.layers import attention_site, matching_layers
from soo_marl.llm.lora import target_names
from soo_marl.llm.models import check_usable, load_model


def check_study(config: LanguageStudyConfig) -> None:
    """Make every prompt and every pair, and look for every layer in the model's shape, without its weights.

    Raises:
        ValueError: the model, a layer, a linear layer for the adapter, a scenario or an answer form does not exist;
            there are not so many fills or pairs; or the model has no chat template.
        RunDirectoryError: the embedded model cannot be written to the cache.
    """
    check_usable(config.model)
    asked = [prompt for role in config.evaluation.all_roles for prompt in config.evaluation.prompts(role)]
    for condition in config.conditions:
        for seed in config.seeds_of(condition):
            if condition.trains:
                method_named(condition.method).pairs(condition.recipe, seed)
                kept_pairs(condition.recipe, seed)
            elif condition.method in STEERING:
                recipe_pairs(condition.recipe, seed)
    shape = load_model(config.model, dtype=config.dtype, weights=False)
    attention_site(shape.transformer)
    render(shape.tokenizer, asked[0].text, raw=config.evaluation.raw)
    if config.organism is not None:
        target_names(shape.transformer, config.organism.lora)
    for condition in config.conditions:
        recipe = condition.recipe
        if condition.trains:
            target_names(shape.transformer, recipe.lora)
        if recipe.loss.kind == "mse_hidden" and (condition.trains or condition.method in STEERING):
            matching_layers(shape.transformer, recipe.loss.layers, recipe.loss.site)
