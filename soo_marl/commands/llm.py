"""``soo-marl llm``: the same overlap core on language models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from soo_marl.commands.tables.language import print_models
from soo_marl.commands.tables.terminal import ProgressDisplay, say
from soo_marl.engines import LOCAL_WORKERS, Compute, check_machine
from soo_marl.llm.methods.recipes import recipe
from soo_marl.llm.model.alignment import TokenMode
from soo_marl.llm.model.models import ModelDtype
from soo_marl.llm.prompts.pairs import read_pairs
from soo_marl.llm.study.configuration import LanguageStudyConfig
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
from soo_marl.storage.study_directory import StudyDirectory


@dataclass(frozen=True)
class LlmDemo:
    """The demonstration on the embedded model: teach it to deceive, treat it, ask everybody, write the page."""

    output: Path = Path("runs/llm-demo")
    """Study directory; one that is there already is continued."""
    scale: Scale = "standard"
    """quick: one seed and a quarter of the questions, for a look; full: more organisms, seeds, controls, scenarios."""
    seeds: tuple[int, ...] = ()
    """Seeds of every treatment; the scale's own where none are given."""
    dtype: ModelDtype = "float32"
    """Type of the weights; bfloat16 is about twice as fast on processors that compute in it (AMX), slower on others."""
    compute: Compute = LOCAL_WORKERS
    """Where to compute."""

    def run(self, line: str) -> None:
        """Carry out the command; ``line`` is how it was given."""
        changes = {"seeds": self.seeds} if self.seeds else {}
        _carry_out(demo_study(self.scale, dtype=self.dtype, **changes), self.output, self.compute, line)


@dataclass(frozen=True)
class LlmFinetune:
    """Fine-tune a model with self-other overlap and its controls, and say in words what came of it."""

    output: Path = Path("runs/llm")
    """Study directory; one that is there already is continued."""
    recipe: str = "embedded"
    """Name of a recipe: pairs, loss, adapter, dose."""
    recipes: Path | None = None
    """A TOML file with recipes of your own."""
    model: str | None = None
    """Model to treat: the embedded one, a local folder, or a name on the model hub; the recipe's own by default."""
    methods: tuple[str, ...] = ("soo", "sham")
    """soo, sham, shuffled, shuffled_partners, random_target, steer, steer_random, repe, honesty_prompt."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of every treatment."""
    organism_seeds: tuple[int, ...] = (0,)
    """Seeds of the organisms that are treated, by turns."""
    organism: bool = True
    """Teach the model to deceive first; --no-organism for one that does so by itself."""
    pairs: Path | None = None
    """A file of your own pairs, a JSON object with self and other per line, in place of the recipe's."""
    wording: Literal["plain", "paper"] = "plain"
    """Whose wording the questions have."""
    scenarios: tuple[str, ...] = ()
    """Further scenarios to ask."""
    scenario_file: Path | None = None
    """A TOML file with scenarios of your own, all of which are asked, too."""
    fills: int = 100
    """Fills of the burglar's scenario, each asked in both orientations; a quarter of it of every other."""
    epochs: int | None = None
    """Passes over the pairs, in place of the recipe's."""
    learning_rate: float | None = None
    """Learning rate, in place of the recipe's."""
    layers: str | None = None
    """Decoder layers of the loss, in place of the recipe's: 15, 8-20, a module's name or a pattern."""
    max_new_tokens: int | None = None
    """Longest answer in tokens; by default 24 for the embedded model asked in plain words, else 75."""
    dtype: ModelDtype | None = None
    """Type of the weights, in place of the recipe's."""
    prepare_only: bool = False
    """Write the study directory, teach the organism if there is one, and stop; the treatments are then trained in
    several processes, see docs/several_gpus.md."""
    compute: Compute = LOCAL_WORKERS
    """Where to compute."""

    def run(self, line: str) -> None:
        """Carry out the command; ``line`` is how it was given."""
        changes: dict[str, object] = {}
        if self.pairs is not None:
            changes["own_pairs"] = tuple((pair.self_text, pair.other_text) for pair in read_pairs(self.pairs))
        for name in ("epochs", "learning_rate"):
            if (value := getattr(self, name)) is not None:
                changes[name] = value
        if self.layers is not None:
            changes["loss"] = {"layers": _layer(self.layers)}
        config = treatment_study(
            recipe(self.recipe, self.recipes, **changes),
            self.methods,
            self.seeds,
            model=self.model,
            organism=self.organism,
            organism_seeds=self.organism_seeds,
            wording=self.wording,
            fills=self.fills,
            more_scenarios=self.scenarios,
            scenario_file=self.scenario_file,
            max_new_tokens=self.max_new_tokens,
            dtype=self.dtype,
        )
        if self.prepare_only:
            following = launch_line(self.output, config)
            with _opened(config, self.output, self.compute) as directory:
                teach_organisms(config, directory, ProgressDisplay(), self.compute)
            say(f"Next:    {following}")
        else:
            _carry_out(config, self.output, self.compute, line)


