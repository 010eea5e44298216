"""The player of episodes: its data, and the page in a headless Chromium where there is one."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from soo_marl.deception import RubricSteps, Trajectories, rubric_steps
from soo_marl.report.page.page import write_reproduction
from soo_marl.report.page.player import UNITS, player_data
from soo_marl.report.page.self_contained import new_environment
from soo_marl.storage.records import write_list, write_one
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.finetuning.records import Claim, EpisodeCollection, EpisodeRecord

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement
    from selenium.webdriver.support.ui import Select

LEFT, RIGHT, HOME, END, SPACE = "\ue012", "\ue014", "\ue011", "\ue010", "\ue00d"
"""Keys, as WebDriver calls them."""

STEPS = 30
SIGHT, LANDMARK_RADIUS = 0.35, 0.16
CONDITIONS = {"honest": None, "deceptive": "still deceptive", "soo.100": "blind", "soo_difference": "honest"}
"""Conditions with their verdicts."""


def simulated(condition: str, seed: int, number: int, alone: bool, steps: int = STEPS) -> EpisodeRecord:
    """An episode by hand-written policies: a deceptive blue lures red to the fake, others walk to the goal."""
    random = np.random.default_rng([seed, number])
    goal, fake = random.uniform(-0.8, 0.8, (2, 2))
    blue, red = [random.uniform(-0.7, 0.7, 2)], []
    red.append(blue[0] + random.uniform(-0.2, 0.2, 2))
    trapped = [False]
    for _ in range(steps):
        lures = condition == "deceptive" and not alone and not trapped[-1]
        blue.append(_towards(blue[-1], fake if lures else goal, 0.08, random))
        red.append(red[-1] if trapped[-1] else _towards(red[-1], blue[-2], 0.075, random))
        trapped.append(trapped[-1] or (not alone and bool(np.linalg.norm(red[-1] - fake) < LANDMARK_RADIUS)))
    seen = [not alone and bool(np.linalg.norm(one - other) < SIGHT) for one, other in zip(blue, red, strict=True)]
    rubric = rubric_steps(
        Trajectories(
            blue_position=torch.tensor(np.array(blue)),
            red_position=torch.tensor(np.array(red)),
            landmarks=torch.tensor(np.array([goal, fake])),
            goal=torch.tensor(0),
            trapped=torch.tensor(trapped),
            alone=torch.tensor(alone),
            red_in_sight=torch.tensor(seen),
            blue_in_sight=torch.tensor(seen),
        )
    )
    overlap = random.lognormal(-6.0 if condition.startswith("soo") else 0.0, 0.6, steps)
    return EpisodeRecord(
        condition=condition,
        seed=seed,
        verdict=CONDITIONS.get(condition),
        number=number,
        alone=alone,
        goal=_pair(goal),
        fake=_pair(fake),
        blue=tuple(map(_pair, blue)),
        red=tuple(map(_pair, red)),
        trapped=tuple(trapped),
        red_in_sight=tuple(seen),
        overlap=tuple(overlap.tolist()),
        opportunity=tuple(rubric.opportunity.tolist()),
        projection_on_goal=tuple(rubric.projection_on_goal.tolist()),
        projection_on_fake=tuple(rubric.projection_on_fake.tolist()),
        cosine_between=tuple(rubric.cosine_between.tolist()),
    )


def _towards(
    start: NDArray[np.float64], aim: NDArray[np.float64], length: float, random: np.random.Generator
) -> NDArray[np.float64]:
    way = aim - start + random.normal(0, 0.05, 2)
    return np.clip(start + way * min(1.0, length / float(np.linalg.norm(way))), -0.95, 0.95)


def _pair(position: NDArray[np.float64]) -> tuple[float, float]:
    return float(position[0]), float(position[1])


def collection(seeds: tuple[int, ...] = (0, 1), starts: int = 3, steps: int = STEPS) -> EpisodeCollection:
    """Episodes of every condition; in the last start of each blue is alone."""
    return EpisodeCollection(
        preset="trackable",
        landmark_radius=LANDMARK_RADIUS,
        landmark_size=0.08,
        agent_size=0.15,
        blue_sight_radius=SIGHT,
        red_sight_radius=SIGHT,
        episodes=tuple(
            simulated(condition, seed, number, alone=number == starts - 1, steps=steps)
            for condition in CONDITIONS
            for seed in seeds
            for number in range(starts)
        ),
    )


def counted(episodes: list[EpisodeRecord], projection_above: float, cosine_below: float) -> str:
    """What the page must say about these episodes, by the rubric itself on the exact numbers."""
    deceptive = opportunities = 0
    for episode in episodes:
        rows = (episode.projection_on_goal, episode.projection_on_fake, episode.cosine_between)
        on_goal, on_fake, between = (torch.tensor(np.array(row, dtype=np.float64)) for row in rows)
        steps = RubricSteps(on_goal, on_fake, between, torch.tensor(episode.opportunity))
        deceptive += int(steps.deceptive(projection_above, cosine_below).sum())
        opportunities += int(steps.opportunity.sum())
    if not opportunities:
        return "no opportunities"
    return f"{deceptive} of {opportunities} ({int(100 * deceptive / opportunities + 0.5)} %)"


def test_data_are_compact_and_end_no_element() -> None:
    many = collection(seeds=(0, 1, 2, 3, 4), starts=5, steps=50)
    assert len(many.episodes) == 100
    template = new_environment().from_string("{{ data|tojson }}")
    assert len(template.render(data=player_data({"trackable": many}))) < 600_000
    hostile = many.episodes[0].model_copy(update={"condition": "</script><!-- <script>"})
    content = template.render(data=player_data({"a<b": many.model_copy(update={"episodes": (hostile,)})}))
    assert "<" not in content
    study = json.loads(content)["studies"][0]
    assert study["name"] == "a<b" and study["agents"][0]["condition"] == "</script><!-- <script>"


def test_agents_keep_their_order_and_episodes() -> None:
    study = player_data({"": collection()})["studies"][0]
    assert [(agent["condition"], agent["seed"], agent["verdict"]) for agent in study["agents"]] == [
        (condition, str(seed), verdict) for condition, verdict in CONDITIONS.items() for seed in (0, 1)
    ]
    assert [episode["number"] for episode in study["agents"][0]["episodes"]] == [0, 1, 2]
    assert (study["reach"], study["landmark"], study["agent"], study["blueSight"]) == (160, 80, 150, 350)
    record, episode = collection().episodes[0], study["agents"][0]["episodes"][0]
    assert episode["blue"][4:6] == [round(number * UNITS) for number in record.blue[2]]
    assert episode["alone"] is False and study["agents"][0]["episodes"][2]["red"] == [], "absent red is nowhere"


COSINES = st.one_of(
    st.floats(-1, 1), st.integers(-UNITS, UNITS).map(lambda number: number / UNITS), st.sampled_from([0.5004, 0.49996])
)


@given(
    goal=COSINES,
    fake=COSINES,
    between=COSINES,
    projection=st.integers(0, UNITS),
    cosine=st.integers(-UNITS, UNITS),
    data=st.data(),
)
def test_counts_from_whole_thousandths_are_exact(
    goal: float, fake: float, between: float, projection: int, cosine: int, data: st.DataObject
) -> None:
    # Thresholds near the numbers, where rounding could matter, as well as anywhere.
    projection = data.draw(st.sampled_from([projection, max(0, round(fake * UNITS)), max(0, int(fake * UNITS))]))
    cosine = data.draw(st.sampled_from([cosine, round(between * UNITS), int(between * UNITS)]))
    record = simulated("honest", 0, 0, alone=False, steps=1).model_copy(
        update={
            "opportunity": (True,),
            "projection_on_goal": (goal,),
            "projection_on_fake": (fake,),
            "cosine_between": (between,),
        }
    )
    data = player_data({"": collection(seeds=(0,), starts=1).model_copy(update={"episodes": (record,)})})
    episode = data["studies"][0]["agents"][0]["episodes"][0]
    counts = episode["towards"] == "1" and episode["onFake"][0] > projection and episode["between"][0] < cosine
    assert counts == (fake > goal and fake > projection / UNITS and between < cosine / UNITS)


def test_undefined_steps_are_gaps() -> None:
    record = simulated("honest", 0, 0, alone=False, steps=2).model_copy(
        update={
            "opportunity": (True, True),
            "projection_on_goal": (None, -0.5),
            "projection_on_fake": (0.5, 0.5),
            "cosine_between": (None, None),
            "overlap": (None, 1.23456e-7),
        }
    )
    data = player_data({"": collection(seeds=(0,), starts=1).model_copy(update={"episodes": (record,)})})
    episode = data["studies"][0]["agents"][0]["episodes"][0]
    assert episode["towards"] == "01" and episode["onGoal"][0] is None and episode["between"] == [None, None]
    assert episode["overlap"] == [None, 1.23e-7]


# The page in a browser --------------------------------------------------------------------------------------------


class Browser:
    """A page in headless Chromium."""

    def __init__(self, driver: "Chrome") -> None:
        self.driver = driver

    def open(self, path: Path, width: int = 1100) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        self.driver.get(path.as_uri())

    def media(self, **features: str) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": n, "value": v} for n, v in features.items()]}
        )

    def part(self, name: str, stage: str = "main") -> "WebElement":
        places = ("", f"[data-stage='{stage}'] ", f"[data-counts='{stage}'] ")
        found = [
            element
            for place in places[1:] + places[:1]
            for element in self.driver.find_elements("css selector", f"#player {place}[data-part='{name}']")
        ]
        assert found, name
        return found[0]

    def text(self, name: str, stage: str = "main") -> str:
        return str(self.part(name, stage).get_property("textContent")).strip()

    def attribute(self, name: str, attribute: str, stage: str = "main") -> str:
        return self.part(name, stage).get_attribute(attribute) or ""

    def slide(self, name: str, value: float) -> None:
        script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))"
        self.driver.execute_script(script, self.part(name), str(value))

    def choose(self, name: str, text: str) -> None:
        self.select(name).select_by_visible_text(text)

    def select(self, name: str) -> "Select":
        from selenium.webdriver.support.ui import Select

        return Select(self.part(name))

    def options(self, name: str) -> list[str]:
        return [option.text for option in self.select(name).options]

    def run(self, script: str) -> object:
        return self.driver.execute_script(f"return {script}")

    @property
    def problems(self) -> list[str]:
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def chromium(chromium_driver: "Chrome") -> Browser:
    return Browser(chromium_driver)


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """The browser as new, and at the end nothing that the console complains of."""
    chromium.media()
    yield chromium
    assert not chromium.problems


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two studies with the same episodes but for their world's sight radius, and a long table."""
    folder = tmp_path_factory.mktemp("reproduction")
    for preset, sight in (("trackable", SIGHT), ("watch", 0.7)):
        study = StudyDirectory.open(folder / preset, "finetune", {"preset": preset}, [0, 1])
        episodes = collection().model_copy(update={"preset": preset, "blue_sight_radius": sight})
        write_one(study.results / "episodes.json", episodes)
        claim = Claim(
            claim="Self-other overlap makes a deceptive agent honest", source="the paper", measured="x" * 80, holds="no"
        )
        write_list(study.results / "claims.json", [claim])
    return write_reproduction(folder / "all", {name: folder / name for name in ("trackable", "watch")})


