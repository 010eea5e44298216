"""A sweep: baseline studies over a grid or random points of their configuration, and what mattered.

On disk a sweep is a directory of kind ``sweep`` with one whole baseline study per point in ``points/<number>/``. The
shards of all points go through one call of the engine, so workers stay busy until the last point.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from soo_marl.engines import Compute, run_shards
from soo_marl.engines.progress import Display
from soo_marl.storage.faults import one_sentence
from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.lock import worker_lock
from soo_marl.storage.records import CONFIG, Record, read_list, write_list, write_one
from soo_marl.storage.study import SILENCE, StudyKind
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.study import RATES, open_study, read_study, summary, train_and_evaluate
from soo_marl.studies.baselines.training import agent_files, train_shard
from soo_marl.studies.learning.recipes import KINDS, BaselineConfig
from soo_marl.studies.learning.records import AgentRecord
from soo_marl.studies.sweep.axes import Axis, Point, make_points, read_axes, value_text
from soo_marl.studies.sweep.importance import axis_records, over_metric
from soo_marl.studies.sweep.records import PointRecord, SeedValues, SweepResult

MEASURES = (*RATES, "return", "competent")
"""What can be measured of an agent."""

BOTH = "both"
"""In the name of a metric: the mean over the kinds of agents."""

DEFAULT_METRICS = ("deceptive/trap_rate", "both/competent")


class SweepConfig(BaseModel):
    """A sweep, resolved: what is trained at which points."""

    model_config = CONFIG

    base: BaselineConfig = Field(description="The study that every point changes.")
    axes: tuple[Axis, ...] = Field(min_length=1, description="What is varied.")
    search_seed: int = Field(ge=0, description="Seed of the random draws.")
    points: tuple[Point, ...] = Field(min_length=1, description="All points, in order.")


@dataclass(frozen=True)
class Metric:
    """What points are compared by: a measure of the agents of one kind, or the mean over both."""

    kind: str
    measure: str

    @property
    def name(self) -> str:
        """Name on the command line and in the results."""
        return f"{self.kind}/{self.measure}"

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of agents that it needs; competence of one kind is judged against the other."""
        return KINDS if self.kind == BOTH or self.measure == "competent" else (self.kind,)

    def of(self, agents: Sequence[AgentRecord]) -> float:
        """The metric over agents of one seed; NaN where one is missing."""
        attribute = "episode_return" if self.measure == "return" else self.measure
        values = [getattr(agent, attribute) for agent in agents if self.kind in (BOTH, agent.kind)]
        return float(np.mean(values)) if values and None not in values else float("nan")


def read_metrics(names: Sequence[str], config: SweepConfig) -> tuple[Metric, ...]:
    """The metrics of these names.

    Raises:
        ValueError: there is none, or no such metric, or some point cannot have it.
    """
    known = {f"{kind}/{measure}": Metric(kind, measure) for kind in (*KINDS, BOTH) for measure in MEASURES}
    if not names:
        raise ValueError("name at least one --metric to compare points by")
    for name in names:
        if name not in known:
            alike = difflib.get_close_matches(name, known, n=1)
            advice = f"did you mean {alike[0]}?" if alike else f"choose KIND/MEASURE, for example {DEFAULT_METRICS[0]}"
            raise ValueError(f"there is no metric {name!r}; {advice}")
    metrics = tuple(known[name] for name in dict.fromkeys(names))
    trained = dict.fromkeys(point.config(config.base).kinds for point in config.points)
    for metric, kinds in itertools.product(metrics, trained):
        missing = [kind for kind in metric.kinds if kind not in kinds]
        if missing:
            raise ValueError(f"the metric {metric.name} needs {missing[0]} agents, which this study does not train")
    return metrics


