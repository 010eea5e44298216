"""What those who make releases need; ``scripts/`` call it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from soo_marl.commands.shared import command_line
from soo_marl.commands.tables.terminal import say
from soo_marl.report.figures.baselines import reference_figure
from soo_marl.report.figures.style import save_figure
from soo_marl.studies.baselines.pretrained import PRETRAINED, export_pretrained
from soo_marl.studies.baselines.reference_curves import PUBLISHED, Dialect, ReferenceCurve, train_reference


@dataclass(frozen=True)
class ReleaseAgents:
    """Its options, and what is done with them."""

    study: tyro.conf.Positional[Path]  # Directory of the study, trained and evaluated.
    seeds: tuple[int, ...] = ()  # Seeds to keep; all where none are given.
    destination: Path = PRETRAINED  # Folder in which one is made with the name of the study's preset.

    def run(self, line: str) -> str:
        """Carry out the command; returns the one that follows."""
        folder = export_pretrained(self.study, self.destination, seeds=self.seeds or None)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        say(f"{folder}: {size / 1e6:.1f} MB")
        return command_line("classify", "--pretrained", folder.name)


@dataclass(frozen=True)
class ReleaseCurves:
    """Its options, and what is done with them."""

    dialect: Dialect = "openai"  # Which version of the game: openai (as published) or mpe2.
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # One run per seed.
    episodes: int = 60_000  # Episodes per seed, a multiple of the window.
    window: int = 1_000  # Episodes per point of the curve, a multiple of 4.
    output: Path = Path("docs/reference")  # Folder for the CSV and the picture.
    device: str = "cpu"  # Where to compute.
    threads: int = 1  # Torch threads; one is fastest for these small networks.

    def run(self, line: str) -> str:
        """Carry out the command that was given as ``line``; returns the one that follows."""
        torch.set_num_threads(self.threads)
        curve = train_reference(
            self.dialect,
            self.seeds,
            self.episodes,
            window=self.window,
            device=self.device,
            progress=lambda played, good, adversary: say(f"{played:6d} good {good:6.2f} adversary {adversary:6.2f}"),
        )
        curve.write_csv(self.output / f"simple_adversary_{self.dialect}.csv")
        curves = [ReferenceCurve.read_csv(path) for path in sorted(self.output.glob("simple_adversary_*.csv"))]
        say(str(save_figure(reference_figure(curves, PUBLISHED), self.output / "simple_adversary")))
        other = "mpe2" if self.dialect == "openai" else "openai"
        return command_line("release", "curves", "--dialect", other, "--output", self.output)
