"""What several commands have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from soo_marl.commands.tables.terminal import say
from soo_marl.envs.configuration import PRESETS
from soo_marl.studies.baselines.pretrained import pretrained_study
from soo_marl.studies.finetuning.methods import METHODS
from soo_marl.studies.learning.recipes import REGIMES, BaselineConfig, baseline_config, scaled, with_changes


def _one_of(names: Iterable[str]) -> Any:
    """How help shows an option that takes one of these names; others are refused in a sentence that has them all."""
    return tyro.conf.arg(metavar=f"{{{','.join(names)}}}")


PresetName = Annotated[str, _one_of(PRESETS)]
RegimeName = Annotated[str, _one_of(REGIMES)]
PretrainedName = Annotated[str | None, _one_of(PRESETS)]
MethodNames = Annotated[tuple[str, ...], _one_of(METHODS)]
StudyArgument = tyro.conf.Positional[Annotated[Path | None, tyro.conf.arg(metavar="[STUDY]")]]
"""A study's directory, which may be left out where there is another way to name one."""


def recipe(
    preset: str = "trackable",
    regime: str = "staged",
    seeds: tuple[int, ...] = (),
    scale: float = 1.0,
    changes: Sequence[str] = (),
) -> BaselineConfig:
    """The configuration of a baseline study that options describe.

    Args:
        preset: name of a preset of the game.
        regime: how it is trained.
        seeds: one honest and one deceptive run per seed.
        scale: factor on the number of updates.
        changes: fields as ``name=value``.

    Raises:
        ValueError, pydantic.ValidationError: an option does not fit.
    """
    config = baseline_config(preset, regime, seeds)
    if scale != 1.0:
        config = config.model_copy(update={"stages": scaled(config.stages, scale)})
    return with_changes(config, changes)


def chosen_study(study: Path | None, pretrained: str | None, output: Path | None = None) -> Path:
    """The study that a command is about: the one named, or a copy of agents that come with the package.

    Args:
        study: the study's directory.
        pretrained: name of a preset.
        output: where the copy goes, or None for its usual place.

    Raises:
        RunDirectoryError: there are no such agents, or they cannot be copied.
        ValueError: neither is named, or both, or a place for a copy that nobody asked for.
    """
    if (study is None) == (pretrained is None):
        raise ValueError("name one study: a directory, or a preset with --pretrained for the agents that come with it")
    if study is not None:
        if output is not None:
            raise ValueError("--output is the place of a copy, so it needs --pretrained")
        return study
    assert pretrained is not None
    path = pretrained_study(pretrained, output)
    say(f"Agents:  {path}")
    return path