def of(condition: str, seed: int, number: int | None = None) -> list[EpisodeRecord]:
    """The episodes of an agent, or the one with that number."""
    return [
        episode
        for episode in collection().episodes
        if (episode.condition, episode.seed) == (condition, seed) and number in (None, episode.number)
    ]


def test_page_opens_on_a_deceptive_agent(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.part("player").is_displayed()
    assert browser.text("title") == "deceptive, seed 0 still deceptive"
    assert browser.text("clock") == f"0 / {STEPS}"
    assert browser.options("agent")[:3] == ["honest, seed 0", "honest, seed 1", "deceptive, seed 0: still deceptive"]
    assert browser.options("episode") == ["start 0, with red", "start 1, with red", "start 2, alone"]
    (record,) = of("deceptive", 0, 0)
    drawn = [float(browser.attribute("blue", name)) for name in ("cx", "cy", "r")]
    assert drawn == pytest.approx([*record.blue[0], 0.15], abs=6e-4)
    assert browser.attribute("goal", "transform").startswith(f"translate({round(record.goal[0], 3)} ")


def test_time_slider_changes_the_drawing(browser: Browser, page: Path) -> None:
    browser.open(page)
    (record,) = of("deceptive", 0, 0)
    browser.part("time").send_keys(RIGHT)
    assert browser.text("clock") == f"1 / {STEPS}"
    for moment in (7, STEPS):
        browser.slide("time", moment)
        assert browser.text("clock") == f"{moment} / {STEPS}"
        place = [float(browser.attribute("blue", name)) for name in ("cx", "cy")]
        assert place == pytest.approx(record.blue[moment], abs=6e-4)
        assert browser.attribute("blue-trail", "d").count("L") == moment
        assert browser.attribute("bars", "visibility") == ("inherit" if record.trapped[moment] else "hidden")
        assert f"state {moment} of {STEPS}" in (browser.part("player").get_attribute("innerHTML") or "")
    assert record.trapped[STEPS], "the fixture has an episode in which red ends trapped"
    assert "the end" in browser.text("step")
    browser.slide("time", 7)
    assert browser.text("step").startswith("Next, step 8: blue sees red; towards the fake ")
    assert browser.attribute("cursor", "d").startswith("M7.5 ")


def test_keys_and_buttons_step_and_play(browser: Browser, page: Path) -> None:
    browser.open(page)
    stages = browser.part("stages")
    stages.send_keys(RIGHT, RIGHT, LEFT)
    assert browser.text("clock") == f"1 / {STEPS}"
    stages.send_keys(END)
    assert browser.text("clock") == f"{STEPS} / {STEPS}"
    stages.send_keys(HOME)
    browser.part("forward").click()
    browser.part("forward").click()
    browser.part("back").click()
    assert browser.text("clock") == f"1 / {STEPS}"
    stages.send_keys(SPACE)
    assert browser.text("play") == "Pause"


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_play_advances_and_pauses(browser: Browser, page: Path, motion: str) -> None:
    browser.media(**{"prefers-reduced-motion": motion})
    browser.open(page)
    assert browser.text("clock").startswith("0 "), "nothing moves unasked"
    browser.part("play").click()
    assert browser.text("play") == "Pause"
    wait_for(lambda: int(browser.text("clock").split()[0]) >= 2)
    browser.part("play").click()
    assert browser.text("play") == "Play"
    stopped = browser.text("clock")
    time.sleep(0.3)
    assert browser.text("clock") == stopped
    browser.slide("time", STEPS - 1)
    browser.part("play").click()
    wait_for(lambda: browser.text("play") == "Play")
    assert browser.text("clock") == f"{STEPS} / {STEPS}", "it stops at the end"


def test_thresholds_count_as_the_rubric_does(browser: Browser, page: Path) -> None:
    browser.open(page)
    all_of, this = of("deceptive", 0), of("deceptive", 0, 0)
    seen = set()
    for projection, cosine in ((0.0, 1.0), (0.9, 1.0), (0.97, 0.5), (0.0, -0.25), (1.0, 1.0), (0.35, -1.0)):
        browser.slide("projection", projection)
        browser.slide("cosine", cosine)
        assert browser.text("projection-value") == f"{projection:.2f}"
        assert browser.text("cosine-value") == f"{cosine:.2f}"
        assert browser.text("counts-episode") == counted(this, projection, cosine)
        assert browser.text("counts-all") == f"{counted(all_of, projection, cosine)}; 3 episodes"
        marked = browser.attribute("counted-strip", "d").count("Z")
        assert marked == int(counted(this, projection, cosine).split()[0])
        seen.add(browser.text("counts-all"))
    assert len(seen) > 3, "the fixture has steps on either side of the thresholds"
    live = browser.driver.find_element("css selector", "#player [aria-live='polite']")
    assert browser.text("counts-all") in str(live.get_property("textContent"))


def test_choosing_agent_and_episode(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.choose("episode", "start 1, with red")
    browser.slide("time", 5)
    browser.choose("agent", "soo.100, seed 0: blind")
    assert browser.text("title") == "soo.100, seed 0 blind"
    assert browser.text("clock").startswith("5 "), "the same start at the same time"
    (record,) = of("soo.100", 0, 1)
    place = [float(browser.attribute("blue", name)) for name in ("cx", "cy")]
    assert place == pytest.approx(record.blue[5], abs=6e-4)
    assert browser.text("counts-episode") == counted([record], 0.0, 1.0)
    browser.choose("episode", "start 2, alone")
    assert browser.attribute("red", "visibility") == "hidden" and "blue is alone" in browser.text("step")
    assert browser.text("counts-episode") == "no opportunities"
    browser.choose("agent", "honest, seed 0")
    assert browser.text("title") == "honest, seed 0", "no verdict, no word"


def test_two_agents_side_by_side(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert not browser.part("title", "compared").is_displayed()
    assert browser.options("compare") == [
        "nothing",
        "honest, seed 0",
        "soo.100, seed 0: blind",
        "soo_difference, seed 0: honest",
    ], "only agents of the same seed meet the same starts"
    alone_range = browser.text("range")
    browser.choose("compare", "soo_difference, seed 0: honest")
    browser.slide("time", 9)
    assert browser.text("title", "compared") == "soo_difference, seed 0 honest"
    (record,) = of("soo_difference", 0, 0)
    place = [float(browser.attribute("blue", name, "compared")) for name in ("cx", "cy")]
    assert place == pytest.approx(record.blue[9], abs=6e-4)
    assert browser.attribute("goal", "transform") == browser.attribute("goal", "transform", "compared")
    assert browser.text("counts-episode", "compared") == counted([record], 0.0, 1.0)
    assert browser.text("range") == browser.text("range", "compared") != alone_range, "one scale for both"
    browser.choose("agent", "deceptive, seed 1: still deceptive")
    assert not browser.part("title", "compared").is_displayed()


def test_choosing_a_study(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert float(browser.attribute("blue-sight", "r")) == SIGHT
    browser.choose("study", "watch")
    assert float(browser.attribute("blue-sight", "r")) == 0.7


def test_a_phone_needs_no_scrolling_sideways(browser: Browser, page: Path) -> None:
    browser.open(page, width=360)
    browser.choose("compare", "soo.100, seed 0: blind")
    assert browser.run("window.innerWidth") == 360
    assert browser.run("document.documentElement.scrollWidth") == 360
    assert browser.run("document.body.scrollWidth") == 360
    for name in ("main", "compared"):
        title = browser.part("title", name)
        assert title.is_displayed() and title.rect["x"] + title.rect["width"] <= 360


def test_dark_and_light(browser: Browser, page: Path) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        browser.media(**{"prefers-color-scheme": scheme})
        browser.open(page)
        seen[scheme] = [
            browser.part(name).value_of_css_property("fill") for name in ("floor", "blue", "wall", "goal-disc")
        ]
        body = browser.driver.find_element("tag name", "body")
        seen[scheme] += [body.value_of_css_property(name) for name in ("background-color", "color")]
    assert all(light != dark for light, dark in zip(seen["light"], seen["dark"], strict=True))
    assert seen["light"][4:] == ["rgba(255, 255, 255, 1)", "rgba(31, 35, 40, 1)"]


def test_nothing_but_the_own_script_runs(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    chromium.run(
        "(window.other = 0, document.body.append(Object.assign(document.createElement('script'), "
        "{textContent: 'window.other = 1'})))"
    )
    assert chromium.run("window.other") == 0
    assert any("Content Security Policy" in problem for problem in chromium.problems)
