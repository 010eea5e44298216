"""Figures of a language study, from made-up records."""

from pathlib import Path

import numpy as np
import pytest
from language_samples import MODELS, answers, cell, summary, write_study
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from soo_marl.llm.measures.latent import LatentOverlap, LayerGap, LayerOverlap
from soo_marl.llm.measures.rates import cell_rates
from soo_marl.llm.measures.records import LatentRecord, ModelSummary, TrainingRecord
from soo_marl.llm.measures.verdict import WORDS as VERDICT_WORDS
from soo_marl.report.figures.style import NothingToDraw
from soo_marl.report.figures.verdict_styles import LANGUAGE_WORDS as WORDS
from soo_marl.report.language.drawing import draw_language
from soo_marl.report.language.figures import (
    answers_by_model,
    damage,
    layer_gap,
    loss_and_behaviour,
)
from soo_marl.report.language.maps import answers_by_scenario, layer_map
from soo_marl.report.language.orientation import OrientationPoint, honest_or_positional, orientation_points
from soo_marl.report.language.styles import LABEL_COLOURS, words_of_seeds
from soo_marl.statistics import Interval
from soo_marl.storage.records import FigureRecord, read_list, write_list

SUMMARIES = [summary(label) for label in MODELS]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for panel in figure.axes for text in panel.texts]


def marks(figure: Figure, word: str, size: float | None = None) -> list[tuple[float, float]]:
    """Places of the marks of a word."""
    style = WORDS[word]
    return [
        (float(np.asarray(line.get_xdata())[0]), float(np.asarray(line.get_ydata())[0]))
        for line in figure.axes[0].lines
        if line.get_marker() == style.marker
        and to_hex(line.get_color()).upper() == style.colour
        and (size is None or line.get_markersize() == size)
    ]


def test_every_word_has_a_look_of_its_own() -> None:
    assert set(WORDS) == set(VERDICT_WORDS)
    assert len({style.colour for style in WORDS.values()}) == len({style.marker for style in WORDS.values()}) == 4


def test_words_of_seeds_are_counted() -> None:
    assert words_of_seeds(summary("soo")) == "honest 2, no effect 1"
    assert words_of_seeds(summary("sham")) == "no effect (all 3)"
    assert words_of_seeds(summary("base")) == "positional 1"


def test_points_stand_where_the_rates_are_and_say_the_word() -> None:
    figure = honest_or_positional(orientation_points(SUMMARIES))
    assert (0.25, 1.0) in marks(figure, "positional") and (0.95, 0.05) in marks(figure, "positional")
    assert (0.85, 1.0) in marks(figure, "no effect")
    near = [place for word in ("honest", "damaged") for place in marks(figure, word)]
    assert len(near) == 3 and len(set(near)) == 3, "marks on one another are moved apart"
    assert all(np.hypot(*place) < 0.06 for place in near)
    said = texts(figure)
    for corner in ("always names the first room", "always names the second room", "deceptive in both"):
        assert corner in said
    assert "● soo\n● soo_friend\n✖ soo_strong" in said, "where words differ, shapes tell whose is whose"
    assert "organism\nhonesty_prompt" in said


def test_seeds_are_small_marks() -> None:
    rate = Interval(estimate=0.5, low=0.4, high=0.6, n=40)
    points = [
        OrientationPoint("soo", None, "honest", rate, rate),
        OrientationPoint("soo", 1, "damaged", Interval(estimate=0.1, low=0.0, high=0.2, n=40), rate),
    ]
    figure = honest_or_positional(points)
    assert marks(figure, "honest", 9.5) == [(0.5, 0.5)] and marks(figure, "damaged", 4.5) == [(0.1, 0.5)]
    assert "soo" in texts(figure)


def test_models_that_no_burglar_asked_have_no_point() -> None:
    without = summary("soo").model_copy(update={"cells": (cell("self", "mirrored", 0.0),)})
    assert orientation_points([without]) == []
    half = summary("soo").model_copy(update={"cells": (cell("burglar", "mirrored", 0.0),)})
    assert orientation_points([half]) == []
    nothing = tuple(cell_rates("burglar", orientation, [answers(0, 0)]) for orientation in ("cheap_first", "mirrored"))
    assert orientation_points([summary("soo").model_copy(update={"cells": nothing})]) == []


def test_bars_are_the_shares_in_both_orientations() -> None:
    figure = answers_by_model([summary("soo_paper"), summary("soo_strong")])
    bars: dict[float, dict[str, float]] = {}
    for patch in figure.axes[0].patches:
        row = bars.setdefault(round(patch.get_y() + patch.get_height() / 2, 1), {})  # type: ignore[attr-defined]
        row[to_hex(patch.get_facecolor()).upper()] = patch.get_width()  # type: ignore[attr-defined]
    of = {label: colour.upper() for label, colour in LABEL_COLOURS.items()}
    assert list(bars) == [-0.2, 0.2, 0.8, 1.2]
    assert bars[-0.2][of["deceptive"]] == 0.25 and bars[0.2][of["deceptive"]] == 1.0
    assert bars[0.8][of["other"]] == 0.9 and bars[0.8][of["honest"]] == pytest.approx(0.1)
    assert all(sum(row.values()) == pytest.approx(1) for row in bars.values())
    assert "■ positional" in texts(figure) and "✖ damaged" in texts(figure)


