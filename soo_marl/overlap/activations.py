"""Record the hidden activations of named layers of any torch module, and let go again."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

Calls = Literal["one", "stack", "last"]
"""What to do with a layer that runs several times in one forward pass: refuse it, stack its outputs, keep the last."""


class ActivationRecord(Mapping[str, Tensor]):
    """The outputs of the recorded layers in their latest forward pass, by layer name.

    The tensors keep their computation graph, so a loss on them reaches the weights. A layer whose output a later
    layer changes in place is seen as changed. Reading a layer that has not run raises RuntimeError.
    """

    def __init__(self, layers: Sequence[str], calls: Calls = "one") -> None:
        self._layers = tuple(layers)
        self._calls = calls
        self._outputs: dict[str, list[Tensor]] = {}

    def __getitem__(self, layer: str) -> Tensor:
        if layer not in self._layers:
            raise KeyError(layer)
        if layer not in self._outputs:
            raise RuntimeError(
                f"layer {layer!r} has not run since recording began or since the last take(): run the module inside "
                "the record_activations block, and record only layers that its forward pass uses (a copy of the "
                "module, or a function made of it by torch.compile, does not run its layers)"
            )
        outputs = self._outputs[layer]
        if self._calls != "stack":
            return outputs[-1]
        if any(output.shape != outputs[0].shape for output in outputs):
            shapes = ", ".join(str(tuple(output.shape)) for output in outputs)
            raise ValueError(f"the calls of layer {layer!r} cannot be stacked, since their shapes differ: {shapes}")
        return torch.stack(outputs)

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __contains__(self, layer: object) -> bool:
        return layer in self._layers

    def take(self) -> dict[str, Tensor]:
        """Hand out the activations and forget them, so that the next forward pass cannot be mistaken for this one.

        Returns:
            Layer name to tensor, in the order in which the layers were named.

        Raises:
            RuntimeError: a layer has not run since recording began or since the last ``take()``.
            ValueError: the outputs of a layer that ran several times are to be stacked, but differ in shape.
        """
        taken = dict(self)
        self._outputs.clear()
        return taken

    def _begin_pass(self) -> None:
        self._outputs.clear()

    def _store(self, layer: str, output: Tensor) -> None:
        earlier = self._outputs.setdefault(layer, [])
        if earlier and self._calls == "one":
            raise ValueError(
                f"layer {layer!r} runs more than once in one forward pass: record_activations(..., calls='stack') "
                "keeps all its outputs, calls='last' the last one; between passes that do not begin with the recorded "
                "module itself, call take()"
            )
        if self._calls == "last":
            earlier.clear()
        earlier.append(output)


@contextmanager
def record_activations(
    module: nn.Module,
    layers: Sequence[str],
    *,
    calls: Calls = "one",
    units: int | tuple[int, ...] | Mapping[str, int | tuple[int, ...]] = -1,
    outputs: Mapping[str, str | int | tuple[str | int, ...]] | None = None,
    training: bool = False,
) -> Iterator[ActivationRecord]:
    """Record what the named layers of ``module`` put out, for as long as the block lasts.

    The hooks are removed when the block ends, also by an exception. A compiled module runs uncompiled inside the
    block, since compiled code runs no hooks. Layers that run under ``torch.func.vmap`` (ensembles) are recorded with
    the mapped axis in front. What a backward pass runs again (checkpointing) is not recorded. ::

        with record_activations(actor, ["hidden_1", "hidden_2"]) as record:
            actor(self_observations)
            self_activations = record.take()
            actor(other_observations)
            other_activations = record.take()

    Args:
        module: any torch module: a policy, a stack of policies, a transformer.
        layers: names as ``module.named_modules()`` gives them, for instance ``"model.layers.19.self_attn.o_proj"``.
        calls: what to do with a layer that runs several times in one pass, such as an activation function used at two
            places or a recurrent cell. ``one`` refuses it; ``stack`` puts a leading axis of calls before the outputs
            of every layer, in the order in which they ran; ``last`` keeps the last output.
        units: which axis of a layer's output holds its units, for all layers or by layer name (the last one where
            none is given): 1 for the channels of a convolution ``[B, C, H, W]``. Several axes count as one: (1, 2, 3)
            takes the whole map as units, which puts it beside linear layers. They are recorded as the last axis.
        outputs: by layer name, which part of an output that is a mapping or tuple to record: a key or index, or
            several that lead into it one after the other, as (1, 0) to the hidden state of an LSTM.
        training: dropout and batch statistics are wanted, because the module is being trained.

    Yields:
        The record, one tensor per layer, of whatever shape the layer puts out (``[..., units]`` for the metrics here);
        where a layer returns a tuple and ``outputs`` says nothing, its first element.

    Raises:
        ValueError: no layer is named, the module has no layer of that name, two names stand for one layer, a layer
            is part of TorchScript, or an option does not fit; or, during a forward pass, a layer runs more than once,
            its output has no such part or axis, or it runs inside a transform of ``torch.func`` other than ``vmap``.

    Warns:
        UserWarning: without ``training``, the module is in training mode and normalises by batch, or the output of a
            layer depends on random numbers (dropout): equal inputs then differ. Call ``module.eval()`` first.
    """
    if isinstance(layers, str) or not layers:
        raise ValueError("name the layers to record as a sequence of at least one name")
    if calls not in ("one", "stack", "last"):
        raise ValueError(f"calls must be one, stack or last, not {calls!r}")
    names = tuple(dict.fromkeys(layers))
    known = dict(module.named_modules(remove_duplicate=False))
    _check_names(module, names, known)
    by_layer = dict(units) if isinstance(units, Mapping) else dict.fromkeys(names, units)
    parts = dict(outputs or {})
    for option, given in (("units", by_layer), ("outputs", parts)):
        if unknown := [name for name in given if name not in names]:
            raise ValueError(f"{option} names {unknown[0]!r}, which is not among the layers to record")

    record, chance = ActivationRecord(names, calls), _Chance()
    watched = not training and any(layer.training for layer in known.values())
    if not training and any(_normalises_by_batch(layer) for layer in known.values()):
        warnings.warn(
            "the module normalises by batch, so that what it puts out for one input depends on the others: call "
            "module.eval() before measuring, or say training=True where that is wanted",
            stacklevel=3,
        )

    def begin(_module: nn.Module, _inputs: Any) -> None:
        record._begin_pass()
        if watched:
            chance.begin()

    def end(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        chance.end()

    def store_as(name: str) -> Callable[[nn.Module, Any, Any], None]:
        path, axes = parts.get(name, ()), by_layer.get(name, -1)
        part = path if isinstance(path, tuple) else (path,)
        unit_axes = axes if isinstance(axes, tuple) else (axes,)

        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            # Non-reentrant checkpointing asks torch the same way whether a backward pass is at work.
            if torch._C._current_graph_task_id() != -1:
                return
            chance.look(name)
            record._store(name, _without_transforms(name, _units_last(name, _part(name, output, part), unit_axes)))

        return hook

    with ExitStack() as stack:
        if any(_is_compiled(layer) for layer in known.values()):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.callback(module.register_forward_pre_hook(begin).remove)
        if watched:
            stack.callback(module.register_forward_hook(end, always_call=True).remove)
        for name in names:
            stack.callback(known[name].register_forward_hook(store_as(name)).remove)
        yield record


def activations_of(module: nn.Module, layers: Sequence[str], *inputs: Any) -> list[dict[str, Tensor]]:
    """The activations of named layers for each of several inputs, one forward pass of ``module`` each.

    Args:
        module: takes one input.
        layers: as :func:`record_activations` takes them.
        inputs: for example the self and the other observations.

    Returns:
        Layer name to what the layer puts out, once per input, with its graph.

    Raises:
        ValueError: as :func:`record_activations`.
    """
    found = []
    with record_activations(module, layers) as record:
        for each in inputs:
            module(each)
            found.append(record.take())
    return found


def _check_names(module: nn.Module, names: Sequence[str], known: Mapping[str, nn.Module]) -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, [known_name for known_name in known if known_name], n=5, cutoff=0.4)
            hint = f"did you mean {', '.join(close)}?" if close else "module.named_modules() lists its layers"
            raise ValueError(f"{type(module).__name__} has no layer {name!r}; {hint}")
        path = name.split(".")
        around = [module, *(known[".".join(path[:length])] for length in range(1, len(path) + 1))]
        if any(isinstance(outer, torch.jit.ScriptModule) for outer in around):
            raise ValueError(
                f"layer {name!r} is part of TorchScript, which runs no hooks: record the module it was scripted from"
            )
    first: dict[int, str] = {}
    for name in names:
        other = first.setdefault(id(known[name]), name)
        if other != name:
            raise ValueError(
                f"layers {other!r} and {name!r} are the same module, used at both places: name it once, with "
                "calls='stack' for all its outputs or calls='last' for the last one, or give each place its own module"
            )


def _part(layer: str, output: Any, path: Sequence[str | int]) -> Tensor:
    if not path and isinstance(output, tuple | list) and output:
        output = output[0]
    for key in path:
        try:
            output = output[key]
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"layer {layer!r} returns {type(output).__name__} without a part {key!r}") from error
    if not isinstance(output, Tensor):
        keys = f" such as {', '.join(map(repr, output))}" if isinstance(output, Mapping) else ""
        raise ValueError(
            f"layer {layer!r} returns {type(output).__name__}, not a tensor or a tuple that begins with one: say which "
            f"part to record, outputs={{{layer!r}: key}}{keys}, or name a layer inside it instead"
        )
    return output


def _units_last(layer: str, output: Tensor, axes: tuple[int, ...]) -> Tensor:
    if axes == (-1,):
        return output
    try:
        last = output.movedim(axes, tuple(range(-len(axes), 0)))
    except (IndexError, RuntimeError) as error:
        raise ValueError(f"units={axes} do not fit layer {layer!r}, whose output is {tuple(output.shape)}") from error
    return last.flatten(-len(axes))


def _without_transforms(layer: str, output: Tensor) -> Tensor:
    """The tensor itself of one seen through ``torch.func.vmap``, with the mapped axes in front, the outermost first."""
    # torch has no public way to tell.
    functorch = torch._C._functorch
    while functorch.is_batchedtensor(output):
        output = functorch.get_unwrapped(output).movedim(functorch.maybe_get_bdim(output), 0)
    if functorch.is_functorch_wrapped_tensor(output):
        raise ValueError(
            f"layer {layer!r} runs inside a transform of torch.func other than vmap, which nothing recorded can leave: "
            "record a pass outside of it"
        )
    return output


def _normalises_by_batch(layer: nn.Module) -> bool:
    by_batch = isinstance(layer, nn.modules.batchnorm._BatchNorm)
    return by_batch and (layer.training or layer.running_mean is None)


def _is_compiled(layer: nn.Module) -> bool:
    return type(layer).__name__ == "OptimizedModule" or layer._compiled_call_impl is not None


class _Chance:
    """Warns once of a layer before whose end random numbers were drawn in a forward pass that is watched."""

    def __init__(self) -> None:
        self._before: list[Tensor] | None = None
        self._warned = False

    def begin(self) -> None:
        self._before = None if self._warned else self._generators()

    def end(self) -> None:
        self._before = None

    def look(self, layer: str) -> None:
        if self._before is None or all(map(torch.equal, self._before, self._generators())):
            return
        self._before, self._warned = None, True
        warnings.warn(
            f"layer {layer!r} depends on random numbers in training mode (dropout), so that equal inputs differ: call "
            "module.eval() before measuring, or say training=True where that is wanted",
            stacklevel=3,
        )

    @staticmethod
    def _generators() -> list[Tensor]:
        on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
        return [torch.get_rng_state(), *on_gpus]
