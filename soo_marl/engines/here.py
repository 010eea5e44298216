"""Shards one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from soo_marl.engines.compute import one_torch_thread
from soo_marl.engines.interrupts import interrupts_asking
from soo_marl.engines.shards import Interrupted, OnFailure, pass_on


def run_here(
    function: Callable[..., Any],
    shards: Sequence[tuple[Any, ...]],
    on_progress: Callable[[int, float], None],
    on_failure: OnFailure | None = None,
) -> list[Any]:
    """As :func:`soo_marl.engines.run_shards`, without any other process."""
    results: list[Any] = [None] * len(shards)
    with interrupts_asking() as stop, one_torch_thread():
        for index, shard in enumerate(shards):
            try:
                results[index] = function(*shard, report=partial(on_progress, index), stop=stop)
            except Interrupted:
                raise KeyboardInterrupt from None
            except Exception as error:
                pass_on(error, index, on_failure)
        if stop():
            raise KeyboardInterrupt
    return results
