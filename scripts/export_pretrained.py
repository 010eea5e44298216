"""Reduce a finished study to the trained agents that come with the package, for those who make releases."""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from soo_marl.commands.tables.terminal import carry_out, say
from soo_marl.studies.baselines.pretrained import PRETRAINED, export_pretrained


@dataclass
class Arguments:
    study: tyro.conf.Positional[Path]
    """Study directory, trained and evaluated."""
    seeds: tuple[int, ...] = ()
    """Seeds to keep; all where none are given."""
    destination: Path = PRETRAINED
    """Folder in which one is made with the name of the study's preset."""


def main(arguments: Arguments) -> None:
    folder = export_pretrained(arguments.study, arguments.destination, seeds=arguments.seeds or None)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    say(f"{folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    arguments = tyro.cli(Arguments, description=__doc__)
    sys.exit(carry_out(lambda: main(arguments), "", "export_pretrained"))
