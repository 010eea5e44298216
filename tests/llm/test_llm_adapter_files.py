"""Adapters on disk: what is damaged, foreign or hostile is refused unread, in one sentence."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("peft")
sys.path.insert(0, str(Path(__file__).parent))
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_models import tiny_language_model

from soo_marl.llm.model.adapters import ADAPTER_WEIGHTS, LoraSettings
from soo_marl.llm.model.models import LanguageModel, add_lora, load_adapter, merged, save_adapter
from soo_marl.storage.files import RunDirectoryError

TOKENS = torch.tensor([[5, 9, 30, 7]])


def trained(model: LanguageModel) -> LanguageModel:
    adapted = add_lora(model, LoraSettings(r=2, dropout=0.0))
    for name, parameter in adapted.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, 0.1)
    return adapted


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "adapter"
    save_adapter(trained(tiny_language_model(layers=2)), folder, owner="mine soo 0")
    return folder


@pytest.fixture
def adapter(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "adapter"))


def base() -> LanguageModel:
    return tiny_language_model(layers=2)


def rewritten(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], Any]:
    """Weights changed by a program that knows nothing of digests."""

    def damage(folder: Path) -> None:
        tensors = load_file(folder / ADAPTER_WEIGHTS)
        change(tensors)
        save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})

    return damage


def edited(**fields: Any) -> Callable[[Path], Any]:
    def damage(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return damage


def without_digest(damage: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """The same to an adapter whose note is that of version 0.1."""

    def both(folder: Path) -> None:
        note = folder / "soo_marl_base_model.json"
        note.write_text(json.dumps(json.loads(note.read_text())["base"]))
        damage(folder)

    return both


def one_bit(folder: Path) -> None:
    file = folder / ADAPTER_WEIGHTS
    content = bytearray(file.read_bytes())
    content[-5] ^= 0x40
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "bit": one_bit,
    "cut": rewritten(lambda tensors: [tensors.pop(name) for name in list(tensors)[1:]]),
    "more": rewritten(lambda tensors: tensors.update(other=torch.ones(1))),
    "nan": rewritten(lambda tensors: next(iter(tensors.values())).fill_(float("nan"))),
    "other numbers": rewritten(lambda tensors: next(iter(tensors.values())).add_(1)),
    "alpha": edited(lora_alpha=100_000),
    "rank": edited(r=4),
    "not there": lambda folder: (folder / ADAPTER_WEIGHTS).unlink(),
    "a link": lambda folder: (
        (folder / ADAPTER_WEIGHTS).rename(folder / "elsewhere"),
        (folder / ADAPTER_WEIGHTS).symlink_to(folder / "elsewhere"),
    ),
    "old, cut": without_digest(rewritten(lambda tensors: [tensors.pop(name) for name in list(tensors)[1:]])),
    "old, nan": without_digest(rewritten(lambda tensors: next(iter(tensors.values())).fill_(float("inf")))),
    "old, rank": without_digest(edited(r=4)),
    "old, kind": without_digest(edited(peft_type="IA3")),
    "old, all of a module": without_digest(edited(modules_to_save=["lm_head"])),
    "old, import": without_digest(edited(auto_mapping={"base_model_class": "C", "parent_library": "antigravity"})),
    "old, pattern": without_digest(edited(alpha_pattern={"q_proj": 1e9})),
    "old, other maths": without_digest(edited(use_rslora=True)),
    "old, no such layer": without_digest(edited(target_modules=["nowhere"])),
    "old, a regular expression": without_digest(edited(target_modules=".*")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_an_adapter_that_is_not_what_was_written_is_refused(adapter: Path, damage: Callable[[Path], Any]) -> None:
    damage(adapter)
    model = base()
    with torch.no_grad():
        before = model.model(TOKENS).logits
    with pytest.raises(RunDirectoryError) as caught:
        load_adapter(model, adapter)
    assert str(adapter) in str(caught.value) and "\n" not in str(caught.value)
    with torch.no_grad():
        assert torch.equal(model.model(TOKENS).logits, before), "the model stays as it was"


def test_a_pickle_in_the_weights_place_is_not_opened(adapter: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (adapter / "adapter_model.bin").write_bytes(f"cos\nsystem\n(S'touch {mark}'\ntR.".encode())
    assert load_adapter(base(), adapter).has_adapter, "what lies beside the weights is no matter"
    (adapter / ADAPTER_WEIGHTS).unlink()
    with pytest.raises(RunDirectoryError, match=r"adapter_model\.safetensors is missing"):
        load_adapter(base(), adapter)
    (adapter / "adapter_model.bin").rename(adapter / ADAPTER_WEIGHTS)
    with pytest.raises(RunDirectoryError, match="not a readable safetensors file") as caught:
        load_adapter(base(), adapter)
    assert not mark.exists() and "weights_only" not in str(caught.value)


def test_an_adapter_of_version_0_1_is_still_read(adapter: Path) -> None:
    without_digest(rewritten(lambda tensors: None))(adapter)
    (adapter / ADAPTER_WEIGHTS).chmod(0o600)
    assert load_adapter(base(), adapter, owner="mine soo 0").has_adapter


def test_an_adapter_of_another_study_is_refused(adapter: Path) -> None:
    assert load_adapter(base(), adapter, owner="mine soo 0").has_adapter
    for other in ("theirs soo 0", "mine soo 1"):
        with pytest.raises(RunDirectoryError, match="belongs to another study or another model"):
            load_adapter(base(), adapter, owner=other)


def test_an_adapter_on_a_merged_model_names_no_model_that_it_does_not_fit(tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    model = tiny_language_model(layers=2)
    model.model.save_pretrained(tmp_path / "model")
    model.model.name_or_path = model.name = str(tmp_path / "model")
    first = trained(model)
    save_adapter(first, tmp_path / "first")
    with torch.no_grad():
        read = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "first")(TOKENS).logits
        torch.testing.assert_close(read, first.model(TOKENS).logits)
    save_adapter(trained(merged(first)), tmp_path / "second")
    with pytest.raises((OSError, ValueError), match="with another adapter merged into it"):
        AutoPeftModelForCausalLM.from_pretrained(tmp_path / "second")
    assert "with another adapter merged into it" in (tmp_path / "second" / "README.md").read_text()


@settings(max_examples=100, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(["adapter_config.json", "soo_marl_base_model.json", ADAPTER_WEIGHTS]),
    key=st.integers(0, 10_000),
    value=st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.lists(st.integers(), max_size=3)
    | st.sampled_from([1e308, -1, 1 << 70, "\ud800", "../x", {"a": {}}, [[]] * 3]),
    at=st.floats(0, 1),
    old=st.booleans(),
)
def test_broken_adapters_are_taken_or_refused_in_one_sentence(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, name: str, key: int, value: Any, at: float, old: bool
) -> None:
    folder = tmp_path_factory.mktemp("fuzz") / "adapter"
    shutil.copytree(whole, folder)
    if old:
        without_digest(lambda _: None)(folder)
    file = folder / name
    if name.endswith(".json"):
        content = json.loads(file.read_text())
        content[sorted(content)[key % len(content)]] = value
        file.write_text(json.dumps(content))
    else:
        content = bytearray(file.read_bytes())
        content[int(at * (len(content) - 1))] ^= 1 << key % 8
        file.write_bytes(content)
    try:
        load_adapter(base(), folder)
    except (RunDirectoryError, ValueError) as error:
        assert str(folder) in str(error) and "\n" not in str(error) and len(str(error)) < 1_000
    shutil.rmtree(folder.parent)
