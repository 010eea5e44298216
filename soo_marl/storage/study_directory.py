"""What a study leaves on disk: one directory that any command can be killed over and started again on.

::

    study.json                        schema version, kind, configuration, seeds, package versions
    <condition>/seed_<n>/             agent.safetensors and whatever else belongs to one trained agent
    checkpoints/                      one resumable checkpoint per shard of seeds, while it trains
    overlap/                          overlap values once measured
    steps/<step>.json                 marks of finished steps
    tensorboard/                      events
    results/*.json                    typed records (soo_marl.storage.records)
    figures/                          pictures and animations
    report.html

One command at a time works on a directory, under its lock (:meth:`StudyDirectory.locked`); opening it removes what
killed commands left unfinished. A link inside a study that leads out of it is refused: what is written, read or cleaned
up stays inside.

The mark of a step holds digests of what the step wrote, and of the agents that it was made from: a file that was edited
or comes from another study is refused, and what was made from other agents is made anew.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from importlib import metadata
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

import soo_marl
from soo_marl.storage.files import (
    DELETE,
    PARTIAL_SUFFIX,
    RunDirectoryError,
    cannot_read,
    cannot_write,
    is_partial,
    printable,
    quoted,
    read_bytes,
    read_json,
    validate,
    write_json,
)
from soo_marl.storage.lock import COMMAND_LOCK, WORKERS_LOCK, command_lock
from soo_marl.storage.tensor_files import stored_digest

__all__ = [
    "SCHEMA_VERSION",
    "RunDirectoryError",
    "StudyDirectory",
    "StudyManifest",
    "agents_digest",
    "package_versions",
]

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
_NOT_OF_A_STUDY = (
    ".DS_Store", "._*", "Thumbs.db", "desktop.ini", ".directory", "lost+found", ".nfs*", ".fuse_hidden*", ".snapshot",
    ".Trash*", ".git*", "*.log", "*.out", "*.err", "*.[oe][0-9]*",
)  # fmt: skip
"""What file managers, file systems, git and batch systems put into a folder that a study may begin in."""


class Session(BaseModel):
    """A command that went on with a study under other versions than the one before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    started: str = Field(description="When: ISO 8601, UTC.")
    package_versions: dict[str, str] = Field(description="Versions in use from then on.")