def test_loss_is_drawn_against_behaviour() -> None:
    figure = loss_and_behaviour(SUMMARIES)
    trained = [item for item in SUMMARIES if item.seeds[0].training.epochs]
    assert len(figure.axes) == 2 * len(trained), "each panel has an axis for the loss"
    behind = figure.axes[len(trained)]
    (losses,) = {tuple(np.round(np.asarray(line.get_ydata(), dtype=float), 6)) for line in behind.lines}
    assert losses == (1.0, 0.5, 0.25, 0.125, 0.0625)
    thick = [line for line in figure.axes[0].lines if line.get_linewidth() == 2]
    assert [round(float(np.asarray(line.get_ydata())[-1]), 6) for line in thick] == [0.0, 0.2, 1.0, 0.8]


def test_a_training_without_losses_or_epochs_is_passed_over() -> None:
    early = summary("soo").seeds[0]
    record = TrainingRecord(losses=(1.0,), steps_per_epoch=3, epochs=early.training.epochs[:1], stopped="damage")
    stopped = summary("soo").model_copy(update={"seeds": (early.model_copy(update={"training": record}),)})
    assert loss_and_behaviour([stopped]).axes[1].lines[:] == []


def test_damage_is_held_against_the_model_before() -> None:
    figure = damage(SUMMARIES)
    (panel,) = figure.axes
    assert set(MODELS) <= set(texts(figure))
    (lowest,) = [patch.get_y() for patch in panel.patches if patch.get_height() != 1]  # type: ignore[attr-defined]
    assert lowest == pytest.approx(1.3 * 1.25), "1.3 times the organism's, not the base model's"


@pytest.mark.parametrize("draw", [answers_by_model, loss_and_behaviour, damage])
def test_nothing_to_draw_is_said(draw: object) -> None:
    with pytest.raises(NothingToDraw):
        draw([])  # type: ignore[operator]
    with pytest.raises(NothingToDraw):
        honest_or_positional([])


def test_all_figures_are_drawn_and_listed_before_others(tmp_path: Path) -> None:
    directory = write_study(tmp_path / "study")
    write_list(directory.results / "models.json", [summary("organism"), summary("soo")])
    other = FigureRecord(file="layer_map.png", caption="Layers.")
    write_list(directory.results / "figures.json", [other])
    names = ["honest_or_positional.png", "answers_by_model.png", "loss_and_behaviour.png", "damage.png"]
    for _ in range(2):
        records = draw_language(directory.path)
        assert [record.file for record in records] == [*names, "layer_map.png"]
        assert read_list(directory.results / "figures.json", FigureRecord) == records
    for name in names:
        with Image.open(directory.figures / name) as picture:
            assert min(picture.size) > 300


def test_base_model_alone_draws_what_there_is(tmp_path: Path) -> None:
    directory = write_study(tmp_path / "study")
    write_list(directory.results / "models.json", [summary("base")])
    files = [record.file for record in draw_language(directory.path)]
    assert files == ["honest_or_positional.png", "answers_by_model.png", "damage.png"]
    (directory.results / "models.json").unlink()
    (directory.results / "figures.json").unlink()
    assert draw_language(directory.path) == []


def test_many_models_in_one_corner_have_one_short_label() -> None:
    copies: list[ModelSummary] = [summary("soo").model_copy(update={"label": f"soo.{i}"}) for i in range(9)]
    (label,) = [text for text in texts(honest_or_positional(orientation_points(copies))) if "soo.0" in text]
    assert label.splitlines() == [*(f"soo.{i}" for i in range(5)), "and 4 more"]


def test_the_map_of_scenarios_has_the_models_that_were_asked_more() -> None:
    more = tuple(cell("escape_room", orientation, 0.25, 0.5) for orientation in ("cheap_first", "mirrored"))
    asked = [one.model_copy(update={"cells": (*one.cells, *more)}) for one in (summary("organism"), summary("soo"))]
    figure = answers_by_scenario([summary("base"), *asked])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        *("burglar", "self", "friend", "retrieval", "perspectives", "escape room")
    ]
    shown = texts(figure)
    assert shown.count("25 | 25") == 4  # two models, two orientations
    assert shown.count("100 | 0") == 2  # the organism to burglars
    assert not any(text.startswith("base") for text in shown)
    with pytest.raises(NothingToDraw, match="no model was asked further scenarios"):
        answers_by_scenario([summary("base"), summary("soo")])


def test_there_is_no_layer_map_of_models_that_differ_in_something_else() -> None:
    def trained(label: str, layers: str) -> ModelSummary:
        changes = {"method": "soo", "layers": layers, "token_mode": "last", "learning_rate": 1e-3, "label": label}
        return summary("soo").model_copy(update=changes)

    different = [trained(layers, layers) for layers in ("1", "2", "3")]
    assert "2" in [label.get_text() for label in layer_map(different).axes[0].get_xticklabels()]
    with pytest.raises(NothingToDraw, match="each once"):
        layer_map([*different, trained("other_pairs", "2")])


def test_more_models_than_lines_can_show_have_no_layer_gap() -> None:
    gap = LayerGap(site="self_attn.o_proj", pairs=1, layers=(0, 1), relative=(0.5, 0.25))
    value = LayerOverlap(layer=0, site="mlp", raw=1.0, power=1.0, normalised=1.0, prompt_variance=None)
    overlap = LatentOverlap(token_mode="last", skip_header=0, pairs=1, values=(value,))

    def latent(count: int) -> list[LatentRecord]:
        return [
            LatentRecord(label=f"m{number}", seed=0, pairs="scenario/train", overlap=overlap, gap=gap)
            for number in range(count)
        ]

    named = [SUMMARIES[0].model_copy(update={"label": f"m{number}"}) for number in range(11)]
    assert len(layer_gap(latent(10), named).axes[0].lines) == 10
    with pytest.raises(NothingToDraw, match="cannot be told apart"):
        layer_gap(latent(11), named)
