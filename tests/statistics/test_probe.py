import numpy as np
import pytest

from soo_marl.statistics import linear_probe

SEEDS = 8
LABELS = np.repeat([0, 1], SEEDS)
PAIR_OF = np.tile(np.arange(SEEDS), 2)


def noise(seed: int, units: int = 6, steps: int = 30) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2 * SEEDS, steps, units))


def probe(activations: np.ndarray, labels: np.ndarray = LABELS, pair_of: np.ndarray = PAIR_OF):  # type: ignore[no-untyped-def]
    return linear_probe(activations, labels, pair_of)


def test_finds_a_direction_that_parts_the_kinds() -> None:
    activations = noise(0)
    activations[LABELS == 1, :, 2] += 2
    result = probe(activations)
    assert result.auroc.estimate == 1
    assert result.accuracy.estimate == 1
    assert result.auroc.n == 2 * SEEDS
    assert all((score > 0) == bool(label) for score, label in zip(result.scores, LABELS, strict=True))


def test_finds_nothing_in_noise() -> None:
    result = probe(noise(1))
    assert result.auroc.low < 0.5 < result.auroc.high


def test_cannot_use_what_only_marks_an_agent() -> None:
    # Every agent has a mark of its own, on which a probe that saw other steps of it would recognise it perfectly.
    found = []
    for seed in range(12):
        marks = 10 * np.random.default_rng(100 + seed).normal(size=(2 * SEEDS, 1, 40))
        found.append(probe(noise(seed, units=40, steps=4) + marks).auroc.estimate)
    assert 0.3 < np.mean(found) < 0.7


def test_cannot_use_what_only_marks_a_training_seed() -> None:
    # The mark is the seed's and its sign the kind's: the other agent of the seed would give it away.
    marks = 10 * np.eye(SEEDS)[PAIR_OF] * np.where(LABELS == 1, 1, -1)[:, None]
    found = [probe(noise(seed, units=SEEDS, steps=4) + marks[:, None, :]).auroc.estimate for seed in range(12)]
    assert np.mean(found) < 0.7


def test_missing_steps_are_left_out_and_agents_count_the_same() -> None:
    activations = noise(4)
    activations[LABELS == 1, :, 2] += 2
    activations[0, 3:] = np.nan
    activations[9, ::2, 1] = np.nan
    assert probe(activations).accuracy.estimate == 1
    activations[5] = np.nan
    with pytest.raises(ValueError, match="agent 5 has no step"):
        probe(activations)


def test_scale_of_the_units_does_not_matter() -> None:
    activations = noise(5)
    activations[LABELS == 1, :, 2] += 0.3
    scaled = activations * np.array([1e-4, 1, 1e4, 10, 1, 1]) + 100
    np.testing.assert_allclose(probe(activations).scores, probe(scaled).scores, atol=1e-3)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="agents, steps, units"):
        probe(noise(0)[:, 0])
    with pytest.raises(ValueError, match="one entry for each"):
        probe(noise(0), LABELS[:-1])
    with pytest.raises(ValueError, match="1 for deceptive"):
        probe(noise(0), LABELS + 1)
    with pytest.raises(ValueError, match="two agents of each kind"):
        probe(noise(0), np.zeros(2 * SEEDS))
    with pytest.raises(ValueError, match="both kinds"):
        probe(noise(0), LABELS, np.where(LABELS == 1, 0, PAIR_OF))
