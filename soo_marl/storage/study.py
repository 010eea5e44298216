"""What all studies have in common. A kind of study is a name, a configuration, steps that are done once, and records.

:class:`StudyKind` opens a study's directory and reads it back, :meth:`StudyDirectory.once` does a step and marks it as
done, :func:`shown` computes its shards wherever they are to be computed. What was found ends in ``results/``, as
records (:mod:`soo_marl.storage.records`) and named tensors (:mod:`soo_marl.storage.tensor_files`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter

from soo_marl.engines import Compute, run_shards
from soo_marl.engines.progress import Display
from soo_marl.engines.shards import OnFailure
from soo_marl.storage.files import RunDirectoryError, validate
from soo_marl.storage.study_directory import MANIFEST_NAME, StudyDirectory

Configuration = TypeVar("Configuration", bound=BaseModel)


@dataclass(frozen=True)
class StudyKind(Generic[Configuration]):
    """A kind of study, and how its directories are opened and read back."""

    name: str
    """How ``study.json`` calls it."""
    configuration: type[Configuration]
    """Plain JSON data once dumped."""
    steps: Mapping[str, str] = field(default_factory=dict)
    """What is to be done, in words, by the step's mark, or by the file in the directory that it ends with."""

    def open(self, path: Path | str, configuration: Configuration, seeds: Sequence[int]) -> StudyDirectory:
        """Create or resume a study's directory, see :meth:`StudyDirectory.open`; work in it within its ``locked()``."""
        return StudyDirectory.open(path, self.name, configuration, seeds)

    def read(self, path: Path | str) -> tuple[StudyDirectory, Configuration]:
        """The directory of a study that is there already, and its configuration.

        Raises:
            RunDirectoryError: there is no study, it is of another kind, or its configuration does not fit this version.
        """
        directory = StudyDirectory.read(path)
        manifest, file = directory.manifest, directory.path / MANIFEST_NAME
        if manifest.kind != self.name:
            raise RunDirectoryError(f"{path} holds a study of kind {manifest.kind}, not of {self.name}; name another")
        config = validate(TypeAdapter(self.configuration), manifest.configuration, file, "name another folder")
        if getattr(config, "seeds", manifest.seeds) != manifest.seeds:
            raise RunDirectoryError(
                f"{file} does not fit: seeds are not those of its configuration; name another folder"
            )
        return directory, config

    def unfinished(self, directory: StudyDirectory) -> list[str]:
        """What a study has not done yet, in words. Raises RunDirectoryError: the mark of a step is unreadable."""

        def done(step: str) -> bool:
            return (directory.path / step).exists() if step.endswith(".json") else directory.done(step)

        return [words for step, words in self.steps.items() if not done(step)]


def shown(
    display: Display,
    title: str,
    total: float,
    function: Callable[..., Any],
    shards: Sequence[tuple[Any, ...]],
    compute: Compute,
    on_failure: OnFailure | None = None,
) -> list[Any]:
    """Compute shards under a task of the display, and return their results, see :func:`soo_marl.engines.run_shards`.

    Args:
        display: where to say what is done.
        title: what it is called there.
        total: units of work of all shards together.
        function: a module-level function, called as ``function(*shard, report=..., stop=...)``.
        shards: the arguments of each call.
        compute: where to compute.
        on_failure: takes what a shard raised while the others go on; without it, the first failure ends everything.

    Raises:
        ValueError: the Ray cluster cannot be used.
        WorkerLostError: a shard lost its worker again and again.
        KeyboardInterrupt: Ctrl-C, after every shard has written what it needs to continue.
        Exception: whatever the first failing shard raised, :class:`RunDirectoryError` for a file above all.
    """
    with display.task(title, total, len(shards)) as advance:
        return run_shards(function, shards, compute, advance, on_failure)


class Silence:
    """A display that shows nothing."""

    @contextmanager
    def task(self, name: str, total: float, shards: int) -> Iterator[Callable[[int, float], None]]:
        """Show nothing; yields a function that does nothing."""
        yield lambda shard, units: None


SILENCE = Silence()
