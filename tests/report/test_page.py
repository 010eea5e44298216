import base64
import hashlib
import html
import json
import re
from pathlib import Path

import pytest
from html_page import Page
from PIL import Image

from soo_marl.report.page.page import write_report, write_reproduction
from soo_marl.report.page.self_contained import format_number, seeds_text
from soo_marl.storage.records import FigureRecord, Interval, Record, write_list, write_one
from soo_marl.storage.study_directory import RunDirectoryError, StudyDirectory
from soo_marl.studies.finetuning.records import Claim, ConditionSummary, EpisodeCollection, EpisodeRecord, TreatedAgent
from soo_marl.studies.learning.records import AgentRecord, Classification, ClassificationRow

QUESTION = "Does self-other overlap, how alike a network's activations are for itself and for another agent, tell"
FINETUNING_QUESTION = "Does training a deceptive agent with self-other overlap as a second loss make it honest, or"


BASELINES = {"environment": {"preset": "trackable"}, "regime": "frozen red"}


@pytest.fixture
def study(tmp_path: Path) -> StudyDirectory:
    directory = StudyDirectory.open(tmp_path / "study", "classify", BASELINES, [4, 5])
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
    assert "<script" not in content and "script-src" not in content
    assert "default-src 'none'" in html.unescape(content) and "unsafe" not in content
    assert QUESTION in page.text and FINETUNING_QUESTION not in page.text
    assert "prefers-color-scheme: dark" in content and "@media print" in content and "viewport" in content


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("results/summary.json", "results/summary.json is missing"),
        ("results/agents.json", "results/agents.json is missing"),
        ("results/classification.json", "results/classification.json is missing"),
        ("results/figures.json", "results/figures.json is missing"),
        ("figures/curves.png", "figures/curves.png is missing"),
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


@pytest.fixture
def both(study: StudyDirectory) -> StudyDirectory:
    """The same study with a fine-tuning study of its agents."""
    write_finetuning(study.path / "finetune")
    return study


def write_finetuning(path: Path) -> StudyDirectory:
    directory = StudyDirectory.open(path, "finetune", {"baselines": BASELINES, "weight": 100.0}, [4, 5])

    def interval(estimate: float) -> Interval:
        return Interval(estimate=estimate, low=estimate - 0.02, high=estimate + 0.02, n=2)

    write_list(
        directory.results / "claims.json",
        [
            Claim(
                claim="Fine-tuning makes agents honest.",
                source="the paper",
                measured="Trap rate <after> it.",
                estimate=interval(0.28),
                holds="partly",
            ),
            Claim(claim="They go on seeing red.", source="these developers", measured="Seeing gain.", holds="no"),
        ],
    )
    conditions = [
        ConditionSummary(condition="honest", method="honest", measures={"trap_rate": interval(0.27)}),
        ConditionSummary(
            condition="soo.30",
            method="soo",
            weight=30.0,
            description="self-other overlap of hidden activations",
            source="Carauleanu et al. 2024",
            measures={
                "trap_rate": interval(0.281),
                "rubric_rate": interval(0.33),
                "goal_rate": interval(0.95),
                "goal_rate_alone": interval(0.96),
                "sensitivity": interval(0.111),
                "seeing_gain": interval(12.3),
                "difference_to_honest": interval(0.0444),
                "activation_power": Interval(estimate=1.25, n=1),
            },
            verdicts={"blind": 4, "honest": 2},
            verdict="blind",
        ),
        ConditionSummary(
            condition="soo.30", method="soo", after=True, measures={"trap_rate": interval(0.61)}, verdicts={"broken": 1}
        ),
    ]
    write_list(directory.results / "conditions.json", conditions)
    write_list(
        directory.results / "treated_agents.json",
        [
            TreatedAgent(condition="soo.30", seed=4, goal_rate=0.93, verdict="blind", reasons=("sensitivity is 0.1",)),
            TreatedAgent(condition="soo.30", seed=5, after=True, stopped="update 40", reasons=("no goal rate",)),
        ],
    )
    write_list(directory.results / "curves.json", [])
    write_one(directory.results / "episodes.json", episodes())
    write_list(
        directory.results / "summary.json",
        [Record(name="soo.30/trap_rate", estimate=0.28, n=2, unit="share", command="soo-marl finetune runs/study")],
    )
    directory.figures.mkdir()
    Image.new("RGB", (4, 4)).save(directory.figures / "verdicts.png")
    write_list(directory.results / "figures.json", [FigureRecord(file="verdicts.png", caption="The verdicts.")])
    return directory


