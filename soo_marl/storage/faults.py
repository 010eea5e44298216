"""What went wrong, in one sentence for the user."""

from __future__ import annotations

import re
import sys
import tempfile
import traceback

from pydantic import ValidationError

from soo_marl.engines import WorkerLostError
from soo_marl.storage.files import RunDirectoryError, quoted

EXPECTED = (RunDirectoryError, WorkerLostError, ValueError, OSError)
"""Errors whose message is a sentence for the user already, or becomes one."""


def is_of_memory(error: Exception) -> bool:
    """Whether an error tells of sizes that no memory holds; torch has no class of its own for this on the CPU."""
    said = "allocate memory|out of memory|Storage size calculation overflowed|numel: integer|without overflow"
    told = isinstance(error, RuntimeError) and re.search(said, str(error)) is not None
    return told or isinstance(error, MemoryError | OverflowError)


def one_sentence(error: Exception) -> str:
    """What went wrong and what to do, without a traceback; of several faults in a configuration the first.

    The traceback of an error that nobody thought of goes into a file, which the sentence names.
    """
    if is_of_memory(error):
        return (
            "this needs more memory than there is; take fewer worlds, a smaller replay_capacity, batch_size or "
            "hidden_units, or fewer seeds_per_shard"
        )
    if isinstance(error, ValidationError):
        return _first_fault(error)
    return str(error) if isinstance(error, EXPECTED) else _unexpected(error)


def _first_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{name} is no field of {error.title}; the fields are those in study.json"
    # Where whole parts of a configuration do not fit together, printing them would bury the sentence.
    given = "" if isinstance(first["input"], dict) else f" (given: {quoted(repr(first['input']))})"
    if first["input"] == "None":
        given += "; write null for no value"
    return f"{name}: {message}{given}" if name else f"{message}{given}"


def _unexpected(error: Exception) -> str:
    what = f"unexpected {type(error).__name__}: {quoted(error)}; please report it with the traceback"
    lines = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", errors="backslashreplace", prefix="soo-marl-", suffix=".txt", delete=False
        ) as file:
            file.write(lines)
    except OSError:
        print(lines, file=sys.stderr)
        return f"{what} above"
    return f"{what} in {file.name}"
