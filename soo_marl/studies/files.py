"""Files that are whole or absent: atomic writing, and reading that says in one sentence what is wrong.

Nothing here is pickled: tensors are safetensors, everything else is JSON or text.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

T = TypeVar("T")

PARTIAL_SUFFIX = ".soo-marl-partial"
"""How the names of unfinished files end; such a file left behind belongs to a process that was killed."""


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
        raise RunDirectoryError(f"cannot write {path}: {error.strerror or error}") from error


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
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write plain data (dicts, lists, strings, finite numbers, booleans, None) as JSON, atomically.

    Raises:
        RunDirectoryError: as :func:`replacing`.
        ValueError: a number is NaN or infinite, which JSON cannot hold.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors (any shapes, any device) and text metadata as safetensors, atomically.

    Raises:
        RunDirectoryError: as :func:`replacing`.
    """
    # safetensors wants dense tensors that share no storage; a view into a stack of runs shares its storage.
    dense = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    own = {name: t.clone() if t.untyped_storage().nbytes() != t.nbytes else t for name, t in dense.items()}
    with replacing(path) as temporary:
        save_file(own, temporary, metadata=dict(metadata or {}))


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        RunDirectoryError: the file is missing or unreadable, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunDirectoryError(f"{path} is missing") from error
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise RunDirectoryError(f"{path} is not readable JSON, perhaps half-written ({error})") from error


def validate(adapter: TypeAdapter[T], content: Any, path: Path) -> T:
    """Return ``content``, read from ``path``, as the adapter's type.

    Raises:
        RunDirectoryError: it does not fit; names the file, the first field that does not fit, and why.
    """
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise RunDirectoryError(f"{path} does not fit: {field or 'the whole'}: {first['msg']}") from error


def read_tensors(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    *,
    device: torch.device | str = "cpu",
    finite: bool = True,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the named tensors of a safetensors file, and its text metadata.

    Args:
        path: The file.
        shapes: Name to shape of every tensor that must be there, and nothing else may; unchecked where None.
        device: Where the tensors go.
        finite: Whether NaN and infinite numbers are refused.

    Raises:
        RunDirectoryError: the file is missing, truncated or corrupt, has other names or shapes, or holds numbers that
            are not finite; names the file.
    """
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            metadata = dict(file.metadata() or {})
            names = file.keys()
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in names}
    except FileNotFoundError as error:
        raise RunDirectoryError(f"{path} is missing") from error
    except (OSError, SafetensorError) as error:
        raise RunDirectoryError(
            f"{path} is not a readable safetensors file: {error}; delete it to make it anew"
        ) from error
    if shapes is not None:
        _check_shapes(path, tensors, shapes)
    for name, tensor in tensors.items():
        if finite and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise RunDirectoryError(f"{path} holds numbers that are not finite, in {name}; delete it to make it anew")
    return tensors, metadata


def _check_shapes(path: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name in sorted(shapes.keys() | tensors.keys()):
        if name not in tensors:
            raise RunDirectoryError(f"{path} lacks the tensor {name}")
        if name not in shapes:
            raise RunDirectoryError(f"{path} holds a tensor that does not belong there: {name}")
        if tuple(tensors[name].shape) != tuple(shapes[name]):
            raise RunDirectoryError(
                f"{path} does not fit: {name} has shape {list(tensors[name].shape)}, expected {list(shapes[name])}"
            )
