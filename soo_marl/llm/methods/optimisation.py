"""Gradient steps on a model's adapter that can be stopped at any moment and go on to the same weights.

Several processes can take them together: :class:`Processes` is what they have to do in common. :data:`ALONE` does
nothing; :mod:`soo_marl.llm.study.distributed` has the processes that accelerate starts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from soo_marl.engines import Interrupted
from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.tensor_files import read_tensors, write_tensors

_CHECKPOINT_SECONDS = 30.0
_CALMER = "lower the learning rate, or use float32"
_MOMENTS = ("exp_avg", "exp_avg_sq")  # what AdamW keeps for each weight


class BreakdownError(ValueError):
    """Training came to numbers that are not finite; the message says where, in one sentence."""

    def __init__(self, message: str, losses: Sequence[float] = ()) -> None:
        """Keep the sentence, and the losses of the steps before."""
        super().__init__(message, tuple(losses))
        self.losses = tuple(losses)

    def __str__(self) -> str:
        return str(self.args[0])


class Processes(Protocol):
    """This process among those that train one adapter.

    It has a number, from 0, of ``count``; ``whole_forward`` says whether a forward pass must run to its end.
    """

    number: int
    count: int
    whole_forward: bool

    def spread(self, model: nn.Module, learning_rate: float, weight_decay: float) -> None:
        """Spread the weights over the processes, as far as they are to be; called before the first forward pass."""

    def optimiser(self, weights: Sequence[nn.Parameter], learning_rate: float, weight_decay: float) -> Any:
        """The optimiser of the weights that are trained, as they are after :meth:`spread`."""

    def backward(self, loss: Tensor) -> None:
        """Differentiate this process's part of the loss."""

    def total(self, loss: float, weights: Sequence[nn.Parameter]) -> float:
        """The sum of all processes' losses; every weight's gradient, or this process's part of it, is then the sum."""


class Alone:
    """One process, which holds the whole model."""

    number, count, whole_forward = 0, 1, False

    def spread(self, model: nn.Module, learning_rate: float, weight_decay: float) -> None:
        """Leave the weights where they are."""

    def optimiser(self, weights: Sequence[nn.Parameter], learning_rate: float, weight_decay: float) -> Any:
        """AdamW."""
        return torch.optim.AdamW(weights, lr=learning_rate, weight_decay=weight_decay)

    def backward(self, loss: Tensor) -> None:
        """Differentiate the loss."""
        loss.backward()  # type: ignore[no-untyped-call]

    def total(self, loss: float, weights: Sequence[nn.Parameter]) -> float:
        """The loss itself."""
        return loss


ALONE = Alone()
"""This process alone."""


