"""How every figure looks, and the one way to make, label and save one.

Colours are Okabe and Ito's, told apart with any kind of colour vision; shapes and line styles say the same once more.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec

import matplotlib.style
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogFormatter
from numpy.typing import NDArray

from soo_marl.report.data import TEMPLATES, list_if_there, table
from soo_marl.storage.files import plain, write_bytes
from soo_marl.storage.records import FigureRecord, write_list

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "^", "s", "D", "v", "P", "X")
LINES: tuple[Literal["-", "--", "-.", ":"] | tuple[float, tuple[float, ...]], ...] = (
    "-",
    "--",
    "-.",
    ":",
    (0, (5, 1, 1, 1)),
    (0, (1, 1)),
    (0, (8, 2)),
)

INK = "#222222"
GREY = "#767676"
PALE = "#BDBDBD"
LOG_RANGE = 20.0
"""Positive values that spread over more than this factor are drawn on a logarithmic axis."""

STYLE = Path(str(TEMPLATES)) / "figures.mplstyle"
"""What differs from matplotlib's default style."""

Arguments = ParamSpec("Arguments")
Picture = tuple[str, str, Callable[[], Figure]]
"""A figure's file name without its ending, its caption, and what draws it."""


class NothingToDraw(ValueError):
    """A figure has no content; the message says what is missing."""


def in_own_style(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Draw in our style, whatever matplotlib's user prefers, with names as they are.

    A matplotlibrc may ask for TeX or for fonts that are not there.
    """

    @wraps(draw)
    def drawn(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        # A dollar sign in a name begins no formula.
        with matplotlib.style.context(["default", STYLE, {"text.parse_math": False}]):
            figure = draw(*args, **kwargs)
            for text in figure.findobj(Text):
                if isinstance(text, Text):
                    text.set_text(plain(text.get_text()))
            for axis in (axis for panel in figure.axes for axis in (panel.xaxis, panel.yaxis)):
                formatter = axis.get_major_formatter()
                if isinstance(formatter, FuncFormatter):
                    axis.set_major_formatter(FuncFormatter(_plain_labels(formatter)))
                elif isinstance(formatter, LogFormatter):
                    # Powers of ten are formulas of matplotlib's own.
                    for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                        tick.label1.set_parse_math(True)
                        tick.label2.set_parse_math(True)
        return figure

    return drawn


def _plain_labels(labels: FuncFormatter) -> Callable[[float, int | None], str]:
    return lambda value, place: plain(labels(value, place))


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """Return an empty figure of that size in inches."""
    figure = Figure(figsize=(width, height))
    if title:
        figure.suptitle(title)
    return figure


def one_panel(width: float, height: float, title: str = "") -> tuple[Figure, Axes]:
    """Return a figure of that size in inches, and its only panel."""
    figure = new_figure(width, height, title)
    return figure, figure.add_subplot()


def several_panels(
    count: int, width: float, height: float, title: str = "", *, columns: int = 3, above: float = 0, **sharing: Any
) -> tuple[Figure, list[Axes]]:
    """Return a figure with so many panels of that size in inches, in rows, and room above them; and the panels."""
    columns = min(count, columns)
    rows = math.ceil(count / columns)
    figure = new_figure(width * columns, height * rows + above, title)
    panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False, **sharing).ravel())
    for panel in panels[count:]:
        panel.remove()
    return figure, panels[:count]


def legend_below(figure: Figure, handles: Iterable[Artist], most_columns: int = 4) -> None:
    """One legend below all panels, in as few rows of equal length as it takes."""
    entries = list(handles)
    columns = math.ceil(len(entries) / math.ceil(len(entries) / most_columns)) if entries else 1
    figure.legend(handles=entries, loc="outside lower center", ncols=columns)


def labelled(panel: Axes) -> list[Artist]:
    """What a panel shows that has a label, for the legend."""
    return list(panel.get_legend_handles_labels()[0])


def mark(marker: str, colour: str, label: str, edge: str | None = None, size: float = 7) -> Line2D:
    """A mark for a legend."""
    return Line2D([], [], linestyle="", marker=marker, markersize=size, color=colour, markeredgecolor=edge, label=label)


def numbers(values: Iterable[float | None]) -> NDArray[np.float64]:
    """The values with NaN, which matplotlib leaves out, where one is missing."""
    return np.asarray(list(values), dtype=np.float64)


def mean_of_present(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the first axis of what is no NaN; NaN where all of it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=0))


def spread_widely(values: Sequence[float]) -> bool:
    """Whether a logarithmic scale helps: no value is below zero, and those above it spread widely."""
    positive = [value for value in values if value > 0]
    return bool(positive) and min(values) >= 0 and max(positive) > LOG_RANGE * min(positive)


def scale_axis(panel: Axes, values: Sequence[float]) -> None:
    """A logarithmic vertical axis where it helps, near zero linear where some values are zero."""
    if spread_widely(values) and min(values) > 0:
        panel.set_yscale("log")
    elif spread_widely(values):
        panel.set_yscale("symlog", linthresh=min(value for value in values if value > 0), linscale=0.5)


def picture(section: str, name: str, draw: Callable[[], Figure], part: str = "", **fields: str) -> Picture:
    """A figure, with its caption from a section of ``templates/captions.toml``, whose fields are filled in.

    The part tells it from others of that name.
    """
    captions = table("captions")
    text: str = captions[section][name]
    file = f"{name}_{re.sub('[^A-Za-z0-9-]+', '_', part)}" if part else name
    return file, text.format(**captions["shared"], **fields), draw


def save_figure(figure: Figure, stem: Path) -> Path:
    """Write a figure as ``<stem>.png`` (130 dots per inch) and ``<stem>.svg``, atomically; return the PNG's path.

    Raises:
        RunDirectoryError: a file cannot be written.
    """
    for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
        buffer = io.BytesIO()
        with matplotlib.style.context(["default", STYLE]), warnings.catch_warnings():
            # Of names in scripts that the font has no letters for; they are boxes then.
            warnings.filterwarnings("ignore", r"Glyph \d+")
            figure.savefig(buffer, format=suffix[1:], metadata=metadata)
        write_bytes(stem.with_name(stem.name + suffix), buffer.getvalue())
    return stem.with_name(stem.name + ".png")


def draw_pictures(
    study_directory: Path, pictures: Iterable[Picture], *, before_others: bool = True
) -> list[FigureRecord]:
    """Draw what there is into ``figures/`` as PNG and SVG, and list the PNGs as :func:`list_figures` does.

    A picture that raises :class:`NothingToDraw` is left out.

    Raises:
        RunDirectoryError: the list is unreadable, or a file cannot be written.
    """
    drawn = []
    for name, text, draw in pictures:
        try:
            figure = draw()
        except NothingToDraw:
            continue
        file = save_figure(figure, study_directory / "figures" / name).name
        drawn.append(FigureRecord(file=file, caption=text))
    return list_figures(study_directory, drawn, before_others=before_others)


def list_figures(
    study_directory: Path, drawn: Sequence[FigureRecord], *, before_others: bool = True
) -> list[FigureRecord]:
    """List what was drawn in ``results/figures.json``, before or after what else stands there; returns the new list.

    Raises:
        RunDirectoryError: the list cannot be read or written.
    """
    path, names = study_directory / "results" / "figures.json", {record.file for record in drawn}
    others = [record for record in list_if_there(path, FigureRecord) if record.file not in names]
    records = [*drawn, *others] if before_others else [*others, *drawn]
    write_list(path, records)
    return records
