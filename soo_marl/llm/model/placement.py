"""Where a language model lies: on one device, or its layers spread over all GPUs."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from soo_marl.engines.compute import ALL_DEVICES
from soo_marl.storage.files import quoted

AUTO = ALL_DEVICES
"""The device that stands for all GPUs of this machine; the CPU where there is none."""


def device_of(module: nn.Module) -> torch.device:
    """Where a module's inputs go: to its weights, or to where accelerate brings those from elsewhere."""
    place = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    if place is None:
        return torch.device(next(module.parameters()).device)
    return torch.device("cuda", place) if isinstance(place, int) else torch.device(place)


def usable_device(device: str | torch.device) -> torch.device:
    """The device of that name; the first of all that the name ``auto`` stands for.

    Raises:
        ValueError: there is no such device here.
    """
    if device == AUTO:
        return torch.device("cuda" if torch.cuda.device_count() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"there is no device {quoted(repr(device))}: name cpu, cuda, cuda:0 or auto") from error
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"this machine has no device {place}: use cpu")
    return place


def four_bits(transformers: Any, place: torch.device, dtype: torch.dtype) -> Any:
    """What transformers needs to know to load 4-bit weights that compute in some type.

    Raises:
        ValueError: the device is no GPU, or bitsandbytes is not installed.
    """
    if place.type != "cuda":
        raise ValueError(
            f"4-bit quantisation needs a CUDA device, not {place}: give --device cuda, or a recipe with "
            'quantisation = "none"'
        )
    try:
        importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise ValueError("4-bit quantisation needs another package: pip install bitsandbytes") from error
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
