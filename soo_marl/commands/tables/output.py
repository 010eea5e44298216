"""Output that nobody reads any more ends no study: a closed pipe, a terminal that is gone, a log on a full disk."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class LossyStream:
    """A text stream whose writing never fails: once it cannot be written, what is written to it is dropped.

    Everything but writing is the stream's own.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        """Wrap a stream; ``name`` is what a message calls it."""
        self._stream, self._name = stream, name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._stream, attribute)

    def write(self, text: str) -> int:
        """Write what can still be written."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Pass on what can still be passed on."""
        self._try(self._stream.flush)

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            # Whatever goes on writing there, this process at its exit and its children too, shall write nowhere. A
            # stream without a descriptor of its own is no file of the operating system.
            with suppress(OSError, ValueError, AttributeError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
            if sys.stderr is not self:
                lost = f"{self._name} is lost ({error.strerror})"
                print(f"soo-marl: {lost}; the work goes on without it", file=sys.stderr)


@contextmanager
def unbreakable_output() -> Iterator[None]:
    """Within the block no error of standard output or standard error reaches whoever writes there."""
    before: tuple[Any, Any] = sys.stdout, sys.stderr
    wrapped: list[Any] = list(before)
    for number, (stream, name) in enumerate(zip(before, ("standard output", "standard error"), strict=True)):
        # An old locale cannot show every character, a dash or a bar, say; that must not cost the whole output.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
        if stream is not None and not isinstance(stream, LossyStream):
            wrapped[number] = LossyStream(stream, name)
    sys.stdout, sys.stderr = wrapped
    try:
        yield
    finally:
        for stream in wrapped:
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before
