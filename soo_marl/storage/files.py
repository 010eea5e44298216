"""Files that are whole or absent: one guarded way to read them, and one guarded way to write them.

Nothing here is pickled: tensors are safetensors (see :mod:`soo_marl.storage.tensor_files`), everything else is JSON or
text. Whatever stands in a study may come from somebody else, so links are not followed, and pipes and devices are not
opened. What the operating system refuses (no memory, no permission) is kept apart from what is damaged: only of a
damaged file does a message say that it may be deleted.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

PARTIAL_SUFFIX = ".soo-marl-partial"
"""How the names of unfinished files and folders end; one left behind belongs to a process that was killed."""

_PARTIAL = re.compile(
    rf"\.(?:.+\.(?:[0-9a-f]{{16}}|\d+-\d+)|adapter-[a-z0-9_]{{8}}|probe){re.escape(PARTIAL_SUFFIX)}(?:-old)?", re.DOTALL
)
"""Names of unfinished files and folders as this version and earlier ones give them."""

DELETE = "delete it to make it anew"
"""The way out of most faults in a file: whatever is missing is made again."""

_LARGEST_JSON = 1 << 30
"""Bytes; a thousand seeds with their curves need a tenth of it."""

_LONGEST_QUOTE = 200
"""Characters of a file's content that a message repeats."""

_WAYS_OUT = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
        "make room, then run the same command again: it goes on from the last checkpoint",
    ),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM),
        "make it yours, or copy the whole study to a folder of your own and work there",
    ),
    errno.EROFS: "copy the whole study to a folder that can be written, and work there",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files (ulimit -n 4096), then run the command again"),
    errno.ENOMEM: "free memory, or use fewer workers (--workers), then run the command again",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "links are not followed inside a study: put the file itself in its place",
}
"""What a user can do about what the operating system says; nothing of it deletes anything."""


class RunDirectoryError(Exception):
    """Something on disk cannot be used or written; the message is one sentence for the user."""


# Reading


@contextmanager
def opened(path: Path, way_out: str = DELETE, *, follow: bool = False) -> Iterator[BinaryIO]:
    """Open a file for reading, as everything that is read is opened; ``way_out`` tells what to do where it is no file.

    Links are followed, with ``follow``, where the user named the file or it is the installed package's.

    Raises:
        RunDirectoryError: it is missing, a link, no regular file (reading a pipe or a device might never end), or the
            operating system refuses, within the block as well.
    """
    try:
        # A pipe would keep the call waiting for somebody to write.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            os.close(descriptor)
            what = "a folder, no file" if stat.S_ISDIR(mode) else "not a regular file"
            raise RunDirectoryError(f"{path} is {what}; {way_out}")
        with open(descriptor, "rb") as file:
            yield file
    except FileNotFoundError as error:
        raise RunDirectoryError(f"{printable(str(path))} is missing") from error
    except (OSError, MemoryError, ValueError) as error:
        if isinstance(error, ValueError) and "\0" not in str(path):
            raise
        raise cannot_read(path, error) from error


def cannot_read(path: Path, error: BaseException) -> RunDirectoryError:
    """The error for a file or folder that the operating system, by itself or through a library, did not let read."""
    return _refused("read", path, error)


def cannot_write(path: Path, error: BaseException) -> RunDirectoryError:
    """The error for a file or folder that the operating system, by itself or through a library, did not let write."""
    return _refused("write", path, error)


def _refused(verb: str, path: Path, error: BaseException) -> RunDirectoryError:
    number, name = error_number(error), str(path)
    reason = "its name holds a NUL" if isinstance(error, ValueError) else quoted(error)
    if number is not None:
        reason = "it is a link" if number == errno.ELOOP else os.strerror(number)
    if len(name) > 2 * _LONGEST_QUOTE:
        name = f"{name[:_LONGEST_QUOTE]} ... {name[-_LONGEST_QUOTE:]}"
    way_out = f"; {_WAYS_OUT[number]}" if number in _WAYS_OUT else ""
    return RunDirectoryError(f"cannot {verb} {printable(name)}: {reason}{way_out}")


