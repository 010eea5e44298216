import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from soo_marl.report.page import format_number, write_report
from soo_marl.studies.records import (
    AgentRecord,
    Classification,
    ClassificationRow,
    FigureRecord,
    Interval,
    Record,
    write_list,
    write_one,
)
from soo_marl.studies.run_directory import RunDirectoryError, StudyDirectory

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """The page's text, its sources, and whether every element is closed in order."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.words: list[str] = []
        self.feed(content)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture
def study(tmp_path: Path) -> StudyDirectory:
    directory = StudyDirectory.open(
        tmp_path / "study", "classify", {"environment": {"preset": "trackable"}, "regime": "frozen red"}, [4, 5]
    )
    interval = Interval(estimate=0.9, low=0.75, high=1.0, n=12)
    write_list(
        directory.results / "summary.json",
        [
            Record(name="AUROC", estimate=0.9, low=0.75, high=1, n=12, unit="area", command="soo-marl classify"),
            Record(name="verdict", estimate=None, n=0, unit="", command="soo-marl classify", text="a <b> & c"),
        ],
    )
    write_list(
        directory.results / "agents.json",
        [
            AgentRecord(kind="honest", seed=4, goal_rate=0.31, competent=False, reasons=("goal rate below 0.8",)),
            AgentRecord(
                kind="deceptive", seed=4, stopped="lure", competent=False, reasons=("training was stopped in lure",)
            ),
        ],
    )
    write_one(
        directory.results / "classification.json",
        Classification(
            rows=(
                ClassificationRow(
                    form="untrapped_mse",
                    layers="all",
                    pairing="random red",
                    auroc=interval,
                    leave_one_out=interval,
                    recall_at_5_percent=Interval(estimate=0.5, low=None, high=None, n=12),
                    missing=1,
                ),
            ),
            findings=("Overlap separates them.",),
        ),
    )
    directory.figures.mkdir()
    for name in ("curves.png", "episode.gif"):
        Image.new("RGB", (4, 4)).save(directory.figures / name)
    write_list(
        directory.results / "figures.json",
        [FigureRecord(file="curves.png", caption="The curves."), FigureRecord(file="episode.gif", caption="One.")],
    )
    return directory


def test_whole_page(study: StudyDirectory) -> None:
    path = write_report(study.path)
    assert path == study.report
    content = path.read_text(encoding="utf-8")
    page = Page(content)
    for words in (
        "0.900 [0.750, 1.00]",
        "preset trackable",
        "regime frozen red",
        "seeds 4, 5",
        "a <b> & c",
        "no : goal rate below 0.8",
        "stopped : training was stopped in lure",
        "untrapped mse",
        "Overlap separates them.",
        "Figure 2. One.",
        "torch",
    ):
        assert words in page.text, words
    assert page.text.count("soo-marl classify") == 1, "a command stands once, however many records it made"
    assert "incomplete" not in page.text
    assert [source[:16] for source in page.sources] == ["data:image/png;b", "data:image/gif;b"]
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]*", "", content))
    assert "prefers-color-scheme: dark" in content and "@media print" in content and "viewport" in content


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("results/summary.json", "results/summary.json is missing"),
        ("results/agents.json", "results/agents.json is missing"),
        ("results/classification.json", "results/classification.json is missing"),
        ("results/figures.json", "results/figures.json is missing"),
        ("figures/curves.png", "figures/curves.png cannot be read"),
        ("study.json", "study.json is missing"),
    ],
)
def test_missing_parts_are_named_and_the_rest_is_there(study: StudyDirectory, file: str, said: str) -> None:
    (study.path / file).unlink()
    page = Page(write_report(study.path).read_text(encoding="utf-8"))
    assert "This report is incomplete." in page.text and said in page.text
    assert str(study.path.parent) not in page.text
    assert ("Overlap separates them." in page.text) == (file != "results/classification.json")


def test_unreadable_results_are_named(study: StudyDirectory) -> None:
    (study.results / "agents.json").write_text('[{"kind": ')
    assert "results/agents.json is not readable JSON" in Page(write_report(study.path).read_text()).text


def test_empty_folder_gives_a_page_and_no_folder_an_error(tmp_path: Path) -> None:
    assert "incomplete" in Page(write_report(tmp_path).read_text()).text
    with pytest.raises(RunDirectoryError, match="is not a folder"):
        write_report(tmp_path / "absent")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0"), (1.0, "1.00"), (0.12345, "0.123"), (-12.34, "-12.3"), (123.4, "123"), (4e-6, "4.00e-06")],
)
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert format_number(value) == text
