"""Ctrl-C while other processes work: a request first, and only the second time an end at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def interrupts_asking() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C within the block into a request, which the yielded function tells of; a second one acts."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = threading.Event()
    before = signal.getsignal(signal.SIGINT) or signal.default_int_handler

    def ask(number: int, frame: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def interrupts_kept_from_children() -> Iterator[None]:
    """Processes started within the block never see Ctrl-C.

    It reaches every process of the terminal's group, and one that comes while a worker still loads its modules would
    end it with a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Started by the first worker otherwise, it would let SIGINT through again before that worker is there.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
