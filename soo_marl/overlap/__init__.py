"""Self-other overlap: hidden activations in, numbers out.

Knows nothing of reinforcement learning or of language. Record the activations of two forward passes
(:func:`record_activations`), measure how far they lie apart (:func:`overlap`), train them together
(:func:`overlap_loss`), or tell honest from deceptive agents by the measured values (:func:`separation`).
A *lower* value means *more* overlap, and is what an honest agent is expected to show.
"""

from soo_marl.overlap.activations import ActivationRecord, activations_of, record_activations
from soo_marl.overlap.loss import LossForm, Sides, overlap_loss
from soo_marl.overlap.metric import (
    LOG_FLOOR,
    EpisodeSums,
    OverlapForm,
    episode_sums,
    overlap,
    power,
    squared_error,
)
from soo_marl.statistics import separation

__all__ = [
    "LOG_FLOOR",
    "ActivationRecord",
    "EpisodeSums",
    "LossForm",
    "OverlapForm",
    "Sides",
    "activations_of",
    "episode_sums",
    "overlap",
    "overlap_loss",
    "power",
    "record_activations",
    "separation",
    "squared_error",
]
