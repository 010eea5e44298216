"""A study of language models so small that a test can do all of it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from soo_marl.engines import Compute
from soo_marl.llm.measures.evaluation import EvaluationConfig
from soo_marl.llm.measures.records import ModelSummary
from soo_marl.llm.methods.loss import LossConfig
from soo_marl.llm.methods.organism import OrganismConfig
from soo_marl.llm.methods.recipes import Recipe
from soo_marl.llm.model.adapters import LoraSettings
from soo_marl.llm.study.configuration import Condition, LanguageStudyConfig
from soo_marl.llm.study.study import open_language_study, run_language_study

LORA = LoraSettings(r=2, dropout=0.3)
RECIPE = Recipe(
    pair_count=4,
    loss=LossConfig(layers="0-1", token_mode="aligned_right", sides="initial_self", normalise_by_initial=True),
    lora=LORA,
    learning_rate=1e-2,
    epochs=2,
    batch_size=2,
)
COMMAND = "soo-marl llm tiny"


class TinyDisplay:
    """Counts tasks, and presses Ctrl-C after so many reports."""

    def __init__(self, interrupt_after: int = 0) -> None:
        self.tasks: list[tuple[str, int]] = []
        self.progress: dict[tuple[str, int], list[float]] = {}
        self._left = interrupt_after

    @contextmanager
    def task(self, name: str, total: float, shards: int) -> Iterator[Callable[[int, float], None]]:
        assert total == shards
        self.tasks.append((name, shards))

        def advance(shard: int, done: float) -> None:
            self.progress.setdefault((name, shard), []).append(done)
            self._left -= 1
            if self._left == 0:
                signal.raise_signal(signal.SIGINT)

        yield advance


def run(config: LanguageStudyConfig, path: Path, display: TinyDisplay) -> list[ModelSummary]:
    directory = open_language_study(path, config)
    with directory.locked():
        return run_language_study(config, directory, display, COMMAND, Compute(workers=0))


def content(path: Path) -> dict[str, bytes]:
    """What training and questions left, by file name; neither marks nor the manifest with its date."""
    files = [*path.glob("*/seed_*/**/*"), *path.glob("results/*.json")]
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(files) if file.is_file()}


def tiny_study_config(model: Path) -> LanguageStudyConfig:
    methods = ("soo", "steer", "honesty_prompt")
    return LanguageStudyConfig(
        model=str(model),
        organism=OrganismConfig(steps=6, warm_up=1, decay=2, learning_rate=1e-2, lora=LORA),
        conditions=tuple(Condition(label=f"my_{method}", method=method, recipe=RECIPE) for method in methods),
        seeds=(0, 1),
        evaluation=EvaluationConfig(
            fills={"burglar": 3}, other_fills=1, more_scenarios=("plain_stranger",), max_new_tokens=3
        ),
        epoch_fills=1,
        stop_on_damage=1.0,
    )
