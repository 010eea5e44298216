"""Named tensors as safetensors files: written whole or not at all, and checked before anything is made of them.

safetensors knows when a file is cut, but not when a bit of it has flipped, so the metadata holds a digest of everything
else in the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from soo_marl.storage.files import DELETE, RunDirectoryError, cannot_read, error_number, opened, quoted, replacing

_DIGEST = "digest"
"""Name of the digest among the metadata. Files without one are read as well: those of version 0.1 have none."""

_DTYPES = {
    "I64": torch.int64,
    "F64": torch.float64,
    "F32": torch.float32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""In the order in which a file has them."""

_KINDS = {dtype: kind for kind, dtype in _DTYPES.items()}


class TensorHeader(NamedTuple):
    """What a file says about a tensor before it is read."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @staticmethod
    def of(tensor: Tensor) -> TensorHeader:
        """The header of a tensor."""
        return TensorHeader(tensor.dtype, tuple(tensor.shape))


Headers = Mapping[str, TensorHeader]
"""By name of the tensor."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors (any shapes, any device) and text metadata as safetensors, atomically, with a digest.

    Raises as :func:`soo_marl.storage.files.replacing`.
    """
    # safetensors wants dense tensors that share no storage; a view into a stack of runs shares its storage.
    dense = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    own = {name: t.clone() if t.untyped_storage().nbytes() != t.nbytes else t for name, t in dense.items()}
    text = dict(metadata or {})
    content: dict[str, Any] = {"__metadata__": dict(sorted((text | {_DIGEST: _digest(own, text)}).items()))}
    # As the library lays a file out, but for the metadata, whose order it leaves to chance: equal content, equal bytes.
    end, ordered = 0, sorted(own, key=lambda name: (list(_KINDS).index(own[name].dtype), name))
    for name in ordered:
        begin, end = end, end + own[name].nbytes
        kind, shape = _KINDS[own[name].dtype], list(own[name].shape)
        content[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    header = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    header = header.ljust(-(-len(header) // 8) * 8)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name in ordered:
            file.write(_raw(own[name]))


def stored_digest(path: Path) -> str:
    """The digest that a file of :func:`write_tensors` says it has, or nothing; raises as :func:`read_headers`."""
    return read_headers(path)[1].get(_DIGEST, "")


def read_headers(path: Path, way_out: str = DELETE) -> tuple[dict[str, TensorHeader], dict[str, str]]:
    """Return what a safetensors file says about its tensors, and its text metadata, without reading the tensors.

    Raises:
        RunDirectoryError: the file is missing, truncated or corrupt, or holds numbers of a kind that we never write.
    """
    with _opened(path, way_out) as file:
        return _headers(file, path, way_out), dict(file.metadata() or {})


def read_tensors(
    path: Path,
    expected: Headers | None = None,
    *,
    device: torch.device | str = "cpu",
    finite: bool = True,
    way_out: str = DELETE,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the named tensors of a safetensors file, and its text metadata.

    Args:
        path: the file.
        expected: every tensor that must be there, and nothing else may; unchecked where None.
        device: where the tensors go.
        finite: whether NaN and infinite numbers are refused.
        way_out: what to do about a file that is damaged.

    Raises:
        RunDirectoryError: the file is missing, truncated or corrupt, has other names, shapes or kinds of numbers, or
            holds numbers that are not finite; names the file.
    """
    with _opened(path, way_out) as file:
        headers, metadata = _headers(file, path, way_out), dict(file.metadata() or {})
        if expected is not None:
            check_headers(path, headers, expected, way_out)
        # Copies: the library's own tensors are windows on the file, which they keep on the disk once it is replaced.
        tensors: dict[str, Tensor] = {name: file.get_tensor(name).clone() for name in headers}
    digest = metadata.pop(_DIGEST, None)
    if digest is not None and digest != _digest(tensors, metadata):
        raise RunDirectoryError(f"{path} is damaged: its content is not what was written; {way_out}")
    for name, tensor in tensors.items():
        if finite and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise RunDirectoryError(f"{path} holds numbers that are not finite, in {quoted(name)}; {way_out}")
    return {name: tensor.to(device) for name, tensor in tensors.items()}, metadata


def check_headers(path: Path, found: Headers, expected: Headers, way_out: str = DELETE) -> None:
    """Refuse a file whose tensors are others than expected, before they are read.

    Raises:
        RunDirectoryError: names the file and the first tensor that is missing, too many, or of another shape or kind.
    """
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            raise RunDirectoryError(f"{path} lacks the tensor {name}; {way_out}")
        if name not in expected:
            raise RunDirectoryError(f"{path} holds a tensor that does not belong there: {quoted(name)}; {way_out}")
        for what, ours, theirs in (
            ("shape", list(expected[name].shape), list(found[name].shape)),
            ("numbers of kind", expected[name].dtype, found[name].dtype),
        ):
            if ours != theirs:
                raise RunDirectoryError(f"{path} does not fit: {name} has {what} {theirs}, expected {ours}; {way_out}")


def _headers(file: Any, path: Path, way_out: str) -> dict[str, TensorHeader]:
    headers = {}
    for name in sorted(file.keys()):
        tensor = file.get_slice(name)
        kind = tensor.get_dtype()
        if kind not in _DTYPES:
            raise RunDirectoryError(f"{path} holds numbers of kind {kind}, in {quoted(name)}; {way_out}")
        headers[name] = TensorHeader(_DTYPES[kind], tuple(tensor.get_shape()))
    return headers


@contextmanager
def _opened(path: Path, way_out: str) -> Iterator[Any]:
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError as error:  # of the path, not of the file, which is as good as any
        raise RunDirectoryError(
            f"cannot read {quoted(path)}: tensors are only read from paths that are UTF-8; rename the folder"
        ) from error
    # Held open meanwhile: what is no regular file is refused, and what lacks memory or descriptors is not damaged.
    with opened(path, way_out):
        try:
            with safe_open(path, framework="pt") as file:
                yield file
        except (OSError, RuntimeError, SafetensorError) as error:
            with opened(path, way_out):  # the library says "no such file" where descriptors have run out
                pass
            if error_number(error) is not None:
                raise cannot_read(path, error) from error
            # A RuntimeError is torch's, for a file that is shorter than it says.
            raise RunDirectoryError(f"{path} is not a readable safetensors file: {quoted(error)}; {way_out}") from error


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Digest of dense tensors on the CPU and of metadata, whatever their order.

    SHA-256, since processors compute it by themselves; it guards against accidents, not against forgery.
    """
    headers = [(name, str(tensor.dtype), list(tensor.shape)) for name, tensor in sorted(tensors.items())]
    digest = hashlib.sha256(json.dumps([headers, sorted(metadata.items())]).encode())
    for _, tensor in sorted(tensors.items()):
        digest.update(_raw(tensor))
    return digest.hexdigest()[:32]


def _raw(tensor: Tensor) -> Any:
    """The bytes of a dense tensor on the CPU, in place."""
    return tensor.reshape(-1).view(torch.uint8).numpy()
