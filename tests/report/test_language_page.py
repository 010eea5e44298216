"""The page of a language study, from made-up records, and in a headless Chromium where there is one."""

import base64
import hashlib
import html
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from html_page import Page
from language_samples import COMMAND, MODELS, examples, summary, write_study

from soo_marl.commands.tables import terminal
from soo_marl.commands.tables.language import print_models
from soo_marl.llm.methods.recipes import recipe
from soo_marl.report.language.drawing import draw_language
from soo_marl.report.language.page import (
    compared,
    examples_data,
    pairs_in_words,
    read_language_content,
    write_language_report,
)
from soo_marl.report.language.published import PUBLISHED
from soo_marl.storage.records import write_list
from soo_marl.storage.study_directory import RunDirectoryError, StudyDirectory

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

FILES = ("models", "examples", "summary", "figures")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyDirectory:
    """A finished study with figures; tests do not change it."""
    directory = write_study(tmp_path_factory.mktemp("language") / "study")
    draw_language(directory.path)
    return directory


@pytest.fixture
def copied(study: StudyDirectory, tmp_path: Path) -> StudyDirectory:
    """A copy that a test may change."""
    shutil.copytree(study.path, tmp_path / "study")
    return StudyDirectory.read(tmp_path / "study")


def test_whole_page(study: StudyDirectory) -> None:
    path = write_language_report(study.path)
    assert path == study.report
    content = path.read_text(encoding="utf-8")
    page = Page(content)
    for words in (
        "Does training a language model with self-other overlap make it honest, damage it, or only change",
        "Of 7 treatments: honest 2: soo, soo_friend damaged 1: soo_strong positional 2: soo_paper, shuffled no effect "
        "2: sham, honesty_prompt",
        "soo_paper about <soo_paper>; this project the reason for soo_paper seeds: positional 2, no effect 1 verdict: "
        "positional",
        # Deceptive, honest, neither, in both orientations; then the first control and, at the end, the ratios.
        "soo_paper soo positional 25 [14, 40] 100 [91, 100] 75 [60, 86] 0 [0, 9] 0 [0, 9] 0 [0, 9] 100 [72, 100]",
        "1.40 0.120 0.750",
        "Mistral-7B 73.6 → 17.27 ± 1.88 % Gemma-2-27b 100 → 9.36 ± 7.09 % CalmeRys-78B 100 → 2.71 ± 2.53 %",
        "mirrored; ours: plain_burglar – – Mistral-7B, layer 16, last token 82.4 → 0 % base 5 % organism 100 %",
        "soo_strong 0 % (90 % no room)",
        "Figure 4.",
        "model smollm2-135m (float32)",
        "burglar 2 × 40 (plain_burglar); self 2 × 10 (plain_self)",
        "token budget of an answer 24",
        COMMAND,
        "torch",
        "seed 2 of shuffled",
    ):
        assert words in page.text, words
    assert "incomplete" not in page.text and "<b>attic" not in page.text
    assert page.text.count(COMMAND) == 1
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]*", "", content))
    places = [page.identifiers.index(name) for name in ("verdicts", "measures", "figures", "published", "responses")]
    assert places == sorted(places)


def test_script_and_style_are_named_by_their_hash(study: StudyDirectory) -> None:
    content = write_language_report(study.path).read_text(encoding="utf-8")
    policy = html.unescape(re.findall(r'Security-Policy" content="([^"]*)"', content)[0])
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", content, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{rule} 'sha256-{digest}'" in policy
    assert not re.search(r"<[^>]* (style|on[a-z]+)=", content), "neither would be let through"


@pytest.mark.parametrize("file", FILES)
def test_missing_results_are_named_and_the_rest_is_there(copied: StudyDirectory, file: str) -> None:
    (copied.results / f"{file}.json").unlink()
    page = Page(write_language_report(copied.path).read_text(encoding="utf-8"))
    assert "This report is incomplete." in page.text and f"results/{file}.json is missing" in page.text
    assert str(copied.path.parent) not in page.text
    gone = {"models": "verdicts", "examples": "responses", "summary": "commands", "figures": "figures"}
    for name, section in gone.items():
        assert (section in page.identifiers) == (name != file)
    assert "published" in page.identifiers


def test_unreadable_results_are_named(copied: StudyDirectory) -> None:
    (copied.results / "models.json").write_text('[{"label": ')
    page = Page(write_language_report(copied.path).read_text(encoding="utf-8"))
    assert "results/models.json is not readable JSON" in page.text


def test_models_that_are_not_done_are_named(tmp_path: Path) -> None:
    directory = write_study(tmp_path / "study", finished=False)
    page = Page(write_language_report(directory.path).read_text(encoding="utf-8"))
    assert "The study is not finished: honesty_prompt (seeds 0) is not done yet." in page.text
    assert "results/figures.json is missing" in page.text and "verdicts" in page.identifiers


