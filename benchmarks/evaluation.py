"""Self-other overlap evaluation, and the figures and the page of a study."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.cases import Case
from benchmarks.measurements import Measurement, measurement
from benchmarks.settings import Settings
from benchmarks.timing import interleaved
from soo_marl.agents.maddpg import MADDPG
from soo_marl.engines import Compute
from soo_marl.envs.configuration import preset
from soo_marl.report.figures.drawing import draw_figures
from soo_marl.report.page.page import write_report
from soo_marl.report.refresh import refresh
from soo_marl.studies.baselines.classification import ClassificationConfig
from soo_marl.studies.baselines.study import classify, open_study, train_and_evaluate, write_results
from soo_marl.studies.learning.agents_on_disk import agent_spaces
from soo_marl.studies.learning.overlap_values import PAIRINGS, measure_overlap
from soo_marl.studies.learning.recipes import baseline_config, scaled

AGENTS = 5
EPISODES = 500


def cases(quick: bool) -> list[Case]:
    """The evaluation, and the report."""
    return [Case("evaluate", measure_evaluation), Case("report", measure_report)]


def measure_evaluation(settings: Settings) -> list[Measurement]:
    """Self/other pairs through what a classification computes, on untrained agents, the games they play included."""
    game = preset("trackable")
    agents, episodes = (1, 2) if settings.quick else (AGENTS, EPISODES)
    learner = MADDPG(agent_spaces(game), baseline_config().maddpg, range(agents))

    def evaluate() -> float:
        measure_overlap(learner, game, evaluation_seeds=1, episodes=episodes)
        return agents * episodes * game.episode_length * len(PAIRINGS)

    rates = interleaved({"pairs": evaluate}, settings.repeats, settings.seconds)
    remark = (
        f"stack of {agents} agents, {episodes} episodes each; per step and agent one pair of each of {len(PAIRINGS)} "
        "pairings, valued in every form and set of layers"
    )
    return [measurement("evaluate/pairs_per_second", rates["pairs"], "pairs/s", remark)]


class _Silent:
    """Shows nothing."""

    @contextmanager
    def task(self, name: str, total: float, shards: int) -> Iterator[Callable[[int, float], None]]:
        yield lambda shard, units: None


def measure_report(settings: Settings) -> list[Measurement]:
    """Figures and page of a study of a few hardly trained agents."""
    seeds = (0, 1) if settings.quick else tuple(range(10))
    config = baseline_config(seeds=seeds, stages=scaled(baseline_config().stages, 0.001), evaluation_episodes=20)
    classification = ClassificationConfig(evaluation_seeds=2, episodes=(1, 10))
    here = Compute(workers=0)
    with tempfile.TemporaryDirectory(dir=settings.scratch) as folder:
        directory = open_study(Path(folder) / "study", config)
        agents = train_and_evaluate(config, directory, _Silent(), here)
        found = classify(config, directory, agents, classification, _Silent(), here)
        write_results(directory, agents, found, "benchmark")
        refresh(directory.path)

        def figures() -> float:
            draw_figures(directory.path)
            return 1

        def page() -> float:
            write_report(directory.path)
            return 1

        rates = interleaved({"figures": figures, "page": page}, settings.training_repeats, settings.seconds)
    remark = f"a study of {2 * len(seeds)} agents"
    return [measurement(f"report/{name}/seconds", 1.0 / rates[name], "s", remark) for name in ("figures", "page")]
