from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finetuning_data import FOUR, made_up
from matplotlib.figure import Figure
from PIL import Image

from soo_marl.report.figures import drawing, style
from soo_marl.report.figures.drawing import draw_finetuning
from soo_marl.report.figures.profiles import profile_contours
from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.records import FigureRecord, read_list, write_list
from soo_marl.storage.tensor_files import write_tensors

FIGURES = [
    "trap_rate_against_sensitivity",
    "trap_rate_against_sensitivity_moved",
    "behavioural_differences",
    "profiles",
    "profile_differences",
    "gain_from_seeing",
    "overlap_against_trap_rate_untrapped",
    "overlap_against_trap_rate_published",
    "time_courses",
    "lasting",
]


def write_profiles(study: Path, **tensors: torch.Tensor) -> None:
    thresholds = {"projection_thresholds": torch.linspace(0, 1, 3), "cosine_thresholds": torch.linspace(-1, 1, 4)}
    content = {name: value.double() for name, value in thresholds.items()} | {
        f"rates/{name}": value for name, value in tensors.items()
    }
    write_tensors(study / "results" / "profiles.safetensors", content)


def save_quickly(figure: Figure, stem: Path) -> Path:
    stem.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(stem.with_suffix(".png"), dpi=40)
    return stem.with_suffix(".png")


def test_everything_is_drawn_and_other_pictures_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "save_figure", save_quickly)
    made_up(FOUR, seeds=3).write(tmp_path)
    write_list(tmp_path / "results" / "figures.json", [FigureRecord(file="episode.gif", caption="An episode.")])
    records = draw_finetuning(tmp_path)
    assert [record.file for record in records] == [*(f"{name}.png" for name in FIGURES), "episode.gif"]
    assert read_list(tmp_path / "results" / "figures.json", FigureRecord) == records
    for record in records[:-1]:
        with Image.open(tmp_path / "figures" / record.file) as image:
            assert image.width > 200
        assert len(record.caption) > 60
    assert records[0].caption != records[1].caption


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("treated_agents.json", [name for name in FIGURES if "against" in name]),
        ("conditions.json", ["behavioural_differences", "gain_from_seeing", "lasting"]),
        ("curves.json", ["time_courses"]),
        ("profiles.safetensors", ["profiles", "profile_differences"]),
    ],
)
def test_one_file_gives_its_own_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, names: list[str]
) -> None:
    monkeypatch.setattr(style, "save_figure", lambda figure, stem: stem.with_suffix(".png"))
    made_up(FOUR, seeds=2).write(tmp_path / "all")
    (tmp_path / "one" / "results").mkdir(parents=True)
    (tmp_path / "all" / "results" / file).rename(tmp_path / "one" / "results" / file)
    assert [record.file for record in draw_finetuning(tmp_path / "one")] == [f"{name}.png" for name in names]


def test_an_empty_study_has_no_figures(tmp_path: Path) -> None:
    assert draw_finetuning(tmp_path) == []
    assert read_list(tmp_path / "results" / "figures.json", FigureRecord) == []


def test_profiles_are_means_over_the_runs_that_have_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, np.ndarray] = {}

    def spy(rates: dict[str, np.ndarray], *rest: Any) -> Figure:
        seen.update(rates)
        return profile_contours(rates, *rest)

    monkeypatch.setattr(drawing, "profile_contours", spy)
    monkeypatch.setattr(style, "save_figure", lambda figure, stem: stem.with_suffix(".png"))
    runs = torch.stack([torch.full((3, 4), value) for value in (0.2, 0.4, float("nan"))])
    write_profiles(tmp_path, honest=runs, soo=torch.full((2, 3, 4), float("nan")))
    draw_finetuning(tmp_path)
    np.testing.assert_allclose(seen["honest"], np.full((3, 4), 0.3), rtol=1e-6)
    assert np.isnan(seen["soo"]).all()


def test_profiles_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_profiles(tmp_path, soo=torch.zeros(2, 4, 3))
    with pytest.raises(RunDirectoryError, match=r"rates/soo has shape \[2, 4, 3\], expected \[runs, 3, 4\]"):
        draw_finetuning(tmp_path)
    write_tensors(tmp_path / "results" / "profiles.safetensors", {"rates/soo": torch.zeros(2, 3, 4)})
    with pytest.raises(RunDirectoryError, match="lacks the tensor projection_thresholds"):
        draw_finetuning(tmp_path)
    (tmp_path / "results" / "profiles.safetensors").write_bytes(b"no tensors")
    with pytest.raises(RunDirectoryError, match="not a readable safetensors file"):
        draw_finetuning(tmp_path)


def test_records_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "conditions.json").write_text('[{"condition": "soo"}]')
    with pytest.raises(RunDirectoryError, match=r"conditions\.json does not fit: 0\.method"):
        draw_finetuning(tmp_path)