class StudyManifest(BaseModel):
    """What a study directory says about itself, in ``study.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(SCHEMA_VERSION, description="Version of the layout on disk.")
    kind: str = Field(description="Which study this is.")
    configuration: dict[str, Any] = Field(description="The resolved configuration, as JSON.")
    seeds: tuple[int, ...] = Field(description="Seeds of the study, in order.")
    package_versions: dict[str, str] = Field(description="Versions in use when the study was started.")
    created: str = Field(description="When the study was started: ISO 8601, UTC.")
    sessions: tuple[Session, ...] = Field((), description="Every later change of versions, in order.")

    @property
    def changed_versions(self) -> list[str]:
        """What sessions changed, for people: ``torch 2.6.0 until 2026-01-02, then 2.13.0``."""
        told, before = [], self.package_versions
        for session in self.sessions:
            for name, version in session.package_versions.items():
                if before.get(name, version) != version:
                    told.append(f"{name} {before[name]} until {session.started[:10]}, then {version}")
            before = before | session.package_versions
        return told


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
            path: the directory: absent, empty, or one that this study wrote before.
            kind: which study this is.
            configuration: the resolved one; plain JSON data once dumped.
            seeds: the study's.

        Raises:
            RunDirectoryError: the directory cannot be written, is not a study's, is unreadable, another command is at
                work there, or it belongs to another study; names the field that differs.
            ValueError: the configuration is not JSON data, or a seed has more than 64 bits.
        """
        path = _without_dots(Path(path))
        try:
            os.path.abspath(path).encode("utf-8")
        except UnicodeEncodeError as error:
            # The safetensors library takes no other names.
            raise RunDirectoryError(f"{printable(str(path))} is no UTF-8 name; name another output folder") from error
        for seed in seeds:
            # They name folders, and results hold them.
            if not -(1 << 63) <= seed < 1 << 63:
                raise ValueError(f"seeds must have 64 bits at most, which {quoted(f'{seed:#x}')} has not")
        wanted = StudyManifest(
            kind=kind,
            configuration=_as_json(configuration),
            seeds=tuple(seeds),
            package_versions=package_versions(),
            created=_now(),
        )
        manifest_path = path / MANIFEST_NAME
        try:
            if path.exists() and not path.is_dir():
                raise RunDirectoryError(f"{path} is a file, not a folder; name another output folder")
            if not manifest_path.exists() and (foreign := _foreign_file(path)) is not None:
                raise RunDirectoryError(
                    f"{path} holds files ({quoted(foreign)}) but no {MANIFEST_NAME}, so no study wrote it; name an "
                    "empty or a new folder"
                )
        except OSError as error:
            raise cannot_read(path, error) from error
        _check_writable(path)
        with command_lock(path):
            found = _read_manifest(manifest_path) if manifest_path.exists() else None
            if found is not None:
                _refuse_difference(path, found, wanted)
            _refuse_links(path)
            _remove_leftovers(path)
            if found is not None:
                return cls(path, _with_this_session(path, found))
            write_json(manifest_path, _plain(wanted))
            return cls(path, wanted)

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """An existing study's directory, for reading only.

        Raises:
            RunDirectoryError: there is no readable ``study.json`` of this schema version in it.
        """
        path = _without_dots(Path(path))
        return cls(path, _read_manifest(path / MANIFEST_NAME))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands out within a ``with`` block, as everything that writes here must; blocks may be nested.

        ``study.json`` names the versions in use, where they are others than before.

        Raises:
            RunDirectoryError: another command is at work here, a link leads out of the study, or a file cannot be
                written.
        """
        with command_lock(self.path):
            _refuse_links(self.path)
            _with_this_session(self.path, _read_manifest(self.path / MANIFEST_NAME))
            yield

    @cached_property
    def owner(self) -> str:
        """Digest of the study's kind and configuration, which its files carry; seeds aside, of which some may go."""
        configuration = {name: value for name, value in self.manifest.configuration.items() if name != "seeds"}
        content = json.dumps([self.manifest.kind, configuration], sort_keys=True)
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    @property
    def results(self) -> Path:
        """Folder of the typed records."""
        return self.path / "results"

    @property
    def figures(self) -> Path:
        """Folder of pictures and animations."""
        return self.path / "figures"

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
        """Whether a step was marked as done, its files are still there, and what it was made from is as it was.

        Delete one of a step's files, or its mark in ``steps/``, to have the step done again.

        Raises:
            RunDirectoryError: the step's mark is unreadable or another study's, or a file is not what the step wrote.
            ValueError: as :meth:`mark_done`.
        """
        path = self._mark(step)
        if not path.exists():
            return False
        mark = validate(_MARK, read_json(path), path)
        if isinstance(mark, list):  # as written before marks held digests
            mark = Mark(study=self.owner, files=dict.fromkeys(mark, ""))
        if mark.study != self.owner:
            raise RunDirectoryError(f"{path} belongs to another study; {DELETE}")
        for name in (*mark.files, *mark.inputs):
            if not _lies_inside(name):
                raise RunDirectoryError(f"{path} names a file outside {self.path}: {quoted(name)}; {DELETE}")
        if not all((self.path / name).is_file() for name in (*mark.files, *mark.inputs)):
            return False
        for name, digest in mark.files.items():
            if digest and _digest(self.path / name) != digest:
                raise RunDirectoryError(
                    f"{self.path / name} is not what this study wrote: edited since, or another study's; {DELETE}"
                )
        return all(_digest(self.path / name) == digest for name, digest in mark.inputs.items())

    def mark_done(self, step: str, files: Iterable[Path] = (), inputs: Iterable[Path] = ()) -> None:
        """Mark a step as done, once everything that it writes is on disk.

        Args:
            step: its name, such as ``classify`` or ``train/honest``.
            files: what the step wrote, inside this directory.
            inputs: the agents that it was made from; where they change, the step is not done any more.

        Raises:
            RunDirectoryError: the mark cannot be written, or one of the files is missing.
            ValueError: the name is not made of letters, digits, ``_``, ``-``, ``.``, separated by ``/``; or a file lies
                outside this directory.
        """
        digests: list[dict[str, str]] = []
        for group in (files, inputs):
            names = [Path(file).relative_to(self.path).as_posix() for file in group]
            for name in names:
                if not _lies_inside(name):
                    raise ValueError(f"{name} lies outside {self.path}")
                if not (self.path / name).is_file():
                    raise RunDirectoryError(f"the step {step} is not done: {self.path / name} is missing")
            digests.append({name: _digest(self.path / name) for name in names})
        mark = Mark(study=self.owner, files=digests[0], inputs=digests[1])
        write_json(self._mark(step), mark.model_dump(mode="json"), durable=False)

    def once(self, step: str, work: Callable[[], object], files: Iterable[Path], inputs: Iterable[Path] = ()) -> None:
        """Do a step unless it is done, and mark it as done; arguments as of :meth:`mark_done`."""
        if not self.done(step):
            work()
            self.mark_done(step, files, inputs)

    def _mark(self, step: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*", step):
            raise ValueError(f"{step!r} cannot name a step: use letters, digits, '_', '-' and '.', separated by '/'")
        return self.path / "steps" / f"{step}.json"


class Mark(BaseModel):
    """What ``steps/<step>.json`` holds: names are relative to the study's directory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str = Field(description="Owner of the study.")
    files: dict[str, str] = Field(description="What the step wrote, with digests; empty where a file may change.")
    inputs: dict[str, str] = Field({}, description="What it was made from, with digests.")


_MARK: TypeAdapter[Mark | list[str]] = TypeAdapter(Mark | list[str])


def agents_digest(files: Iterable[Path]) -> str:
    """One digest of several agents' files, for what is made from them.

    Raises:
        RunDirectoryError: a file is missing or unreadable.
    """
    return hashlib.blake2b("".join(map(_digest, files)).encode(), digest_size=16).hexdigest()


def _digest(path: Path) -> str:
    """The digest of a file that a step wrote for good; empty for what later steps add to or draw anew."""
    if path.suffix == ".safetensors" and (stored := stored_digest(path)):
        return stored
    if path.suffix in (".safetensors", ".jsonl") or (path.suffix == ".json" and path.name != "curves.json"):
        return hashlib.blake2b(read_bytes(path, largest=1 << 40), digest_size=16).hexdigest()
    return ""


@cache
def package_versions() -> dict[str, str]:
    """Versions of Python, of this package, and of the packages that results depend on."""
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


def _lies_inside(file: str) -> bool:
    """Whether the name of a file, relative to a folder, stays in that folder."""
    path = PurePosixPath(file)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in file


def _without_dots(path: Path) -> Path:
    """The same folder without ``..``: what is checked must be what is written, also where a folder is not there yet."""
    return Path(os.path.realpath(path)) if ".." in path.parts else path


def _refuse_links(path: Path) -> None:
    """Refuse links inside a study that lead out of it: files outside would be overwritten, shown or deleted."""
    root = os.path.realpath(path)
    for folder, names, _ in os.walk(root):
        for name in names:
            place = os.path.join(folder, name)
            if os.path.islink(place) and not os.path.realpath(place).startswith(f"{root}{os.sep}"):
                raise RunDirectoryError(
                    f"{quoted(path / os.path.relpath(place, root))} is a link that leads out of the study; put a "
                    "folder in its place (the whole study may lie behind a link)"
                )


def _remove_leftovers(path: Path) -> None:
    """Remove what commands that were killed left unfinished, in the folders that a study writes and nowhere else."""
    for folder, names, files in os.walk(path):
        parts = Path(folder).relative_to(path).parts
        if len(parts) == 1 and parts[0] not in RESERVED_NAMES:
            # A condition's folder holds its seeds; whatever else lies at the top is somebody's own.
            names[:], files = [name for name in names if re.fullmatch(r"seed_-?\d+", name)], []
        for name in filter(is_partial, (*names, *files)):
            leftover = Path(folder, name)
            try:
                if leftover.is_dir() and not leftover.is_symlink():
                    shutil.rmtree(leftover)
                elif leftover.is_file() and not leftover.is_symlink():
                    leftover.unlink(missing_ok=True)
            except OSError as error:
                raise cannot_write(leftover, error) from error
        names[:] = [name for name in names if not is_partial(name)]


def _foreign_file(path: Path) -> str | None:
    """The name of something in a folder that no study put there; None where there is nothing of that kind."""
    # A command may have been killed there, or be about to begin a study.
    ours = (COMMAND_LOCK, WORKERS_LOCK, *_NOT_OF_A_STUDY)
    names = [name for name in (os.listdir(path) if path.is_dir() else ()) if not is_partial(name)]
    foreign = sorted(name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in ours))
    return foreign[0] if foreign else None


def _check_writable(path: Path) -> None:
    """Find out at once, and not after hours of training, that nothing can be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path, prefix=".probe.", suffix=PARTIAL_SUFFIX):
            pass
    except OSError as error:
        raise RunDirectoryError(f"{cannot_write(path, error)}; or name another output folder") from error


