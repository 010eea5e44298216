"""Measure how often each interval of the package holds the true value, and print the table.

Run it from the repository root: python -m benchmarks.interval_coverage
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tyro
from numpy.typing import NDArray
from scipy import stats

from soo_marl.statistics import (
    auroc,
    auroc_interval,
    crossed_share_interval,
    jackknife_interval,
    mean_interval,
    paired_difference,
    rate_interval,
    ratio_interval,
    share_interval,
    threshold_rate,
)

Array = NDArray[np.float64]
Ends = tuple[float | None, float | None]
Trial = Callable[[np.random.Generator, int], tuple[Ends, float]]
"""Draws a sample of n units, and returns the ends of its interval and the true value."""

SIZES = (3, 5, 10, 20)

_FAILS, _WORKS = 0.2, 60 / 61.2


@dataclass(frozen=True)
class Case:
    """What is drawn, and the interval of what is tried on it."""

    quantity: str
    method: str
    trial: Trial


def _normal(generator: np.random.Generator, n: int) -> Array:
    return generator.normal(0.5, 0.1, n)


def _skewed(generator: np.random.Generator, n: int) -> Array:
    return generator.lognormal(0.0, 1.0, n)


def _alike(generator: np.random.Generator, n: int) -> Array:
    return np.clip(generator.normal(0.22, 0.03, n), 0, 1)


def _failing(share: float) -> Callable[[np.random.Generator, int], Array]:
    """Trap rates near 1, and around .2 of seeds that fail."""

    def draw(generator: np.random.Generator, n: int) -> Array:
        works = generator.beta(60, 1.2, n)
        return np.where(generator.random(n) < share, generator.beta(2, 8, n), works)

    return draw


def _binary(share: float) -> Callable[[np.random.Generator, int], Array]:
    return lambda generator, n: (generator.random(n) < share).astype(np.float64)


def _of_rates(draw: Callable[[np.random.Generator, int], Array], mean: float) -> Trial:
    def trial(generator: np.random.Generator, n: int) -> tuple[Ends, float]:
        found = rate_interval(draw(generator, n), generator)
        return (found.low, found.high), mean

    return trial


def _of_means(draw: Callable[[np.random.Generator, int], Array], mean: float) -> Trial:
    def trial(generator: np.random.Generator, n: int) -> tuple[Ends, float]:
        found = mean_interval(draw(generator, n))
        return (found.low, found.high), mean

    return trial


def _bca(draw: Callable[[np.random.Generator, int], Array], mean: float) -> Trial:
    """What a bootstrap would give, for comparison."""

    def trial(generator: np.random.Generator, n: int) -> tuple[Ends, float]:
        sample = draw(generator, n)
        if np.ptp(sample) == 0:
            return (sample[0], sample[0]), mean
        found = stats.bootstrap((sample,), np.mean, n_resamples=999, method="BCa", rng=generator).confidence_interval
        return (found.low, found.high), mean

    return trial


def _share(share: float) -> Trial:
    def trial(generator: np.random.Generator, n: int) -> tuple[Ends, float]:
        found = share_interval(int(generator.binomial(n, share)), n)
        return (found.low, found.high), share

    return trial


def _auroc(area: float) -> Trial:
    shift = math.inf if area == 1 else math.sqrt(2) * stats.norm.ppf(area)

    def trial(generator: np.random.Generator, n: int) -> tuple[Ends, float]:
        honest, deceptive = generator.normal(size=n), generator.normal(size=n)
        found = auroc_interval(auroc(honest, deceptive + min(shift, 100.0)), n, n)
        return (found.low, found.high), area

    return trial


def _paired(generator: np.random.Generator, n: int) -> tuple[Ends, float]:
    seed = generator.normal(0, 1, n)
    found = paired_difference(seed + generator.normal(0.2, 0.3, n), seed + generator.normal(0, 0.3, n))
    return (found.low, found.high), 0.2


def _ratio(generator: np.random.Generator, n: int) -> tuple[Ends, float]:
    """Sensitivity of deceptive agents as a fraction of honest ones', which spread by a fifth."""
    found = ratio_interval(generator.normal(1.15, 0.04, n), generator.normal(0.16, 0.032, n))
    return (found.low, found.high), 1.15 / 0.16


def _relative_difference(generator: np.random.Generator, n: int) -> tuple[Ends, float]:
    """Squared error to the honest mean as a fraction of the deceptive agents', profiles of thirty cells."""
    shape = np.linspace(0.2, 1, 30)
    size = np.exp(generator.normal(0, 0.3, (2, n, 1)))
    treated = 0.4 * shape * size[0] + 0.1 * generator.normal(size=(n, 30))
    deceptive = shape * size[1] + 0.1 * generator.normal(size=(n, 30))
    honest = 0.05 * generator.normal(size=(n, 30))

    def statistic(*weights: Array) -> Array:
        centre = weights[1] @ honest
        errors = [
            (each * np.square(group - centre[:, None]).mean(-1)).sum(-1)
            for each, group in ((weights[0], treated), (weights[2], deceptive))
        ]
        return np.asarray(errors[0] / errors[1])

    squares = math.exp(2 * 0.09) * float(np.square(shape).mean())
    return jackknife_interval(statistic, (n, n, n), logarithm=True), (0.16 * squares + 0.01) / (squares + 0.01)


