"""The same seeds give the same results, whatever the surroundings: hash seed, threads, locale, workers, stack size."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from soo_marl.agents import MADDPGConfig
from soo_marl.engines import Compute
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.study import open_study
from soo_marl.studies.baselines.training import train_baselines
from soo_marl.studies.learning.agents_on_disk import agent_file
from soo_marl.studies.learning.recipes import BaselineConfig, with_changes

Tiny = Callable[..., BaselineConfig]

STUDY = """
import sys
from contextlib import nullcontext
from pathlib import Path

from soo_marl.studies.baselines import study as baselines
from soo_marl.studies.baselines.classification import ClassificationConfig
from soo_marl.engines import Compute
from soo_marl.studies.learning.recipes import BaselineConfig

class Silence:
    def task(self, name, total, shards):
        return nullcontext(lambda shard, done: None)

def main(study, config, workers):
    config = BaselineConfig.model_validate_json(Path(config).read_text(encoding="utf-8"))
    directory, compute = baselines.open_study(Path(study), config), Compute(workers=int(workers))
    settings = ClassificationConfig(evaluation_seeds=2, episodes=(1, 3), probe_steps=20)
    agents = baselines.train_and_evaluate(config, directory, Silence(), compute)
    found = baselines.classify(config, directory, agents, settings, Silence(), compute)
    baselines.write_results(directory, agents, found, "a command")

if __name__ == "__main__":
    main(*sys.argv[1:])
"""

UNICODE = {"LC_ALL": "C.UTF-8"}
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

SURROUNDINGS: dict[str, tuple[int, dict[str, str]]] = {
    "one": (0, {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1", **UNICODE}),
    "another": (1, {"PYTHONHASHSEED": "2", "OMP_NUM_THREADS": "4", **ASCII}),
    "another hash seed": (0, {"PYTHONHASHSEED": "3", "OMP_NUM_THREADS": "1", **UNICODE}),
    "three threads": (0, {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "3", **UNICODE}),
    "no Unicode": (0, {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1", **ASCII}),
    "two workers": (2, {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1", **UNICODE}),
}
"""By name the number of workers and the environment."""


def whole_study(config: BaselineConfig, study: Path, surroundings: str) -> None:
    """Train, evaluate, classify and report in a process of its own."""
    workers, environment = SURROUNDINGS[surroundings]
    script, settings = study.with_suffix(".py"), study.with_suffix(".json")
    script.write_text(STUDY)
    settings.write_text(config.model_dump_json())
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, str(script), str(study), str(settings), str(workers)]
    subprocess.run(command, env=inherited | environment, check=True)


def content(study: Path) -> dict[str, Any]:
    """All files by name, to the byte; without when they were written, and what was."""
    found: dict[str, Any] = {}
    for path in sorted(study.rglob("*")):
        name = str(path.relative_to(study))
        if path.name == "study.json":
            found[name] = {**json.loads(path.read_bytes()), "created": None}
        elif path.name == "report.html":
            found[name] = path.read_text(encoding="utf-8").replace(
                json.loads((study / "study.json").read_bytes())["created"], ""
            )
        elif "tfevents" in name:
            accumulator = EventAccumulator(str(path))
            accumulator.Reload()
            tags = accumulator.Tags()["scalars"]
            curves = {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags}
            found[f"{path.parent.relative_to(study)}/{path.suffix}"] = curves
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def expected(
    trained: tuple[BaselineConfig, StudyDirectory], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    study = tmp_path_factory.mktemp("expected") / "study"
    whole_study(trained[0], study, "one")
    return content(study)


@pytest.mark.parametrize(
    "surroundings",
    [name if name == "another" else pytest.param(name, marks=pytest.mark.slow) for name in SURROUNDINGS],
)
def test_surroundings_do_not_matter(
    surroundings: str, trained: tuple[BaselineConfig, StudyDirectory], expected: dict[str, Any], study: Path
) -> None:
    whole_study(trained[0], study, surroundings)
    found = content(study)
    assert found.keys() == expected.keys()
    assert not [name for name in expected if found[name] != expected[name]]


def test_the_size_of_the_stack_matters_by_rounding_alone(tiny: Tiny, tmp_path: Path) -> None:
    """Rounding grows with the updates, since learning is chaotic; this is what ten updates per stage make of it."""
    config = with_changes(
        tiny(seeds=(0, 1, 2), maddpg=MADDPGConfig(contexts=2, reward_scale=0.1)),
        [
            f"stages.{stage}.training.{change}"
            for stage in range(3)
            for change in ("updates=10", "batch_size=256", "warm_up=300")
        ],
    )
    networks = {}
    for size in (1, 2, 3):
        directory = open_study(tmp_path / str(size), config.model_copy(update={"seeds_per_shard": size}))
        train_baselines(config.model_copy(update={"seeds_per_shard": size}), directory, compute=Compute(workers=0))
        networks[size] = {
            (condition, seed): load_file(agent_file(directory, condition, seed))
            for condition in ("red", "honest", "deceptive")
            for seed in config.seeds
        }
    for size in (1, 2):
        for run, expected in networks[3].items():
            for name, weights in expected.items():
                torch.testing.assert_close(networks[size][run][name], weights, rtol=0, atol=1e-5)
