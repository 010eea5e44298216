"""Peers: other libraries at the same settings, each in an environment of its own, which the user makes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmarks.cases import Case
from benchmarks.measurements import Measurement, measurement
from benchmarks.settings import Settings

ROOT = Path(__file__).parents[1]
SCRIPTS = Path(__file__).parent / "peer_scripts"
PEERS = ("agilerl", "benchmarl", "xuance")


class PeerResult(BaseModel):
    """What a peer's script prints on its last line, as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    environment_steps_per_second: tuple[float, ...] = Field(min_length=1, description="Training, one per repeat.")
    reference_steps_per_second: tuple[float, ...] = Field(min_length=1, description="R beside it, one per repeat.")
    text: str = Field(description="Versions, and what differs from the settings.")


def cases(given: tuple[str, ...]) -> list[Case]:
    """One case per peer.

    Args:
        given: ``name=interpreter``, the Python of an environment that has the peer and mpe2.

    Raises:
        ValueError: it is of another form, there is no script for that peer, or there is no such interpreter.
    """
    found = []
    for pair in given:
        name, equals, interpreter = pair.partition("=")
        if not equals or name not in PEERS:
            raise ValueError(f"--peers takes name=interpreter with one of the names {', '.join(PEERS)}, not {pair!r}")
        if not os.access(interpreter, os.X_OK):
            raise ValueError(f"--peers {pair}: there is no interpreter {interpreter}")
        found.append(Case(f"peers/{name}", measure_peer, (name, interpreter)))
    return found


def measure_peer(settings: Settings, name: str, interpreter: str) -> list[Measurement]:
    """Training of one peer, which times the reference beside it.

    Raises:
        RuntimeError: the script failed, or printed something else.
    """
    script = SCRIPTS / f"with_{name}.py"
    command = [interpreter, str(script), str(settings.repeats), str(settings.seconds * 8)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    lines = done.stdout.strip().splitlines()
    try:
        result = PeerResult.model_validate_json(lines[-1] if lines else "")
    except ValidationError as error:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"{script} gave no result: {last}") from error
    steps, reference = (
        measurement("", values, "").values
        for values in (result.environment_steps_per_second, result.reference_steps_per_second)
    )
    return [
        measurement(f"peers/{name}/ratio", steps / reference, "× R", result.text),
        measurement(f"peers/{name}/steps_per_second", steps, "steps/s"),
    ]
