"""Options that several commands have, each described once; those of a configuration are made from it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import BaseModel, ConfigDict, Field, create_model

from soo_marl.commands.tables.terminal import say
from soo_marl.engines import Compute
from soo_marl.envs.configuration import PRESETS
from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.study_directory import FINETUNING_FOLDER
from soo_marl.studies.baselines.classification import check_classifiable
from soo_marl.studies.baselines.pretrained import pretrained_study
from soo_marl.studies.baselines.study import read_study
from soo_marl.studies.finetuning.study import competent_seeds
from soo_marl.studies.learning.recipes import REGIMES, BaselineConfig, baseline_config, scaled, with_changes


def option(description: str, choices: Iterable[str] = ()) -> Any:
    """How help shows an option; another name than the choices is refused in a sentence that has them all."""
    return tyro.conf.arg(help=description, metavar=f"{{{','.join(choices)}}}" if choices else None)


def described(config: type[BaseModel], name: str) -> Any:
    """How help shows an option that is a field of a configuration."""
    return option(str(config.model_fields[name].description))


_NAMES = {"evaluation_episodes": "episodes"}
"""Options that are not called as their field."""


def options_of(config: type[BaseModel], *names: str, **defaults: object) -> BaseModel:
    """Fields of a configuration as options: name, type, default and description are the configuration's.

    Their ranges are checked once the configuration is made of them.

    Args:
        config: the configuration.
        names: of the fields.
        defaults: further fields, with other defaults; None where a method or a recipe decides what is usual.
    """
    fields: dict[str, Any] = {}
    for name in (*names, *defaults):
        field = config.model_fields[name]
        default = defaults.get(name, field.default)
        kind: Any = field.annotation
        hint = None
        if default is None:
            kind, hint = kind | None, "(default: what is usual)"
        shown = tyro.conf.arg(name=_NAMES.get(name), help_behavior_hint=hint)
        fields[name] = (Annotated[kind, shown], Field(default, description=field.description))
    options: type[BaseModel] = create_model(f"{config.__name__}Options", __config__=ConfigDict(frozen=True), **fields)
    return options()


def given(options: BaseModel) -> dict[str, Any]:
    """The options that were given or have a default of their own, by field."""
    return {name: value for name, value in options if value is not None}


CopyOutput = Annotated[
    Path | None, option("Where the copy of pretrained agents goes (default: runs/pretrained/PRESET).")
]
Output = Annotated[Path, option("Directory of the study; one that is there already is continued.")]
Repeated = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
ScaleFactor = Annotated[float, option("Factor on the number of updates, for quick looks.")]
Seeds = Annotated[tuple[int, ...], described(BaselineConfig, "seeds")]
Where = Annotated[Compute, tyro.conf.arg(help="Where to compute.")]

_REGIME = (
    "staged: red learns to follow an honest blue, then fresh blues meet it; joint: both learn together (the paper); "
    "scripted: red follows a rule (preset watch)."
)


@dataclass(frozen=True)
class Baselines:
    """What is trained."""

    preset: Annotated[str, option("Preset of the game.", PRESETS)] = "trackable"
    regime: Annotated[str, option(_REGIME, REGIMES)] = "staged"
    seeds: Seeds = tuple(range(10))
    scale: ScaleFactor = 1.0
    set: Repeated = ()  # Any field of the configuration as name=value: game.blue_speed_limit=1.0, maddpg.gamma=0.9 ...

    def config(self) -> BaselineConfig:
        """The configuration that these options describe.

        Raises:
            ValueError, pydantic.ValidationError: an option does not fit.
        """
        config = baseline_config(self.preset, self.regime, self.seeds)
        if self.scale != 1.0:
            config = config.model_copy(update={"stages": scaled(config.stages, self.scale)})
        return with_changes(config, self.set)


@dataclass(frozen=True)
class Agents:
    """The study that a command is about: a directory, or a copy of agents that come with the package."""

    study: Annotated[
        tyro.conf.Positional[Path | None],
        tyro.conf.arg(help="Its directory, as written by train or demo.", metavar="STUDY"),
    ] = None
    pretrained: Annotated[str | None, option("Preset whose trained agents come with the package.", PRESETS)] = None

    def path(self, output: Path | None = None) -> Path:
        """The directory, once the agents that come with the package are copied there.

        Args:
            output: where the copy goes, None for its usual place.

        Raises:
            RunDirectoryError: there are no such agents, or they cannot be copied.
            ValueError: neither is named, or both, or a place for a copy that nobody asked for.
        """
        if self.study is not None and self.pretrained is None:
            if output is not None:
                raise ValueError("--output is the place of a copy, so it needs --pretrained")
            return self.study
        if self.study is not None or self.pretrained is None:
            raise ValueError(
                "name one study: a directory, or a preset with --pretrained for the agents that come with it"
            )
        path = pretrained_study(self.pretrained, output)
        say(f"Agents:  {path}")
        return path


def following(study: Path) -> str:
    """The command that naturally follows on a study of baselines: the first that is possible and was not given yet.

    Raises:
        RunDirectoryError: there is no such study.
    """
    directory, config = read_study(study)
    steps: list[tuple[str, str, Callable[[], object]]] = [
        ("classify", "results/classification.json", lambda: check_classifiable(config)),
        ("finetune", FINETUNING_FOLDER, lambda: competent_seeds(directory, config)),
        ("profile", "results/profiles.json", lambda: None),
    ]
    for command, result, check in steps:
        with suppress(RunDirectoryError, ValueError):
            check()
            if not (study / result).exists():
                return command_line(command, study)
    return command_line("reproduce", "--scale", "quick")


def command_line(*words: object) -> str:
    """A command of ``soo-marl`` as one types it."""
    return shlex.join(["soo-marl", *map(str, words)])
