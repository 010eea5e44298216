import json
import os
from pathlib import Path

import pytest
import torch

from soo_marl.studies import files
from soo_marl.studies.files import (
    RunDirectoryError,
    read_json,
    read_tensors,
    replacing,
    write_bytes,
    write_json,
    write_tensors,
    write_text,
)


def test_replacing_makes_folders_and_leaves_only_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.txt"
    write_text(path, "café")
    assert path.read_bytes() == "café".encode()
    assert list(path.parent.iterdir()) == [path]


def test_failure_before_the_replace_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.bin"
    write_bytes(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(RunDirectoryError, match=r"cannot write .*file\.bin: No space left on device"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_error_inside_the_block_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    write_bytes(path, b"old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_content_reaches_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.bin"
    order: list[str] = []
    replace = os.replace
    monkeypatch.setattr(files, "_synchronise", lambda target: order.append("folder" if target == tmp_path else "file"))
    monkeypatch.setattr(os, "replace", lambda old, new: (order.append("replace"), replace(old, new)))
    write_bytes(path, b"new")
    assert order == ["file", "replace", "folder"]


def test_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(RunDirectoryError, match=r"^cannot write .*taken/file: [A-Z][a-z ]+$"):
        write_text(tmp_path / "taken" / "file", "x")


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1}


@pytest.mark.parametrize("content", ['{"a": 1', "", "\x00\x01"])
def test_half_written_json_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(RunDirectoryError, match=r"x\.json is not readable JSON, perhaps half-written"):
        read_json(path)


def test_missing_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"x\.json is missing"):
        read_json(tmp_path / "x.json")


def test_tensors_round_trip_with_views_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "agent.safetensors"
    stack = torch.arange(24.0).reshape(4, 3, 2)
    tensors = {"first": stack[1], "second": stack[2], "transposed": stack[0].T, "count": torch.tensor(7)}
    write_tensors(path, tensors, {"update": "12"})
    loaded, metadata = read_tensors(path, {"first": (3, 2), "second": (3, 2), "transposed": (2, 3), "count": ()})
    assert metadata == {"update": "12"}
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert path.stat().st_size < 1000, "a view must not bring its whole stack along"


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_truncated_tensors_are_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "agent.safetensors"
    write_tensors(path, {"weight": torch.ones(10)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RunDirectoryError, match=r"agent\.safetensors is not a readable safetensors file"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"weight": (3, 2)}, r"weight has shape \[2, 3\], expected \[3, 2\]"),
        ({"weight": (2, 3), "bias": (3,)}, "lacks the tensor bias"),
        ({}, "does not belong there: weight"),
    ],
)
def test_tensors_of_other_shapes_are_refused(tmp_path: Path, shapes: dict[str, tuple[int, ...]], message: str) -> None:
    path = tmp_path / "agent.safetensors"
    write_tensors(path, {"weight": torch.ones(2, 3)})
    with pytest.raises(RunDirectoryError, match=rf"agent\.safetensors .*{message}"):
        read_tensors(path, shapes)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_unless_allowed(tmp_path: Path, value: float) -> None:
    path = tmp_path / "agent.safetensors"
    write_tensors(path, {"weight": torch.tensor([1.0, value])})
    with pytest.raises(RunDirectoryError, match=r"agent\.safetensors holds numbers that are not finite, in weight"):
        read_tensors(path)
    assert read_tensors(path, finite=False)[0]["weight"][0] == 1


def test_pickle_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "agent.safetensors"
    torch.save({"weight": torch.ones(2)}, path)
    with pytest.raises(RunDirectoryError, match="not a readable safetensors file"):
        read_tensors(path)


def test_json_is_readable_text(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"name": "café", "n": 1})
    assert "café" in (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"name": "café", "n": 1}
