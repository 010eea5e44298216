"""``soo-marl llm``: the same overlap core on language models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from pydantic import BaseModel

from soo_marl.commands.shared import Output, Where, command_line, described, given, option, options_of
from soo_marl.commands.tables.language import print_models
from soo_marl.commands.tables.terminal import ProgressDisplay, say
from soo_marl.engines import LOCAL_WORKERS, Compute, check_machine
from soo_marl.llm.measures.records import ModelSummary
from soo_marl.llm.methods.finetuning import METHODS
from soo_marl.llm.methods.recipes import Recipe, load_recipes, recipe
from soo_marl.llm.model.alignment import TokenMode
from soo_marl.llm.model.embedded import EMBEDDED
from soo_marl.llm.model.models import ModelDtype
from soo_marl.llm.prompts.pairs import read_pairs
from soo_marl.llm.study.configuration import HONESTY, STEERING, LanguageStudyConfig
from soo_marl.llm.study.distributed import launch_line
from soo_marl.llm.study.models_on_disk import save_merged
from soo_marl.llm.study.preflight import check_study
from soo_marl.llm.study.presets import Scale, demo_study, sweep_study, treatment_study
from soo_marl.llm.study.study import (
    UnfinishedError,
    open_language_study,
    read_language_study,
    run_language_study,
    teach_organisms,
)
from soo_marl.report.refresh import refresh
from soo_marl.storage.records import read_list
from soo_marl.storage.study_directory import StudyDirectory

_METHODS = (*METHODS, *STEERING, HONESTY)
TreatmentSeeds = Annotated[tuple[int, ...], described(LanguageStudyConfig, "seeds")]


@dataclass(frozen=True)
class Treated:
    """What is treated, and what it is asked."""

    recipe: Annotated[str, option("Name of a recipe: pairs, loss, adapter, dose.", load_recipes())] = "embedded"
    recipes: Path | None = None  # A TOML file with recipes of your own.
    model: str | None = None  # A local folder, or a name on the model hub; the recipe's own by default.
    seeds: TreatmentSeeds = (0, 1, 2)
    organism: bool = True  # Teach the model to deceive first; --no-organism for one that does so by itself.
    wording: Literal["plain", "paper"] = "plain"  # Whose wording the questions have.
    fills: int = 100  # Fills of the burglar's scenario, asked in both orientations; a quarter of it of every other.
    max_new_tokens: int | None = None  # Longest answer; by default 24 for the embedded model in plain words, else 75.
    dtype: ModelDtype | None = None  # Type of the weights, in place of the recipe's.

    def study(self, chosen: Recipe, methods: tuple[str, ...], **more: Any) -> LanguageStudyConfig:
        """The study of these methods, by a recipe."""
        settings = {name: value for name, value in vars(self).items() if name not in ("recipe", "recipes")}
        return treatment_study(chosen, methods, **settings, **more)


@dataclass(frozen=True)
class LlmDemo:
    """Its options, and what is done with them."""

    output: Output = Path("runs/llm-demo")
    scale: Scale = "standard"  # quick: one seed and few questions, for a look; full: more of everything.
    seeds: TreatmentSeeds = ()
    weights: BaseModel = options_of(LanguageStudyConfig, "dtype")
    compute: Where = LOCAL_WORKERS

    def run(self, line: str) -> str:
        """Carry out the command that was given as ``line``; returns the one that follows."""
        changes = given(self.weights) | ({"seeds": self.seeds} if self.seeds else {})
        return _carry_out(demo_study(self.scale, **changes), self.output, self.compute, line)


@dataclass(frozen=True)
class LlmFinetune:
    """Its options, and what is done with them."""

    output: Output = Path("runs/llm")
    treated: Treated = Treated()
    methods: Annotated[tuple[str, ...], option("The overlap and its controls.", _METHODS)] = ("soo", "sham")
    organism_seeds: Annotated[tuple[int, ...], described(LanguageStudyConfig, "organism_seeds")] = (0,)
    pairs: Path | None = None  # A file of your own pairs, a JSON object with self and other per line.
    scenarios: tuple[str, ...] = ()  # Further scenarios to ask.
    scenario_file: Path | None = None  # A TOML file with scenarios of your own, all of which are asked, too.
    changes: BaseModel = options_of(Recipe, epochs=None, learning_rate=None)
    layers: str | None = None  # Decoder layers of the loss: 15, 8-20, a module's name or a pattern.
    prepare_only: bool = False  # Only teach the organism; docs/several_gpus.md says how the treatments are trained.
    compute: Where = LOCAL_WORKERS

    def run(self, line: str) -> str:
        """Carry out the command that was given as ``line``; returns the one that follows."""
        changes = given(self.changes)
        if self.pairs is not None:
            changes["own_pairs"] = tuple((pair.self_text, pair.other_text) for pair in read_pairs(self.pairs))
        if self.layers is not None:
            changes["loss"] = {"layers": _layer(self.layers)}
        config = self.treated.study(
            recipe(self.treated.recipe, self.treated.recipes, **changes),
            self.methods,
            organism_seeds=self.organism_seeds,
            more_scenarios=self.scenarios,
            scenario_file=self.scenario_file,
        )
        if not self.prepare_only:
            return _carry_out(config, self.output, self.compute, line)
        training = launch_line(self.output, config)
        with _opened(config, self.output, self.compute) as directory:
            teach_organisms(config, directory, ProgressDisplay(), self.compute)
        return training


@dataclass(frozen=True)
class LlmSweep:
    """Its options, and what is done with them."""

    output: Output = Path("runs/llm-sweep")
    treated: Treated = Treated(seeds=(0,), fills=25)
    layers: tuple[str, ...] = ("4", "8", "12", "16", "20", "24", "8-20")  # Decoder layers of the loss.
    token_modes: tuple[TokenMode, ...] = ("aligned_right", "last")  # Which tokens are compared.
    learning_rates: tuple[float, ...] = (3e-4,)
    compute: Where = LOCAL_WORKERS

    def run(self, line: str) -> str:
        """Carry out the command that was given as ``line``; returns the one that follows."""
        chosen = recipe(self.treated.recipe, self.treated.recipes)
        layers = [_layer(layer) for layer in self.layers]
        study = self.treated.study(chosen, ("soo",))
        config = sweep_study(chosen, layers, self.token_modes, self.learning_rates, study)
        return _carry_out(config, self.output, self.compute, line)


@dataclass(frozen=True)
class LlmMerge:
    """Its options, and what is done with them."""

    study: tyro.conf.Positional[Path]  # Directory of the study, as written by demo, finetune or sweep.
    label: tyro.conf.Positional[str]  # Which model: organism, or a treatment's label.
    output: Path  # Folder to write; must not be there yet.
    seed: int = 0  # The model's seed.

    def run(self, line: str) -> str:
        """Carry out the command; returns the one that follows."""
        directory, config = read_language_study(self.study)
        save_merged(config, directory, self.label, self.seed, self.output)
        say(f"Model:   {self.output}")
        return command_line(
            "llm", "finetune", "--model", self.output, "--no-organism", "--output", f"{self.output}-treated"
        )


def following(path: Path) -> str:
    """The command that naturally follows on a study: writing the model that became honest, or else a search for one.

    Raises:
        RunDirectoryError: there is no study, or what was found is damaged.
    """
    directory, config = read_language_study(path)
    file = directory.results / "models.json"
    for found in read_list(file, ModelSummary) if file.exists() else ():
        if found.word == "honest" and found.method in METHODS:
            seed = next(verdict.seed for verdict in found.seeds if verdict.word == "honest")
            output = f"{path}-{found.label}"
            return command_line("llm", "merge", path, found.label, "--seed", seed, "--output", output)
    rate = max(condition.recipe.learning_rate for condition in config.conditions)
    options = ["--learning-rates", f"{rate:g}", f"{3 * rate:g}", "--output", f"{path}-sweep"]
    model = [] if config.model == EMBEDDED else ["--model", config.model]
    return command_line("llm", "sweep", *model, *([] if config.organism else ["--no-organism"]), *options)


def _layer(text: str) -> int | str:
    """A layer's number, or what is no number as it stands."""
    return int(text) if text.isdigit() else text


def _carry_out(config: LanguageStudyConfig, output: Path, compute: Compute, line: str) -> str:
    with _opened(config, output, compute) as directory:
        try:
            summaries = run_language_study(config, directory, ProgressDisplay(), line, compute)
        except UnfinishedError as error:
            refresh(directory.path)
            print_models(error.summaries, directory)
            raise
        refresh(directory.path)
    print_models(summaries, directory)
    for note in config.notes:
        say(f"Note:    {note}")
    return following(directory.path)


@contextmanager
def _opened(config: LanguageStudyConfig, output: Path, compute: Compute) -> Iterator[StudyDirectory]:
    """The directory of a study that can be carried out, locked."""
    check_machine(compute, spreads=True)
    check_study(config)
    directory = open_language_study(output, config)
    with directory.locked():
        yield directory
