"""Train one model of a study by several processes, as ``accelerate launch`` starts them, one per GPU. ::

    soo-marl llm finetune --output runs/big --model ... --no-organism --prepare-only
    accelerate launch --config_file fsdp.yaml -m soo_marl.commands.distributed runs/big --label soo --seed 0
    soo-marl llm finetune --output runs/big --model ... --no-organism --device auto

Each process takes some pairs of every batch. Where its weights are spread (FSDP, DeepSpeed), it holds a part of them
only. What is left on disk is what training in one process leaves, but for behaviour after each epoch, which is not
measured. A training that is interrupted begins anew.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shlex
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from soo_marl.llm.measures.records import TrainingRecord
from soo_marl.llm.methods.finetuning import finetune
from soo_marl.llm.model.adapters import fingerprint
from soo_marl.llm.model.layers import decoder_stack
from soo_marl.llm.model.models import load_model, save_adapter
from soo_marl.llm.study.configuration import BASE, ORGANISM, LanguageStudyConfig
from soo_marl.llm.study.models_on_disk import (
    adapter_folder,
    adapter_owner,
    mark_trained,
    model_before,
    organism_done,
    trained_step,
    write_training,
)
from soo_marl.llm.study.study import read_language_study
from soo_marl.storage.study_directory import StudyDirectory

Sharding = Literal["none", "fsdp", "deepspeed"]
"""How weights are spread: not at all, by torch's fully_shard, or by DeepSpeed's ZeRO stage 3."""

_EVERY_STEPS = 10  # how often progress is told


def configuration_file(name: str = "fsdp") -> Path:
    """A file for ``accelerate launch --config_file`` that comes with the package: ddp, fsdp or deepspeed_zero3."""
    return Path(str(resources.files("soo_marl.llm").joinpath("data", "accelerate", f"{name}.yaml")))


def launch_line(path: Path, config: LanguageStudyConfig) -> str:
    """The command that trains the first model of a study that can be trained so; ValueError where it trains none."""
    labels = [condition.label for condition in config.conditions if condition.trains]
    if not labels:
        raise ValueError(
            "none of the methods trains anything, so there is nothing to prepare: leave --prepare-only out"
        )
    file = configuration_file("fsdp" if config.quantisation == "none" else "ddp")
    options = ["--config_file", str(file), "--num_processes", str(max(2, torch.cuda.device_count()))]
    model = [str(path), "--label", labels[0], "--seed", str(config.seeds[0])]
    return shlex.join(["accelerate", "launch", *options, "-m", "soo_marl.commands.distributed", *model])


class Accelerated:
    """This process among those that accelerate started."""

    def __init__(self, accelerator: Any) -> None:
        """Find out how weights are to be spread, by an ``accelerate.Accelerator``.

        Raises:
            ValueError: accelerate is configured for a way that is not possible here.
        """
        self.accelerator = accelerator
        self.number: int = accelerator.process_index
        self.count: int = accelerator.num_processes
        if self.count != int(os.environ.get("WORLD_SIZE", "1")):
            raise ValueError(f"accelerate sees {self.count} process where {os.environ['WORLD_SIZE']} were started")
        self.sharding = _sharding(accelerator)
        # Spread weights are given back at the end of a pass, which must not be cut off.
        self.whole_forward = self.sharding != "none"
        self._optimiser: Any = None
        if self.sharding == "deepspeed":
            # Otherwise transformers would spread weights as it loads them, before they are known again and merged.
            importlib.import_module("transformers.integrations.deepspeed").unset_hf_deepspeed_config()

    @property
    def loads_to(self) -> str:
        """The device that the whole model is loaded to; weights that are spread go to the GPUs later, in parts."""
        return str(self.accelerator.device) if self.sharding == "none" else "cpu"

    @property
    def has_weights(self) -> bool:
        """Whether this process loads the model's weights; otherwise it gets its part of them from the first one."""
        return self.number == 0 or not self._from_the_first

    @property
    def _from_the_first(self) -> bool:
        return self.sharding == "fsdp" and _switched_on("FSDP_CPU_RAM_EFFICIENT_LOADING")

    def spread(self, model: nn.Module, learning_rate: float, weight_decay: float) -> None:
        """Spread the weights over the processes."""
        if self.sharding == "fsdp":
            _fully_shard(model, self.accelerator.device, self.count, self._from_the_first)
        elif self.sharding == "deepspeed":
            trained = [weight for weight in model.parameters() if weight.requires_grad]
            adamw = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=weight_decay)
            settings = self.accelerator.state.deepspeed_plugin.deepspeed_config
            # DeepSpeed cuts gradients unless told otherwise, and wants to know a batch size for its own reports.
            settings |= {"gradient_clipping": 0.0, "train_micro_batch_size_per_gpu": 1}
            _, self._optimiser = self.accelerator.prepare(model, adamw)

    def optimiser(self, weights: Sequence[nn.Parameter], learning_rate: float, weight_decay: float) -> Any:
        """AdamW, or DeepSpeed's around it."""
        return self._optimiser or torch.optim.AdamW(weights, lr=learning_rate, weight_decay=weight_decay)

    def backward(self, loss: Tensor) -> None:
        """Differentiate this process's part of the loss."""
        if self.sharding == "deepspeed":
            # It gives every weight the mean over processes, not the sum, and steps here, too.
            self.accelerator.backward(loss * self.count)
        else:
            # FSDP takes the mean likewise.
            (loss * self.count if self.sharding == "fsdp" else loss).backward()  # type: ignore[no-untyped-call]

    def total(self, loss: float, weights: Sequence[nn.Parameter]) -> float:
        """The sum of the losses; where every process holds all weights, gradients are added up."""
        if self.sharding == "none":
            for weight in weights:
                # In which order a loss reaches weights, and which, is the same in every process.
                if weight.grad is not None:
                    weight.grad = self.accelerator.reduce(weight.grad, reduction="sum")
        value = torch.tensor(loss, dtype=torch.float64, device=self.accelerator.device)
        return float(self.accelerator.reduce(value, reduction="sum"))

    def whole_weights(self, model: nn.Module) -> dict[str, Tensor]:
        """The weights that were trained, each in one piece, by name, in the main memory; called by all processes."""
        return {name: self._whole(weight) for name, weight in model.named_parameters() if weight.requires_grad}

    def _whole(self, weight: Any) -> Tensor:
        if self.sharding == "deepspeed":
            with importlib.import_module("deepspeed").zero.GatheredParameters([weight]):
                return torch.Tensor(weight.detach()).cpu().clone()
        whole = weight.detach()
        if hasattr(whole, "full_tensor"):
            whole = whole.to(self.accelerator.device).full_tensor()
        return torch.as_tensor(whole).cpu().clone()