def sweep_config(
    base: BaselineConfig, grid: Sequence[str] = (), random: Sequence[str] = (), draws: int = 16, search_seed: int = 0
) -> SweepConfig:
    """The sweep that these options describe; the same options always give the same points.

    They are those of :func:`soo_marl.studies.sweep.axes.read_axes` and :func:`soo_marl.studies.sweep.axes.make_points`.

    Raises:
        ValueError, pydantic.ValidationError: an axis makes no sense, or the configuration of a point does not fit.
    """
    axes = read_axes(grid, random, base)
    points = make_points(axes, draws, search_seed)
    for point in points:
        point.config(base)
    return SweepConfig(base=base, axes=axes, search_seed=search_seed, points=points)


SWEEP = StudyKind("sweep", SweepConfig)
read_sweep = SWEEP.read


def open_sweep(path: Path, config: SweepConfig) -> StudyDirectory:
    """Create or resume the directory of a sweep; work in it within ``with directory.locked():``.

    Raises as :meth:`soo_marl.storage.study_directory.StudyDirectory.open`.
    """
    return SWEEP.open(path, config, config.base.seeds)


def train_points(
    config: SweepConfig, directory: StudyDirectory, display: Display, compute: Compute, command: str
) -> dict[int, str]:
    """Train and measure the points that are not finished yet; a point that fails keeps no other from being trained.

    ``command`` is the one that gives these results. Returns by number of a point that failed, why, in a sentence.

    Raises:
        WorkerLostError: no worker can be started.
        KeyboardInterrupt: Ctrl-C, after everything needed to continue was written.
    """
    shards, numbers, updates = [], list[int](), 0
    failed: dict[int, str] = {}
    for point in config.points:
        study = point.config(config.base)
        try:
            opened = open_study(point_path(directory, point), study, compute)
            finished = _finished(opened)
        except (RunDirectoryError, ValueError) as error:
            failed[point.number] = one_sentence(error)
            continue
        if not finished:
            shards += [(study, opened.path, seeds, compute.device, command) for seeds in study.shards]
            numbers += [point.number] * len(study.shards)
            updates += study.updates * len(study.shards)

    def fail(shard: int, error: Exception) -> None:
        failed.setdefault(numbers[shard], one_sentence(error))

    if shards:
        with display.task("training", float(updates), len(shards)) as advance:
            run_shards(train_and_measure_shard, shards, compute, advance, fail)
    return failed


def train_and_measure_shard(
    config: BaselineConfig,
    path: Path,
    seeds: tuple[int, ...],
    device: str,
    command: str,
    *,
    report: Callable[[float], None],
    stop: Callable[[], bool],
) -> None:
    """Train one shard of a point; the last shard of the point measures all its agents.

    Shards that end at the same moment may both do so, to the same result.

    Raises:
        Interrupted: ``stop()`` became true; the checkpoint is written.
        RunDirectoryError: a file cannot be read or written, or the checkpoint is not this shard's.
    """
    train_shard(config, path, seeds, device, report=report, stop=stop)
    directory = StudyDirectory.read(path)
    with worker_lock(path):
        directory.mark_done(_shard_step(seeds), agent_files(config.model_copy(update={"seeds": seeds}), directory))
        if all(directory.done(_shard_step(others)) for others in config.shards):
            directory.mark_done("train", agent_files(config, directory))
            agents = train_and_evaluate(config, directory, SILENCE, Compute(device=device))
            write_list(_summary_file(directory), summary(agents, None, command))


