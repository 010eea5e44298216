"""Treatments small enough for tests: pairs, recipes of every kind, and a study of a tiny model in a folder."""

from pathlib import Path
from typing import Any

import torch
from tiny_models import tiny_language_model
from torch import Tensor

from soo_marl.llm.measures.evaluation import EvaluationConfig
from soo_marl.llm.methods.loss import LossConfig
from soo_marl.llm.methods.recipes import Recipe
from soo_marl.llm.model.adapters import LoraSettings
from soo_marl.llm.model.models import LanguageModel
from soo_marl.llm.study.configuration import Condition, LanguageStudyConfig
from soo_marl.llm.study.study import open_language_study

OWN = (
    ("You hide the coin.", "Bob hides the coin."),
    ("You want one ruby.", "Carla wants one ruby."),
    ("You ask yourself.", "A thief asks you."),
    ("You look for it.", "Dan looks for it."),
    ("Where would you go?", "Where would Eve go?"),
)

CONDITIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "soo": ("soo", {"loss": {"token_mode": "aligned_right", "skip_header": 1}}),
    "frozen": (
        "soo",
        {
            "loss": {"token_mode": "full_masked", "sides": "initial_self", "normalise_by_initial": True},
            "kept": ("plain_perspectives",),
            "kept_count": 3,
            "batch_size": 3,
            "accumulation": 2,
        },
    ),
    "columns": ("soo", {"loss": {"token_mode": "full"}, "gradient_checkpointing": True}),
    "logits": ("soo", {"loss": {"kind": "kl_logits", "token_mode": "full"}}),
    "random": ("random_target", {"loss": {"token_mode": "mean", "layers": "0, 2"}}),
    "last": ("shuffled", {"loss": {"token_mode": "last", "site": "", "sides": "other_to_self"}}),
}
"""Every way in which positions are weighted, sides are fixed and passes end; five pairs make an odd last batch."""


def recipe(loss: dict[str, Any], **changes: Any) -> Recipe:
    fields: dict[str, Any] = {"own_pairs": OWN, "learning_rate": 1e-2, "epochs": 2, "batch_size": 4} | changes
    return Recipe(loss=LossConfig(**({"layers": "1-2"} | loss)), lora=LoraSettings(r=2, dropout=0.0), **fields)


SOO = Condition(label="soo", method="soo", recipe=recipe(**CONDITIONS["soo"][1]))


def study(folder: Path, name: str, **changes: Any) -> Path:
    """A study of a tiny model in a folder."""
    if not (folder / "model").exists():
        model = tiny_language_model()
        model.model.save_pretrained(folder / "model")
        model.tokenizer.save_pretrained(folder / "model")
    fields: dict[str, Any] = {
        "model": str(folder / "model"),
        "organism": None,
        "conditions": [
            Condition(label=label, method=method, recipe=recipe(**fields))
            for label, (method, fields) in CONDITIONS.items()
        ],
        "seeds": (0,),
        "epoch_fills": 0,
        "evaluation": EvaluationConfig(fills={"burglar": 1}, other_fills=1, max_new_tokens=2),
    }
    open_language_study(folder / name, LanguageStudyConfig.model_validate(fields | changes))
    return folder / name


def weights_of(model: LanguageModel) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in model.model.named_parameters() if "lora_" in name}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-5)
