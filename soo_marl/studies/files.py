"""Files that are whole or absent: atomic writing, and reading that says in one sentence what is wrong.

Nothing here is pickled: tensors are safetensors (see :mod:`soo_marl.studies.tensor_files`), everything else is JSON or
text.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

PARTIAL_SUFFIX = ".soo-marl-partial"
"""How the names of unfinished files end; such a file left behind belongs to a process that was killed."""

DELETE = "delete it to make it anew"
"""The way out of most faults in a file: whatever is missing is made again."""

_LARGEST_JSON = 1 << 30
"""Bytes; a thousand seeds with their curves need a tenth of it."""

_LONGEST_QUOTE = 200
"""Characters of a file's content that a message repeats."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


class RunDirectoryError(Exception):
    """Something on disk cannot be used or written; the message is one sentence for the user."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the name of a temporary file beside ``path`` that becomes ``path`` when the block ends without an error.

    Readers see the old file or the whole new one, never a part, even after a power cut: the temporary file is flushed
    to disk before it replaces ``path``, and the folder after. Missing folders are made. When the block raises, the old
    file stays and the temporary one is removed.

    Raises:
        RunDirectoryError: the operating system refused (no permission, no space, not a folder ...).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{PARTIAL_SUFFIX}")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _synchronise(temporary)
            os.replace(temporary, path)
            _synchronise(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> RunDirectoryError:
    """The error for something that the operating system did not let write, with the way out where there is a known one.

    Args:
        path: the file or folder.
        error: what the operating system said.
    """
    way_out = ""
    if error.errno in _FULL:
        way_out = "; make room, then run the same command again: it goes on from the last checkpoint"
    elif error.errno in _FORBIDDEN:
        way_out = "; make the folder writable, then run the same command again"
    return RunDirectoryError(f"cannot write {path}: {error.strerror or error}{way_out}")


def _synchronise(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically.

    Raises:
        RunDirectoryError: as :func:`replacing`.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 file atomically.

    Raises:
        RunDirectoryError: as :func:`replacing`.
    """
    # Half of a surrogate pair, as Python makes of a command's argument that is not UTF-8, cannot be encoded.
    write_bytes(path, content.encode("utf-8", errors="backslashreplace"))


def write_json(path: Path, content: Any) -> None:
    """Write plain data (dicts, lists, strings, finite numbers, booleans, None) as JSON, atomically.

    Raises:
        RunDirectoryError: as :func:`replacing`.
        ValueError: a number is NaN or infinite, which JSON cannot hold.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def check_regular(path: Path, way_out: str = DELETE) -> int:
    """The size in bytes of a file that is to be read.

    Args:
        path: the file.
        way_out: what the user can do where it is no file.

    Raises:
        OSError: there is none.
        RunDirectoryError: it is no regular file: reading a pipe or a device might never end.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        what = "a folder, no file" if stat.S_ISDIR(found.st_mode) else "not a regular file"
        raise RunDirectoryError(f"{path} is {what}; {way_out}")
    return found.st_size


def read_text(path: Path) -> str:
    """The text of a file that the user wrote and named.

    Raises:
        RunDirectoryError: it cannot be read, or is no regular file.
        ValueError: it is not UTF-8.
    """
    try:
        check_regular(path, "name a text file")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {quoted(error)}") from error


def read_json(path: Path, way_out: str = DELETE) -> Any:
    """Return the content of a JSON file. NaN and Infinity, which JSON does not know, are refused.

    Args:
        path: the file.
        way_out: what the user can do about a file that is damaged.

    Raises:
        RunDirectoryError: the file is missing or unreadable, is not JSON, is nested too deep, or larger than 1 GiB.
    """
    try:
        size = check_regular(path)
        if size > _LARGEST_JSON:
            raise RunDirectoryError(f"{path} is too large to be read: {size} bytes; {way_out}")
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError as error:
        raise RunDirectoryError(f"{path} is missing") from error
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise RunDirectoryError(
            f"{path} is not readable JSON, perhaps half-written ({quoted(error)}); {way_out}"
        ) from error
    except RecursionError as error:
        raise RunDirectoryError(f"{path} is not readable JSON: it is nested too deep; {way_out}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def validate(adapter: TypeAdapter[T], content: Any, path: Path, way_out: str = DELETE) -> T:
    """Return ``content``, read from ``path``, as the adapter's type.

    Args:
        adapter: the type.
        content: what was read.
        path: where from.
        way_out: what the user can do about a file that does not fit.

    Raises:
        RunDirectoryError: it does not fit; names the file, the first field that does not fit, and why.
    """
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = quoted(".".join(str(part) for part in first["loc"])) or "the whole"
        raise RunDirectoryError(f"{path} does not fit: {field}: {quoted(first['msg'])}; {way_out}") from error


def quoted(content: object) -> str:
    """Text of whatever origin for use in a message: printable, on one line, and not too long."""
    text = str(content)
    return printable(text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]} ...")


def plain(text: str) -> str:
    """The same text as :func:`printable` makes it, but with its line breaks."""
    return "\n".join(map(printable, text.split("\n")))


def printable(text: str) -> str:
    """The same text with line breaks, control characters and halves of surrogate pairs as escape sequences."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
