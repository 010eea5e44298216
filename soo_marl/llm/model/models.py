"""Language models: load them, add LoRA adapters, keep the adapters, and merge them.

transformers and peft are imported only when they are used, and come with the extra ``soo-marl[llm]``.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from soo_marl.engines.compute import ALL_DEVICES
from soo_marl.llm.model.adapters import (
    BaseFingerprint,
    LoraSettings,
    fingerprint,
    is_quantised,
    read_adapter,
    refuse_tied,
    same_base,
    target_names,
    write_adapter,
)
from soo_marl.llm.model.embedded import EMBEDDED, embedded_file, quiet_transformers
from soo_marl.llm.model.model_folders import first_line, model_folder
from soo_marl.storage.files import DELETE, RunDirectoryError, quoted
from soo_marl.storage.tensor_files import TensorHeader, check_headers

ModelDtype = Literal["float32", "bfloat16", "float16"]

_ON_A_MERGED_MODEL = (
    "The model that this adapter was trained on is {name} with another adapter merged into it, so {name} alone is not "
    "its base model. `soo-marl llm merge` writes the whole model as a folder that other programs load.\n"
)


class DeviceMemoryError(ValueError):
    """Memory does not suffice; the message says how to need less."""


@dataclass
class LanguageModel:
    """A causal language model with its tokenizer."""

    model: Any
    """The transformers model, or the peft model around it."""
    tokenizer: Any
    """Its tokenizer; with a padding token, unless it has no end token either."""
    name: str
    """The name it was loaded by."""
    changed: bool = False
    """Whether an adapter was merged into it, so that the name no longer says which weights it has."""

    @property
    def device(self) -> torch.device:
        """Where its tokens go: to its embedding, if its layers lie on several devices."""
        return _device_of(self.transformer.get_input_embeddings())

    @property
    def transformer(self) -> Any:
        """The transformers model itself, with the adapter's layers inside; layers have the same names either way."""
        return self.model.get_base_model() if self.has_adapter else self.model

    @property
    def has_adapter(self) -> bool:
        """Whether a LoRA adapter is part of it."""
        return hasattr(self.model, "peft_config") and hasattr(self.model, "disable_adapter")

    @property
    def quantised(self) -> bool:
        """Whether its linear layers hold weights of fewer bits than they compute in."""
        return any(is_quantised(parameter) for parameter in self.model.parameters())

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Numbers of the tokens that end an answer, ascending."""
        settings = getattr(self.transformer, "generation_config", None)
        own = getattr(settings, "eos_token_id", None)
        found = set(own if isinstance(own, list | tuple) else [own]) | {self.tokenizer.eos_token_id}
        return tuple(sorted(int(token) for token in found if token is not None))


def load_model(
    name: str = EMBEDDED,
    *,
    device: str | torch.device = "cpu",
    dtype: ModelDtype = "float32",
    quantisation: Literal["none", "4bit"] = "none",
    weights: bool = True,
) -> LanguageModel:
    """Load a causal language model, ready to be evaluated.

    Args:
        name: the embedded model, a local folder, or a name on the model hub, see
            :func:`soo_marl.llm.model.model_folders.model_folder`.
        device: where it goes; ``auto`` spreads its layers over all GPUs, and is the CPU where there is none.
        dtype: type of its weights, and of what it computes in where it is quantised.
        quantisation: ``4bit`` for NormalFloat with doubly quantised scales (Dettmers et al. 2023), on CUDA only.
        weights: False for the model's shape alone, its parameters on the device ``meta``.

    Raises:
        ValueError: the extra is not installed; there is no such model, device or quantisation; the model needs code of
            its own, or its weights are not safetensors; what it is quantised with is not installed.
        DeviceMemoryError: it does not fit into memory.
        RunDirectoryError: the embedded model cannot be written to the cache.
    """
    if dtype not in get_args(ModelDtype):
        raise ValueError(f"dtype must be float32, bfloat16 or float16, not {dtype!r}")
    transformers = _imported("transformers")
    place = _usable_device(device)
    options: dict[str, Any] = {"dtype": getattr(torch, dtype), "use_safetensors": True}
    if quantisation == "4bit":
        options["quantization_config"] = _four_bits(transformers, place, getattr(torch, dtype))
    elif quantisation != "none":
        raise ValueError(f"quantisation must be none or 4bit, not {quantisation!r}")
    if place.type != "cpu":
        options["device_map"] = "auto" if device == ALL_DEVICES else {"": str(place)}
    folder = model_folder(name, weights)
    # Without code or files from anywhere else.
    alone = {"local_files_only": True, "trust_remote_code": False}
    with quiet_transformers(), out_of_memory_advice():
        with _told_of(folder):
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **alone)
            tokenizer("a")  # some settings are only looked at where it is used
            config = transformers.AutoConfig.from_pretrained(str(folder), **alone)
        _check_quantised(config, folder)
        with _told_of(folder):
            if (folder / "generation_config.json").exists():
                # To refuse it with or without weights.
                transformers.GenerationConfig.from_pretrained(str(folder), **alone)
            if weights:
                model = transformers.AutoModelForCausalLM.from_pretrained(str(folder), **alone, **options)
            else:
                model = _without_weights(transformers, config, options["dtype"])
    if device == ALL_DEVICES and any(parameter.is_meta for parameter in model.parameters()):
        # Some weights would wait in the main memory or on the disk, where neither adapters nor gradients reach them.
        raise DeviceMemoryError(
            "the model does not fit on the GPUs: use more of them, bfloat16 weights or 4-bit quantisation"
        )
    known = range(len(model.get_input_embeddings().weight))
    if tokenizer.pad_token_id not in known:
        # Where tokens are padding, the attention mask says; the number itself is not looked at, but must be one.
        tokenizer.pad_token = tokenizer.eos_token if tokenizer.eos_token_id in known else None
    return LanguageModel(model.eval(), tokenizer, name)


def check_usable(name: str) -> None:
    """Raise ValueError at once where the extra is not installed, or the embedded model's package that is named."""
    _imported("transformers")
    _imported("peft")
    if name == EMBEDDED:
        embedded_file()


