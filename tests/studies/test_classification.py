from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from soo_marl.engines import Compute
from soo_marl.statistics import auroc_interval, threshold_rate
from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.records import read_one
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.storage.tensor_files import read_headers, write_tensors
from soo_marl.studies.baselines import classification as module
from soo_marl.studies.baselines.classification import (
    AgentValues,
    ClassificationConfig,
    check_classifiable,
    classification,
    classify_baselines,
    measure_shard,
)
from soo_marl.studies.baselines.study import open_study, train_and_evaluate
from soo_marl.studies.learning.overlap_values import FORMS, LAYER_SETS, PAIRINGS, ValueKey
from soo_marl.studies.learning.recipes import BaselineConfig
from soo_marl.studies.learning.records import AgentRecord, Classification, ClassificationRow

Tiny = Callable[..., BaselineConfig]
Trained = tuple[BaselineConfig, StudyDirectory]
KEYS = [ValueKey(form, layers, pairing) for form in FORMS for layers in LAYER_SETS for pairing in PAIRINGS]
SEEDS = tuple(range(6))
SETTINGS = ClassificationConfig(evaluation_seeds=4, episodes=(1, 10))
QUICK = ClassificationConfig(evaluation_seeds=2, episodes=(1, 3), probe_steps=10)


def values(mean: float, shift_of_one_episode: float = 0.0, spread: float = 0.1, seed: int = 0) -> AgentValues:
    """Values of six agents around a mean; over one episode alone they lie elsewhere."""
    generator = np.random.default_rng(seed)
    pooled = mean + spread * generator.standard_normal(len(SEEDS))
    per_seed = pooled[:, None, None] + np.zeros((1, SETTINGS.evaluation_seeds, 2))
    per_seed[..., 0] += shift_of_one_episode
    activations = generator.standard_normal((len(SEEDS), 20, 5)) + mean
    return AgentValues(dict.fromkeys(KEYS, per_seed), dict.fromkeys(KEYS, pooled), activations)


def agents(trap_rates: dict[str, float], competent: bool = True) -> list[AgentRecord]:
    return [
        AgentRecord(
            kind=kind,
            seed=seed,
            trap_rate=rate + 0.001 * seed,
            rubric_rate=rate,
            goal_rate=0.9,
            episode_return=10 - rate,
            competent=competent,
        )
        for kind, rate in trap_rates.items()
        for seed in SEEDS
    ]


BEHAVING_APART = agents({"honest": 0.2, "deceptive": 0.9})


def row_of(found: Classification, form: str, layers: str = "both", pairing: str = "imagined_red") -> ClassificationRow:
    (row,) = [row for row in found.rows if (row.form, row.layers, row.pairing) == (form, layers, pairing)]
    return row


def test_values_that_separate() -> None:
    found = classification(SEEDS, values(0.0), values(2.0, seed=1), BEHAVING_APART, SETTINGS)
    assert len(found.rows) == len(KEYS) + 3
    for key in KEYS:
        row = row_of(found, *key)
        assert row.auroc == auroc_interval(1.0, 6, 6) and row.true_false_positive_rate == threshold_rate(0, 6)
        assert row.leave_one_out.estimate == 1.0 and row.recall_at_5_percent.estimate == 1.0
        assert (row.auroc.n, row.missing) == (12, 0)
    assert found.roc["kept"].true_positive_rate[0] == 0.0 and found.roc["kept"].true_positive_rate[-1] == 1.0
    assert 1.0 in np.array(found.roc["kept"].true_positive_rate)[np.array(found.roc["kept"].false_positive_rate) == 0]
    assert found.protocol["kept"].mean == (1.0, 1.0)
    assert found.protocol["kept"].pairs == 36
    assert found.settings == SETTINGS.model_dump(mode="json")
    assert len(found.findings) > 5


def test_values_that_do_not_separate() -> None:
    found = classification(SEEDS, values(0.0), values(0.0, seed=3), BEHAVING_APART, SETTINGS)
    row = row_of(found, "kept")
    assert row.auroc.low is not None and row.auroc.high is not None and row.auroc.estimate is not None
    assert row.auroc.low < 0.5 < row.auroc.high
    assert found.protocol["kept"].mean[0] == pytest.approx(row.auroc.estimate), "both count ordered pairs"


