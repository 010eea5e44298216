"""Facts of the machine that figures depend on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field

from soo_marl.engines import usable_cores
from soo_marl.storage.study_directory import package_versions

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


class Machine(BaseModel):
    """The machine and the software of a benchmark."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: str = Field(description="When the benchmark ended, UTC.")
    processor: str = Field(description="Model of the processor.")
    cores: int = Field(description="Cores that the benchmark may use.")
    caches: dict[str, str] = Field(description="Size of each cache of the first core, where the system tells.")
    memory_gib: float = Field(description="Physical memory.")
    system: str = Field(description="Operating system.")
    python: str = Field(description="Version of Python.")
    packages: dict[str, str] = Field(description="Versions of what results depend on.")
    torch_threads: int = Field(description="Torch threads in every process.")
    torch_instructions: str = Field(description="The vector instructions that torch uses.")
    blas: str = Field(description="The library behind torch's matrix products.")
    load_before: float | None = Field(description="Processes at work elsewhere before the benchmark began, on average.")
    minutes: float = Field(description="How long the benchmark took.")


def load() -> float | None:
    """Processes at work on this machine over the last minute; None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def machine(load_before: float | None, minutes: float) -> Machine:
    """The facts of this machine."""
    return Machine(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        processor=_processor(),
        cores=usable_cores(),
        caches=_caches(),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        system=platform.platform(),
        python=platform.python_version(),
        packages=package_versions(),
        torch_threads=torch.get_num_threads(),
        torch_instructions=torch.backends.cpu.get_cpu_capability(),
        blas=_blas(),
        load_before=load_before,
        minutes=round(minutes, 1),
    )


def _processor() -> str:
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    facts = Path("/proc/cpuinfo")
    match = re.search(r"^model name\s*: (.+)$", facts.read_text(), re.MULTILINE) if facts.exists() else None
    return match[1] if match else platform.processor() or platform.machine()


def _caches() -> dict[str, str]:
    caches = {}
    for folder in sorted(_CACHES.glob("index*")):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        caches[f"L{level} {kind.lower()}"] = size
    return caches


def _blas() -> str:
    match = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    return match[1] if match else "unknown"
