"""A LoRA adapter as a folder that peft reads: its weights, its settings, and a note of what it belongs to.

peft itself never reads one here. It would take a pickle in place of missing weights, ask the model hub for what is not
there, and import what the settings name; so the settings are read as data, field by field, and the weights as any other
tensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from torch import Tensor

from soo_marl.llm.model.fingerprint import BaseFingerprint
from soo_marl.storage.files import (
    DELETE,
    RunDirectoryError,
    quoted,
    read_bytes,
    read_json,
    replacing_folder,
    validate,
    write_json,
    write_text,
)
from soo_marl.storage.tensor_files import read_tensors, write_tensors

ADAPTER_WEIGHTS = "adapter_model.safetensors"
"""How peft names the weights in an adapter's folder."""

_SETTINGS = "adapter_config.json"
_NOTE = "soo_marl_base_model.json"
_FROZEN = ConfigDict(frozen=True, extra="forbid")


class AdapterSettings(BaseModel):
    """All of an adapter's settings that may differ from peft's own."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    peft_type: Literal["LORA"] = Field("LORA", description="The only kind.")
    task_type: Literal["CAUSAL_LM"] = Field("CAUSAL_LM", description="Likewise.")
    bias: Literal["none"] = Field("none", description="Likewise.")
    r: int = Field(ge=1, description="Rank.")
    lora_alpha: float = Field(
        gt=0, allow_inf_nan=False, description="The adapter's output is multiplied by lora_alpha / r."
    )
    lora_dropout: float = Field(ge=0, lt=1, description="Share of the adapter's inputs that training drops.")
    target_modules: tuple[str, ...] = Field(min_length=1, description="Ends of the names of the layers it changes.")


class AdapterNote(BaseModel):
    """What an adapter belongs to, and what its files must be; those of version 0.1 hold the base model alone."""

    model_config = _FROZEN

    base: BaseFingerprint = Field(description="The base model.")
    owner: str = Field("", description="Study, label and seed; empty for one that belongs to no study.")
    digest: str = Field("", description="Digest of its weights and settings.")


_UNUSED = frozenset({"base_model_name_or_path", "inference_mode", "peft_version", "revision"})
"""Settings that say nothing about what an adapter computes."""


def write_adapter(
    path: Path,
    settings: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    base: BaseFingerprint,
    owner: str,
    about: str,
) -> None:
    """Write an adapter's folder; one of that name is replaced.

    Args:
        path: the folder.
        settings: everything that peft says about it; sets become lists.
        weights: by the names that peft gives them.
        base: the base model.
        owner: what it belongs to.
        about: text for whoever looks into the folder; none where empty.

    Raises:
        RunDirectoryError: the folder cannot be written.
    """
    content = {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}
    with replacing_folder(path) as folder:
        write_tensors(folder / ADAPTER_WEIGHTS, weights, {"format": "pt"})
        write_json(folder / _SETTINGS, content)
        note = AdapterNote(base=base, owner=owner, digest=_digest(folder))
        write_json(folder / _NOTE, note.model_dump(mode="json"))
        if about:
            write_text(folder / "README.md", about)


def read_adapter(
    path: Path, defaults: Mapping[str, Any], owner: str = ""
) -> tuple[AdapterSettings, dict[str, Tensor], BaseFingerprint]:
    """The settings, weights and base model of an adapter that :func:`write_adapter` wrote.

    Args:
        path: the folder.
        defaults: peft's own settings, which an adapter's other settings must be.
        owner: what it must belong to; anything where empty.

    Raises:
        RunDirectoryError: the folder is missing or damaged, the adapter is of a kind that is not supported, or belongs
            to something else.
    """
    weights_file, settings_file, note_file = path / ADAPTER_WEIGHTS, path / _SETTINGS, path / _NOTE
    found = read_json(note_file)
    # Version 0.1 wrote the fingerprint alone.
    content = {"base": found} if isinstance(found, dict) and "base" not in found else found
    note = validate(TypeAdapter(AdapterNote), content, note_file)
    if owner and note.owner and note.owner != owner:
        raise RunDirectoryError(f"the adapter in {path} belongs to another study or another model of it; {DELETE}")
    # The weights are hashed as they are read; a pickle beside or in place of them stays where it is.
    weights, _ = read_tensors(weights_file)
    raw = read_json(settings_file)
    settings = validate(TypeAdapter(AdapterSettings), raw, settings_file)
    for key in sorted(raw.keys() - AdapterSettings.model_fields.keys() - _UNUSED):
        if raw[key] and raw[key] != defaults.get(key):
            raise RunDirectoryError(
                f"{settings_file} asks for {quoted(key)}, which is not among what adapters here have; {DELETE}"
            )
    if note.digest and note.digest != _digest(path):
        raise RunDirectoryError(f"the adapter in {path} is damaged: its files are not what was written; {DELETE}")
    for name, weight in weights.items():
        if ".lora_A." in name and weight.shape[:1] != (settings.r,):
            raise RunDirectoryError(
                f"{weights_file} does not fit: {quoted(name)} is not of rank {settings.r}; {DELETE}"
            )
    return settings, weights, note.base


def _digest(folder: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in (ADAPTER_WEIGHTS, _SETTINGS):
        content = read_bytes(folder / name, largest=1 << 40)
        digest.update(json.dumps([name, len(content)]).encode() + content)
    return digest.hexdigest()
