"""Shards one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from soo_marl.studies.engines.compute import one_torch_thread
from soo_marl.studies.engines.interrupts import interrupts_asking
from soo_marl.studies.engines.shards import Interrupted

Result = TypeVar("Result")


def run_here(
    function: Callable[..., Result], shards: Sequence[tuple[Any, ...]], on_progress: Callable[[int, float], None]
) -> list[Result]:
    """As :func:`soo_marl.studies.engines.run_shards`, without any other process."""
    with interrupts_asking() as stop, one_torch_thread():
        try:
            results = [
                function(*shard, report=partial(on_progress, index), stop=stop) for index, shard in enumerate(shards)
            ]
        except Interrupted:
            raise KeyboardInterrupt from None
        if stop():
            raise KeyboardInterrupt
        return results
