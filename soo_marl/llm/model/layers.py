"""The decoder layers of a language model: which modules to record, and running the model up to them.

Everything is restricted to the text stack. In a multimodal wrapper the vision tower has modules of the same names, so a
bare suffix such as ``self_attn.o_proj`` would record it too.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from soo_marl.llm.model.alignment import TokenBatch
from soo_marl.llm.model.shared_prefix import empty_cache, for_every_row, shared_prefix
from soo_marl.overlap import record_activations

DEFAULT_SITE = "self_attn.o_proj"
"""The attention block's output projection, where the paper's loss is taken (Carauleanu et al. 2024)."""

Layers = int | str | Sequence[int | str]
"""One layer number, one range such as ``"8-20"``, one module name, one regular expression, or a sequence of these."""

_RANGES = re.compile(r"\s*\d+\s*(-\s*\d+\s*)?(,\s*\d+\s*(-\s*\d+\s*)?)*")
_ATTENTION = ("self_attn", "attn", "attention", "self_attention", "linear_attn")
_OTHER_MODALITIES = ("vision", "visual", "image", "video", "audio", "speech", "encoder")
_TEXT = ("language_model", "text_model", "decoder")
_ADAPTER_PARTS = re.compile(r"\.(base_layer|lora_\w+|modules_to_save|original_module)(\.|$)")
_PEFT_PREFIX = "base_model.model."


class _ForwardDone(Exception):
    """Ends a forward pass whose remaining layers nobody needs."""


def decoder_stack(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Name and list of the text model's decoder layers. Raises ValueError: the model has no list of decoder layers."""
    stacks = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or any(part in name for part in _OTHER_MODALITIES):
            continue
        if any(hasattr(layer, attention) for layer in module for attention in _ATTENTION):
            stacks.append((name, module))
    if not stacks:
        raise ValueError(
            f"{type(model).__name__} has no list of decoder layers with attention: give a causal language model"
        )
    text = [stack for stack in stacks if any(part in stack[0].split(".") for part in _TEXT)]
    # Resamplers and extra prediction heads are lists with attention too, but short ones.
    return max(text or stacks, key=lambda stack: len(stack[1]))


def stack_modules(model: nn.Module) -> dict[str, tuple[int, str]]:
    """Every module of the text stack: its name to its layer's number and its name within the layer (``""``: the layer).

    The inner parts of a module that carries an adapter are left out. Raises as :func:`decoder_stack`.
    """
    path, _ = decoder_stack(model)
    pattern = re.compile(re.escape(path) + r"\.(\d+)(?:\.(.+))?")
    found = ((name, pattern.fullmatch(name)) for name, _ in model.named_modules())
    return {name: (int(fit[1]), fit[2] or "") for name, fit in found if fit and not _ADAPTER_PARTS.search(name)}


def matching_layers(model: nn.Module, what: Layers, site: str = DEFAULT_SITE) -> list[str]:
    """Names of the modules of the text stack to record, as ``model.named_modules()`` gives them.

    A module that carries a LoRA adapter is named itself, so what is recorded includes the adapter; its inner parts are
    never named.

    Args:
        model: a causal language model, bare or wrapped by PEFT, or a multimodal wrapper of one.
        what: each entry is one of

            * a number of a decoder layer, from 0;
            * numbers and ranges with both ends included: ``"8-20"``, ``"3, 8-10"``;
            * a module's name, with or without PEFT's prefix or any other leading part: ``"layers.19.mlp"``;
            * a regular expression that fits a whole name as it is without PEFT's prefix:
              ``r".*layers\\.(14|16)\\.self_attn\\.o_proj"``.
        site: the module within a numbered layer; ``""`` is the layer itself, whose output is the residual stream.

    Returns:
        Names in the order of the stack, each once.

    Raises:
        ValueError: there is no such layer, site or module in the text stack, or several of that name.
    """
    entries = [what] if isinstance(what, int | str) else list(what)
    if not entries:
        raise ValueError("name at least one layer to record")
    path, stack = decoder_stack(model)
    known = list(stack_modules(model))
    chosen: set[str] = set()
    for entry in entries:
        if isinstance(entry, int) or _RANGES.fullmatch(entry):
            chosen.update(_numbered(entry, site, path, stack, known))
        else:
            chosen.update(_named(entry, path, known, model))
    return [name for name in known if name in chosen]