@contextmanager
def out_of_memory_advice() -> Iterator[None]:
    """Turn an out-of-memory error within the block into a DeviceMemoryError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error).lower()
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and "out of memory" not in text and "can't allocate memory" not in text:
            raise
        raise DeviceMemoryError(
            "the model does not fit into memory: take a smaller batch, bfloat16 weights, 4-bit quantisation, or, in "
            "training, gradient checkpointing"
        ) from error


@contextmanager
def adapters_off(language_model: LanguageModel, off: bool = True) -> Iterator[None]:
    """Let the base model speak within the block; a model without an adapter is left as it is, or any unless ``off``."""
    if not off or not language_model.has_adapter:
        yield
        return
    trainable = [(parameter, parameter.requires_grad) for parameter in language_model.model.parameters()]
    try:
        with language_model.model.disable_adapter():
            yield
    finally:
        # Turning adapters on again makes all their weights trainable, also those that were frozen.
        for parameter, requires_grad in trainable:
            parameter.requires_grad_(requires_grad)


def add_lora(language_model: LanguageModel, settings: LoraSettings, seed: int = 0) -> LanguageModel:
    """The same model with a new LoRA adapter, which changes nothing until it is trained; dropout is off.

    The layers of the given model are wrapped in place: from here on use the returned one only. Torch's global
    generators are left as they were; initial weights follow from the seed. Raises ValueError: the model has an adapter,
    or no layers as the settings name them.
    """
    peft = _imported("peft")
    if language_model.has_adapter:
        raise ValueError("the model has an adapter already: call merged() first")
    config = peft.LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=target_names(language_model.model, settings),
        task_type="CAUSAL_LM",
        bias="none",
    )
    with quiet_transformers(), torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = peft.get_peft_model(language_model.model, config)
    return replace(language_model, model=adapted.eval())


def save_adapter(
    language_model: LanguageModel,
    path: Path,
    *,
    weights: dict[str, Tensor] | None = None,
    base: BaseFingerprint | None = None,
    owner: str = "",
) -> None:
    """Write the adapter as a folder that peft reads, with a note of the base model it belongs to, and a digest.

    A folder of that name is replaced, once the new one is whole. Where the model holds only a part of each weight, the
    adapter's weights by their names in the model, and the fingerprint of the base model, are given. ``owner`` is what
    the adapter belongs to, which :func:`load_adapter` can ask for.

    Raises:
        ValueError: the model has no adapter.
        RunDirectoryError: the folder cannot be written.
    """
    if not language_model.has_adapter:
        raise ValueError("the model has no adapter to save: call add_lora() first")
    name, model = language_model.name, language_model.model
    settings = model.peft_config["default"].to_dict() | {"inference_mode": True}
    about = _ON_A_MERGED_MODEL.format(name=name) if language_model.changed else ""
    # A sentence is no name of a model, so whoever has the base loaded by itself learns this and gets no wrong one.
    settings["base_model_name_or_path"] = (
        f"{name} with another adapter merged into it, see README.md" if about else model.get_base_model().name_or_path
    )
    # The adapted layers alone: whether new embeddings are to be saved, peft would ask the model hub.
    own = _imported("peft").get_peft_model_state_dict(model, state_dict=weights, save_embedding_layers=False)
    write_adapter(path, settings, own, base or fingerprint(language_model.transformer, name), owner, about)


def load_adapter(language_model: LanguageModel, path: Path, *, owner: str = "") -> LanguageModel:
    """The base model, in whatever precision, with an adapter that :func:`save_adapter` wrote.

    As :func:`add_lora`, it wraps layers in place. It must belong to the owner, to anything where that is empty.

    Raises:
        ValueError: the model has an adapter already, or the adapter belongs to another base model.
        RunDirectoryError: the folder is missing or damaged, or the adapter belongs to something else.
    """
    peft = _imported("peft")
    if language_model.has_adapter:
        raise ValueError("the model has an adapter already: call merged() first")
    settings, weights, base = read_adapter(path, peft.LoraConfig().to_dict(), owner)
    if not same_base(base, fingerprint(language_model.transformer, language_model.name)):
        raise ValueError(
            f"the adapter in {path} belongs to another base model, then loaded as {quoted(repr(base.name))}, than "
            f"this {quoted(repr(language_model.name))}: load that model, with what was merged into it, first"
        )
    config = peft.LoraConfig(**settings.model_dump(), inference_mode=True)
    try:
        with quiet_transformers(), torch.random.fork_rng():
            adapted = peft.get_peft_model(language_model.model, config)
    except ValueError as error:
        raise RunDirectoryError(
            f"the adapter in {path} fits no layer of the model ({quoted(error)}); {DELETE}"
        ) from error
    expected = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
    headers = {name: TensorHeader.of(weight) for name, weight in weights.items()}
    try:
        refuse_tied(language_model.model, config.target_modules)
        # In which precision it was kept is no matter: it is copied into what the model has.
        kinds = {name: header.dtype for name, header in headers.items() if header.dtype.is_floating_point}
        fitting = {name: TensorHeader(kinds.get(name, one.dtype), tuple(one.shape)) for name, one in expected.items()}
        check_headers(path, headers, fitting)
    except (ValueError, RunDirectoryError):
        adapted.unload()
        raise
    peft.set_peft_model_state_dict(adapted, weights)
    return replace(language_model, model=adapted.eval())


def merged(language_model: LanguageModel) -> LanguageModel:
    """A copy of the model whose weights contain the adapter; the model itself stays as it is.

    Raises:
        ValueError: the model has no adapter, or its weights are quantised, which merging would round again.
    """
    if not language_model.has_adapter:
        raise ValueError("the model has no adapter to merge")
    if language_model.quantised:
        raise ValueError("an adapter cannot be merged into 4-bit weights: load the model with quantisation none")
    with out_of_memory_advice():
        whole = copy.deepcopy(language_model.model).merge_and_unload().eval()
    return replace(language_model, model=whole, changed=True)


def _imported(package: str) -> Any:
    try:
        importlib.import_module("accelerate")
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError('language models need the extra: pip install "soo-marl[llm]"') from error


def _device_of(module: nn.Module) -> torch.device:
    """Where a module's inputs go: to its weights, or to where accelerate brings those from elsewhere."""
    place = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    if place is None:
        return torch.device(next(module.parameters()).device)
    return torch.device("cuda", place) if isinstance(place, int) else torch.device(place)


