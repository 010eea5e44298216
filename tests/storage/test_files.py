import json
import os
from pathlib import Path

import pytest

from soo_marl.storage import files
from soo_marl.storage.files import (
    RunDirectoryError,
    quoted,
    read_json,
    read_text,
    replacing,
    write_bytes,
    write_json,
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


def test_json_is_readable_text(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"name": "café", "n": 1})
    assert "café" in (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"name": "café", "n": 1}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 100_000, "nested too deep"),
        (b'{"n": ' + b"9" * 10_000 + b"}", "perhaps half-written (Exceeds the limit"),
        (b'{"n": NaN}', "NaN is no JSON"),
        (b'"\xff"', "perhaps half-written ('utf-8' codec"),
    ],
)
def test_json_that_would_break_a_parser_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(RunDirectoryError) as raised:
        read_json(path)
    assert str(path) in str(raised.value) and words in str(raised.value) and "delete it" in str(raised.value)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 500


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.touch()
    os.truncate(path, 10 << 30)  # sparse
    with pytest.raises(RunDirectoryError, match=r"x\.json is too large to be read: 10737418240 bytes; delete it"):
        read_json(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders here")
def test_what_never_ends_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    for name, why in (("pipe.json", "is not a regular file"), ("zero.json", "it is a link; links are not followed")):
        with pytest.raises(RunDirectoryError, match=why):
            read_json(tmp_path / name)
    with pytest.raises(RunDirectoryError, match="is not a regular file; name a text file"):
        read_text(tmp_path / "zero.json")  # a link that the user named is followed, a device is not opened


def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "x.json"
    target.write_text("mine")
    link.symlink_to(target)
    write_json(link, 1)
    assert target.read_text() == "mine" and not link.is_symlink() and read_json(link) == 1


def test_text_that_is_no_unicode_is_written_as_escapes(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"command": "soo-marl \udcff"})
    assert read_json(tmp_path / "x.json") == {"command": "soo-marl \udcff"}


def test_quotes_are_short_and_printable() -> None:
    assert quoted("a\nb\x1b[31m\udcff\u2028café") == r"a\nb\x1b[31m\udcff\u2028café"
    assert len(quoted("x" * 10_000)) < 210
