import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.tensor_files import TensorHeader, check_headers, read_headers, read_tensors, write_tensors


def floats(*shape: int) -> TensorHeader:
    return TensorHeader(torch.float32, shape)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test's file goes."""
    return tmp_path / "agent.safetensors"


def test_tensors_round_trip_with_views_and_metadata(path: Path) -> None:
    stack = torch.arange(24.0).reshape(4, 3, 2)
    tensors = {"first": stack[1], "second": stack[2], "transposed": stack[0].T, "count": torch.tensor(7)}
    write_tensors(path, tensors, {"update": "12"})
    expected = {"first": floats(3, 2), "second": floats(3, 2), "transposed": floats(2, 3)}
    loaded, metadata = read_tensors(path, expected | {"count": TensorHeader(torch.int64, ())})
    assert metadata == {"update": "12"}
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert path.stat().st_size < 1000, "a view must not bring its whole stack along"


def test_every_kind_of_number_and_nothing_at_all_round_trip(path: Path) -> None:
    kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool)
    tensors = {str(kind): torch.ones(3, dtype=kind) for kind in kinds} | {"empty": torch.zeros(2, 0, 3)}
    write_tensors(path, tensors)
    loaded = read_tensors(path)[0]
    assert all(
        torch.equal(loaded[name], tensors[name]) and loaded[name].dtype == tensors[name].dtype for name in tensors
    )
    assert read_headers(path)[0] == {name: TensorHeader.of(tensor) for name, tensor in tensors.items()}


def test_equal_content_gives_equal_bytes(path: Path) -> None:
    metadata = {name: name for name in "abcdef"}
    tensors = {name: torch.ones(2) for name in "xyz"}
    write_tensors(path, tensors, metadata)
    first = path.read_bytes()
    for _ in range(5):
        write_tensors(path, dict(reversed(tensors.items())), dict(reversed(metadata.items())))
        assert path.read_bytes() == first


def test_a_flipped_bit_anywhere_is_found_or_does_no_harm(path: Path) -> None:
    """In the header and in the numbers: what is read is what was written, or nothing is."""
    tensors = {"weight": torch.arange(6.0), "count": torch.tensor(3)}
    write_tensors(path, tensors, {"owner": "me", "phase": "1"})
    whole, found = path.read_bytes(), 0
    for bit in range(0, 8 * len(whole), 3):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            loaded, metadata = read_tensors(path)
        except RunDirectoryError as error:
            assert str(path) in str(error) and str(error).endswith("; delete it to make it anew")
            found += 1
        else:
            assert all(torch.equal(loaded[name], tensors[name]) for name in tensors) and loaded.keys() == tensors.keys()
            assert metadata.items() >= {("owner", "me"), ("phase", "1")}, "only the digest itself may be lost"
    assert found > 7 / 3 * len(whole), "only spaces in the header and the name of the digest do not matter"


def test_every_truncation_is_found(path: Path) -> None:
    write_tensors(path, {"weight": torch.ones(10)})
    whole = path.read_bytes()
    for keep in range(len(whole)):
        path.write_bytes(whole[:keep])
        with pytest.raises(RunDirectoryError, match=r"agent\.safetensors is not a readable safetensors file: .*delete"):
            read_tensors(path)