def write_sweep_results(
    config: SweepConfig,
    directory: StudyDirectory,
    metrics: Sequence[Metric],
    command: str,
    failed: Mapping[int, str] | None = None,
) -> SweepResult:
    """Compare the finished points, and write ``results/sweep.json`` and ``results/summary.json``.

    ``metrics`` are what to compare points by, the first before all; ``failed`` is what :func:`train_points` returned.

    Raises:
        RunDirectoryError: a file cannot be written.
    """
    agents, faults = {}, dict(failed or {})
    for point in config.points:
        path = point_path(directory, point)
        try:
            if not path.exists() or point.number in faults:
                continue
            study, found = read_study(path)
            if found != point.config(config.base):
                raise RunDirectoryError(f"{path} holds the study of other settings; delete it to train this point anew")
            if _finished(study):
                agents[point.number] = read_list(path / "results" / "agents.json", AgentRecord)
        except RunDirectoryError as error:
            faults.setdefault(point.number, str(error))
    result = compare_points(config, agents, metrics).model_copy(update={"failed": dict(sorted(faults.items()))})
    write_one(directory.results / "sweep.json", result)
    write_list(directory.results / "summary.json", sweep_summary(result, command))
    return result


def compare_points(config: SweepConfig, agents: dict[int, list[AgentRecord]], metrics: Sequence[Metric]) -> SweepResult:
    """The finished points, with their agents by number, in order of the first metric, and what each axis did."""
    points = [point for point in config.points if point.number in agents]
    of_points, seeds = [agents[point.number] for point in points], config.base.seeds
    values = {metric.name: _values(metric, of_points, seeds) for metric in metrics}
    generator = np.random.default_rng(0)
    found = [
        PointRecord(
            number=point.number,
            values=point.values,
            metrics={
                name: SeedValues(values=tuple(table[row].tolist()), mean=over_metric(name, table[row], generator))
                for name, table in values.items()
            },
            stopped=sum(agent.stopped is not None for agent in of_points[row]),
        )
        for row, point in enumerate(points)
    ]

    def first_metric(record: PointRecord) -> float:
        mean = record.metrics[metrics[0].name].mean.estimate
        return -np.inf if mean is None else mean

    return SweepResult(
        metrics=tuple(values),
        seeds=seeds,
        unfinished=len(config.points) - len(points),
        points=tuple(sorted(found, key=first_metric, reverse=True)),
        axes=tuple(
            record for name, table in values.items() for record in axis_records(config.axes, points, name, table)
        ),
    )


def sweep_summary(result: SweepResult, command: str) -> list[Record]:
    """The headline records: the best point by the first metric, and the share of the variance of each axis."""
    records = []
    for point in result.points[:1]:
        values = ", ".join(f"{field}={value_text(value)}" for field, value in point.values.items())
        text = f"point {point.number}: {values}; the best of {len(result.points)} points, so it flatters"
        for metric, found in point.metrics.items():
            mean, unit = found.mean.model_dump(), "mean over seeds"
            records.append(Record(name=f"best/{metric}", unit=unit, command=command, text=text, **mean))
    for axis in result.axes:
        told = "too few runs to tell" if axis.p_value is None else f"adjusted p-value {axis.p_value:.2g}"
        records.append(
            Record(
                name=f"matters/{axis.metric}/{axis.field}",
                estimate=axis.share,
                n=len(result.points),
                unit="share of variance",
                command=command,
                text=f"{told}; n counts points",
            )
        )
    return records


def point_path(directory: StudyDirectory, point: Point) -> Path:
    """The folder of a point's study."""
    return directory.path / "points" / str(point.number)


def _finished(directory: StudyDirectory) -> bool:
    return directory.done("train") and directory.done("evaluate") and _summary_file(directory).is_file()


def _summary_file(directory: StudyDirectory) -> Path:
    return directory.results / "summary.json"


def _shard_step(seeds: tuple[int, ...]) -> str:
    return f"shards/seeds_{seeds[0]}-{seeds[-1]}"


def _values(metric: Metric, agents: Sequence[Sequence[AgentRecord]], seeds: Sequence[int]) -> NDArray[np.float64]:
    """A metric ``[P, S]`` of the agents of every point, seed by seed."""
    rows = [[metric.of([agent for agent in of_point if agent.seed == seed]) for seed in seeds] for of_point in agents]
    return np.array(rows, dtype=np.float64).reshape(len(agents), len(seeds))
