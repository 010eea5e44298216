"""One adapter trained by several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("accelerate")

sys.path.insert(0, str(Path(__file__).parent))

import accelerate
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from tiny_models import tiny_language_model, tiny_tokenizer
from tiny_treatments import CONDITIONS, SOO, assert_close, recipe, study, weights_of

from soo_marl.cli import main
from soo_marl.llm.methods.finetuning import finetune
from soo_marl.llm.methods.optimisation import Alone
from soo_marl.llm.methods.organism import OrganismConfig
from soo_marl.llm.model.adapters import LoraSettings
from soo_marl.llm.model.chat import encode
from soo_marl.llm.model.layers import layer_outputs
from soo_marl.llm.model.models import load_model, save_adapter
from soo_marl.llm.study.configuration import ORGANISM, LanguageStudyConfig
from soo_marl.llm.study.distributed import Accelerated, configuration_file, launch_line, train_together
from soo_marl.llm.study.models_on_disk import (
    ADAPTER_WEIGHTS,
    adapter_folder,
    load_study_model,
    model_before,
    organism_done,
    read_training,
)
from soo_marl.llm.study.presets import treatment_study
from soo_marl.llm.study.shard import model_shard
from soo_marl.llm.study.study import read_language_study


class Recorder(Alone):
    """One of several processes, which only notes what it would give to the sum."""

    def __init__(self, number: int, count: int) -> None:
        self.number, self.count = number, count  # type: ignore[misc]
        self.losses: list[float] = []
        self.gradients: list[list[Tensor]] = []

    def total(self, loss: float, weights: Any) -> float:
        self.losses.append(loss)
        self.gradients.append([torch.zeros(()) if one.grad is None else one.grad.clone() for one in weights])
        return loss


@pytest.mark.parametrize(("label", "count"), [*((label, 2) for label in CONDITIONS), ("soo", 3)])
def test_the_shares_of_a_step_add_up_to_the_whole(label: str, count: int) -> None:
    method, fields = CONDITIONS[label]
    chosen = recipe(**fields | {"epochs": 1})

    def recorded(number: int, count: int) -> Recorder:
        recorder = Recorder(number, count)
        finetune(tiny_language_model(), chosen, method, 0, processes=recorder)
        return recorder

    whole, parts = recorded(0, 1), [recorded(number, count) for number in range(count)]
    assert sum(part.losses[0] for part in parts) == pytest.approx(whole.losses[0], rel=1e-5)
    for expected, *found in zip(whole.gradients[0], *(part.gradients[0] for part in parts), strict=True):
        rounding = 1e-6 * max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(torch.stack(found).sum(0), expected, rtol=1e-4, atol=rounding)
    assert any(gradient.abs().max() > 1e-3 for gradient in whole.gradients[0])
    # The last step of five pairs has one, and all processes take part in it.
    if fields.get("batch_size", 4) == 4:
        assert [len(part.losses) for part in parts] == [2] * count
        assert parts[1].losses[1] == 0


def test_processes_drop_other_inputs() -> None:
    chosen = recipe({"token_mode": "last"}, epochs=1)
    chosen = chosen.model_copy(update={"lora": LoraSettings(r=2, dropout=0.5)})
    drawn = []
    for number in range(2):

        class Drawing(Alone):
            def backward(self, loss: Tensor) -> None:
                drawn.append(torch.rand(()))
                super().backward(loss)

        processes = Drawing()
        processes.number = number
        finetune(tiny_language_model(), chosen, "soo", 0, processes=processes)
    assert drawn[0] != drawn[2]


@pytest.mark.parametrize(("file", "kind"), [("ddp", "MULTI_GPU"), ("fsdp", "FSDP"), ("deepspeed_zero3", "DEEPSPEED")])
def test_accelerate_reads_the_configuration_files(file: str, kind: str) -> None:
    found = load_config_from_file(str(configuration_file(file)))
    assert (found.distributed_type.value, found.mixed_precision, found.num_processes) == (kind, "no", 2)
    if kind == "FSDP":
        assert found.fsdp_config["fsdp_version"] == 2
    if kind == "DEEPSPEED":
        assert found.deepspeed_config["zero_stage"] == 3


def test_one_process_leaves_what_the_study_itself_would(tmp_path: Path) -> None:
    directory, config = read_language_study(study(tmp_path, "study"))
    processes = Accelerated(accelerate.Accelerator(cpu=True))
    assert (processes.count, processes.sharding) == (1, "none")
    assert train_together(directory.path, "frozen", 0, processes)
    expected, losses = finetune(load_model(config.model), recipe(**CONDITIONS["frozen"][1]), "soo", 0)
    found = load_study_model(config, directory, "frozen", 0)
    assert_close(weights_of(found), weights_of(expected))
    record = read_training(directory, "frozen", 0)
    assert record.losses == pytest.approx(losses, rel=1e-5)
    assert (record.steps_per_epoch, record.epochs, record.stopped) == (2, (), None)
    assert not train_together(directory.path, "frozen", 0, processes)


class FSDPModule:
    """By its name, what FSDP makes of a module whose weights it spreads."""


@pytest.mark.parametrize("spread", [True, False])
def test_the_backward_pass_begins_behind_a_layer_whose_weights_are_spread(spread: bool) -> None:
    model = tiny_language_model().model
    names = [f"model.layers.{number}.self_attn.o_proj" for number in (1, 2)]
    batch = encode(tiny_tokenizer(), ["You hide the coin."])
    with torch.no_grad():
        expected = layer_outputs(model, names, batch, stop_early=False)
    if spread:
        for layer in model.model.layers:
            layer.__class__ = type("Spread", (FSDPModule, type(layer)), {})
    seen: list[tuple[int, Tensor]] = []

    def watch(number: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            output.register_hook(lambda gradient: seen.append((number, gradient)))

        return hook

    for number, layer in enumerate(model.model.layers):
        layer.register_forward_hook(watch(number))
    found = layer_outputs(model, names, batch, stop_early=False)
    assert list(found) == names
    assert all(torch.equal(found[name], expected[name]) for name in names)
    found[names[-1]].square().sum().backward()
    assert [number for number, _ in seen] == ([2, 1, 0] if spread else [1, 0])
    assert not spread or not seen[0][1].any()


def test_a_model_without_weights_has_the_shape_of_the_real_one(tmp_path: Path) -> None:
    study(tmp_path, "study")
    empty, real = (load_model(str(tmp_path / "model"), dtype="bfloat16", weights=weights) for weights in (False, True))
    shapes = [
        {name: (weight.shape, weight.dtype) for name, weight in one.model.named_parameters()} for one in (empty, real)
    ]
    assert shapes[0] == shapes[1]
    assert all(weight.is_meta for weight in empty.model.parameters())
    buffers = dict(real.model.named_buffers())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in empty.model.named_buffers())


def test_preparing_writes_the_study_and_says_what_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study(tmp_path, "other")
    given = ["llm", "finetune", "--model", str(tmp_path / "model"), "--no-organism", "--output", str(tmp_path / "new")]
    given += ["--layers", "1-2"]
    assert main([*given, "--methods", "sham", "soo", "--seeds", "4", "--prepare-only"]) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert f"-m soo_marl.commands.distributed {tmp_path / 'new'} --label sham --seed 4" in said
    _, config = read_language_study(tmp_path / "new")
    assert config.models == (("base", 0), ("sham", 4), ("soo", 4))
    assert "fsdp.yaml" in said
    assert "ddp.yaml" in launch_line(tmp_path, config.model_copy(update={"quantisation": "4bit"}))
    assert not (tmp_path / "new" / "sham").exists()
    assert main([*given, "--methods", "steer", "--prepare-only"]) == 2
    assert "none of the methods trains anything" in " ".join(capsys.readouterr().err.split())


def test_preparing_teaches_the_organism(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def briefly(*given: Any, **named: Any) -> LanguageStudyConfig:
        return treatment_study(*given, **named).model_copy(update={"organism": OrganismConfig(steps=1)})

    monkeypatch.setattr("soo_marl.commands.llm.treatment_study", briefly)
    study(tmp_path, "other")
    given = ["llm", "finetune", "--model", str(tmp_path / "model"), "--output", str(tmp_path / "new")]
    given += ["--layers", "1-2", "--prepare-only", "--workers", "0"]
    assert main(given) == 0
    assert "--label soo --seed 0" in capsys.readouterr().out
    directory, _ = read_language_study(tmp_path / "new")
    assert organism_done(directory, 0)
    assert not (tmp_path / "new" / "soo").exists()


class Fake:
    """What accelerate says of itself."""

    def __init__(self, kind: str = "MULTI_GPU", stage: int = 3) -> None:
        self.process_index, self.num_processes, self.distributed_type = 0, 1, kind
        self.device = torch.device("cpu")
        self.state = type("State", (), {"deepspeed_plugin": type("Plugin", (), {"zero_stage": stage})})


@pytest.mark.parametrize(
    ("kind", "stage", "environment", "message"),
    [
        ("FSDP", 3, {}, "version 2 alone is supported: take fsdp.yaml"),
        ("DEEPSPEED", 2, {}, "ZeRO stage 3 alone is supported: take deepspeed_zero3.yaml"),
        ("MEGATRON_LM", 3, {}, "take one of ddp.yaml, fsdp.yaml, deepspeed_zero3.yaml"),
        ("MULTI_GPU", 3, {"WORLD_SIZE": "4"}, "accelerate sees 1 process where 4 were started"),
    ],
)
def test_other_ways_to_spread_are_refused(
    kind: str, stage: int, environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        Accelerated(Fake(kind, stage))


def test_models_that_cannot_be_trained_so_are_refused(tmp_path: Path) -> None:
    alone, spread = Accelerated(Fake()), Accelerated(Fake("DEEPSPEED"))
    path = study(tmp_path, "study")
    with pytest.raises(ValueError, match="trains no treatment soo of seed 3; it trains soo 0, frozen 0"):
        train_together(path, "soo", 3, alone)
    with pytest.raises(ValueError, match="trains no treatment base of seed 0"):
        train_together(path, "base", 0, alone)
    with pytest.raises(ValueError, match=r"take fsdp.yaml, or a recipe with accumulation 1"):
        train_together(path, "frozen", 0, spread)
    with pytest.raises(ValueError, match="the organism is not taught yet: give the study's"):
        train_together(study(tmp_path, "taught", organism=OrganismConfig()), "soo", 0, alone)
    with pytest.raises(ValueError, match=r"4-bit weights are not spread over processes: take ddp.yaml"):
        train_together(study(tmp_path, "small", quantisation="4bit"), "soo", 0, spread)


def launched(config: str, path: Path, label: str) -> subprocess.CompletedProcess[str]:
    """What two processes on the CPU did."""
    options = ["--config_file", str(configuration_file(config)), "--num_processes", "2", "--main_process_port", "0"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", *options, "-m", "soo_marl.commands.distributed"]
    return subprocess.run(
        [*launch, str(path), "--label", label, "--seed", "0"],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "label"), [("ddp", "frozen"), ("ddp", "columns"), *(("fsdp", label) for label in CONDITIONS)]
)
def test_two_processes_train_the_adapter_of_one(config: str, label: str, tmp_path: Path) -> None:
    directory, settings = read_language_study(study(tmp_path, "study"))
    done = launched(config, directory.path, label)
    assert done.returncode == 0, done.stderr
    assert f"Trained: {label} of seed 0" in done.stdout
    method, fields = CONDITIONS[label]
    expected, losses = finetune(load_model(settings.model), recipe(**fields), method, 0)
    save_adapter(expected, tmp_path / "alone")
    folder = adapter_folder(directory, label, 0)
    assert {file.name for file in folder.iterdir()} == {file.name for file in (tmp_path / "alone").iterdir()}
    assert_close(*(load_file(place / "adapter_model.safetensors") for place in (folder, tmp_path / "alone")))
    assert max(weight.abs().max().item() for name, weight in weights_of(expected).items() if "lora_B" in name) > 1e-2
    notes = [json.loads((place / "soo_marl_base_model.json").read_text()) for place in (folder, tmp_path / "alone")]
    assert notes[0] == notes[1]
    assert read_training(directory, label, 0).losses == pytest.approx(losses, rel=1e-4)


@pytest.mark.slow
def test_a_treatment_starts_from_the_organism_and_the_study_goes_on_from_there(tmp_path: Path) -> None:
    path = study(tmp_path, "study", organism=OrganismConfig(steps=2), conditions=[SOO])
    directory, config = read_language_study(path)
    model_shard(config, ORGANISM, 0, path, "cpu", report=lambda done: None, stop=lambda: False)
    done = launched("fsdp", path, "soo")
    assert done.returncode == 0, done.stderr
    expected, _ = finetune(model_before(config, directory, 0), SOO.recipe, "soo", 0)
    weights = adapter_folder(directory, "soo", 0) / ADAPTER_WEIGHTS
    trained = weights.read_bytes()
    assert_close(weights_of(load_study_model(config, directory, "soo", 0)), weights_of(expected))
    model_shard(config, "soo", 0, path, "cpu", report=lambda done: None, stop=lambda: False)
    assert weights.read_bytes() == trained
    assert directory.done("models/soo/0")
