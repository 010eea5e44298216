"""``soo-marl profile``."""

from __future__ import annotations

from dataclasses import dataclass

from soo_marl.commands.shared import Agents, CopyOutput, Where, following
from soo_marl.commands.tables.profiles import print_profiles
from soo_marl.commands.tables.terminal import ProgressDisplay
from soo_marl.engines import LOCAL_WORKERS, check_machine
from soo_marl.report.refresh import refresh
from soo_marl.studies.baselines.study import read_study
from soo_marl.studies.profiles.study import EPISODES, profile_study


@dataclass(frozen=True)
class Profile:
    """Its options, and what is done with them."""

    agents: Agents = Agents()
    output: CopyOutput = None
    episodes: int = EPISODES  # Greedy episodes per agent.
    compute: Where = LOCAL_WORKERS

    def run(self, line: str) -> str:
        """Carry out the command that was given as ``line``; returns the one that follows."""
        directory, config = read_study(self.agents.path(self.output))
        check_machine(self.compute)
        with directory.locked():
            result = profile_study(
                config, directory, ProgressDisplay(), line, episodes=self.episodes, compute=self.compute
            )
            refresh(directory.path)
        print_profiles(result, directory)
        return following(directory.path)
