"""A LoRA adapter: which layers it changes, and the folder that it is kept in, which peft reads.

peft itself never reads one here. It would take a pickle in place of missing weights, ask the model hub for what is not
there, and import what the settings name; so the settings are read as data, field by field, and the weights as any other
tensors. A note beside them holds the base model's fingerprint, by which it is known again in whatever precision it is
loaded, and a digest of the files.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, TypeAdapter
from torch import Tensor, nn

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
_UNUSED = {"base_model_name_or_path", "inference_mode", "peft_version", "revision"}
"""Settings that say nothing about what an adapter computes."""

_OTHER_STACKS = {"vision_tower", "vision_model", "visual", "audio_tower", "audio_model", "multi_modal_projector"}
"""Parts of multimodal models that read something other than text."""


class LoraSettings(BaseModel, frozen=True, extra="forbid"):
    """A low-rank adapter (Hu et al. 2022); the defaults are those of Carauleanu et al. 2024 for Mistral-7B."""

    r: int = Field(8, ge=1, description="Rank.")
    alpha: float = Field(32, gt=0, description="The adapter's output is multiplied by alpha / r.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Share of the adapter's inputs that training drops.")
    targets: tuple[str, ...] = Field(
        ("q_proj", "v_proj"), min_length=1, description="Last part of the names of the linear layers to adapt."
    )
    layers: tuple[int, ...] | None = Field(
        None, description="Blocks to adapt, from 0; all by default. Blocks above the trained layer learn nothing."
    )


class AdapterSettings(BaseModel, frozen=True, extra="ignore"):
    """All of an adapter's settings that may differ from peft's own, by peft's names."""

    peft_type: Literal["LORA"] = "LORA"
    task_type: Literal["CAUSAL_LM"] = "CAUSAL_LM"
    bias: Literal["none"] = "none"
    r: int = Field(ge=1, description="Rank.")
    lora_alpha: float = Field(gt=0, allow_inf_nan=False, description="The output is multiplied by lora_alpha / r.")
    lora_dropout: float = Field(ge=0, lt=1, description="Share of the adapter's inputs that training drops.")
    target_modules: tuple[str, ...] = Field(min_length=1, description="Ends of the names of the layers it changes.")


class BaseFingerprint(BaseModel, frozen=True, extra="forbid"):
    """By what an adapter knows its base model again."""

    name: str = Field(description="The name it was loaded by.")
    architecture: str = Field(description="SHA-256 of its parameters' names and its embedding's shape.")
    half_precision: bool = Field(description="Whether its weights have 16 bits or fewer.")
    weights: tuple[float | None, ...] = Field(description="Two numbers of every parameter; null where quantised.")


class AdapterNote(BaseModel, frozen=True, extra="forbid"):
    """What an adapter belongs to, and what its files must be; those of version 0.1 hold the base model alone."""

    base: BaseFingerprint = Field(description="The base model.")
    owner: str = Field("", description="Study, label and seed; empty for one that belongs to no study.")
    digest: str = Field("", description="Digest of its weights and settings.")


def target_names(model: nn.Module, settings: LoraSettings) -> list[str]:
    """Full names of the linear layers of the text stack that the settings mean.

    Raises:
        ValueError: there are none, or one shares its weight with the embedding.
    """
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    text = sorted(name for name in linear if not _OTHER_STACKS & set(name.split(".")))
    named = [name for name in text if name.rsplit(".", 1)[-1] in settings.targets]
    if missing := set(settings.targets) - {name.rsplit(".", 1)[-1] for name in named}:
        known = sorted({name.rsplit(".", 1)[-1] for name in text})
        raise ValueError(f"the model has no linear layer {', '.join(sorted(missing))}; it has {', '.join(known)}")
    refuse_tied(model, named)
    if settings.layers is None:
        return named
    # The number of a layer's transformer block is the first number in its name.
    blocks = {name: int(found[1]) for name in named if (found := re.search(r"\.(\d+)\.", name))}
    if not settings.layers or set(settings.layers) - set(blocks.values()):
        there = sorted(set(blocks.values()))
        raise ValueError(f"layers must name some of the blocks {there}, not {sorted(settings.layers)}")
    return [name for name in named if blocks.get(name) in settings.layers]


