"""The resumable checkpoint of one shard of a training study: one file, replaced atomically."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel
from torch import Tensor

from soo_marl.studies.files import RunDirectoryError, read_tensors, write_tensors


@dataclass(frozen=True)
class StoredState:
    """What a checkpoint holds."""

    phase: int
    """Number of the phase under way."""
    updates: int
    """Updates of that phase done."""
    state: dict[str, Tensor]
    """Everything needed to continue."""


@dataclass(frozen=True)
class ShardCheckpoint:
    """Where a shard's checkpoint lies, and whose it must be."""

    path: Path
    owner: str
    """Digest of the study's configuration and the shard's seeds."""

    @staticmethod
    def of(config: BaseModel, study: Path, seeds: tuple[int, ...]) -> ShardCheckpoint:
        """The checkpoint of a shard of a study."""
        owner = hashlib.blake2b(f"{config.model_dump_json()} {seeds}".encode(), digest_size=16).hexdigest()
        return ShardCheckpoint(study / "checkpoints" / f"seeds_{seeds[0]}-{seeds[-1]}.safetensors", owner)

    def write(self, phase: int, updates: int, state: dict[str, Tensor]) -> None:
        """Replace the checkpoint.

        Raises:
            RunDirectoryError: the file cannot be written.
        """
        write_tensors(self.path, state, {"owner": self.owner, "phase": str(phase), "updates": str(updates)})

    def read(self) -> StoredState | None:
        """The checkpoint, or None where there is none.

        Raises:
            RunDirectoryError: the file is damaged, or of another configuration, other seeds or another version.
        """
        if not self.path.exists():
            return None
        state, metadata = read_tensors(self.path, finite=False)
        if metadata.get("owner") != self.owner:
            raise foreign_checkpoint(self.path)
        return StoredState(int(metadata["phase"]), int(metadata["updates"]), state)


def foreign_checkpoint(path: Path) -> RunDirectoryError:
    """The error for a checkpoint that does not fit; the message is one sentence for the user."""
    return RunDirectoryError(
        f"{path} is a checkpoint of another configuration, of other seeds or of another version of soo-marl; "
        "delete it to train the agents that it belongs to anew"
    )
