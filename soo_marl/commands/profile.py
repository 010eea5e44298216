"""``soo-marl profile``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from soo_marl.commands.shared import PretrainedName, StudyArgument, chosen_study
from soo_marl.commands.tables.profiles import print_profiles
from soo_marl.commands.tables.terminal import ProgressDisplay
from soo_marl.engines import LOCAL_WORKERS, Compute, check_machine
from soo_marl.report.refresh import refresh
from soo_marl.studies.baselines.study import read_study
from soo_marl.studies.profiles.study import EPISODES, profile_study


@dataclass(frozen=True)
class Profile:
    """Take the deception profiles of a trained study, and say how far deceptive agents lie from honest ones."""

    study: StudyArgument = None
    """Study directory, as written by train or demo; its fine-tuned agents are taken along."""
    pretrained: PretrainedName = None
    """Preset whose trained agents come with the package, in place of a study."""
    output: Path | None = None
    """Where the copy of pretrained agents goes; runs/pretrained/PRESET where none is given."""
    episodes: int = EPISODES
    """Greedy episodes per agent."""
    compute: Compute = LOCAL_WORKERS
    """Where to compute."""

    def run(self, line: str) -> None:
        """Carry out the command; ``line`` is how it was given."""
        directory, config = read_study(chosen_study(self.study, self.pretrained, self.output))
        check_machine(self.compute)
        with directory.locked():
            result = profile_study(
                config, directory, ProgressDisplay(), line, episodes=self.episodes, compute=self.compute
            )
            refresh(directory.path)
        print_profiles(result, directory)
