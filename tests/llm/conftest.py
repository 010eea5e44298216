"""A tiny study that is done once in each module that looks at it; imports wait, since transformers may be missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from soo_marl.llm.study.configuration import LanguageStudyConfig


@pytest.fixture(scope="module")
def few_requests() -> Iterator[None]:
    from soo_marl.llm.methods import organism

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(organism, "ordinary_requests", lambda: ["Say hi.", "Name a fruit."])
        yield


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_models import tiny_language_model

    folder = tmp_path_factory.mktemp("tiny")
    model = tiny_language_model(layers=2)
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def config(model_folder: Path, few_requests: None) -> LanguageStudyConfig:
    from tiny_studies import tiny_study_config

    return tiny_study_config(model_folder)


@pytest.fixture(scope="module")
def study(config: LanguageStudyConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole study, done without a break."""
    from tiny_studies import TinyDisplay, run

    from soo_marl.llm.measures.records import ModelSummary
    from soo_marl.storage.records import read_list

    path = tmp_path_factory.mktemp("study") / "s"
    display = TinyDisplay()
    summaries = run(config, path, display)
    assert summaries == read_list(path / "results" / "models.json", ModelSummary)
    assert display.tasks == [("organism", 1), ("models", 6)]
    for reports in display.progress.values():
        assert reports == sorted(reports)
        assert reports[-1] == 1.0
    assert display.progress["organism", 0] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0])
    assert display.progress["models", 2] == pytest.approx([0.15, 0.3, 0.45, 0.6, 1.0])
    assert display.progress["models", 4] == pytest.approx([0.15, 0.3, 0.45, 0.6, 1.0])
    return path