def episodes() -> EpisodeCollection:
    """One episode of two steps, of an agent whose name is no friend of HTML."""
    return EpisodeCollection(
        preset="trackable",
        landmark_radius=0.16,
        landmark_size=0.08,
        agent_size=0.15,
        blue_sight_radius=0.35,
        red_sight_radius=0.35,
        episodes=(
            EpisodeRecord(
                condition="</script>soo.30",
                seed=4,
                verdict="blind",
                number=0,
                alone=False,
                goal=(0.5, 0.5),
                fake=(-0.5, 0.5),
                blue=((0, 0), (0.1, 0.1), (0.2, 0.1)),
                red=((0.1, 0), (0.1, 0), (0.1, 0.1)),
                trapped=(False, False, False),
                red_in_sight=(True, True, True),
                overlap=(0.1, None),
                opportunity=(True, True),
                projection_on_goal=(1.0, 0.7),
                projection_on_fake=(0.0, -0.7),
                cosine_between=(0.0, -0.1),
            ),
        ),
    )


def test_page_of_baselines_and_fine_tuning(both: StudyDirectory) -> None:
    content = write_report(both.path).read_text(encoding="utf-8")
    page = Page(content)
    for words in (
        QUESTION,
        FINETUNING_QUESTION,
        "Fine-tuning makes agents honest. the paper Trap rate <after> it. 0.280 [0.260, 0.300] n = 2 holds: partly",
        "They go on seeing red. these developers Seeing gain. – holds: no",
        "soo.30 self-other overlap of hidden activations; weight 30 blind blind 4, honest 2 0.281 [0.261, 0.301] "
        "0.330 [0.310, 0.350] 0.950 [0.930, 0.970] 0.960 [0.940, 0.980] 0.111 [0.0910, 0.131] 12.3 [12.3, 12.3] "
        "0.0444 [0.0244, 0.0644]",
        "honest – 0.270 [0.250, 0.290] – – – – – –",
        "activation power",
        "1.25",
        "Figure 1. The curves.",
        "Figure 3. The verdicts.",
        "sensitivity is 0.1",
        "soo.30, after 5 – – – – – – – – – stopped: update 40; no goal rate",
        "soo-marl classify",
        "soo-marl finetune runs/study",
        "baselines.environment.preset",
        "Overlap separates them.",
    ):
        assert words in page.text, words
    assert "incomplete" not in page.text
    assert page.text.count("soo-marl finetune") == 1
    places = [page.text.index(words) for words in ("Fine-tuning makes", "Overlap separates", "After further", "0.610")]
    assert places == sorted(places), "verdicts first, and what came after the loss was taken away apart"
    assert page.identifiers.index("verdicts") < page.identifiers.index("player") < page.identifiers.index("findings")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]*", "", content))


def test_script_and_style_are_named_by_their_hash(both: StudyDirectory) -> None:
    content = write_report(both.path).read_text(encoding="utf-8")
    policy = html.unescape(re.findall(r'Security-Policy" content="([^"]*)"', content)[0])
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", content, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{rule} 'sha256-{digest}'" in policy
    assert not re.search(r"<[^>]* (style|on[a-z]+)=", content), "neither would be let through"


def test_episodes_are_embedded(both: StudyDirectory) -> None:
    content = write_report(both.path).read_text(encoding="utf-8")
    (data,) = re.findall('<script type="application/json" id="script-data">(.*?)</script>', content, re.DOTALL)
    (agent,) = json.loads(data)["studies"][0]["agents"]
    assert agent["condition"] == "</script>soo.30" and agent["episodes"][0]["blue"] == [0, 0, 100, 100, 200, 100]
    for without in ("missing", "empty"):
        file = both.path / "finetune" / "results" / "episodes.json"
        file.unlink() if without == "missing" else write_one(file, episodes().model_copy(update={"episodes": ()}))
        page = Page(content := write_report(both.path).read_text(encoding="utf-8"))
        assert "player" not in page.identifiers and "<script" not in content
        assert ("finetune/results/episodes.json is missing" in page.text) == (without == "missing")


def test_page_of_a_fine_tuning_study_alone(tmp_path: Path) -> None:
    directory = write_finetuning(tmp_path / "alone")
    page = Page(write_report(directory.path).read_text(encoding="utf-8"))
    assert "incomplete" not in page.text and QUESTION not in page.text and FINETUNING_QUESTION in page.text
    assert {"verdicts", "player", "finetuning"} <= set(page.identifiers)
    assert not {"findings", "summary", "classification", "agents"} & set(page.identifiers)
    (directory.path / "study.json").unlink()
    page = Page(write_report(directory.path).read_text(encoding="utf-8"))
    assert "study.json is missing" in page.text and "agents.json is missing" not in page.text


