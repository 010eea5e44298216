"""A linear probe: can the two kinds of agent be told apart by their activations at all?

The yardstick beside overlap: it may use any direction of the activations, while overlap uses one number.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from soo_marl.statistics.intervals import FloatArray, Interval, share_interval
from soo_marl.statistics.separation import auroc, auroc_interval


class LinearProbe(BaseModel):
    """How well a linear probe recognises agents of training seeds it has not seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    auroc: Interval = Field(description="Area under the ROC curve of the held-out agents' scores.")
    accuracy: Interval = Field(description="Share of held-out agents whose score has the right sign.")
    scores: tuple[float, ...] = Field(description="Held-out score per agent, above 0 meaning deceptive.")


def linear_probe(activations: npt.ArrayLike, labels: npt.ArrayLike, pair_of: npt.ArrayLike) -> LinearProbe:
    """Logistic regression on single steps' activations, tested on agents of held-out training seeds.

    Each fold holds out every agent of one training seed, of both kinds, so that nothing the two share can help. Units
    are standardised on the training agents; steps are weighted so that every kind, and within it every agent, counts
    the same. An agent's score is its mean decision value over its steps. Intervals are over the held-out agents with
    their scores. Scores of different folds share training agents, so with few seeds the intervals are too narrow: hold
    the result against that of shuffled labels.

    Args:
        activations: ``[A, n, units]``, n steps of each of A agents; steps with a NaN are left out.
        labels: ``[A]``, 1 or True for a deceptive agent, 0 or False for an honest one.
        pair_of: ``[A]``, the training seed of each agent.

    Raises:
        ValueError: shapes do not fit, a label is not 0 or 1, an agent has no step without NaN, a kind has fewer than
            two agents, or holding out a seed leaves only one kind.
    """
    steps = np.asarray(activations, dtype=np.float64)
    if steps.ndim != 3:
        raise ValueError(f"activations must be [agents, steps, units], not {steps.shape}")
    kinds, seeds = np.asarray(labels), np.asarray(pair_of)
    if kinds.shape != steps.shape[:1] or seeds.shape != steps.shape[:1]:
        raise ValueError(f"labels and pair_of need one entry for each of the {len(steps)} agents")
    if not np.isin(kinds, (0, 1)).all():
        raise ValueError("labels must be 1 for deceptive and 0 for honest agents")
    deceptive = kinds.astype(bool)
    if min(deceptive.sum(), (~deceptive).sum()) < 2:
        raise ValueError("at least two agents of each kind are needed")
    valid: npt.NDArray[np.bool_] = ~np.any(np.isnan(steps), axis=-1)
    without_step = np.flatnonzero(valid.sum(1) == 0)
    if len(without_step):
        raise ValueError(f"agent {int(without_step[0])} has no step without NaN: leave it out")

    scores = np.empty(len(steps))
    for seed in np.unique(seeds):
        held_out = np.asarray(seeds == seed)
        scores[held_out] = _held_out_scores(steps, valid, deceptive, held_out)

    honest, others = scores[~deceptive], scores[deceptive]
    return LinearProbe(
        auroc=auroc_interval(auroc(honest, others), len(honest), len(others)),
        accuracy=share_interval(int((honest < 0).sum() + (others > 0).sum()), len(scores)),
        scores=tuple(scores.tolist()),
    )


def _held_out_scores(
    steps: FloatArray,
    valid: npt.NDArray[np.bool_],
    deceptive: npt.NDArray[np.bool_],
    held_out: npt.NDArray[np.bool_],
) -> FloatArray:
    from sklearn.linear_model import LogisticRegression  # slow to import, and only needed here
    from sklearn.preprocessing import StandardScaler

    train = ~held_out
    agents_of_kind = np.where(deceptive, (deceptive & train).sum(), (~deceptive & train).sum())
    if agents_of_kind.min() == 0:
        raise ValueError("holding out one training seed must leave agents of both kinds: add seeds")
    agent_of_step = np.nonzero(valid[train])[0]
    rows = steps[train][valid[train]]
    weights = (1 / (agents_of_kind * valid.sum(1)))[train][agent_of_step]
    # Mean 1, so that the regularisation means what it means without weights.
    weights /= weights.mean()
    scaler = StandardScaler().fit(rows, sample_weight=weights)
    model = LogisticRegression(max_iter=1000)
    model.fit(scaler.transform(rows), deceptive[train][agent_of_step], sample_weight=weights)
    scores = [
        model.decision_function(scaler.transform(agent_steps[agent_valid])).mean()
        for agent_steps, agent_valid in zip(steps[held_out], valid[held_out], strict=True)
    ]
    return np.array(scores)