def train_together(
    path: Path, label: str, seed: int, processes: Accelerated, report: Callable[[float, int], object] = lambda *_: None
) -> bool:
    """Train one model of a study, whose directory is ``path``; called by all processes, of which the first one writes.

    The first process calls ``report(steps, of how many)`` now and then. Returns whether there was anything to do.

    Raises:
        ValueError: the study has no such model, its recipe cannot be trained so, or as
            :func:`soo_marl.llm.methods.finetuning.finetune`.
        RunDirectoryError: a file cannot be read or written, or another command is at work in the directory.
    """
    directory, config = read_language_study(path)
    _check(config, directory, label, seed, processes.sharding)
    if directory.done(trained_step(label, seed)):
        return False
    with contextlib.nullcontext() if processes.number else directory.locked():
        _train(config, directory, label, seed, processes, (lambda *_: None) if processes.number else report)
    return True


def _train(
    config: LanguageStudyConfig,
    directory: StudyDirectory,
    label: str,
    seed: int,
    processes: Accelerated,
    report: Callable[[float, int], object],
) -> None:
    condition = config.condition(label)
    if processes.has_weights:
        before = model_before(config, directory, seed, processes.loads_to)
    else:
        # Its form alone, which an organism's adapter, merged, does not change.
        before = load_model(config.model, dtype=config.dtype, weights=False)
    # Once weights are spread nobody has all of them.
    base = fingerprint(before.transformer, before.name) if processes.number == 0 else None
    recipe = condition.recipe
    epoch_steps = recipe.steps_per_epoch
    total = recipe.epochs * epoch_steps

    def now_and_then(steps: float) -> None:
        if steps % _EVERY_STEPS == 0 or steps == total:
            report(steps, total)

    model, losses = finetune(before, recipe, condition.method, seed, report=now_and_then, processes=processes)
    weights = processes.whole_weights(model.model)
    if processes.number == 0:
        which = directory, label, seed
        save_adapter(model, adapter_folder(*which), weights=weights, base=base, owner=adapter_owner(*which))
        write_training(*which, TrainingRecord(losses=tuple(losses), steps_per_epoch=epoch_steps))
        mark_trained(*which)