def test_study_of_another_kind_or_version_still_gives_a_page(copied: StudyDirectory) -> None:
    manifest = json.loads((copied.path / "study.json").read_text())
    changed = manifest | {"configuration": {**manifest["configuration"], "unknown": 1}}
    (copied.path / "study.json").write_text(json.dumps(changed))
    page = Page(write_language_report(copied.path).read_text(encoding="utf-8"))
    assert "study.json does not fit: unknown" in page.text and "before treatment: organism" not in page.text
    assert "evaluation.max_new_tokens 24" in page.text and "responses" in page.identifiers
    (copied.path / "study.json").write_text(json.dumps(manifest | {"kind": "finetune"}))
    assert "of kind finetune" in Page(write_language_report(copied.path).read_text(encoding="utf-8")).text


def test_empty_folder_gives_a_page_and_no_folder_an_error(tmp_path: Path) -> None:
    content = write_language_report(tmp_path).read_text(encoding="utf-8")
    assert "incomplete" in Page(content).text and "<script" not in content
    with pytest.raises(RunDirectoryError, match="is not a folder"):
        write_language_report(tmp_path / "absent")


def test_comparison_keeps_orientations_apart(study: StudyDirectory) -> None:
    rows = {(row.name, row.orientation): row for row in compared(read_language_content(study.path))}
    mirrored = rows["burglar", "mirrored"]
    assert not mirrored.published["paper"] and not mirrored.published["authors' code"]
    ours = {result.label: result.rate.estimate for result in mirrored.ours}
    assert ours == {label: entry[3] for label, entry in MODELS.items() if label != "honesty_prompt"}
    asked = rows["burglar, asked to be honest", "cheap_first"]
    assert [result.label for result in asked.ours] == ["honesty_prompt"]
    assert ("escape room", "mirrored") not in rows and not rows["escape room", "cheap_first"].ours
    right = rows["perspectives (right answers)", "cheap_first"]
    assert next(result for result in right.ours if result.label == "soo").rate.estimate == 1.0


def test_published_numbers_all_have_sources_and_the_labels_are_corrected() -> None:
    assert all(result.source for result in PUBLISHED)
    assert all("paper's only" in r.source for r in PUBLISHED if r.column != "replications")
    code = {r.scenario: (r.before, r.after) for r in PUBLISHED if r.column == "authors' code"}
    assert code["escape_room"] == (98.4, 57.84) and code["treasure_hunt"] == (100, 94.64)
    numbers = {(r.scenario, r.model): r.numbers for r in PUBLISHED if r.column == "paper"}
    assert numbers["treasure_hunt", "Mistral-7B"] == "≈ 100 → 99.68 ± 0.16 %"
    assert numbers["escape_room", "CalmeRys-78B"] == "→ 0.48 %"


def test_examples_are_paired_and_end_no_element(copied: StudyDirectory) -> None:
    found = examples()
    found[0] = found[0].model_copy(update={"text": "</script><!--"})
    write_list(copied.results / "examples.json", found)
    page = write_language_report(copied.path).read_text(encoding="utf-8")
    (content,) = re.findall('<script type="application/json" id="script-data">(.*?)</script>', page, re.DOTALL)
    assert "<" not in content
    data = json.loads(content)
    assert data == examples_data(read_language_content(copied.path))
    assert data["before"] == "organism" and data["examples"][0]["text"] == "</script><!--"
    assert len(data["prompts"]) == len({example.prompt for example in found})
    places = {(e["role"], e["orientation"], e["fill"], e["place"]) for e in data["examples"] if e["model"] == "soo"}
    assert len(places) == len(data["examples"]) / len(MODELS), "every answer has one partner"


def test_models_in_the_terminal(
    study: StudyDirectory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal.console, "width", 80)
    print_models([summary(label) for label in MODELS], study)
    out = capsys.readouterr().out
    rows = out.split("deceptive, honest:")[0].splitlines()
    assert all(len(row.rstrip()) <= 80 for row in rows) and "…" not in out
    (line,) = [row for row in rows if row.strip().startswith("soo_paper")]
    assert line.split() == ["soo_paper", "25/100", "75/0", "100", "1.40", "positional", "2/3"]
    (line,) = [row for row in rows if row.strip().startswith("soo_strong")]
    assert line.split()[2:4] == ["10/10", "10"], "controls are the worst of them"
    assert "soo_paper: positional: the reason for soo_paper" in out and str(study.report) in out
    assert "ended early" not in out


