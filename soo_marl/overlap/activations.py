"""Record the hidden activations of named layers of any torch module, and let go again."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class ActivationRecord(Mapping[str, Tensor]):
    """The outputs of the recorded layers in their latest forward pass, by layer name.

    The tensors keep their computation graph, so a loss on them reaches the weights. A layer whose output a later
    layer changes in place is seen as changed. Reading a layer that has not run raises RuntimeError.
    """

    def __init__(self, layers: Sequence[str]) -> None:
        self._layers = tuple(layers)
        self._latest: dict[str, Tensor] = {}

    def __getitem__(self, layer: str) -> Tensor:
        if layer not in self._layers:
            raise KeyError(layer)
        if layer not in self._latest:
            raise RuntimeError(
                f"layer {layer!r} has not run since recording began or since the last take(): "
                "run the module inside the record_activations block, and record only layers that its forward pass uses"
            )
        return self._latest[layer]

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
        """
        taken = dict(self)
        self._latest.clear()
        return taken

    def _store(self, layer: str, output: Any) -> None:
        first = output[0] if isinstance(output, tuple | list) and output else output
        if not isinstance(first, Tensor):
            raise ValueError(
                f"layer {layer!r} returns {type(first).__name__}, not a tensor or a tuple that begins with one: "
                "name a layer inside it instead"
            )
        self._latest[layer] = first


@contextmanager
def record_activations(module: nn.Module, layers: Sequence[str]) -> Iterator[ActivationRecord]:
    """Record what the named layers of ``module`` put out, for as long as the block lasts.

    The hooks are removed when the block ends, also by an exception. Take the activations before calling backward on a
    module that uses non-reentrant checkpointing: it runs the layers a second time. ::

        with record_activations(actor, ["hidden_0", "hidden_1"]) as record:
            actor(self_observations)
            self_activations = record.take()
            actor(other_observations)
            other_activations = record.take()

    Args:
        module: any torch module: a policy, a stack of policies, a transformer.
        layers: names as ``module.named_modules()`` gives them, for instance ``"model.layers.19.self_attn.o_proj"``.

    Yields:
        The record, one tensor per layer, of whatever shape the layer puts out (``[..., units]`` for the metrics here);
        where a layer returns a tuple, its first element.

    Raises:
        ValueError: no layer is named, or the module has no layer of that name; or, during a forward pass, a layer
            returns something other than a tensor or a tuple that begins with one.
    """
    if isinstance(layers, str) or not layers:
        raise ValueError("name the layers to record as a sequence of at least one name")
    names = tuple(dict.fromkeys(layers))
    known = dict(module.named_modules(remove_duplicate=False))
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, [known_name for known_name in known if known_name], n=5, cutoff=0.4)
            hint = f"did you mean {', '.join(close)}?" if close else "module.named_modules() lists its layers"
            raise ValueError(f"{type(module).__name__} has no layer {name!r}; {hint}")

    record = ActivationRecord(names)

    def store_as(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            record._store(name, output)

        return hook

    handles = []
    try:
        for name in names:
            handles.append(module.get_submodule(name).register_forward_hook(store_as(name)))
        yield record
    finally:
        for handle in handles:
            handle.remove()