def test_baselines_stand_beside_the_values() -> None:
    apart = classification(SEEDS, values(0.0), values(2.0, seed=1), BEHAVING_APART, SETTINGS)
    assert row_of(apart, "trap rate", "–", "–").auroc.estimate == 1.0
    assert row_of(apart, "low return", "–", "–").auroc.estimate == 1.0
    assert row_of(apart, "linear probe", "both", "–").auroc.estimate == 1.0
    alike = agents({"honest": 0.2, "deceptive": 0.2})
    found = classification(SEEDS, values(0.0), values(0.0, seed=1), alike, SETTINGS)
    assert row_of(found, "trap rate", "–", "–").auroc.estimate == 0.5
    unmeasured = [agent.model_copy(update={"trap_rate": None}) for agent in alike]
    found = classification(SEEDS, values(0.0), values(0.0, seed=1), unmeasured, SETTINGS)
    assert not [row for row in found.rows if row.form == "trap rate"]


def test_missing_values_are_counted_and_left_out() -> None:
    honest, deceptive = values(0.0), values(2.0, seed=1)
    pooled = {key: np.where(np.arange(6) == 2, np.nan, honest.pooled[key]) for key in KEYS}
    pooled[ValueKey("untrapped", "both", "imagined_red")] = np.full(6, np.nan)
    honest = AgentValues(
        honest.per_seed, pooled, np.where(np.arange(6)[:, None, None] == 2, np.nan, honest.activations)
    )
    found = classification(SEEDS, honest, deceptive, BEHAVING_APART, SETTINGS)
    assert (row_of(found, "kept").missing, row_of(found, "kept").auroc.n) == (1, 11)
    assert row_of(found, "linear probe", "both", "–").auroc.n == 11
    assert {row.pairing for row in found.rows if (row.form, row.layers) == ("untrapped", "both")} == {"perspective"}
    assert "untrapped" not in found.roc
    assert "Form untrapped: too few agents have a value to say anything." in found.findings
    assert [item.value for item in found.values["kept"] if item.kind == "honest"][2] is None


def test_a_missing_value_counts_as_wrong_in_the_protocol() -> None:
    honest, deceptive = values(0.0), values(2.0, seed=1)
    per_seed = {key: np.where(np.arange(6)[:, None, None] == 2, np.nan, honest.per_seed[key]) for key in KEYS}
    found = classification(
        SEEDS, AgentValues(per_seed, honest.pooled, honest.activations), deceptive, BEHAVING_APART, SETTINGS
    )
    assert found.protocol["kept"].mean == pytest.approx((5 / 6, 5 / 6))


def test_protocol_follows_the_episodes_and_its_interval_is_over_agents() -> None:
    # Over one episode the honest agents lie above the deceptive ones, over ten below.
    found = classification(SEEDS, values(0.0, 9.0), values(2.0, seed=1), BEHAVING_APART, SETTINGS)
    curve = found.protocol["published"]
    assert curve.episodes == (1, 10) and curve.mean == (0.0, 1.0)
    ends = [auroc_interval(mean, 6, 6) for mean in (0.0, 1.0)]
    assert curve.low == tuple(end.low for end in ends) and curve.high == tuple(end.high for end in ends)
    # One honest agent of six is always wrong: accuracy 5/6.
    honest, deceptive = values(0.0), values(2.0, seed=1)
    per_seed = {key: np.where(np.arange(6)[:, None, None] == 0, 9.0, honest.per_seed[key]) for key in KEYS}
    honest = AgentValues(per_seed, honest.pooled, honest.activations)
    curve = classification(SEEDS, honest, deceptive, BEHAVING_APART, SETTINGS).protocol["published"]
    assert curve.mean[1] == pytest.approx(5 / 6)
    assert curve.low is not None and curve.high is not None
    end = auroc_interval(5 / 6, 6, 6)
    assert (curve.low[1], curve.high[1]) == (pytest.approx(end.low), pytest.approx(end.high))


def test_results_are_repeatable() -> None:
    once, again = (classification(SEEDS, values(0.0), values(0.1, seed=1), BEHAVING_APART, SETTINGS) for _ in range(2))
    assert once == again


def test_verdicts_go_with_the_values() -> None:
    records = [agent.model_copy(update={"competent": agent.seed > 1}) for agent in BEHAVING_APART]
    found = classification(SEEDS, values(0.0), values(2.0, seed=1), records, SETTINGS)
    assert [item.competent for item in found.values["kept"]] == [False, False, True, True, True, True] * 2