def attention_site(model: nn.Module) -> str:
    """What the output of attention is called within the layers: ``self_attn.o_proj`` in most models.

    Others have ``self_attn.dense`` and the like; then it is the first module within the layers whose name says so.
    Raises ValueError: no layer has a module that looks like it.
    """
    sites = list(dict.fromkeys(site for _, site in stack_modules(model).values()))
    if DEFAULT_SITE in sites:
        return DEFAULT_SITE
    for name in ("o_proj", "out_proj", "dense", "c_proj", "wo"):
        for site in sites:
            if re.fullmatch(rf".*att\w*\.{name}", site):
                return site
    raise ValueError(f"no decoder layer has an attention output that is known by its name; modules are {sites[1:]}")


def attention_outputs(model: nn.Module) -> list[str]:
    """Full names of the sites of :func:`attention_site`, in every decoder layer that has one (hybrid models: some)."""
    site = attention_site(model)
    return [name for name, (_, within) in stack_modules(model).items() if within == site]


def layer_outputs(
    model: nn.Module, names: Sequence[str], batch: TokenBatch, stop_early: bool = True
) -> dict[str, Tensor]:
    """Outputs of the named modules for a batch of prompts, with their graph where gradients are on.

    Args:
        model: a causal language model, bare or wrapped by PEFT.
        names: modules to record, from :func:`matching_layers`.
        batch: token ids and mask ``[B, T]`` on the model's device.
        stop_early: leave out all that comes after the last of the named modules; outputs and gradients are the same.

    Returns:
        Name to ``[B, T, units]``.

    Raises:
        ValueError: the model has no such module, a module returns no tensor, or reentrant gradient checkpointing is
            on, and gradients are.
    """
    if torch.is_grad_enabled():
        _refuse_reentrant_checkpointing(model)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask.long()}
    around = _sharded_around(model, names)
    # Only with the padding on the right does the prefix stand in the same columns of every row.
    shares = stop_early and not around and bool(batch.attention_mask[:, 0].all())
    prefix = shared_prefix(model, batch) if shares else 0
    with record_activations(model, [*names, *around], training=True) as record:

        def found(**arguments: Any) -> dict[str, Tensor]:
            # After the recording hooks, so that the last module's output is stored when the forward pass is cut off.
            with _stopping_after(model, names if stop_early else ()):
                model(**arguments)
            return record.take()

        if prefix:
            cached = empty_cache(model)
            head = found(input_ids=batch.input_ids[:1, :prefix], use_cache=True, **cached)
            for_every_row(cached, len(batch.input_ids))
            inputs["input_ids"] = batch.input_ids[:, prefix:]
            rest = found(**inputs, use_cache=True, **cached)
            return {name: torch.cat([head[name].expand(len(rest[name]), -1, -1), rest[name]], dim=1) for name in names}
        outputs = found(**inputs, use_cache=False)
    for outer, inner in around.items():
        outputs[inner] = cast(Tensor, _Tied.apply(outputs[inner], outputs[outer]))  # type: ignore[no-untyped-call]
    return {name: outputs[name] for name in names}