def _check(config: LanguageStudyConfig, directory: StudyDirectory, label: str, seed: int, sharding: Sharding) -> None:
    trained = [one for one in config.models if one[0] not in (BASE, ORGANISM) and config.condition(one[0]).trains]
    if (label, seed) not in trained:
        known = ", ".join(f"{name} {number}" for name, number in trained)
        raise ValueError(f"the study trains no treatment {label} of seed {seed}; it trains {known or 'none'}")
    if config.organism is not None and not organism_done(directory, config.organism_seed(seed)):
        raise ValueError(
            "the organism is not taught yet: give the study's soo-marl llm finetune command with --prepare-only first"
        )
    if config.quantisation != "none" and sharding != "none":
        raise ValueError(
            "4-bit weights are not spread over processes: take ddp.yaml, or a study with quantisation none"
        )
    if config.condition(label).recipe.accumulation > 1 and sharding == "deepspeed":
        raise ValueError("DeepSpeed steps after every backward pass: take fsdp.yaml, or a recipe with accumulation 1")


def _sharding(accelerator: Any) -> Sharding:
    kind = str(getattr(accelerator.distributed_type, "value", accelerator.distributed_type))
    if kind == "DEEPSPEED":
        if accelerator.state.deepspeed_plugin.zero_stage != 3:
            raise ValueError("of DeepSpeed, ZeRO stage 3 alone is supported: take deepspeed_zero3.yaml")
        return "deepspeed"
    # On the CPU accelerate says MULTI_CPU whatever its file says; torch shards there just as well.
    if kind == "FSDP" or _switched_on("ACCELERATE_USE_FSDP"):
        if os.environ.get("FSDP_VERSION", "1") != "2":
            raise ValueError("of FSDP, version 2 alone is supported: take fsdp.yaml")
        return "fsdp"
    if kind in ("NO", "MULTI_GPU", "MULTI_CPU", "MULTI_XPU", "MULTI_NPU"):
        return "none"
    raise ValueError(f"accelerate is configured for {kind}: take one of ddp.yaml, fsdp.yaml, deepspeed_zero3.yaml")


def _switched_on(name: str) -> bool:
    """Whether accelerate set a switch of its configuration file."""
    return os.environ.get(name, "false").lower() in ("1", "true")


def _fully_shard(model: Any, device: torch.device, count: int, from_the_first: bool) -> None:
    """Spread the weights, which lie in the main memory (of the first process alone where they come from there)."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

    offload = _switched_on("FSDP_OFFLOAD_PARAMS")
    options: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (count,)),
        "offload_policy": CPUOffloadPolicy() if offload else OffloadPolicy(),
    }
    weights = model.state_dict() if from_the_first else {}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()} if from_the_first else {}
    if from_the_first:
        _forget_weights(model)
    reshard = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() == "true"
    for layer in decoder_stack(model)[1]:
        fully_shard(layer, reshard_after_forward=reshard, **options)
    fully_shard(model, **options)
    if from_the_first:
        model.to_empty(device=torch.device("cpu") if offload else device)
        model.tie_weights()
        # The other processes name no weights: they take what the first one sends.
        sent = weights if torch.distributed.get_rank() == 0 else {}
        set_model_state_dict(
            model, sent, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, cpu_offload=offload)
        )
        model.tie_weights()
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])


def _forget_weights(model: nn.Module) -> None:
    """Leave a model the shapes of its weights; a weight in two places stays one."""
    shapes: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False, remove_duplicate=False):
            empty = nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=weight.requires_grad)
            setattr(module, name, shapes.setdefault(weight, empty))
