"""Whether a study can be carried out at all, found out before anything is written or trained.

What a treatment would refuse after its organism was taught, an hour later, is refused in seconds. The rest of a study
cannot be known without its weights.
"""

from __future__ import annotations

from soo_marl.llm.methods.finetuning import kept_pairs, method_named, recipe_pairs
from soo_marl.llm.methods.organism import end_token
from soo_marl.llm.model.adapters import target_names
from soo_marl.llm.model.chat import render, token_ids
from soo_marl.llm.model.layers import attention_site, matching_layers
from soo_marl.llm.model.models import check_usable, load_model
from soo_marl.llm.study.configuration import STEERING, LanguageStudyConfig


def check_study(config: LanguageStudyConfig) -> None:
    """Make every prompt and every pair, and look for every layer in the model's shape, without its weights.

    Raises:
        ValueError: the model, a layer, a linear layer for the adapter, a scenario or an answer form does not exist;
            there are not so many fills or pairs; the model has no chat template, or one that leaves the message out;
            its tokenizer belongs to another model; or an organism is to be taught where it cannot.
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
    tokenizer, raw = shape.tokenizer, config.evaluation.raw
    if render(tokenizer, "Yes?", raw=raw) == render(tokenizer, "No?", raw=raw):
        raise ValueError(
            f"the chat template of {config.model} leaves the message out, so all prompts would be the same: use a "
            "recipe with raw = true"
        )
    tokens = max(token_ids(tokenizer, render(tokenizer, asked[0].text, raw=raw), raw=raw))
    known = len(shape.transformer.get_input_embeddings().weight)
    if tokens >= known:
        raise ValueError(
            f"the tokenizer of {config.model} gives token {tokens}, and the model knows {known}: take the tokenizer "
            "that belongs to it"
        )
    if config.organism is not None:
        target_names(shape.transformer, config.organism.lora)
        end_token(tokenizer)
        if getattr(shape.transformer.config, "quantization_config", None) is not None:
            raise ValueError(
                "an organism's adapter cannot be merged into weights that are quantised: take the model's weights as "
                "they were before, or leave the organism out (--no-organism)"
            )
    for condition in config.conditions:
        recipe = condition.recipe
        if condition.trains:
            target_names(shape.transformer, recipe.lora)
        if recipe.loss.kind == "mse_hidden" and (condition.trains or condition.method in STEERING):
            matching_layers(shape.transformer, recipe.loss.layers, recipe.loss.site)
