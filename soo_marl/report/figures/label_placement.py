"""Labels at points of a panel, moved so that they hide neither one another nor the points."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray

_DISTANCES = (9.0, 16.0, 26.0, 38.0, 52.0, 70.0, 92.0, 120.0, 155.0, 200.0, 250.0)
"""How far from its point a label is tried, in points of 1/72 inch."""

_DIRECTIONS = 24
_PADDING = 1.5
"""Free space around a label, points."""

_ON_A_MARK, _ON_A_LABEL, _OUTSIDE, _CROSSING = 25.0, 4000.0, 8000.0, 150.0
"""What each fault costs, in points of distance."""

Box = tuple[float, float, float, float]


def place_labels(
    panel: Axes,
    points: Sequence[tuple[float, float]],
    labels: Sequence[str],
    obstacles: ArrayLike = (),
    colours: Sequence[str] | None = None,
    fontsize: float = 8.0,
) -> None:
    """Write a label near each point, with a thin line to it where it had to move away.

    Places are sought one label after another, the most crowded first: the nearest that costs least in marks hidden,
    labels overlapped and lines crossed. Call it last: the panel's limits must not change any more.

    Args:
        panel: a panel of a figure.
        points: ``N`` points in data coordinates.
        labels: ``N`` texts.
        obstacles: ``[M, 2]`` further marks in data coordinates, better not hidden.
        colours: of the labels; dark grey by default.
        fontsize: points.

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
    anchors = np.asarray(panel.transData.transform(np.asarray(points, dtype=np.float64)), dtype=np.float64)
    marks = np.asarray(obstacles, dtype=np.float64).reshape(-1, 2)
    marks = np.concatenate([np.asarray(panel.transData.transform(marks)).reshape(-1, 2), anchors])
    room = panel.get_window_extent()
    limits: Box = (room.x0, room.y0, room.x1, room.y1)

    placed: list[Box] = []
    lines: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    crowding = [float((np.linalg.norm(anchors - anchor, axis=1) < 60 * scale).sum()) for anchor in anchors]
    for index in sorted(range(len(points)), key=lambda i: (-crowding[i], anchors[i][1], anchors[i][0])):
        text = panel.text(0, 0, labels[index], fontsize=fontsize, transform=None, va="center", ha="center")
        extent = text.get_window_extent()
        half = np.array([extent.width / 2, extent.height / 2]) + _PADDING * scale
        anchor = anchors[index]
        centre = min(
            _candidates(anchor, half, scale),
            key=lambda place: _cost(place, anchor, half, scale, limits, marks, placed, lines),
        )
        placed.append((*(centre - half), *(centre + half)))
        end = np.clip(anchor, centre - half, centre + half)
        colour = colours[index] if colours is not None else "#222222"
        text.set_position((centre[0], centre[1]))
        text.set(color=colour, zorder=7, in_layout=False)
        text.set_path_effects([withStroke(linewidth=2.2, foreground="#FFFFFFCC")])
        text.set_transform(panel.transData)
        text.set_position(tuple(panel.transData.inverted().transform(centre)))
        if np.linalg.norm(end - anchor) > 5 * scale:
            lines.append((anchor, end))
            x, y = panel.transData.inverted().transform(np.stack([anchor, end])).T
            panel.plot(
                x, y, color=colour, linewidth=0.6, alpha=0.8, zorder=6, scalex=False, scaley=False, in_layout=False
            )


def _candidates(anchor: NDArray[np.float64], half: NDArray[np.float64], scale: float) -> list[NDArray[np.float64]]:
    """Centres at which the nearest edge of the label lies about so far from the point."""
    places = []
    for distance in _DISTANCES:
        for direction in range(_DIRECTIONS):
            angle = 2 * math.pi * direction / _DIRECTIONS
            towards = np.array([math.cos(angle), math.sin(angle)])
            places.append(
                anchor + towards * distance * scale + np.sign(np.round(towards, 9)) * half * abs(towards) ** 0.5
            )
    return places


def _cost(
    centre: NDArray[np.float64],
    anchor: NDArray[np.float64],
    half: NDArray[np.float64],
    scale: float,
    limits: Box,
    marks: NDArray[np.float64],
    placed: Sequence[Box],
    lines: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> float:
    box: Box = (*(centre - half), *(centre + half))
    end = np.clip(anchor, centre - half, centre + half)
    cost = float(np.linalg.norm(end - anchor)) / scale
    reach = 4 * scale
    hidden = (np.abs(marks - centre) < half + reach).all(1).sum()
    cost += _ON_A_MARK * float(hidden)
    cost += _ON_A_LABEL * sum(_overlap(box, other) for other in placed)
    if box[0] < limits[0] or box[1] < limits[1] or box[2] > limits[2] or box[3] > limits[3]:
        cost += _OUTSIDE
    cost += _CROSSING * sum(_cross(anchor, end, *line) for line in lines)
    cost += _CROSSING * sum(_enters(anchor, end, other) for other in placed)
    cost += _CROSSING * sum(_enters(*line, box) for line in lines)
    return cost


def _overlap(box: Box, other: Box) -> bool:
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


def _cross(
    start: NDArray[np.float64], end: NDArray[np.float64], other: NDArray[np.float64], other_end: NDArray[np.float64]
) -> bool:
    """Whether two segments cross."""

    def side(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]) -> float:
        return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))

    return (
        side(start, end, other) * side(start, end, other_end) < 0
        and side(other, other_end, start) * side(other, other_end, end) < 0
    )


def _enters(start: NDArray[np.float64], end: NDArray[np.float64], box: Box) -> bool:
    """Whether a segment runs through a box, told at points along it."""
    along = start + np.linspace(0, 1, 24)[:, None] * (end - start)
    inside = (along > box[:2]).all(1) & (along < box[2:]).all(1)
    return bool(inside.any())