FINETUNING_RESULTS = ("claims", "conditions", "treated_agents", "curves", "episodes", "summary", "figures")


def test_unfinished_fine_tuning_is_named(study: StudyDirectory) -> None:
    (study.path / "finetune").mkdir()
    page = Page(write_report(study.path).read_text(encoding="utf-8"))
    for name in FINETUNING_RESULTS:
        assert f"finetune/results/{name}.json is missing" in page.text
    assert "finetune/study.json is missing" in page.text and "Overlap separates them." in page.text
    assert str(study.path.parent) not in page.text
    assert not {"verdicts", "player", "finetuning"} & set(page.identifiers)


@pytest.mark.parametrize("name", FINETUNING_RESULTS)
def test_each_missing_part_of_fine_tuning_is_named_alone(both: StudyDirectory, name: str) -> None:
    (both.path / "finetune" / "results" / f"{name}.json").unlink()
    page = Page(write_report(both.path).read_text(encoding="utf-8"))
    assert page.text.count("is missing") == 1 and f"finetune/results/{name}.json is missing" in page.text
    assert ("verdicts" in page.identifiers) == (name != "claims")
    assert ("player" in page.identifiers) == (name != "episodes")


def test_a_study_in_the_working_directory(study: StudyDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    (study.results / "agents.json").unlink()
    monkeypatch.chdir(study.path)
    assert "results/agents.json is missing" in Page(write_report(Path(".")).read_text(encoding="utf-8")).text


def test_reproduction_has_a_section_per_study(both: StudyDirectory, tmp_path: Path) -> None:
    write_finetuning(tmp_path / "other")
    (tmp_path / "other" / "results" / "summary.json").unlink()
    studies = {"trackable": both.path, "watch": tmp_path / "other", "paper": tmp_path / "absent"}
    path = write_reproduction(tmp_path / "all", studies)
    assert path == tmp_path / "all" / "report.html"
    content = path.read_text(encoding="utf-8")
    page = Page(content)
    assert "The study paper is missing: it has no folder." in page.text
    assert "watch/results/summary.json is missing" in page.text and page.text.count("is missing") == 2
    assert str(tmp_path) not in page.text
    assert {"study-trackable", "study-watch", "trackable-findings", "watch-finetuning"} <= set(page.identifiers)
    assert "#study-watch" in page.links and "#trackable-classification" in page.links
    assert "study-paper" not in page.identifiers and "watch-findings" not in page.identifiers
    assert page.text.count("Fine-tuning makes agents honest.") == 2
    assert page.text.rindex("Fine-tuning makes agents honest.") < page.text.index("Overlap separates them.")
    assert "Figure 4. The verdicts." in page.text, "figures are counted through"
    (data,) = re.findall('id="script-data">(.*?)</script>', content, re.DOTALL)
    assert [study["name"] for study in json.loads(data)["studies"]] == ["trackable", "watch"]


def test_reproduction_of_nothing(tmp_path: Path) -> None:
    page = Page(write_reproduction(tmp_path, {"watch": tmp_path / "absent"}).read_text(encoding="utf-8"))
    assert "The study watch is missing" in page.text
    with pytest.raises(ValueError, match="at least one study"):
        write_reproduction(tmp_path, {})


@pytest.mark.parametrize(
    ("seeds", "text"),
    [((), "none"), ((4, 5), "4, 5"), ((0, 1, 2, 3, 7, 9, 10, 11), "0–3, 7, 9–11"), ((3, 2, 1), "3, 2, 1")],
)
def test_seeds_in_a_row_are_a_range(seeds: tuple[int, ...], text: str) -> None:
    assert seeds_text(seeds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0"), (1.0, "1.00"), (0.12345, "0.123"), (-12.34, "-12.3"), (123.4, "123"), (4e-6, "4.00e-06")],
)
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert format_number(value) == text


def test_the_fine_tuning_of_another_study_stays_out_of_the_page(both: StudyDirectory) -> None:
    assert "Treated agents" in Page(write_report(both.path).read_text()).text
    manifest = both.path / "finetune" / "study.json"
    manifest.write_text(manifest.read_text().replace("frozen red", "learning red"))
    text = Page(write_report(both.path).read_text()).text
    assert "finetune treats the agents of another study, so it is left out" in text and "Treated agents" not in text
