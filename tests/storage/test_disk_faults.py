"""Disks that are full or read-only: one sentence with the way out, and once cured the same command goes on."""

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from soo_marl.cli import main
from soo_marl.engines import Compute, Interrupted
from soo_marl.storage.files import RunDirectoryError, write_bytes
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.storage.tensor_files import write_tensors
from soo_marl.studies.baselines.evaluation import collect_curves
from soo_marl.studies.baselines.study import open_study
from soo_marl.studies.baselines.training import train_baselines, train_shard
from soo_marl.studies.learning import phases
from soo_marl.studies.learning.curves import read_curves
from soo_marl.studies.learning.recipes import BaselineConfig

Trained = tuple[BaselineConfig, StudyDirectory]
HERE = Compute(workers=0)


def mount(*arguments: object) -> None:
    """Mount something, or skip the test where that is not allowed."""
    if shutil.which("mount") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting needs root")
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    path = tmp_path / "disk"
    path.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", path)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Fill a disk up to so many bytes; returns the file to delete."""
    filler = disk.parent / "disk" / "filler"
    with filler.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC
    os.truncate(filler, max(0, filler.stat().st_size - leave))
    return filler


def same_agents(found: Path, expected: Path, seeds: tuple[int, ...]) -> None:
    for condition in ("red", "honest", "deceptive"):
        for seed in seeds:
            name = f"{condition}/seed_{seed}/agent.safetensors"
            ours, theirs = load_file(found / name), load_file(expected / name)
            assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize(
    "write",
    [lambda path: write_bytes(path, b"x" * 3_000_000), lambda path: write_tensors(path, {"a": torch.ones(600_000)})],
)
def test_a_file_that_does_not_fit_leaves_the_old_one(write: Callable[[Path], None], small_disk: Path) -> None:
    path = small_disk / "file"
    path.write_text("old")
    with pytest.raises(RunDirectoryError, match=r"^cannot write .*/file: No space left on device; make room, then run"):
        write(path)
    assert path.read_text() == "old" and os.listdir(small_disk) == ["file"]


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Files cannot grow beyond that, which everyone may ask for."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_limit_on_files_leaves_the_checkpoint_before(
    trained: Trained, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = trained[0]
    monkeypatch.setattr(phases, "_CHECKPOINT_SECONDS", -1.0)
    directory = open_study(study, config)
    with pytest.raises(Interrupted):
        train_shard(config, study, config.shards[0], "cpu", report=lambda done: None, stop=lambda: True)
    (checkpoint,) = (study / "checkpoints").iterdir()
    before = checkpoint.read_bytes()
    # Checkpoints grow with the replay buffer.
    sentence = "File too large; make room, then run the same command again"
    with file_limit(len(before)), pytest.raises(RunDirectoryError, match=sentence):
        train_baselines(config, directory, compute=HERE)
    assert checkpoint.read_bytes() == before
    train_baselines(config, directory, compute=HERE)
    same_agents(study, trained[1].path, config.seeds)


