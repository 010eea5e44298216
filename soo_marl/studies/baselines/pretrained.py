"""Trained agents that come with the package: a study reduced to what classifying, profiling and fine-tuning need.

They lie in ``soo_marl/pretrained/<preset>/`` and are copied to a study's directory before anything is done with them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np

import soo_marl
from soo_marl.envs.configuration import preset
from soo_marl.storage.files import RunDirectoryError, cannot_write, is_partial, read_bytes, write_bytes, write_json
from soo_marl.storage.lock import COMMAND_LOCK, WORKERS_LOCK, command_lock
from soo_marl.storage.records import read_list, write_list
from soo_marl.storage.study_directory import MANIFEST_NAME, StudyDirectory
from soo_marl.studies.baselines.study import read_study
from soo_marl.studies.learning.agents_on_disk import agent_file, load_agents
from soo_marl.studies.learning.records import AgentRecord, LearningCurve, learning_curve

PRETRAINED = Path(soo_marl.__file__).parent / "pretrained"
"""Where the agents lie in the package."""

COPIES = Path("runs/pretrained")
"""Where they are copied to, each preset to a folder of its name."""


def pretrained_presets() -> tuple[str, ...]:
    """Names of the presets whose agents come with the package."""
    return tuple(sorted(path.parent.name for path in PRETRAINED.glob(f"*/{MANIFEST_NAME}")))


def pretrained_study(preset_name: str, output: Path | None = None) -> Path:
    """A study's directory with the trained agents of a preset, copied there as far as they are not there already.

    Args:
        preset_name: name of a preset of the game.
        output: the directory; ``runs/pretrained/<preset>`` where none is given.

    Raises:
        RunDirectoryError: there are no agents for that preset, the directory holds something else, another command is
            at work in it, or a file cannot be written.
        ValueError: there is no such preset.
    """
    preset(preset_name)
    there = pretrained_presets()
    if preset_name not in there:
        others = f", only for {', '.join(there)}" if there else ""
        raise RunDirectoryError(
            f"no trained agents of the preset {preset_name} come with this version{others}; train some with: "
            f"soo-marl train --preset {preset_name}"
        )
    source, target = PRETRAINED / preset_name, COPIES / preset_name if output is None else output
    names = sorted(path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
    # The manifest comes last: a directory without it is no study, and is filled up the next time.
    names = [*(name for name in names if name != MANIFEST_NAME), MANIFEST_NAME]
    if target.exists() and not target.is_dir():
        raise RunDirectoryError(f"{target} is a file, not a folder; name another output folder")
    _refuse_foreign(source, target, names)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(target, error) from error
    with command_lock(target):
        for name in names:
            if not (target / name).exists():
                write_bytes(target / name, read_bytes(source / name, "install soo-marl again", follow=True))
    return target


def export_pretrained(
    study: Path, destination: Path = PRETRAINED, *, name: str | None = None, seeds: Sequence[int] | None = None
) -> Path:
    """Reduce a finished study to what comes with the package, and return the new folder.

    Kept are the configuration, the honest and the deceptive agents (which hold their reds), what they do, and the
    learning curves of the study. The numbers of every agent stay as they are.

    Args:
        study: directory of a baseline study, trained and evaluated.
        destination: the folder above the new one.
        name: of the new folder; the study's preset where none is given.
        seeds: those to keep; all where none are given.

    Raises:
        RunDirectoryError: the study is not finished, an agent is missing or damaged, the folder is there already, or a
            file cannot be written.
        ValueError: the study has no such seed.
    """
    source, config = read_study(study)
    chosen = tuple(config.seeds if seeds is None else seeds)
    for seed in chosen:
        if seed not in config.seeds:
            raise ValueError(f"there are no agents with the seed {seed} in {study}; its seeds are {config.seeds}")
    if not source.done("train") or not source.done("evaluate"):
        raise RunDirectoryError(f"{study} is not trained to the end; run the command that began it again, then export")
    target = destination / (name or config.game.preset)
    if target.exists():
        raise RunDirectoryError(f"{target} is there already; delete it first")
    reduced = config.model_validate(config.model_dump() | {"seeds": chosen})
    for kind in config.kinds:
        load_agents(source, kind, chosen, config.game, config.maddpg)
    manifest = source.manifest.model_copy(update={"configuration": reduced.model_dump(mode="json"), "seeds": chosen})
    directory = StudyDirectory(target, manifest)
    try:
        runs = list(product(config.kinds, chosen))
        for run in runs:
            write_bytes(agent_file(directory, *run), read_bytes(agent_file(source, *run)))
        directory.mark_done("train", [agent_file(directory, *run) for run in runs])
        agents = read_list(source.results / "agents.json", AgentRecord)
        write_list(directory.results / "agents.json", [agent for agent in agents if agent.seed in chosen])
        curves = read_list(source.results / "curves.json", LearningCurve)
        write_list(directory.results / "curves.json", _of_seeds(curves, [config.seeds.index(seed) for seed in chosen]))
        directory.mark_done("evaluate", [directory.results / name for name in ("agents.json", "curves.json")])
        write_json(target / MANIFEST_NAME, manifest.model_dump(mode="json"))
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return target


def _refuse_foreign(source: Path, target: Path, names: Sequence[str]) -> None:
    """Refuse a directory that holds anything else than a whole or a begun copy, with whatever was done with it."""
    if (target / MANIFEST_NAME).exists():
        manifest = json.loads(read_bytes(source / MANIFEST_NAME, "install soo-marl again", follow=True))
        found = StudyDirectory.read(target).manifest.model_dump(mode="json")
        foreign = any(found[name] != manifest[name] for name in ("kind", "configuration", "seeds"))
    else:
        ours = {*names, COMMAND_LOCK, WORKERS_LOCK}
        foreign = any(
            path.is_file() and path.relative_to(target).as_posix() not in ours and not is_partial(path.name)
            for path in target.rglob("*")
        )
    if foreign:
        raise RunDirectoryError(
            f"{target} holds something else than the trained agents that come with soo-marl; name another output"
        )


def _of_seeds(curves: Sequence[LearningCurve], rows: Sequence[int]) -> list[LearningCurve]:
    """Learning curves for some of their seeds."""
    generator = np.random.default_rng(0)
    return [
        learning_curve(
            curve.stage,
            curve.kind,
            curve.metric,
            curve.updates,
            np.array([curve.values[row] for row in rows], dtype=np.float64),
            generator,
        )
        for curve in curves
    ]
