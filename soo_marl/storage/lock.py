"""One command at a time on a study's directory.

Two locks of the operating system (``flock``), which the kernel releases when a process ends, however it ends:

* ``.command.lock``: a command holds it alone while it works on the directory. Another command is refused at once.
* ``.workers.lock``: every worker process shares it while it works on a shard. Workers whose command was killed live on
  until they have written their checkpoint, which takes moments; the next command waits for them.

The lock files stay, empty but for the holder's name. Nobody needs a lock to read. Commands on different machines see
each other's locks where the network file system passes them on (NFS with its lock service, CephFS, Lustre mounted with
``flock``), and not where it keeps them on each machine (NFS with ``nolock``, Lustre with ``localflock``). Where it has
none at all, a warning says so and the command goes on. (The package filelock has no shared lock of this kind, and makes
up for a missing ``flock`` with files that a killed process leaves behind.)
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from errno import EACCES, EAGAIN, ENOLCK, ENOSYS, EOPNOTSUPP
from pathlib import Path

from soo_marl.storage.files import RunDirectoryError, cannot_write, quoted

COMMAND_LOCK = ".command.lock"
WORKERS_LOCK = ".workers.lock"

_SECONDS_TO_LEAVE = 60.0
"""How long a command waits for workers whose own command is gone."""


_held: set[tuple[int, str]] = set()
"""Threads, and the directories that they have locked."""


@contextmanager
def command_lock(path: Path) -> Iterator[None]:
    """Work alone on a directory within the block; blocks of the same thread may be nested.

    What a study lies in is locked with it: a sweep at work comes to all of its points, a reproduction to its presets.

    Raises:
        RunDirectoryError: another command works there, or workers that its command left behind do not end, or a lock
            file cannot be written.
    """
    key = threading.get_ident(), os.path.realpath(path)
    if key in _held:
        yield
        return
    folder = Path(key[1]).parent
    around = folder.parent if folder.name == "points" else folder
    with ExitStack() as stack:
        if (around / "study.json").is_file():
            stack.enter_context(command_lock(around))
        descriptor = _acquire(path / COMMAND_LOCK, fcntl.LOCK_EX)
        if descriptor is None:
            raise RunDirectoryError(
                f"another command{_holder(path)} is at work in {path}; wait until it has ended, or name another folder"
            )
        stack.callback(os.close, descriptor)
        with _workers_lock(path, fcntl.LOCK_EX):
            pass
        _rewrite(descriptor, json.dumps({"process": os.getpid(), "host": socket.gethostname()}))
        stack.callback(_rewrite, descriptor, "")
        _held.add(key)
        stack.callback(_held.discard, key)
        yield


@contextmanager
def worker_lock(path: Path) -> Iterator[None]:
    """Tell later commands that a worker is at work in a directory, within the block; others may be so too.

    Raises:
        RunDirectoryError: a lock file cannot be written.
    """
    with _workers_lock(path, fcntl.LOCK_SH):
        yield


@contextmanager
def _workers_lock(path: Path, operation: int) -> Iterator[None]:
    """Hold it, shared or alone, after waiting for it."""
    deadline = time.monotonic() + _SECONDS_TO_LEAVE
    while (descriptor := _acquire(path / WORKERS_LOCK, operation)) is None:
        if time.monotonic() > deadline:
            raise RunDirectoryError(
                f"worker processes that an earlier command left behind are still at work in {path}; they end by "
                "themselves once their checkpoint is written, then run the same command again"
            )
        time.sleep(0.05)
    try:
        yield
    finally:
        os.close(descriptor)


def _acquire(file: Path, operation: int) -> int | None:
    """The descriptor of a lock, which closing it releases; None where another process or thread is in the way."""
    try:
        # No child inherits it, and a link that somebody put there is not followed.
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise cannot_write(file, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # reading a pipe might never end
        os.close(descriptor)
        raise RunDirectoryError(f"{file} is not a regular file; delete it")
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (EAGAIN, EACCES):
            os.close(descriptor)
            return None
        if error.errno not in (ENOLCK, ENOSYS, EOPNOTSUPP):
            os.close(descriptor)
            raise cannot_write(file, error) from error
        warnings.warn(f"{file.parent} is on a file system without locks: run one command at a time there", stacklevel=2)
    return descriptor


def _rewrite(descriptor: int, content: str) -> None:
    """Write who holds a lock; on a full disk nobody learns it. By a second name the file may be somebody's own."""
    with suppress(OSError):
        if os.fstat(descriptor).st_nlink == 1:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, content.encode(), 0)


def _holder(path: Path) -> str:
    """Who holds the lock, as part of a sentence; nothing where it is not known."""
    try:
        with (path / COMMAND_LOCK).open("rb") as file:
            content = json.loads(file.read(1000))
        return f" (process {int(content['process'])} on {quoted(content['host'])})"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ""