def refuse_tied(model: nn.Module, names: Iterable[str]) -> None:
    """Refuse an adapter on an output layer that shares its weight with the embedding: merging would change both.

    Raises:
        ValueError: a layer of one of the names, or with one of them for an end, shares its weight.
    """
    ends = tuple(names)
    find: Any = getattr(model, "get_input_embeddings", None)
    embedding: Any = None if find is None else find()
    for name, module in model.named_modules():
        plain = name.replace(".base_layer", "")
        if embedding is None or module is embedding or getattr(module, "weight", None) is not embedding.weight:
            continue
        if any(plain == end or plain.endswith(f".{end}") for end in ends):
            raise ValueError(
                f"the layer {plain} shares its weight with the embedding, which an adapter, once merged, would "
                "change as well: leave it out of the LoRA targets"
            )


def fingerprint(transformer: Any, name: str) -> BaseFingerprint:
    """The fingerprint of a transformers model, without the adapter layers that may be inside it."""
    names: list[str] = []
    weights: list[float | None] = []
    half = False
    for full_name, parameter in transformer.named_parameters():
        if ".lora_" in full_name:
            continue
        names.append(full_name.replace(".base_layer.", "."))
        if is_quantised(parameter):
            half = True
            weights += [None, None]
            continue
        half = half or parameter.element_size() < 4
        flat = parameter.detach().reshape(-1)
        picked = flat[[len(flat) // 3, 2 * len(flat) // 3]].float().cpu().tolist()
        weights += [value if math.isfinite(value) else None for value in picked]
    # The embedding's shape stands for the rest: shapes of quantised weights are those of packed numbers.
    shape = list(transformer.get_input_embeddings().weight.shape)
    digest = hashlib.sha256(json.dumps([names, shape]).encode()).hexdigest()
    return BaseFingerprint(name=name, architecture=digest, half_precision=half, weights=tuple(weights))


def same_base(one: BaseFingerprint, another: BaseFingerprint) -> bool:
    """Whether two fingerprints are of one model; what is quantised in either is not compared."""
    if one.architecture != another.architecture or len(one.weights) != len(another.weights):
        return False
    # Rounding to bfloat16 moves a weight by up to 0.4 %; merging an adapter on another machine, by far less.
    tolerance = 1e-2 if one.half_precision or another.half_precision else 1e-4
    pairs = zip(one.weights, another.weights, strict=True)
    return all(a is None or b is None or math.isclose(a, b, rel_tol=tolerance, abs_tol=1e-6) for a, b in pairs)


def is_quantised(parameter: Tensor) -> bool:
    """Whether a parameter holds packed numbers of fewer bits than its layer computes in."""
    return not parameter.is_floating_point() or type(parameter).__name__ in ("Params4bit", "Int8Params")


def write_adapter(
    path: Path,
    settings: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    base: BaseFingerprint,
    owner: str,
    about: str,
) -> None:
    """Write an adapter's folder; one of that name is replaced.

    Settings are everything that peft says about it, weights have the names that peft gives them, and ``about`` is a
    text for whoever looks into the folder, none where empty. Raises RunDirectoryError: the folder cannot be written.
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

    Other settings must be the ``defaults``, peft's own; it must belong to the owner, to anything where that is empty.
    Raises RunDirectoryError: the folder is missing or damaged, the adapter is of a kind that is not supported, or
    belongs to something else.
    """
    weights_file, settings_file, note_file = path / ADAPTER_WEIGHTS, path / _SETTINGS, path / _NOTE
    content = read_json(note_file)
    # Version 0.1 wrote the fingerprint alone.
    content = {"base": content} if isinstance(content, dict) and "base" not in content else content
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
