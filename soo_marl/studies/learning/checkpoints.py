"""The resumable checkpoint of one shard of a training study: one file, replaced atomically."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from pydantic import BaseModel
from torch import Tensor

from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.tensor_files import (
    Headers,
    TensorHeader,
    check_headers,
    read_headers,
    read_tensors,
    write_tensors,
)

_WAY_OUT = "delete it to train the agents that it belongs to anew"
_LARGEST_INTEGER = 1 << 62
"""Random streams count on from here without running over 64 bits."""


@dataclass(frozen=True)
class StoredState:
    """What a checkpoint holds. Its tensors are read when :attr:`state` is asked for."""

    path: Path
    phase: int
    """Number of the phase under way."""
    updates: int
    """Updates of that phase done."""
    headers: Headers
    """What the file says about its tensors."""

    def check(self, fresh: Mapping[str, Tensor], capacity: int, entries: int) -> None:
        """Hold the tensors against what the same phase begins with, before any of them is read.

        Args:
            fresh: everything that a checkpoint would hold before the first update.
            capacity: of the replay buffer, which fills.
            entries: how many log entries there must be after so many updates.

        Raises:
            RunDirectoryError: a tensor is missing, does not belong there, or is of another shape or kind.
        """
        expected = {name: TensorHeader.of(tensor) for name, tensor in fresh.items()}
        rows = "trainer/replay/rows"
        dtype, (runs, _, width) = expected[rows]
        filled = self.headers[rows].shape[1:2] if rows in self.headers else ()
        expected[rows] = TensorHeader(dtype, (runs, min(capacity, *filled) if filled else capacity, width))
        for name in self.headers:
            if re.fullmatch(r"trainer/averages/[a-z_]+(/\d+)?", name):
                expected[name] = TensorHeader(torch.float64, (2, runs))
            elif entries > 0 and re.fullmatch(r"curves/[a-z_]+", name):
                expected[name] = TensorHeader(torch.float32, (entries, runs))
        check_headers(self.path, self.headers, expected, _WAY_OUT)

    @cached_property
    def state(self) -> dict[str, Tensor]:
        """Everything needed to continue.

        Raises:
            RunDirectoryError: the file is damaged, or holds counters that nothing counts up to.
        """
        state, _ = read_tensors(self.path, finite=False, way_out=_WAY_OUT)
        for name, tensor in state.items():
            if tensor.is_floating_point() or tensor.dtype == torch.bool or tensor.numel() == 0:
                continue
            smallest = 0 if "counter" in name or "steps" in name else -1  # -1 stands for "not stopped"
            if int(tensor.min()) < smallest or int(tensor.max()) >= _LARGEST_INTEGER:
                raise foreign_checkpoint(self.path)
        updates = state.get("trainer/updates")
        if updates is None or updates.shape != () or int(updates) != self.updates:
            raise foreign_checkpoint(self.path)
        return state


@dataclass(frozen=True)
class ShardCheckpoint:
    """Where a shard's checkpoint lies, and whose it must be."""

    path: Path
    owner: str
    """Digest of the study's configuration and the shard's seeds."""

    @staticmethod
    def of(config: BaseModel, study: Path, seeds: tuple[int, ...], label: str = "") -> ShardCheckpoint:
        """The checkpoint of a shard of a study; shards of the same seeds need labels that differ."""
        owner = hashlib.blake2b(f"{config.model_dump_json()} {seeds}{label}".encode(), digest_size=16).hexdigest()
        name = f"{label}_seeds" if label else "seeds"
        return ShardCheckpoint(study / "checkpoints" / f"{name}_{seeds[0]}-{seeds[-1]}.safetensors", owner)

    def write(self, phase: int, updates: int, state: dict[str, Tensor]) -> None:
        """Replace the checkpoint. Raises RunDirectoryError: the file cannot be written."""
        write_tensors(self.path, state, {"owner": self.owner, "phase": str(phase), "updates": str(updates)})

    def read(self, phases: Sequence[int]) -> StoredState | None:
        """The checkpoint, or None where there is none; ``phases`` are the updates of every phase of the shard.

        Raises:
            RunDirectoryError: the file is damaged, or of another configuration, other seeds or another version.
        """
        if not self.path.exists():
            return None
        headers, metadata = read_headers(self.path, _WAY_OUT)
        if metadata.get("owner") != self.owner:
            raise foreign_checkpoint(self.path)
        try:
            phase, updates = int(metadata["phase"]), int(metadata["updates"])
        except (KeyError, ValueError) as error:
            raise foreign_checkpoint(self.path) from error
        if not 0 <= phase < len(phases) or not 0 <= updates <= phases[phase]:
            raise foreign_checkpoint(self.path)
        return StoredState(self.path, phase, updates, headers)


def foreign_checkpoint(path: Path) -> RunDirectoryError:
    """The error for a checkpoint that does not fit; the message is one sentence for the user."""
    return RunDirectoryError(
        f"{path} is a checkpoint of another configuration, of other seeds or of another version of soo-marl; {_WAY_OUT}"
    )
