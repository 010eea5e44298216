import itertools

import numpy as np
import pytest
from finetuning_data import x_of, y_of
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from soo_marl.report.figures.label_placement import place_labels


def panel() -> Axes:
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    return axes


def assert_readable(axes: Axes) -> None:
    """No label lies over another or outside the panel."""
    boxes = [text.get_window_extent() for text in axes.texts]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    room = axes.get_window_extent()
    for box in boxes:
        assert room.x0 <= box.x0 and box.x1 <= room.x1 and room.y0 <= box.y0 and box.y1 <= room.y1


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=10))
def test_labels_never_overlap_and_stay_inside(points: list[tuple[float, float]]) -> None:
    axes = panel()
    place_labels(axes, points, [f"condition {index}" for index in range(len(points))])
    assert [text.get_text() for text in axes.texts] and len(axes.texts) == len(points)
    assert_readable(axes)


def test_labels_of_one_place_spread_and_point_back_to_it() -> None:
    axes = panel()
    place_labels(axes, [(0.5, 0.5)] * 9, [f"label {index}" for index in range(9)])
    assert_readable(axes)
    for line in axes.lines:
        assert (x_of(line)[0], y_of(line)[0]) == pytest.approx((0.5, 0.5))
    assert len(axes.lines) >= 5, "some are too far away to do without a line"


def test_a_lone_label_stays_near_and_leaves_the_marks_free() -> None:
    axes = panel()
    marks = [(0.5 + dx, 0.5) for dx in np.linspace(0.01, 0.2, 20)]
    place_labels(axes, [(0.5, 0.5)], ["lone"], marks, colours=["#0072B2"])
    (text,) = axes.texts
    box = text.get_window_extent()
    x, y = axes.transData.transform((0.5, 0.5))
    assert max(box.x0 - x, x - box.x1, box.y0 - y, y - box.y1) < 30 * axes.figure.dpi / 72
    assert not any(box.contains(*axes.transData.transform(mark)) for mark in marks)
    assert text.get_color() == "#0072B2"


def test_limits_are_not_moved_and_nothing_to_label_is_fine() -> None:
    axes = panel()
    place_labels(axes, [], [])
    place_labels(axes, [(0.0, 0.0), (1.0, 1.0)], ["corner", "other corner"])
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, 1), (0, 1))
    assert_readable(axes)


def test_labels_and_points_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="one label, and one colour, per point: there are 1 points"):
        place_labels(panel(), [(0, 0)], ["a", "b"])
    with pytest.raises(ValueError, match="one label, and one colour, per point"):
        place_labels(panel(), [(0, 0)], ["a"], colours=[])
