"""Labels at points of a panel, moved so that they hide neither one another nor the points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray

from soo_marl.report.figures.style import INK

_DISTANCES = (9.0, 16.0, 26.0, 38.0, 52.0, 70.0, 92.0, 120.0, 155.0, 200.0, 250.0)
"""How far from its point a label is tried, in points of 1/72 inch."""

_DIRECTIONS = 24
_PADDING = 1.5
"""Free space around a label, points."""

_ON_A_MARK, _ON_A_LABEL, _OUTSIDE, _CROSSING = 25.0, 4000.0, 8000.0, 150.0
"""What each fault costs, in points of distance."""

Numbers = NDArray[np.float64]


def place_labels(
    panel: Axes,
    points: Sequence[tuple[float, float]],
    labels: Sequence[str],
    obstacles: ArrayLike = (),
    colours: Sequence[str] | None = None,
) -> None:
    """Write a label near each point, with a thin line to it where it had to move away.

    Places are sought one label after another, the most crowded first: the nearest that costs least in marks hidden,
    lines hidden, labels overlapped or crossed. Call it last: the panel's limits must not change any more.

    Args:
        panel: a panel of a figure.
        points: ``N`` points in data coordinates.
        labels: ``N`` texts.
        obstacles: ``[M, 2]`` further marks in data coordinates, better not hidden.
        colours: of the labels; dark grey by default.

    Raises:
        ValueError: there are not as many labels, or colours, as points; or the panel has no figure.
    """
    if len(points) != len(labels) or (colours is not None and len(colours) != len(points)):
        raise ValueError(f"give one label, and one colour, per point: there are {len(points)} points")
    if not points:
        return
    figure = panel.get_figure(root=True)
    if figure is None:
        raise ValueError("labels are placed in panels of a figure only")
    # The layout is settled by drawing, and labels keep out of it.
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    anchors = np.asarray(panel.transData.transform(np.asarray(points, dtype=np.float64)))
    marks = np.asarray(obstacles, dtype=np.float64).reshape(-1, 2)
    marks = np.concatenate([np.asarray(panel.transData.transform(marks)).reshape(-1, 2), anchors])
    room = panel.get_window_extent()

    boxes = np.empty((0, 4))
    crowding = [float((np.linalg.norm(anchors - anchor, axis=1) < 60 * scale).sum()) for anchor in anchors]
    for index in sorted(range(len(points)), key=lambda i: (-crowding[i], anchors[i][1], anchors[i][0])):
        text = panel.text(0, 0, labels[index], fontsize=8, transform=None, va="center", ha="center")
        extent = text.get_window_extent()
        half = np.array([extent.width / 2, extent.height / 2]) + _PADDING * scale
        anchor = anchors[index]
        centres = _candidates(anchor, half, scale)
        low, high = centres - half, centres + half
        ends = np.clip(anchor, low, high)
        # Points along the lines [C, 24, 2] that would lead to the labels.
        lines = anchor + np.linspace(0, 1, 24)[:, None] * (ends - anchor)[:, None]
        hidden = (abs(marks - centres[:, None]) < half + 4 * scale).all(-1).sum(1)
        overlapped = ((low[:, None] < boxes[:, 2:]) & (boxes[:, :2] < high[:, None])).all(-1).sum(1)
        crossed = ((lines[:, None] > boxes[:, None, :2]) & (lines[:, None] < boxes[:, None, 2:])).all(-1).any(-1).sum(1)
        outside = ((low < room.min) | (high > room.max)).any(1)
        costs = np.linalg.norm(ends - anchor, axis=1) / scale + _ON_A_MARK * hidden + _ON_A_LABEL * overlapped
        best = int((costs + _CROSSING * crossed + _OUTSIDE * outside).argmin())
        boxes = np.concatenate([boxes, [[*low[best], *high[best]]]])
        colour = colours[index] if colours is not None else INK
        text.set(color=colour, zorder=7, in_layout=False, transform=panel.transData)
        text.set_path_effects([withStroke(linewidth=2.2, foreground="#FFFFFFCC")])
        text.set_position(tuple(panel.transData.inverted().transform(centres[best])))
        if np.linalg.norm(ends[best] - anchor) > 5 * scale:
            # Later labels keep off the line as they keep off marks.
            marks = np.concatenate([marks, lines[best, 4:]])
            x, y = panel.transData.inverted().transform([anchor, ends[best]]).T
            panel.plot(
                x, y, color=colour, linewidth=0.6, alpha=0.8, zorder=6, scalex=False, scaley=False, in_layout=False
            )


def _candidates(anchor: Numbers, half: Numbers, scale: float) -> Numbers:
    """Centres ``[C, 2]`` at which the nearest edge of the label lies about so far from the point."""
    angles = 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    towards = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    beside = np.sign(np.round(towards, 9)) * half * abs(towards) ** 0.5
    distances = np.asarray(_DISTANCES)[:, None, None] * scale
    return np.asarray(anchor + towards * distances + beside).reshape(-1, 2)