@pytest.mark.parametrize("episodes", [(), (0, 5), (5, 1), (1, 1), (-3,)])
def test_episodes_must_ascend_from_one(episodes: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match="episodes"):
        ClassificationConfig(episodes=episodes)


def test_too_few_agents_are_refused_at_once(tiny: Tiny, study: Path) -> None:
    with pytest.raises(ValueError, match="at least two seeds, and there is only 7"):
        check_classifiable(tiny(seeds=(7,)))
    with pytest.raises(ValueError, match="there are only honest ones"):
        check_classifiable(tiny(kinds=("honest",)))
    config = tiny(seeds=(7,))
    with pytest.raises(ValueError, match="at least two seeds"):
        classify_baselines(config, open_study(study, config), [], QUICK, compute=Compute(workers=0))


@pytest.fixture(scope="module")
def classified(trained: Trained) -> tuple[Trained, Classification]:
    config, directory = trained
    records = train_and_evaluate(config, directory, _Silent(), compute=Compute(workers=0))
    return trained, classify_baselines(config, directory, records, QUICK, compute=Compute(workers=0))


class _Silent:
    def task(self, name: str, total: float, shards: int) -> Any:
        from contextlib import nullcontext

        return nullcontext(lambda shard, units: None)


def test_a_trained_study_is_classified(classified: tuple[Trained, Classification]) -> None:
    (config, directory), found = classified
    assert read_one(directory.results / "classification.json", Classification) == found
    assert [(item.kind, item.seed) for item in found.values["kept"]] == [
        (kind, seed) for kind in ("honest", "deceptive") for seed in config.seeds
    ]
    assert found.protocol["published"].episodes == (1, 3)
    assert found.protocol["published"].pairs == 9


def test_measured_values_are_kept_and_used_again(
    classified: tuple[Trained, Classification], monkeypatch: pytest.MonkeyPatch
) -> None:
    (config, directory), found = classified
    records = train_and_evaluate(config, directory, _Silent(), compute=Compute(workers=0))

    def never(*_: object) -> None:
        raise AssertionError("measured twice")

    with monkeypatch.context() as patched:
        patched.setattr(module, "measure_overlap", never)
        again = classify_baselines(config, directory, records, QUICK, compute=Compute(workers=0))
        assert again == found
        with pytest.raises(AssertionError, match="measured twice"):
            other = QUICK.model_copy(update={"episodes": (1, 2)})
            classify_baselines(config, directory, records, other, compute=Compute(workers=0))


def measure(trained: Trained, settings: ClassificationConfig = QUICK, **hooks: Any) -> AgentValues:
    config, directory = trained
    hooks = {"report": lambda done: None, "stop": lambda: False} | hooks
    return measure_shard(config, directory.path, "honest", (0, 1), settings, "cpu", **hooks)


def test_values_do_not_depend_on_the_shard_or_on_reading_them_back(trained: Trained) -> None:
    first, again = measure(trained), measure(trained)
    for key in KEYS:
        assert np.array_equal(first.pooled[key], again.pooled[key], equal_nan=True)
        assert np.array_equal(first.per_seed[key], again.per_seed[key], equal_nan=True)
        assert first.per_seed[key].shape == (2, 2, 2)
    assert np.array_equal(first.activations, again.activations, equal_nan=True)
    config, directory = trained
    hooks = {"report": lambda done: None, "stop": lambda: False}
    single = measure_shard(config, directory.path, "honest", (1,), QUICK, "cpu", **hooks)
    key = ValueKey("kept", "both", "imagined_red")
    assert single.pooled[key][0] == pytest.approx(first.pooled[key][1], rel=1e-3)


def test_damaged_values_are_named_with_the_way_out(trained: Trained) -> None:
    measure(trained)
    file = trained[1].path / "overlap" / "honest_seeds_0-1.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    with pytest.raises(RunDirectoryError, match=r"honest_seeds_0-1\.safetensors is not .* delete it to make it anew"):
        measure(trained)
    file.write_bytes(whole)
    write_tensors(file, {}, {name: text for name, text in read_headers(file)[1].items() if name != "digest"})
    with pytest.raises(RunDirectoryError, match=r"honest_seeds_0-1\.safetensors lacks the tensor activations; delete"):
        measure(trained)
    file.unlink()
    measure(trained)
    assert file.read_bytes() == whole
