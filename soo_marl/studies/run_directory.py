"""What a study leaves on disk: one directory that any command can be killed over and started again on.

::

    study.json                        schema version, kind, configuration, seeds, package versions
    <condition>/seed_<n>/             agent.safetensors and whatever else belongs to one trained agent
    checkpoints/                      one resumable checkpoint per shard of seeds, while it trains
    overlap/                          overlap values once measured
    steps/<step>.json                 marks of finished steps
    tensorboard/                      events
    results/*.json                    typed records (soo_marl.studies.records)
    figures/                          pictures and animations
    report.html

One command at a time works on a directory, under its lock (:meth:`StudyDirectory.locked`); opening it removes what
killed commands left unfinished.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

import soo_marl
from soo_marl.studies.files import (
    DELETE,
    PARTIAL_SUFFIX,
    RunDirectoryError,
    cannot_write,
    quoted,
    read_json,
    validate,
    write_json,
)
from soo_marl.studies.lock import COMMAND_LOCK, WORKERS_LOCK, command_lock
from soo_marl.studies.tensor_files import SAFETENSORS_PARTIAL

__all__ = ["SCHEMA_VERSION", "RunDirectoryError", "StudyDirectory", "StudyManifest", "package_versions"]

SCHEMA_VERSION = 2
"""Grows by one whenever what stands on disk changes its meaning."""

MANIFEST_NAME = "study.json"
_DEEPEST_CONFIGURATION = 20
FINETUNING_FOLDER = "finetune"
"""Folder in a study's directory for the fine-tuning of its agents, a study of its own."""
RESERVED_NAMES = frozenset(
    {"results", "figures", "tensorboard", "steps", "checkpoints", "overlap", "measures", FINETUNING_FOLDER}
)
VERSIONED_PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "gymnasium", "pettingzoo", "mpe2", "safetensors")
VERSIONED_EXTRAS = ("transformers", "peft")


