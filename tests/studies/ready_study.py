"""A study whose agents' weights are set by hand: there at once, and honest and deceptive enough to be fine-tuned."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "finetuning"))

from hand_made_agents import HONEST, LURES, STILL, Policy, baselines, hand_made

from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.study import open_study
from soo_marl.studies.baselines.training import agent_files, plan
from soo_marl.studies.learning.agents_on_disk import curves_file, save_agents
from soo_marl.studies.learning.curves import StageCurves
from soo_marl.studies.learning.recipes import BaselineConfig

torch.set_num_threads(1)

__all__ = ["HONEST", "LURES", "STILL", "draw_nothing", "make_ready", "ready_config"]


def draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out pictures and animations, which take longer than everything else together."""
    for name in ("draw_figures", "draw_finetuning", "draw_profiles", "film_baselines", "film_finetuning"):
        monkeypatch.setattr(f"soo_marl.report.refresh.{name}", lambda path: [])


def ready_config(**changes: object) -> BaselineConfig:
    """The configuration of such a study."""
    return baselines(**({"seeds": (0, 1, 2), "seeds_per_shard": 2} | changes))


def make_ready(
    path: Path, config: BaselineConfig | None = None, deceptive: Policy | Sequence[Policy] = LURES
) -> tuple[StudyDirectory, BaselineConfig]:
    """Write such a study's agents, and mark them as trained.

    Args:
        path: the study's directory.
        config: its configuration.
        deceptive: what the deceptive blues do, all or each.
    """
    config = config or ready_config()
    directory = open_study(path, config)
    for phase in plan(config):
        policies = deceptive if phase.kind == "deceptive" else HONEST
        save_agents(directory, phase.condition, hand_made(config.game, config.maddpg, config.seeds, policies))
        curves = StageCurves(phase.stage, len(config.seeds))
        for updates in (2, 4):
            curves.add(updates, {"return_blue": torch.arange(len(config.seeds)).float() + updates})
        curves.save([curves_file(directory, phase.condition, seed) for seed in config.seeds])
    directory.mark_done("train", agent_files(config, directory))
    return directory, config