def error_number(error: BaseException) -> int | None:
    """The number (``errno``) of what the operating system said, also where a library tells it in its text alone."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    text = str(error)
    told = re.search(r"\(os error (\d+)\)|Error code (\d+) \(|: [A-Z][a-z ]+\((\d+)\)$", text)
    if told is not None:
        return int(next(group for group in told.groups() if group))
    return errno.ENOMEM if "allocate memory" in text else None


def read_bytes(path: Path, way_out: str = DELETE, *, follow: bool = False, largest: int = _LARGEST_JSON) -> bytes:
    """The content of a file of at most ``largest`` bytes; raises as :func:`opened`, for a larger one as well."""
    with opened(path, way_out, follow=follow) as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise RunDirectoryError(f"{path} is too large to be read: {size} bytes; {way_out}")
        return file.read()


def read_text(path: Path) -> str:
    """The text of a file that the user wrote and named, without the mark that some editors put first.

    Raises:
        RunDirectoryError: it cannot be read, or is no regular file.
        ValueError: it is not UTF-8.
    """
    try:
        return read_bytes(path, "name a text file", follow=True).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {quoted(error)}") from error


def read_json(path: Path, way_out: str = DELETE) -> Any:
    """Return the content of a JSON file; ``way_out`` tells what to do about one that is damaged.

    Raises:
        RunDirectoryError: the file is missing or unreadable, is not JSON (which knows no NaN and no Infinity), is
            nested too deep, or larger than 1 GiB.
    """
    content = read_bytes(path, way_out)
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        why = ": it is nested too deep" if deep else f", perhaps half-written ({quoted(error)})"
        raise RunDirectoryError(f"{path} is not readable JSON{why}; {way_out}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def validate(adapter: TypeAdapter[T], content: Any, path: Path, way_out: str = DELETE) -> T:
    """Return ``content``, read from ``path``, as the adapter's type; ``way_out`` is as in :func:`read_json`.

    Raises:
        RunDirectoryError: it does not fit; names the file, the first field that does not fit, and why.
    """
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = quoted(".".join(str(part) for part in first["loc"])) or "the whole"
        raise RunDirectoryError(f"{path} does not fit: {field}: {quoted(first['msg'])}; {way_out}") from error


# Writing


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield the name of a new, empty file beside ``path`` that becomes ``path`` when the block ends without an error.

    Readers see the old file or the whole new one, never a part. Missing folders are made. When the block raises, the
    old file stays and the new one is removed. A link at ``path`` is replaced, not followed.

    Without ``durable``, a power cut within the next seconds may leave the file empty: for what is quickly made again.

    Raises:
        RunDirectoryError: the operating system refused (no permission, no space, not a folder ...).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PARTIAL_SUFFIX}")
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666))
        try:
            yield temporary
            if durable:
                _synchronise(temporary)
            os.replace(temporary, path)
            if durable:
                _synchronise(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def replacing_folder(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a new folder beside ``path`` that becomes ``path`` when the block ends without an error.

    For libraries that write several files. What they put there becomes readable for everybody whom the user's settings
    let read. When the block raises, nothing is left. Without ``replace``, a folder that is there already stays, and
    the new one is dropped.

    Raises:
        RunDirectoryError: the operating system refused, in the block or before or after; or ``path`` is a link or no
            folder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PARTIAL_SUFFIX}")
        temporary.mkdir()
        old = temporary.with_name(f"{temporary.name}-old")
        try:
            yield temporary
            mode = temporary.stat().st_mode & 0o666
            for file in sorted(temporary.rglob("*")):
                if file.is_file():
                    file.chmod(mode)
                    _synchronise(file)
            if path.is_symlink() or (path.exists() and not path.is_dir()):
                raise RunDirectoryError(f"{path} is a link or no folder, and stays as it is; name another")
            if path.exists():
                if not replace:
                    return
                path.rename(old)
            temporary.rename(path)
            _synchronise(path.parent)
        finally:
            for left in (temporary, old):
                shutil.rmtree(left, ignore_errors=True)
    except Exception as error:  # libraries tell what the operating system said in their text alone
        if error_number(error) is None:
            raise
        raise cannot_write(path, error) from error


def is_partial(name: str) -> bool:
    """Whether a file or folder of that name is one that this package had begun to write."""
    return _PARTIAL.fullmatch(name) is not None


def _synchronise(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file atomically; raises as :func:`replacing`."""
    with replacing(path, durable=durable) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str, *, durable: bool = True) -> None:
    """Write a UTF-8 file atomically; raises as :func:`replacing`."""
    # Half of a surrogate pair, as Python makes of a command's argument that is not UTF-8, cannot be encoded.
    write_bytes(path, content.encode("utf-8", errors="backslashreplace"), durable=durable)


def write_json(path: Path, content: Any, *, durable: bool = True) -> None:
    """Write plain data as JSON, atomically; raises as :func:`replacing`, and ValueError for NaN and infinity."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", durable=durable)


# Text


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