def _usable_device(device: str | torch.device) -> torch.device:
    """The device of that name; the first of all that the name ``auto`` stands for."""
    if device == ALL_DEVICES:
        return torch.device("cuda" if torch.cuda.device_count() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"there is no device {quoted(repr(device))}: name cpu, cuda, cuda:0 or auto") from error
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"this machine has no device {place}: use cpu")
    return place


def _four_bits(transformers: Any, place: torch.device, dtype: torch.dtype) -> Any:
    """What transformers needs to know to load 4-bit weights that compute in some type."""
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
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def _without_weights(transformers: Any, config: Any, dtype: torch.dtype) -> Any:
    # Buffers are computed, not loaded.
    with importlib.import_module("accelerate").init_empty_weights(include_buffers=False):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    model.tie_weights()
    return model


def _check_quantised(config: Any, folder: Path) -> None:
    """Refuse weights that were quantised by something that is not installed, or does not work here."""
    quantisers = importlib.import_module("transformers.quantizers.auto")
    device_map = {"": "cuda:0" if torch.cuda.is_available() else "cpu"}
    try:
        quantisers.get_hf_quantizer(copy.deepcopy(config), None, device_map, True, {})
    except (ImportError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"the weights in {folder} are quantised, and what that needs is not here ({first_line(error)}): install "
            "it, or take the model's weights as they were before"
        ) from error


@contextmanager
def _told_of(folder: Path) -> Iterator[None]:
    """Turn whatever a library raises over the files of a folder, but a lack of memory, into one sentence about it."""
    try:
        yield
    except Exception as error:
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error).lower()):
            raise
        why = first_line(error)
        if "safetensor" in type(error).__name__.lower():
            raise ValueError(f"the weights of {folder} are damaged ({why}); delete and load anew") from error
        if "trust_remote_code" in str(error):
            why = "it needs code that lies in it, which is never run; take a model that transformers knows by itself"
        raise ValueError(f"the folder {folder} holds no usable language model ({why})") from error