@dataclass(frozen=True)
class Schedule:
    """How the learning rate goes over ``steps`` (at least 1): up in a straight line to the highest in ``warm_up`` of
    them, level, and down to nothing in another in the last ``decay`` of them.
    """

    learning_rate: float
    steps: int
    warm_up: int = 0
    decay: int = 0

    def __call__(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        up = min(1.0, (step + 1) / self.warm_up) if self.warm_up else 1.0
        down = min(1.0, (self.steps - step) / self.decay) if self.decay else 1.0
        return self.learning_rate * up * down


def optimise(
    model: nn.Module,
    loss: Callable[[int], Iterable[Tensor]],
    schedule: Schedule,
    seed: int,
    *,
    weight_decay: float = 0.01,
    largest_gradient: float | None = None,
    after_step: Callable[[int, float], bool] = lambda step, value: False,
    checkpoint: Path | None = None,
    identity: str = "",
    stop: Callable[[], bool] = lambda: False,
    processes: Processes = ALONE,
) -> list[float]:
    """Train a model's trainable weights with AdamW.

    Args:
        model: its weights that require gradients are trained, the others stay as they are.
        loss: called as ``loss(step)``; gives scalars with their graphs, whose sum is the loss. Each is differentiated
            before the next is asked for, so a large batch can be given in parts that fit into memory. What it draws
            from torch's global generator (dropout) follows from the seed and the step alone.
        schedule: learning rate, and number of steps.
        seed: seed of what the loss draws.
        weight_decay: of AdamW.
        largest_gradient: Euclidean norm to which the gradient of all weights is cut.
        after_step: called as ``after_step(steps done, loss)``; true ends the training.
        checkpoint: file from which training goes on where it is there, and where the state is kept meanwhile; the
            caller removes it once the weights are kept.
        identity: what the checkpoint must belong to.
        stop: asked after every step; once true, the state is kept.
        processes: this process among several that each give a part of the loss; then without a checkpoint, a largest
            gradient and stop.

    Returns:
        The loss of every step that was done.

    Raises:
        Interrupted: ``stop()`` became true.
        RunDirectoryError: the checkpoint is damaged, belongs to something else, or cannot be written.
        ValueError: there is nothing to train.
        BreakdownError: the loss, or a weight in the end, is not finite.
    """
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if not trained:
        raise ValueError("no weight of the model requires gradients: give it an adapter first")
    weights = list(trained.values())
    optimiser = processes.optimiser(weights, schedule.learning_rate, weight_decay)
    losses: list[float] = []
    if checkpoint is not None and checkpoint.exists():
        losses = _restore(checkpoint, identity, trained, optimiser)
    written = time.monotonic()
    while len(losses) < schedule.steps:
        step = len(losses)
        for group in optimiser.param_groups:
            group["lr"] = schedule(step)
        optimiser.zero_grad(set_to_none=True)
        value = 0.0
        with seeded(seed, step):
            for part in loss(step):
                value += float(part.detach())
                processes.backward(part)
        value = processes.total(value, weights)
        if not math.isfinite(value):
            raise BreakdownError(f"the loss is {value} at step {step + 1}: {_CALMER}", losses)
        if largest_gradient is not None:
            nn.utils.clip_grad_norm_(weights, largest_gradient)
        try:
            optimiser.step()
        except RuntimeError as error:
            if "without overflow" not in str(error):
                raise
            raise BreakdownError(f"step {step + 1} is larger than any number: {_CALMER}", losses) from error
        losses.append(value)
        ended = after_step(len(losses), losses[-1])
        stopping = stop() and len(losses) < schedule.steps and not ended
        # The end by after_step() is not kept: from an earlier checkpoint training comes to it again.
        due = stopping or (not ended and time.monotonic() - written > _CHECKPOINT_SECONDS)
        if checkpoint is not None and due:
            _store(checkpoint, identity, trained, optimiser, losses)
            written = time.monotonic()
        if stopping:
            raise Interrupted
        if ended:
            break
    optimiser.zero_grad(set_to_none=True)
    # Several processes must not part ways; what one of them holds of a weight says little about the rest.
    if processes.count == 1 and not all(bool(torch.isfinite(weight).all()) for weight in weights):
        raise BreakdownError(f"weights are not finite after step {len(losses)}: {_CALMER}", losses)
    return losses


@contextmanager
def seeded(seed: int, *parts: int) -> Iterator[None]:
    """Let torch's global generators begin from a seed within the block; then they are as they were."""
    mixed = 0
    for part in (seed, *parts):
        mixed = (mixed * 1_000_003 + part) % 2**63
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(mixed)
        yield


def _store(
    path: Path, identity: str, trained: dict[str, nn.Parameter], optimiser: Any, losses: Sequence[float]
) -> None:
    tensors: dict[str, Tensor] = {f"weight/{name}": weight for name, weight in trained.items()}
    for name, weight in trained.items():
        # A weight that no gradient has reached yet has no state.
        for kept in (*_MOMENTS, "step"):
            if kept in optimiser.state[weight]:
                tensors[f"{kept}/{name}"] = torch.as_tensor(optimiser.state[weight][kept])
    tensors["losses"] = torch.tensor(losses, dtype=torch.float64)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, tensors, {"identity": identity})


def _restore(path: Path, identity: str, trained: dict[str, nn.Parameter], optimiser: Any) -> list[float]:
    tensors, metadata = read_tensors(path)
    fits = metadata.get("identity") == identity and all(
        f"weight/{name}" in tensors and tensors[f"weight/{name}"].shape == weight.shape
        for name, weight in trained.items()
    )
    if not fits or "losses" not in tensors:
        raise RunDirectoryError(f"{path} is the checkpoint of something else; delete it and run the command again")
    with torch.no_grad():
        for name, weight in trained.items():
            weight.copy_(tensors[f"weight/{name}"])
            if f"step/{name}" in tensors:
                state = {moment: tensors[f"{moment}/{name}"].to(weight.device) for moment in _MOMENTS}
                optimiser.state[weight] = {"step": tensors[f"step/{name}"], **state}
    return [float(value) for value in tensors["losses"]]