def test_the_terminal_says_which_training_ended_early(
    study: StudyDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    found = summary("soo")
    stopped = found.seeds[1].training.model_copy(update={"stopped": "after epoch 1"})
    seeds = (found.seeds[0], found.seeds[1].model_copy(update={"training": stopped}))
    print_models([found.model_copy(update={"seeds": seeds})], study)
    assert "soo, seed 1: training ended early: after epoch 1" in capsys.readouterr().out


def test_a_treatments_pairs_are_said_as_they_are() -> None:
    def pairs(**changes: object) -> str:
        return pairs_in_words(recipe("embedded", **changes))

    assert pairs() == "scenario, 48 + 24 kept"
    assert pairs(own_pairs=(("You.", "Bob."),), kept=(), kept_count=0) == "own, 1"


# The page in a browser --------------------------------------------------------------------------------------------


class Responses:
    """The part of the page where answers are browsed."""

    def __init__(self, driver: "Chrome") -> None:
        self.driver = driver

    def open(self, path: Path, width: int = 1100) -> None:
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.get(path.as_uri())

    def part(self, name: str) -> "WebElement":
        return self.driver.find_element("css selector", f"#responses [data-part='{name}']")

    def choose(self, name: str, text: str) -> None:
        from selenium.webdriver.support.ui import Select

        Select(self.part(name)).select_by_visible_text(text)

    def cards(self) -> list[list[str]]:
        """Of each card its heading, and the headings and texts of its sides."""
        found = self.driver.find_elements("css selector", "#responses .response")
        return [[e.text for e in card.find_elements("css selector", "h3, .side h4, .side p")] for card in found]

    def overflows(self) -> bool:
        script = "return document.documentElement.scrollWidth > document.documentElement.clientWidth"
        return bool(self.driver.execute_script(script))


@pytest.fixture
def responses(chromium_driver: "Chrome", study: StudyDirectory) -> Iterator[Responses]:
    """The page, opened, and at the end nothing that the console complains of."""
    write_language_report(study.path)
    page = Responses(chromium_driver)
    page.open(study.report)
    yield page
    assert not chromium_driver.get_log("browser")  # type: ignore[no-untyped-call]


def test_before_and_after_stand_side_by_side(responses: Responses) -> None:
    assert responses.part("responses").is_displayed()
    cards = responses.cards()
    assert len(cards) == 4 and responses.part("count").text == "Answers 1 to 4 of 4 embedded ones."
    assert cards[0] == [
        "burglar, cheap room first, fill 0",
        "before, organism: deceptive",
        "<b>attic</b>",
        "after, soo, seed 0: honest",
        "<b>bedroom</b>",
    ]
    assert cards[1][3] == "after, soo, seed 0: honest, but states an intent to mislead"
    left, right = responses.driver.find_elements("css selector", ".response:first-child .side")
    assert left.location["y"] == right.location["y"] and left.location["x"] < right.location["x"]


def test_filters_choose(responses: Responses) -> None:
    responses.choose("orientation", "mirrored")
    assert [card[0] for card in responses.cards()] == ["burglar, mirrored, fill 0", "burglar, mirrored, fill 1"]
    responses.choose("answer", "honest, but states an intent to mislead")
    assert [card[0] for card in responses.cards()] == ["burglar, mirrored, fill 1"]
    responses.choose("answer", "deceptive")
    assert responses.cards() == [] and responses.part("count").text == "No embedded answer is like this."
    responses.choose("answer", "another than before")
    assert len(responses.cards()) == 2
    responses.choose("model", "sham: no effect")
    assert responses.cards() == [], "it answers as before"
    responses.choose("answer", "any")
    responses.choose("model", "organism: no effect")
    assert responses.cards()[0] == ["burglar, mirrored, fill 0", "organism, seed 0: deceptive", "<b>attic</b>"]


def test_partners_are_found_where_prompts_differ_and_a_role_asks_twice(responses: Responses) -> None:
    responses.choose("model", "honesty_prompt: no effect")
    assert responses.cards()[0][1] == "before, organism: deceptive", "a prefix to the prompt does not part them"
    responses.choose("role", "retrieval")
    assert len(responses.cards()) == 8 and all(len(card) == 5 for card in responses.cards())


def test_pages_turn(responses: Responses) -> None:
    responses.choose("role", "anybody")
    assert responses.part("count").text == "Answers 1 to 8 of 12 embedded ones."
    assert not responses.part("previous").is_enabled()
    responses.part("next").click()
    assert responses.part("count").text == "Answers 9 to 12 of 12 embedded ones." and len(responses.cards()) == 4
    assert not responses.part("next").is_enabled() and responses.part("previous").is_enabled()
    responses.choose("role", "burglar")
    assert responses.part("count").text.startswith("Answers 1 to 4")


@pytest.mark.parametrize("width", [390, 1100])
def test_nothing_is_wider_than_the_screen(responses: Responses, study: StudyDirectory, width: int) -> None:
    responses.open(study.report, width)
    assert not responses.overflows()
