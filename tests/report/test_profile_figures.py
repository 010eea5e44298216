import numpy as np
import pytest
from finetuning_data import CENTRES, made_up
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from numpy.typing import NDArray

from soo_marl.report.figures.profiles import profile_contours, profile_differences

X, Y = np.linspace(0, 1, 6), np.linspace(-1, 1, 9)


def grid(height: float) -> NDArray[np.float64]:
    """Falls along x, rises along y: it cannot be taken for its transpose."""
    return height * (1 - X[:, None]) * ((Y[None] + 1) / 2) ** 2


RATES = {"soo": grid(0.3), "honest": grid(0.2), "random": grid(0.0), "deceptive": grid(0.6)}
VERDICTS = {"soo": "blind", "honest": "honest", "random": "broken", "deceptive": None}


def filled(panel: Axes) -> QuadContourSet:
    return next(item for item in panel.collections if isinstance(item, QuadContourSet) and item.filled)


def panels(figure: Figure) -> dict[str, Axes]:
    """By title; the colour bar has none."""
    return {panel.get_title().strip(): panel for panel in figure.axes if panel.get_title()}


def test_contours_share_levels_colours_and_order() -> None:
    figure = profile_contours(RATES, X, Y, VERDICTS)
    found = panels(figure)
    assert list(found) == ["deceptive", "soo", "random", "honest"], "the baselines frame the methods"
    levels = [np.asarray(filled(panel).levels) for panel in found.values()]
    for other in levels[1:]:
        np.testing.assert_array_equal(levels[0], other)
    assert levels[0][0] == 0 and levels[0][-1] >= 0.6
    assert len({id(filled(panel).norm) for panel in found.values()}) == 1
    assert [panel.texts[0].get_text() for panel in found.values()] == [
        "◆ no verdict",
        "■ blind",
        "✖ broken",
        "● honest",
    ]
    assert [bool(panel.patches) for panel in found.values()] == [False, False, True, False], "broken is hatched"


def test_x_runs_to_the_right_and_y_upwards() -> None:
    panel = panels(profile_contours(RATES, X, Y, VERDICTS))["deceptive"]
    assert (panel.get_xlim(), panel.get_ylim()) == ((0, 1), (-1, 1))
    highest = [path for path in filled(panel).get_paths() if np.size(path.vertices)][-1]
    x, y = np.asarray(highest.vertices).mean(0)
    assert x < 0.3 and y > 0.5, "most deceptive at the loosest thresholds, low x and high y"


def test_differences_are_to_honest_on_a_scale_with_zero_in_its_middle() -> None:
    figure = profile_differences(RATES, X, Y, VERDICTS)
    found = panels(figure)
    assert list(found) == ["deceptive", "soo", "random"]
    levels = np.asarray(filled(found["soo"]).levels)
    np.testing.assert_allclose(levels, -levels[::-1])
    assert levels[-1] >= 0.4 and not np.isclose(levels, 0).any(), "zero lies within the middle band"
    # Contours end at the band that holds the largest difference: 0.4 for deceptive agents, -0.2 for the broken ones.
    for name, value in (("deceptive", 0.4), ("random", -0.2)):
        bands = [index for index, path in enumerate(filled(found[name]).get_paths()) if np.size(path.vertices)]
        outermost = bands[-1] if value > 0 else bands[0]
        assert levels[outermost] - 1e-9 <= value <= levels[outermost + 1] + 1e-9


def test_a_condition_without_opportunity_is_said_to_have_none() -> None:
    figure = profile_contours(RATES | {"soo": np.full((6, 9), np.nan)}, X, Y, {})
    assert "no opportunity\nto deceive" in [text.get_text() for text in panels(figure)["soo"].texts]
    nothing = profile_contours({"honest": np.full((6, 9), np.nan)}, X, Y, {})
    assert len(panels(nothing)) == 1
    profile_contours({"honest": grid(0.0)}, X, Y, {}).draw_without_rendering()


@pytest.mark.parametrize(("count", "rows"), [(4, 1), (6, 1), (7, 2), (12, 2), (18, 3)])
def test_many_conditions_are_wrapped_in_rows_and_titles_fit(count: int, rows: int) -> None:
    study = made_up((*tuple(CENTRES)[: count - 1], "honest"), seeds=2)
    figure = profile_contours(study.mean_rates, study.projection_thresholds, study.cosine_thresholds, study.verdicts)
    found = panels(figure)
    assert len(found) == count
    specifications = [panel.get_subplotspec() for panel in found.values()]
    assert len({part.rowspan.start for part in specifications if part is not None}) == rows
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for panel in found.values() for text in (panel.title, panel.texts[0])]
    assert not any(boxes[i].overlaps(boxes[j]) for i in range(0, len(boxes), 2) for j in range(0, i, 2))
    assert not any(boxes[i].overlaps(boxes[j]) for i in range(1, len(boxes), 2) for j in range(1, i, 2))


def test_grids_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="no profiles to draw"):
        profile_contours({}, X, Y, {})
    with pytest.raises(ValueError, match=r"the profile of soo must have shape \[6, 9\], not \[9, 6\]"):
        profile_contours({"soo": grid(0.1).T}, X, Y, {})
    for rates in ({"soo": grid(0.1)}, {"honest": grid(0.1)}):
        with pytest.raises(ValueError, match="without rates of honest agents and of others"):
            profile_differences(rates, X, Y, {})