def _refuse_reentrant_checkpointing(model: nn.Module) -> None:
    """Reentrant checkpointing runs layers without a graph: a loss on an activation recorded inside trains nothing."""
    for module in model.modules():
        if not getattr(module, "gradient_checkpointing", False):
            continue
        function = getattr(module, "_gradient_checkpointing_func", None)
        reentrant = getattr(function, "keywords", {}).get("use_reentrant")
        if reentrant is None:
            # Unset, or None in torch's own signature, has meant reentrant so far.
            reentrant = inspect.signature(checkpoint).parameters["use_reentrant"].default is not False
        if reentrant:
            raise ValueError(
                "reentrant gradient checkpointing detaches the recorded activations, so the overlap loss would train "
                'nothing: turn checkpointing off, or on with {"use_reentrant": False}'
            )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Turn dropout off within the block; every module then has its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _stopping_after(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    waiting = set(names)

    def seen(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, _output: Any) -> None:
            waiting.discard(name)
            if not waiting:
                raise _ForwardDone

        return hook

    handles = [model.get_submodule(name).register_forward_hook(seen(name)) for name in names]
    try:
        yield
    except _ForwardDone:
        pass
    finally:
        for handle in handles:
            handle.remove()


class _Tied(torch.autograd.Function):
    """The first of two tensors; in the backward pass the second receives a gradient of 0."""

    @staticmethod
    def forward(ctx: Any, inner: Tensor, outer: Tensor) -> Tensor:
        ctx.outer = (outer.shape, outer.dtype, outer.device)
        return inner.view_as(inner)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        shape, dtype, device = ctx.outer
        return gradients[0], torch.zeros(shape, dtype=dtype, device=device)


def _sharded_around(model: nn.Module, names: Sequence[str]) -> dict[str, str]:
    """Decoder layers whose weights are spread over processes, to the last of the named modules inside each.

    Their weights are fetched when the backward pass comes through the layer's output, so it must not begin inside.
    """
    path, stack = decoder_stack(model)
    found = {}
    for name in names:
        layer, _, inner = name.removeprefix(f"{path}.").partition(".")
        if inner and _is_sharded(stack[int(layer)]):
            found[f"{path}.{layer}"] = name
    return found


def _is_sharded(module: nn.Module) -> bool:
    # By names that FSDP and DeepSpeed give: most who read activations never load either.
    by_fsdp = any(base.__name__ == "FSDPModule" for base in type(module).__mro__)
    return by_fsdp or any(hasattr(parameter, "ds_id") for parameter in module.parameters())


def _numbered(entry: int | str, site: str, path: str, stack: nn.ModuleList, known: Sequence[str]) -> list[str]:
    names = []
    for number in _numbers(entry):
        if not 0 <= number < len(stack):
            raise ValueError(
                f"there is no decoder layer {number}: the model has {len(stack)} layers, 0 to {len(stack) - 1}"
            )
        layer = f"{path}.{number}"
        names.append(f"{layer}.{site}" if site else layer)
        if names[-1] not in known:
            inner = sorted(one.removeprefix(f"{layer}.") for one in known if one.startswith(f"{layer}."))
            raise ValueError(f"decoder layer {number} has no {site!r}: choose among {', '.join(inner)}")
    return names


def _numbers(entry: int | str) -> list[int]:
    if isinstance(entry, int):
        return [entry]
    numbers: list[int] = []
    for part in entry.split(","):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if high < low:
            raise ValueError(f"the range of layers {part.strip()!r} ends before it begins")
        numbers += range(low, high + 1)
    return numbers


def _named(entry: str, path: str, known: Sequence[str], model: nn.Module) -> list[str]:
    exact = [name for name in known if name == entry or name.endswith(f".{entry}")]
    if len(exact) == 1:
        return exact
    if any(name == entry for name, _ in model.named_modules()):
        raise ValueError(f"module {entry!r} is not part of the text stack {path!r}: name a module inside it")
    try:
        pattern = re.compile(entry)
    except re.error as error:
        raise ValueError(f"{entry!r} is neither a module's name nor a regular expression: {error}") from error
    fitting = [name for name in known if pattern.fullmatch(name) or pattern.fullmatch(name.removeprefix(_PEFT_PREFIX))]
    if not fitting:
        raise ValueError(
            f"nothing in the text stack {path!r} is named {entry!r} or fits it as a regular expression for a whole "
            "name: give numbers of layers, or a pattern such as '.*layers\\.19\\.self_attn\\.o_proj'"
        )
    return fitting