def _crossed(logit: float, seeds: float, prompts: float, fails: float = 0.0) -> Trial:
    """n seeds answer fifty prompts; logits vary with both, and in a seed that fails they turn round."""
    draws = logit + math.hypot(seeds, prompts) * np.random.default_rng(0).normal(size=400_000)
    works = float((1 / (1 + np.exp(-draws))).mean())
    mean = (1 - fails) * works + fails * (1 - works)

    def trial(generator: np.random.Generator, n: int) -> tuple[Ends, float]:
        logits = logit + generator.normal(0, seeds, (n, 1)) + generator.normal(0, prompts, (1, 50))
        logits = np.where(generator.random((n, 1)) < fails, -logits, logits)
        hits = (generator.random((n, 50)) < 1 / (1 + np.exp(-logits))).astype(np.float64)
        return crossed_share_interval(hits, np.ones_like(hits)), mean

    return trial


def _threshold(generator: np.random.Generator, n: int) -> tuple[Ends, float]:
    found = threshold_rate(math.floor(0.05 * n + 1e-9), n)
    honest = np.sort(generator.normal(size=n))
    return (found.low, found.high), float(stats.norm.sf(honest[-1 - math.floor(0.05 * n + 1e-9)]))


def cases() -> Iterator[Case]:
    """Every method on the quantities that it is used for."""
    mixtures = [(share, _WORKS + share * (_FAILS - _WORKS)) for share in (0.05, 0.1, 0.2)]
    for name, method in (("t", _of_means), ("BCa, not used", _bca)):
        yield Case("normal", name, method(_normal, 0.5))
        yield Case("skewed (log-normal)", name, method(_skewed, math.exp(0.5)))
    for name, method in (("unseen seed", _of_rates), ("t, not used", _of_means), ("BCa, not used", _bca)):
        yield Case("rate, seeds alike (.22, deviation .03)", name, method(_alike, 0.22))
        yield Case("rate, near 1", name, method(_failing(0.0), _WORKS))
        for share, mean in mixtures:
            yield Case(f"rate, {share:.0%} of seeds fail", name, method(_failing(share), mean))
    for share in (0.5, 0.9, 0.98):
        yield Case(f"share of agents, {share:g}", "Wilson", _share(share))
        yield Case(f"share of agents, {share:g}", "unseen seed", _of_rates(_binary(share), share))
    for area in (0.5, 0.8, 0.95, 0.99, 1.0):
        yield Case(f"AUROC {area:g}, n and n agents", "Newcombe 5", _auroc(area))
    yield Case("false-positive rate of a threshold", "beta", _threshold)
    yield Case("paired difference", "t", _paired)
    yield Case("fraction of the honest mean", "Fieller", _ratio)
    yield Case("relative difference of profiles", "jackknife", _relative_difference)
    for name, trial in (
        ("share .5, n seeds × 50 prompts", _crossed(0, 1, 1)),
        ("share .9, n seeds × 50 prompts", _crossed(2.6, 0.7, 1)),
        ("share .98, n seeds × 50 prompts", _crossed(4.3, 0.5, 0.7)),
        ("the same, 10% of seeds fail", _crossed(4.3, 0.5, 0.7, 0.1)),
    ):
        yield Case(name, "jackknife, Wilson", trial)


def table(trials: int, seed: int) -> Iterator[str]:
    """Lines of the table, in Markdown: share of trials whose interval holds the true value, and its mean width.

    Trials without an interval are left out.
    """
    yield "| quantity | method | " + " | ".join(f"n = {n}" for n in SIZES) + " |"
    yield "|---|---|" + "---|" * len(SIZES)
    for case in cases():
        generator, cells = np.random.default_rng(seed), []
        for n in SIZES:
            held, widths = [], []
            for _ in range(trials):
                (low, high), truth = case.trial(generator, n)
                if low is not None and high is not None and not math.isnan(low):
                    held.append(low - 1e-9 <= truth <= high + 1e-9)
                    widths.append(high - low)
            cells.append(f"{np.mean(held):.2f} ({np.mean(widths):.2f})" if held else "–")
        yield f"| {case.quantity} | {case.method} | " + " | ".join(cells) + " |"


@dataclass(frozen=True)
class Coverage:
    """Coverage of every interval that the package gives."""

    trials: int = 1000
    """Samples per cell; a coverage of 0.95 is then known to 0.01."""
    seed: int = 0
    """Seed of the samples."""


def main(arguments: Sequence[str]) -> int:
    """Print the table and return the exit status."""
    settings = tyro.cli(Coverage, args=arguments, prog="python -m benchmarks.interval_coverage", description=__doc__)
    for line in table(settings.trials, settings.seed):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
