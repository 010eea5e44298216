"""How long the benchmark measures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """How long and how often everything is timed."""

    scratch: Path
    """Folder for checkpoints, event files and studies that are written while timing; removed at the end."""
    repeats: int = 9
    """Repeats of every short measurement; each times the subject and its references in turn."""
    seconds: float = 0.25
    """Least duration of one short timing."""
    training_repeats: int = 4
    """Repeats of training end to end."""
    training_seconds: float = 20.0
    """Duration of one timing of training end to end, with one checkpoint: what a study leaves between two."""
    quick: bool = False
    """Small sizes, all in this process, for tests: the figures mean nothing."""


def quick_settings(scratch: Path) -> Settings:
    """Settings that go through everything in the shortest time."""
    return Settings(scratch, repeats=2, seconds=0.0, training_repeats=1, training_seconds=0.0, quick=True)
