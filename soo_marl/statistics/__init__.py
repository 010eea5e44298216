"""Statistics: intervals that mean 95 %, separation of two kinds of agents, a linear probe. Imports nothing of ours."""

from soo_marl.statistics.intervals import (
    NOT_NEGATIVE,
    RESAMPLES,
    UNBOUNDED,
    Interval,
    Number,
    crossed_share_interval,
    jackknife_interval,
    mean_interval,
    paired_difference,
    rate_interval,
    ratio_interval,
    share_interval,
)
from soo_marl.statistics.probe import LinearProbe, linear_probe
from soo_marl.statistics.separation import (
    ProtocolAccuracy,
    RocPoints,
    Separation,
    auroc,
    auroc_interval,
    published_protocol,
    roc_points,
    separation,
    threshold_rate,
)

__all__ = [
    "NOT_NEGATIVE",
    "RESAMPLES",
    "UNBOUNDED",
    "Interval",
    "LinearProbe",
    "Number",
    "ProtocolAccuracy",
    "RocPoints",
    "Separation",
    "auroc",
    "auroc_interval",
    "crossed_share_interval",
    "jackknife_interval",
    "linear_probe",
    "mean_interval",
    "paired_difference",
    "published_protocol",
    "rate_interval",
    "ratio_interval",
    "roc_points",
    "separation",
    "share_interval",
    "threshold_rate",
]
