"""Output that nobody reads any more ends no study: a closed pipe, a terminal that is gone, a log on a full disk."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
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
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """Pass on what can still be passed on."""
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Let everything that goes on writing there, this process at its exit and its children too, write nowhere."""
        # A stream without a descriptor of its own is no file of the operating system.
        with suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        if sys.stderr is not self:
            print(f"soo-marl: {self._name} is lost ({error.strerror}); the work goes on without it", file=sys.stderr)


@contextmanager
def unbreakable_output() -> Iterator[None]:
    """Within the block no error of standard output or standard error reaches whoever writes there."""
    before = sys.stdout, sys.stderr
    for stream in before:
        # An old locale cannot show every character, a dash or a bar, say; that must not cost the whole output.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    wrapped: list[Any] = [
        stream if stream is None or isinstance(stream, LossyStream) else LossyStream(stream, name)
        for stream, name in zip(before, ("standard output", "standard error"), strict=True)
    ]
    sys.stdout, sys.stderr = wrapped
    try:
        yield
    finally:
        for stream in wrapped:
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before
