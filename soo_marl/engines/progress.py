"""How a study says what it is doing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class Display(Protocol):
    """Where a study says what it is doing."""

    def task(self, name: str, total: float, shards: int) -> AbstractContextManager[Callable[[int, float], None]]:
        """Show a task while it runs; yields ``advance(shard, units of work done by it)``."""
