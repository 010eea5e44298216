"""Train MADDPG on stock simple_adversary, write its learning curve as CSV, and draw all curves that are there."""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from soo_marl.report.figures.baselines import reference_figure
from soo_marl.report.figures.style import save_figure
from soo_marl.studies.baselines.reference_curves import PUBLISHED, Dialect, ReferenceCurve, train_reference


@dataclass
class Arguments:
    dialect: Dialect = "openai"
    """Which version of the game: openai (as published) or mpe2."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """One run per seed."""
    episodes: int = 60_000
    """Episodes per seed, a multiple of the window."""
    window: int = 1_000
    """Episodes per point of the curve, a multiple of 4."""
    output: Path = Path("docs/reference")
    """Folder for the CSV and the picture."""
    device: str = "cpu"
    """Where to compute."""
    threads: int = 1
    """Torch threads; one is fastest for these small networks."""


def main(arguments: Arguments) -> None:
    torch.set_num_threads(arguments.threads)
    curve = train_reference(
        arguments.dialect,
        arguments.seeds,
        arguments.episodes,
        window=arguments.window,
        device=arguments.device,
        progress=lambda episodes, good, adversary: print(
            f"{episodes:6d} good {good:6.2f} adversary {adversary:6.2f}", flush=True
        ),
    )
    curve.write_csv(arguments.output / f"simple_adversary_{arguments.dialect}.csv")
    curves = [ReferenceCurve.read_csv(path) for path in sorted(arguments.output.glob("simple_adversary_*.csv"))]
    print(save_figure(reference_figure(curves, PUBLISHED), arguments.output / "simple_adversary"))


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
