"""Recipes for fine-tuning, as data: ``data/recipes.toml`` holds those of the paper, of its public code, and ours."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, TypeAdapter, model_validator

from soo_marl.llm.methods.loss import LossConfig
from soo_marl.llm.model.adapters import LoraSettings
from soo_marl.llm.model.embedded import EMBEDDED
from soo_marl.llm.model.models import ModelDtype
from soo_marl.llm.prompts.pairs import PairKind
from soo_marl.llm.prompts.templates import known, own_toml, read_toml, validated


class Recipe(BaseModel, frozen=True, extra="forbid"):
    """How a model is fine-tuned with self-other overlap."""

    description: str = Field("", description="What the recipe is.")
    source: str = Field("own", description="Where it comes from.")
    model: str = Field(EMBEDDED, description="The model that it is made for.")
    pairs: PairKind = Field("scenario", description="Which self and other prompts are compared.")
    pair_count: int = Field(48, ge=2, description="How many pairs.")
    own_pairs: tuple[tuple[str, str], ...] = Field(
        (), description="A user's own pairs, self text and other text, in place of pairs and pair_count."
    )
    kept: tuple[str, ...] = Field(
        (), description="Scenarios in which the model is to stay as it was: their prompts are compared with themselves."
    )
    kept_count: int = Field(0, ge=0, description="How many such prompts, the scenarios by turns.")
    loss: LossConfig = Field(LossConfig(), description="The loss.")
    lora: LoraSettings = Field(LoraSettings(), description="The adapter.")
    learning_rate: float = Field(
        1e-4, gt=0, description="Of AdamW, constant. Too low: the loss falls and behaviour stays; too high: word salad."
    )
    epochs: int = Field(15, ge=1, description="Passes over the pairs. Behaviour is measured after each.")
    batch_size: int = Field(4, ge=1, description="Pairs per forward pass.")
    accumulation: int = Field(1, ge=1, description="Forward passes per step.")
    weight_decay: float = Field(0.01, ge=0, description="Of AdamW; torch's own default.")
    raw: bool = Field(False, description="Leave the chat template out, in training and generation, as the public code.")
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: a third more time, much less memory."
    )
    dtype: ModelDtype = Field("float32", description="Type of the model's weights.")
    quantisation: Literal["none", "4bit"] = Field("none", description="4bit needs a CUDA device and bitsandbytes.")
    answer_form: str | None = Field(
        None, description="Form of answers asked for in evaluation; None: what each scenario asks for."
    )

    @model_validator(mode="after")
    def _keeps_something(self) -> Self:
        if bool(self.kept) != bool(self.kept_count):
            raise ValueError("kept names scenarios and kept_count says how many prompts: give both or neither")
        if self.kept and self.loss.sides != "initial_self":
            raise ValueError("a prompt compared with itself says something only with loss.sides initial_self: set that")
        if self.own_pairs and all(one == other for one, other in self.own_pairs):
            raise ValueError(
                "the two texts of every own pair are equal, so there is nothing to learn from them: give pairs that "
                "differ in whose they are"
            )
        return self

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over the pairs; the last may rest on fewer pairs."""
        count = (len(self.own_pairs) or self.pair_count) + self.kept_count
        return -(-count // (self.batch_size * self.accumulation))


_RECIPES = TypeAdapter(dict[str, Recipe])


def load_recipes(path: Path | None = None) -> Mapping[str, Recipe]:
    """All recipes by name: those of the project, and a user's in a TOML file in the form of ``data/recipes.toml``.

    Raises:
        RunDirectoryError: the file cannot be read.
        ValueError: it is not TOML, or a recipe does not fit.
    """
    if path is None:
        return _own_recipes()
    mine: dict[str, Recipe] = validated(_RECIPES, read_toml(path), str(path))
    return MappingProxyType({**_own_recipes(), **mine})


def recipe(name: str, path: Path | None = None, **changes: Any) -> Recipe:
    """A recipe by name, some fields changed; for ``loss`` and ``lora``, a dictionary says which of their fields.

    Raises:
        RunDirectoryError: the file cannot be read.
        ValueError, pydantic.ValidationError: there is no such recipe, or a change does not fit.
    """
    fields = known(name, load_recipes(path), "recipe").model_dump()
    for field, value in changes.items():
        fields[field] = fields[field] | value if isinstance(value, dict) and field in ("loss", "lora") else value
    return Recipe.model_validate(fields)


@cache
def _own_recipes() -> Mapping[str, Recipe]:
    ours: dict[str, Recipe] = validated(_RECIPES, own_toml("recipes.toml"), "recipes.toml")
    return MappingProxyType(ours)
