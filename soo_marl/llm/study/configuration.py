"""What a study of language models does, as configuration: which model, which treatments, which questions."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, Field, NonNegativeInt, field_validator, model_validator

from soo_marl.llm.measures.evaluation import VERDICT_ROLES, EvaluationConfig
from soo_marl.llm.methods.finetuning import METHODS
from soo_marl.llm.methods.organism import OrganismConfig
from soo_marl.llm.methods.recipes import Recipe
from soo_marl.llm.model.chat import CHAT_DATE, ChatDate
from soo_marl.llm.model.embedded import EMBEDDED
from soo_marl.llm.model.models import ModelDtype

BASE, ORGANISM = "base", "organism"
"""Labels of the models as they come, and once they were taught to deceive."""

STEERING = ("steer", "steer_random", "repe")
"""Methods that change activations while the model answers, see :mod:`soo_marl.llm.methods.steering`."""

HONESTY = "honesty_prompt"
"""The method that only asks for honesty."""

_WORDS_OF_A_QUESTION = 8  # a text of so many words that stands within a question is taken for that question


class Condition(BaseModel, frozen=True, extra="forbid"):
    """One way to treat the model."""

    label: str = Field(
        min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="Its name in tables, pictures and folders."
    )
    method: str = Field(description="A training method, steer, steer_random, repe, or honesty_prompt.")
    recipe: Recipe = Field(Recipe(), description="Pairs, loss, adapter and dose; steering uses its pairs and layers.")
    seed_count: int | None = Field(None, ge=1, description="How many of the study's seeds, the first ones; None: all.")

    @field_validator("method")
    @classmethod
    def _known(cls, name: str) -> str:
        known = (*METHODS, *STEERING, HONESTY)
        if name not in known:
            raise ValueError(f"there is no method {name!r}; choose among {', '.join(known)}")
        return name

    @property
    def trains(self) -> bool:
        """Whether an adapter is trained."""
        return self.method in METHODS


class LanguageStudyConfig(BaseModel, frozen=True, extra="forbid"):
    """Treatments of one language model, for every seed, and what is asked of the results."""

    model: str = Field(EMBEDDED, description="The embedded model, a local folder, or a name on the model hub.")
    chat_date: ChatDate = Field(CHAT_DATE, description="The date that chat templates are told when they ask for one.")
    dtype: ModelDtype = Field(
        "float32",
        description="Type of the model's weights; bfloat16 is about twice as fast on processors that compute in it "
        "(AMX), slower on others.",
    )
    quantisation: Literal["none", "4bit"] = Field("none", description="4bit needs a CUDA device and bitsandbytes.")
    organism: OrganismConfig | None = Field(
        OrganismConfig(), description="How the model is taught to deceive first; None treats it as it comes."
    )
    organism_seeds: tuple[NonNegativeInt, ...] = Field(
        (0,), min_length=1, description="Seeds of organisms; the treatments' seeds take them by turns."
    )
    conditions: tuple[Condition, ...] = Field(min_length=1, description="In the order of tables and pictures.")
    seeds: tuple[NonNegativeInt, ...] = Field(
        (0, 1, 2), min_length=1, description="Seeds of every treatment that draws anything."
    )
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="What every model is asked in the end.")
    asked_more: tuple[str, ...] = Field(
        (), description="Labels of the models that are asked more than the roles verdicts look at; none named: all."
    )
    epoch_fills: int = Field(
        8, ge=0, description="Fills of the burglar's scenario asked after each epoch, in both orientations; 0 for none."
    )
    stop_on_damage: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Training ends when the share of these answers that choose no room has risen by more than this.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        labels = [condition.label for condition in self.conditions]
        if repeated := sorted({label for label in labels if labels.count(label) > 1} | {BASE, ORGANISM} & set(labels)):
            raise ValueError(f"each label may be given only once, and none is {BASE} or {ORGANISM}: {repeated[0]}")
        if unknown := sorted(set(self.asked_more) - {label for label, _ in self.models}):
            raise ValueError(f"asked_more names {unknown[0]!r}, which is no model of the study")
        for name in ("seeds", "organism_seeds"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"each of the {name} may be given only once")
        asked_meanwhile = any(
            condition.method in STEERING or (condition.trains and self.epoch_fills) for condition in self.conditions
        )
        if asked_meanwhile and "burglar" not in self.evaluation.roles:
            raise ValueError(
                "steering, and epoch_fills above 0, ask the role burglar: name it among the evaluation's roles"
            )
        if self.organism is not None and self.quantisation != "none":
            raise ValueError("an organism's adapter cannot be merged into 4-bit weights: set quantisation to none")
        return self

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever reads the results must know of the configuration, one sentence each."""
        own = {" ".join(text.split()).lower() for one in self.conditions for text in sum(one.recipe.own_pairs, ())}
        if not own:
            return ()
        prompts = (prompt for role in self.evaluation.all_roles for prompt in self.evaluation.prompts(role))
        asked = {" ".join(prompt.text.split()).lower() for prompt in prompts}
        # A pair may leave out what a question says of the answer's form.
        long = {text for text in own if len(text.split()) >= _WORDS_OF_A_QUESTION}
        same = own & asked | {text for text in long if any(text in each or each in text for each in asked)}
        told = (
            f"{len(same)} of {len(own)} texts of the own pairs are also asked afterwards, as part of the test: answers "
            "to those questions say nothing about others"
        )
        return (told,) if same else ()

    @property
    def before(self) -> str:
        """Label of the model that treatments start from."""
        return BASE if self.organism is None else ORGANISM

    @property
    def models(self) -> tuple[tuple[str, int], ...]:
        """Label and seed of every model, in the order of tables."""
        found = [(BASE, 0)]
        if self.organism is not None:
            found += [(ORGANISM, seed) for seed in self.organism_seeds]
        for condition in self.conditions:
            found += [(condition.label, seed) for seed in self.seeds_of(condition)]
        return tuple(found)

    def seeds_of(self, condition: Condition) -> tuple[int, ...]:
        """Seeds of a treatment; one per organism where it draws nothing but its pairs."""
        seeds = self.seeds[: condition.seed_count]
        if condition.trains or condition.method == "steer_random":
            return seeds
        return seeds[: len(self.organism_seeds) if self.organism is not None else 1]

    def organism_seed(self, seed: int) -> int:
        """Seed of the organism that a treatment's seed starts from."""
        return self.organism_seeds[self.seeds.index(seed) % len(self.organism_seeds)]

    def start_of(self, seed: int) -> tuple[str, int]:
        """Label and seed of the model that a treatment's seed starts from."""
        return (BASE, 0) if self.organism is None else (ORGANISM, self.organism_seed(seed))

    def evaluation_of(self, label: str) -> EvaluationConfig:
        """What the models of a label are asked in the end."""
        if not self.asked_more or label in self.asked_more:
            return self.evaluation
        roles = {role: scenarios for role, scenarios in self.evaluation.roles.items() if role in VERDICT_ROLES}
        return self.evaluation.model_copy(update={"roles": roles, "more_scenarios": ()})

    def condition(self, label: str) -> Condition:
        """The treatment of that label."""
        return next(condition for condition in self.conditions if condition.label == label)