class StudyManifest(BaseModel):
    """What a study directory says about itself, in ``study.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(SCHEMA_VERSION, description="Version of the layout on disk.")
    kind: str = Field(description="Which study this is.")
    configuration: dict[str, Any] = Field(description="The resolved configuration, as JSON.")
    seeds: tuple[int, ...] = Field(description="Seeds of the study, in order.")
    package_versions: dict[str, str] = Field(description="Versions in use when the study was started.")
    created: str = Field(description="When the study was started: ISO 8601, UTC.")


MANIFEST_ADAPTER = TypeAdapter(StudyManifest)


@dataclass(frozen=True)
class StudyDirectory:
    """One study's directory. Open it for writing with :meth:`open`, for reading only with :meth:`read`."""

    path: Path
    manifest: StudyManifest

    @classmethod
    def open(
        cls, path: Path | str, kind: str, configuration: BaseModel | Mapping[str, Any], seeds: Sequence[int]
    ) -> Self:
        """Create a study's directory, or resume the one that is there. Work in it within :meth:`locked`.

        Args:
            path: The directory: absent, empty, or one that this study wrote before.
            kind: Which study this is.
            configuration: The resolved configuration; must be plain JSON data once dumped.
            seeds: The study's seeds.

        Raises:
            RunDirectoryError: the directory cannot be written, is not a study's, its ``study.json`` is unreadable,
                another command is at work there, or it belongs to another schema version, kind, configuration or
                seeds; names the field that differs.
            ValueError: the configuration is not JSON data, or a seed has more than 64 bits.
        """
        path = Path(path)
        _check_seeds(seeds)
        wanted = StudyManifest(
            kind=kind,
            configuration=_as_json(configuration),
            seeds=tuple(seeds),
            package_versions=package_versions(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if path.exists() and not path.is_dir():
            raise RunDirectoryError(f"{path} is a file, not a folder; name another output folder")
        manifest_path = path / MANIFEST_NAME
        if not manifest_path.exists() and _holds_foreign_files(path):
            raise RunDirectoryError(
                f"{path} holds files but no {MANIFEST_NAME}, so no study wrote it; name an empty or a new folder"
            )
        _check_writable(path)
        with command_lock(path):
            if manifest_path.exists():
                found = _read_manifest(manifest_path)
                _refuse_difference(path, found, wanted)
                _remove_leftovers(path)
                return cls(path, found)
            _remove_leftovers(path)
            write_json(manifest_path, wanted.model_dump(mode="json"))
            return cls(path, wanted)

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Return an existing study's directory for reading; changes nothing on disk.

        Raises:
            RunDirectoryError: there is no readable ``study.json`` of this schema version in it.
        """
        path = Path(path)
        return cls(path, _read_manifest(path / MANIFEST_NAME))

    def locked(self) -> AbstractContextManager[None]:
        """Keep other commands out within a ``with`` block, as everything that writes here must; blocks may be nested.

        Raises:
            RunDirectoryError: another command is at work here, or a lock file cannot be written.
        """
        return command_lock(self.path)

    @property
    def results(self) -> Path:
        """Folder of the typed records."""
        return self.path / "results"

    @property
    def figures(self) -> Path:
        """Folder of pictures and animations."""
        return self.path / "figures"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"

    def agent_directory(self, condition: str, seed: int) -> Path:
        """Return the folder of one trained agent, ``<condition>/seed_<n>``; it may not exist yet.

        Raises:
            ValueError: the condition is no plain folder name, or one that the study uses itself.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", condition) or condition in RESERVED_NAMES:
            raise ValueError(
                f"{condition!r} cannot name a condition: use letters, digits, '_', '-', and no study folder"
            )
        return self.path / condition / f"seed_{seed}"

    def done(self, step: str) -> bool:
        """Whether a step was marked as done and every file that it was marked with is still there.

        Delete one of a step's files, or its mark in ``steps/``, to have the step done again.

        Raises:
            RunDirectoryError: the step's mark is unreadable.
            ValueError: as :meth:`mark_done`.
        """
        mark = self._mark(step)
        if not mark.exists():
            return False
        files = validate(TypeAdapter(list[str]), read_json(mark), mark)
        for file in files:
            if not _lies_inside(file):
                raise RunDirectoryError(f"{mark} names a file outside {self.path}: {quoted(file)}; {DELETE}")
        return all((self.path / file).is_file() for file in files)

    def mark_done(self, step: str, files: Iterable[Path] = ()) -> None:
        """Mark a step as done, once everything that it writes is on disk.

        Args:
            step: Name of the step, such as ``classify`` or ``train/honest``.
            files: The files that the step wrote, inside this directory.

        Raises:
            RunDirectoryError: the mark cannot be written, or one of the files is missing.
            ValueError: the name is not made of letters, digits, ``_``, ``-``, ``.``, separated by ``/``; or a file lies
                outside this directory.
        """
        names = [Path(file).relative_to(self.path).as_posix() for file in files]
        for name in names:
            if not _lies_inside(name):
                raise ValueError(f"{name} lies outside {self.path}")
            if not (self.path / name).is_file():
                raise RunDirectoryError(f"the step {step} is not done: {self.path / name} is missing")
        write_json(self._mark(step), names)

    def _mark(self, step: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*", step):
            raise ValueError(f"{step!r} cannot name a step: use letters, digits, '_', '-' and '.', separated by '/'")
        return self.path / "steps" / f"{step}.json"


@cache
def package_versions() -> dict[str, str]:
    """Return the versions of Python, of this package, and of the packages that results depend on."""
    versions = {"python": platform.python_version(), "soo-marl": soo_marl.__version__}
    for name in (*VERSIONED_PACKAGES, *VERSIONED_EXTRAS):
        # Extras need not be there.
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _as_json(configuration: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as it comes back from disk: tuples are lists, keys are strings."""
    plain = configuration.model_dump(mode="json") if isinstance(configuration, BaseModel) else dict(configuration)
    try:
        content: dict[str, Any] = json.loads(json.dumps(plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"a study's configuration must be JSON data: {error}") from error
    return content


def _check_seeds(seeds: Sequence[int]) -> None:
    for seed in seeds:
        # They name folders, and results hold them.
        if not -(1 << 63) <= seed < 1 << 63:
            raise ValueError(f"seeds must have 64 bits at most, which {quoted(f'{seed:#x}')} has not")


def _lies_inside(file: str) -> bool:
    """Whether the name of a file, relative to a folder, stays in that folder."""
    path = PurePosixPath(file)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in file


def _is_ours(path: Path) -> bool:
    """Whether a file may stand where no study was begun yet: a command was killed, or is about to begin one."""
    partial = path.name.startswith(".") and path.name.endswith(PARTIAL_SUFFIX)
    return partial or path.name in (COMMAND_LOCK, WORKERS_LOCK)


def _remove_leftovers(path: Path) -> None:
    """Remove the unfinished files of commands that were killed."""
    for leftover in (*path.rglob(f".*{PARTIAL_SUFFIX}"), *path.rglob(SAFETENSORS_PARTIAL)):
        if leftover.is_file() and not leftover.is_symlink():
            try:
                leftover.unlink(missing_ok=True)
            except OSError as error:
                raise cannot_write(leftover, error) from error


def _holds_foreign_files(path: Path) -> bool:
    try:
        return path.is_dir() and any(not _is_ours(entry) for entry in path.iterdir())
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path}: {error.strerror or error}; name another output folder") from error


def _check_writable(path: Path) -> None:
    """Find out at once, and not after hours of training, that nothing can be written."""
    probe = path / f".probe{PARTIAL_SUFFIX}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise RunDirectoryError(
            f"cannot write in {path}: {error.strerror or error}; name another output folder"
        ) from error


def _read_manifest(path: Path) -> StudyManifest:
    way_out = "name another folder, or delete this one to start anew"
    if not path.exists():
        raise RunDirectoryError(f"{path} is missing, so {path.parent} is not a study's directory")
    content = read_json(path, way_out)
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version != SCHEMA_VERSION:
        raise RunDirectoryError(
            f"{path.parent} differs in schema_version: it has {quoted(version)}, this version of soo-marl writes "
            f"{SCHEMA_VERSION}; {way_out}"
        )
    manifest = validate(MANIFEST_ADAPTER, content, path, way_out)
    if _deeper_than(_DEEPEST_CONFIGURATION, manifest.configuration):
        raise RunDirectoryError(f"{path} does not fit: configuration is nested too deep; {way_out}")
    return manifest


def _deeper_than(levels: int, content: Any) -> bool:
    """Whether JSON data is nested deeper than that; what walks through a configuration does so recursively."""
    layer = [content]
    for _ in range(levels):
        parts = [item.values() if isinstance(item, dict) else item for item in layer if isinstance(item, dict | list)]
        layer = [item for part in parts for item in part]
    return bool(layer)


def _refuse_difference(path: Path, found: StudyManifest, wanted: StudyManifest) -> None:
    for name in ("kind", "configuration", "seeds"):
        difference = _first_difference(_plain(found)[name], _plain(wanted)[name], name)
        if difference is not None:
            field, old, new = difference
            raise RunDirectoryError(
                f"{path} belongs to another study: {quoted(field)} is {old} there and {new} here; "
                "name another folder, or run with what it has"
            )


def _plain(manifest: StudyManifest) -> dict[str, Any]:
    return manifest.model_dump(mode="json")


_ABSENT = object()


def _first_difference(old: Any, new: Any, field: str) -> tuple[str, str, str] | None:
    """Dotted path of the first field that differs, with both values as text; None where nothing does."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = sorted(old.keys() | new.keys())
        pairs = [(f"{field}.{name}", old.get(name, _ABSENT), new.get(name, _ABSENT)) for name in names]
    elif isinstance(old, list) and isinstance(new, list) and any(isinstance(item, dict | list) for item in old + new):
        pairs = [
            (f"{field}.{index}", was, now) for index, (was, now) in enumerate(zip_longest(old, new, fillvalue=_ABSENT))
        ]
    else:
        same = old == new and isinstance(old, bool) == isinstance(new, bool)  # JSON's true is not 1
        return None if same else (field, _shown(old), _shown(new))
    differences = (_first_difference(was, now, name) for name, was, now in pairs)
    return next((difference for difference in differences if difference is not None), None)


def _shown(value: Any) -> str:
    return "absent" if value is _ABSENT else quoted(json.dumps(value, ensure_ascii=False))
