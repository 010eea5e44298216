"""The tutorial's code runs as it stands."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("peft")
sys.path.insert(0, str(Path(__file__).parent))
from tiny_models import tiny_language_model

import soo_marl.llm.model.models

PAGE = Path(__file__).parents[2] / "docs" / "your_own_language_model.md"


@pytest.mark.slow
def test_the_tutorial_treats_a_model_and_keeps_the_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert code.count("\n") <= 32
    asked: list[str] = []

    def load_model(name: str) -> soo_marl.llm.model.models.LanguageModel:
        asked.append(name)
        return tiny_language_model(layers=22, hidden=16)

    monkeypatch.setattr(soo_marl.llm.model.models, "load_model", load_model)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(PAGE), "exec"), {})
    assert asked == ["smollm2-135m"]
    assert (tmp_path / "runs" / "adapter" / "adapter_model.safetensors").is_file()
    said = capsys.readouterr().out
    assert said.startswith("loss ") and "before:" in said and "after:" in said