@pytest.mark.parametrize("leave", [0, 40_960, 204_800, 500_000])
def test_training_on_a_full_disk_goes_on_where_there_is_room_again(
    leave: int, trained: Trained, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = trained[0]
    monkeypatch.setattr(phases, "_CHECKPOINT_SECONDS", -1.0)
    study = small_disk / "study"
    filler = fill(small_disk, leave)
    with pytest.raises(RunDirectoryError) as raised:
        train_baselines(config, open_study(study, config), compute=HERE)
    message = str(raised.value)
    assert message.startswith(f"cannot write {study}") and message.isprintable()
    assert "No space left on device; make room, then run the same command again" in message
    assert not list(study.rglob("*partial*"))
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    train_baselines(config, open_study(study, config), compute=HERE)
    same_agents(study, trained[1].path, config.seeds)


TINY = [
    *("--seeds", "0", "1", "--workers", "0", "--set", "evaluation_episodes=20", "--set", "game.episode_length=12"),
    *(
        f"--set=stages.{stage}.training.{change}"
        for stage in range(3)
        for change in ("updates=6", "log_every=2", "worlds=8", "warm_up=64", "batch_size=16")
    ),
]


def one_sentence(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    message = capsys.readouterr().err
    assert message.startswith("soo-marl: ") and message.count("\n") == 1, message
    for word in words:
        assert word in message


def test_commands_on_a_full_disk_say_so_and_go_on(
    small_disk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Drawing takes longer than everything else; the report draws.
    for name in ("film_baselines", "draw_figures"):
        monkeypatch.setattr(f"soo_marl.report.refresh.{name}", lambda path: None)
    study = small_disk / "study"
    commands = [
        ["train", "--output", str(study), *TINY],
        ["classify", str(study), "--workers", "0", "--evaluation-seeds", "1", "--episodes", "1"],
        ["report", str(study)],
    ]
    for command in commands:
        subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=False)
        filler = fill(small_disk, 8192)
        capsys.readouterr()
        assert main(command) == 2
        one_sentence(capsys, "cannot write", "No space left on device; make room")
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
        assert main(command) == 0
    assert (study / "report.html").exists()


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Nothing can be written below a folder: by permission, or for root, whom permissions do not bind, by a mount."""
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        folders = [folder for folder in (path, *path.rglob("*")) if folder.is_dir()]
        for folder in folders:
            folder.chmod(0o500)
        try:
            yield
        finally:
            for folder in folders:
                folder.chmod(0o700)
        return
    mount("--bind", path, path)
    try:
        mount("-o", "remount,ro,bind", path)
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_commands_in_a_read_only_folder(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = tmp_path / "study"
    shutil.copytree(trained[1].path, study)
    (study / "steps" / "train.json").write_text("[]")
    before = sorted(study.rglob("*"))
    with read_only(study):
        for command in (["classify", str(study)], ["report", str(study)], ["train", "--output", str(study)]):
            assert main(command) == 2
            one_sentence(capsys, "cannot write", str(study))
        assert StudyDirectory.read(study).manifest.seeds == (0, 1, 2), "reading changes nothing"
    assert sorted(study.rglob("*")) == before


def test_a_checkpoint_folder_that_turns_read_only(
    trained: Trained, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = trained[0]
    directory = open_study(study, config)
    folder = study / "checkpoints"
    folder.mkdir()
    with (
        read_only(folder),
        pytest.raises(
            RunDirectoryError, match=r"^cannot write .*safetensors: .*; copy the whole study to a folder that"
        ),
    ):
        train_baselines(config, directory, compute=HERE)
    train_baselines(config, directory, compute=HERE)
    same_agents(study, trained[1].path, config.seeds)


@pytest.mark.parametrize("damage", ["cut", "garbage", "flipped", "list"])
def test_damaged_json_names_the_file_and_once_deleted_is_made_anew(damage: str, trained: Trained, study: Path) -> None:
    shutil.copytree(trained[1].path, study)
    config, directory = trained[0], StudyDirectory.read(study)
    curves = study / "honest" / "seed_1" / "curves.json"
    (mark,) = (study / "steps" / "train" / "seeds_2-2").glob("1_*.json")
    for path in (curves, mark):
        whole = path.read_bytes()
        content = {
            "cut": whole[:-5],
            "garbage": b"\xff\x00",
            "flipped": whole.replace(b"{", b"Z", 1),
            "list": b'{"a": 1}',
        }
        path.write_bytes(content[damage])
        with pytest.raises(RunDirectoryError) as raised:
            train_baselines(config, directory, compute=HERE)
        assert str(path) in str(raised.value) and str(raised.value).endswith("; delete it to make it anew")
        path.unlink()
        train_baselines(config, directory, compute=HERE)
        same_agents(study, trained[1].path, config.seeds)


def test_curves_that_do_not_fit_together_are_named(trained: Trained, study: Path) -> None:
    shutil.copytree(trained[1].path, study)
    path = study / "honest" / "seed_1" / "curves.json"
    path.write_text('{"lure": {"updates": [2.0, 4.0], "noise": [1.0]}}')
    with pytest.raises(RunDirectoryError, match=r"curves\.json does not fit: lure needs every metric at each"):
        read_curves(path)
    path.write_text('{"lure": {"updates": [2.0], "noise": [1.0]}}')
    with pytest.raises(RunDirectoryError, match=r"seed_1/curves\.json does not fit: lure has other metrics or updates"):
        collect_curves(trained[0], StudyDirectory.read(study))
    path.write_text('{"lure": {"updates": [1e999]}}')
    with pytest.raises(RunDirectoryError, match=r"curves\.json does not fit: .*finite number"):
        read_curves(path)