def test_files_without_a_digest_are_read(path: Path) -> None:
    save_file({"weight": torch.ones(2)}, path, {"seed": "1"})
    assert read_tensors(path)[1] == {"seed": "1"}


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"weight": floats(3, 2)}, r"does not fit: weight has shape \[2, 3\], expected \[3, 2\]"),
        ({"weight": floats(2, 3), "bias": floats(3)}, "lacks the tensor bias"),
        ({}, "holds a tensor that does not belong there: weight"),
        (
            {"weight": TensorHeader(torch.int64, (2, 3))},
            r"weight has numbers of kind torch\.float32, expected torch.int",
        ),
    ],
)
def test_other_tensors_are_refused(path: Path, expected: dict[str, TensorHeader], message: str) -> None:
    write_tensors(path, {"weight": torch.ones(2, 3)})
    with pytest.raises(RunDirectoryError, match=rf"agent\.safetensors .*{message}.*; delete it"):
        read_tensors(path, expected)
    with pytest.raises(RunDirectoryError, match=message):
        check_headers(path, read_headers(path)[0], expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_unless_allowed(path: Path, value: float) -> None:
    write_tensors(path, {"weight": torch.tensor([1.0, value])})
    with pytest.raises(RunDirectoryError, match=r"agent\.safetensors holds numbers that are not finite, in weight"):
        read_tensors(path)
    assert read_tensors(path, finite=False)[0]["weight"][0] == 1


def test_pickle_is_not_read(path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, path)
    with pytest.raises(RunDirectoryError, match="not a readable safetensors file"):
        read_tensors(path)


def with_header(path: Path, header: Any, content: bytes = b"\0" * 8) -> None:
    """Write a safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)


def entry(dtype: str = "F32", shape: Any = (2,), start: int = 0, end: int = 8) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry(shape=[1 << 60, 1 << 60])},
        {"a": entry(shape=[1 << 60], end=1 << 62)},
        {"a": entry(shape=[-2])},
        {"a": entry(end=16)},
        {"a": entry(), "b": entry()},
        {"a": entry(start=4, end=8, shape=[1])},
        {"a": entry(dtype="F4", shape=[16])},
        {"a": entry(dtype="F8_E4M3", shape=[8])},
        {"a": entry(dtype="object")},
        {"__metadata__": {"phase": 1}, "a": entry()},
        {"__metadata__": None},
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"I64","shape":[9],"data_offsets":[0,8]}}',
        b"[" * 100_000,
        b"{}" + b" " * 10,
        b"\xff\xfe",
    ],
)
def test_hostile_headers_are_refused(path: Path, header: Any) -> None:
    with_header(path, header)
    for read in (read_tensors, read_headers):
        with pytest.raises(RunDirectoryError) as raised:
            read(path)
        assert str(path) in str(raised.value) and "\n" not in str(raised.value) and len(str(raised.value)) < 700


def test_a_header_that_claims_exabytes_is_refused(path: Path) -> None:
    for size in (1 << 63, (1 << 64) - 1, 200 << 20):
        path.write_bytes(size.to_bytes(8, "little") + b"{}")
        with pytest.raises(RunDirectoryError, match="not a readable safetensors file"):
            read_tensors(path)


def test_a_huge_sparse_file_is_refused_before_it_is_read(path: Path) -> None:
    size = 1 << 40
    with_header(path, {"a": entry(shape=[size // 4], end=size)}, b"")
    try:
        os.truncate(path, path.stat().st_size + size)
    except OSError:
        pytest.skip("no sparse files of this size here")
    with pytest.raises(RunDirectoryError, match=rf"a has shape \[{size // 4}\], expected|Cannot allocate memory"):
        read_tensors(path, {"a": floats(2)})


def test_names_are_never_paths(path: Path) -> None:
    names = ("../../etc/passwd", "/etc/passwd", "a\nb", "\x1b[31m")
    write_tensors(path, {name: torch.ones(1) for name in names})
    with pytest.raises(RunDirectoryError) as raised:
        read_tensors(path, {})
    assert str(raised.value).isprintable()
    assert sorted(os.listdir(path.parent)) == [path.name]


def test_what_is_read_stays_whatever_becomes_of_the_file(path: Path) -> None:
    write_tensors(path, {"weight": torch.ones(10_000)})
    loaded: Tensor = read_tensors(path)[0]["weight"]
    os.truncate(path, 0)
    assert bool(loaded.all())


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are UTF-8")
def test_a_path_that_is_not_utf8_is_not_called_damage(tmp_path: Path) -> None:
    written = tmp_path / "agent.safetensors"
    write_tensors(written, {"weight": torch.ones(2)})
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    written.rename(folder / written.name)
    with pytest.raises(RunDirectoryError, match=r"^cannot read .*udcff/agent.* rename the folder$") as caught:
        read_tensors(folder / written.name)
    assert "delete" not in str(caught.value)