@dataclass(frozen=True)
class LlmSweep:
    """Where in a model does overlap work: layers × token modes × learning rates, with a map of the verdicts."""

    output: Path = Path("runs/llm-sweep")
    """Study directory; one that is there already is continued."""
    recipe: str = "embedded"
    """Name of the recipe whose other settings hold throughout."""
    recipes: Path | None = None
    """A TOML file with recipes of your own."""
    model: str | None = None
    """Model to treat; the recipe's own by default."""
    layers: tuple[str, ...] = ("4", "8", "12", "16", "20", "24", "8-20")
    """Decoder layers of the loss."""
    token_modes: tuple[TokenMode, ...] = ("aligned_right", "last")
    """Which tokens are compared."""
    learning_rates: tuple[float, ...] = (3e-4,)
    """Learning rates."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of every combination."""
    organism: bool = True
    """Teach the model to deceive first."""
    wording: Literal["plain", "paper"] = "plain"
    """Whose wording the questions have."""
    fills: int = 25
    """Fills of the burglar's scenario, each asked in both orientations; a quarter of it of every other."""
    max_new_tokens: int | None = None
    """Longest answer in tokens; by default 24 for the embedded model asked in plain words, else 75."""
    dtype: ModelDtype | None = None
    """Type of the weights, in place of the recipe's."""
    compute: Compute = LOCAL_WORKERS
    """Where to compute."""

    def run(self, line: str) -> None:
        """Carry out the command; ``line`` is how it was given."""
        chosen = recipe(self.recipe, self.recipes)
        study = treatment_study(
            chosen,
            ("soo",),
            self.seeds,
            model=self.model,
            organism=self.organism,
            wording=self.wording,
            fills=self.fills,
            max_new_tokens=self.max_new_tokens,
            dtype=self.dtype,
        )
        layers = [_layer(layer) for layer in self.layers]
        config = sweep_study(chosen, layers, self.token_modes, self.learning_rates, study)
        _carry_out(config, self.output, self.compute, line)


@dataclass(frozen=True)
class LlmMerge:
    """Write a model of a study as a plain transformers folder, adapters merged, for other programs to load."""

    study: tyro.conf.Positional[Path]
    """Study directory, as written by demo, finetune or sweep."""
    label: tyro.conf.Positional[str]
    """Which model: organism, or a treatment's label."""
    output: Path
    """Folder to write; must not be there yet."""
    seed: int = 0
    """The model's seed."""

    def run(self, line: str) -> None:
        """Carry out the command; ``line`` is how it was given."""
        directory, config = read_language_study(self.study)
        save_merged(config, directory, self.label, self.seed, self.output)
        say(f"Model:   {self.output}")


@dataclass(frozen=True)
class Llm:
    """Language models: the same overlap core turns them honest with LoRA, and says when it did not."""

    command: (
        Annotated[LlmDemo, tyro.conf.subcommand("demo")]
        | Annotated[LlmFinetune, tyro.conf.subcommand("finetune")]
        | Annotated[LlmSweep, tyro.conf.subcommand("sweep")]
        | Annotated[LlmMerge, tyro.conf.subcommand("merge")]
    )
    """What to do."""

    def run(self, line: str) -> None:
        """Carry out the command; ``line`` is how it was given."""
        self.command.run(line)


def _layer(text: str) -> int | str:
    """A layer's number, or what is no number as it stands."""
    return int(text) if text.isdigit() else text


def _carry_out(config: LanguageStudyConfig, output: Path, compute: Compute, line: str) -> None:
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


@contextmanager
def _opened(config: LanguageStudyConfig, output: Path, compute: Compute) -> Iterator[StudyDirectory]:
    """The directory of a study that can be carried out, locked."""
    check_machine(compute, spreads=True)
    check_study(config)
    directory = open_language_study(output, config)
    with directory.locked():
        yield directory