def _with_this_session(path: Path, manifest: StudyManifest) -> StudyManifest:
    """The manifest with the versions in use, written and said aloud where they differ from those of before."""
    latest: dict[str, str] = dict(manifest.package_versions)
    for session in manifest.sessions:
        latest |= session.package_versions
    changed = {name: now for name, now in package_versions().items() if latest.get(name, now) != now}
    if not changed:
        return manifest
    session = Session(started=_now(), package_versions=changed)
    told = ", ".join(f"{name} {latest[name]} before and {now} now" for name, now in changed.items())
    warnings.warn(
        f"{quoted(path)} goes on under other versions ({quoted(told)}): results may differ in the last digits; "
        f"{MANIFEST_NAME} and the page say so",
        stacklevel=2,
    )
    manifest = manifest.model_copy(update={"sessions": (*manifest.sessions, session)})
    write_json(path / MANIFEST_NAME, _plain(manifest))
    return manifest


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read_manifest(path: Path) -> StudyManifest:
    way_out = "name another folder, or delete this one to start anew"
    try:
        if not path.exists():
            raise RunDirectoryError(f"{path} is missing, so {path.parent} is not a study's directory")
    except OSError as error:
        raise cannot_read(path.parent, error) from error
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
    try:
        _plain(manifest)
    except UnicodeEncodeError as error:  # of a field's name
        raise RunDirectoryError(f"{path} does not fit: it holds a name that is no Unicode; {way_out}") from error
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
    content = manifest.model_dump(mode="json")
    if not manifest.sessions:
        del content["sessions"]  # as studies were written before there were sessions
    return content


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
