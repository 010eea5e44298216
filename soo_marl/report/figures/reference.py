"""The picture that holds our MADDPG against published curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from soo_marl.report.figures.baselines import in_own_style
from soo_marl.studies.baselines.reference_curves import ReferenceCurve

_COLOURS = {"good": "#0072B2", "adversary": "#D55E00"}


@in_own_style
def reference_figure(curves: Sequence[ReferenceCurve], published: Mapping[str, float]) -> Figure:
    """One panel per dialect: training return per episode, each seed thin, their mean thick, published ends dashed.

    Args:
        curves: one curve per dialect.
        published: published mean returns of the ``openai`` dialect by team.

    Raises:
        ValueError: there is no curve to draw.
    """
    if not curves:
        raise ValueError("there is no curve to draw: train one first")
    figure = Figure(figsize=(5.2 * len(curves), 3.8), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for panel, curve in zip(panels, curves, strict=True):
        thousands = curve.episodes / 1_000
        for team, returns in (("good", curve.good), ("adversary", curve.adversary)):
            for seed_returns in returns:
                panel.plot(thousands, seed_returns, color=_COLOURS[team], linewidth=0.5, alpha=0.5)
            panel.plot(
                thousands,
                returns.mean(axis=0),
                color=_COLOURS[team],
                linewidth=2,
                label=f"{team}, mean of {len(returns)}",
            )
            if curve.dialect == "openai":
                panel.axhline(
                    published[team], color=_COLOURS[team], linestyle="--", linewidth=1, label=f"{team}, published end"
                )
        # The first window is far below all others and would flatten the picture.
        first = min(1, len(curve.episodes) - 1)
        settled = np.concatenate([returns[:, first:].ravel() for returns in (curve.good, curve.adversary)])
        panel.set_ylim(float(settled.min()) - 1.5, float(settled.max()) + 1.5)
        panel.set_title(f"simple_adversary, {curve.dialect} dialect")
        panel.set_xlabel("thousand episodes")
        panel.set_ylabel("return per training episode")
        panel.grid(alpha=0.25)
        panel.legend(fontsize=8, loc="center right")
    return figure
