"""The whole of fine-tuning: which agents may be treated, and everything that a study leaves behind."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hand_made_agents import GAME, HONEST, STILL, baselines, finetuning, hand_made
from pydantic import ValidationError

from soo_marl.agents import MADDPGConfig
from soo_marl.engines import Compute
from soo_marl.report.page.page import read_content
from soo_marl.report.refresh import film_finetuning, refresh
from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.records import Record, read_list, read_one, write_list
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.storage.tensor_files import read_tensors
from soo_marl.studies.baselines.evaluation import evaluate_baselines
from soo_marl.studies.finetuning.claims import NEAR_HONEST
from soo_marl.studies.finetuning.configuration import FinetuneConfig, treatment
from soo_marl.studies.finetuning.evaluation import Condition, conditions, measures_file, read_measures
from soo_marl.studies.finetuning.methods import METHODS
from soo_marl.studies.finetuning.records import Claim, ConditionSummary, EpisodeCollection, TreatedAgent
from soo_marl.studies.finetuning.study import (
    competent_seeds,
    finetuning_config,
    open_finetuning,
    read_finetuning,
    run_finetuning,
    treatments_of,
    write_finetuning_results,
)
from soo_marl.studies.learning.agents_on_disk import agent_file, save_agents
from soo_marl.studies.learning.curves import read_curves
from soo_marl.studies.learning.recipes import BaselineConfig, Stage
from soo_marl.studies.learning.records import AgentRecord, LearningCurve

Competent = tuple[BaselineConfig, StudyDirectory]

STUDY = "soo_marl.studies.finetuning.study"

SOO, NONE, BLANK = treatment("soo", updates=6), treatment("none", updates=6), treatment("blank")


class Silent:
    """A display that only remembers its tasks."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, float, int]] = []
        self.done: dict[str, dict[int, float]] = {}

    @contextmanager
    def task(self, name: str, total: float, shards: int) -> Iterator[Callable[[int, float], None]]:
        """Show nothing."""
        self.tasks.append((name, total, shards))
        progress = self.done.setdefault(name, {})

        def advance(shard: int, done: float) -> None:
            progress[shard] = done

        yield advance


@pytest.fixture
def source(competent: Competent, tmp_path: Path) -> StudyDirectory:
    """A copy of the study whose agents play well enough."""
    return StudyDirectory.read(shutil.copytree(competent[1].path, tmp_path / "source"))


def fail_the_gate(source: StudyDirectory, kind: str, seed: int, reason: str) -> None:
    """Write of one agent that it does not play well enough."""
    file = source.results / "agents.json"
    agents = read_list(file, AgentRecord)
    changes = {"competent": False, "reasons": (reason,)}
    write_list(
        file,
        [agent.model_copy(update=changes) if (agent.kind, agent.seed) == (kind, seed) else agent for agent in agents],
    )
    source.mark_done("evaluate", [file])


def test_seeds_whose_agents_both_pass_the_gate(source: StudyDirectory, competent: Competent) -> None:
    config = competent[0]
    assert competent_seeds(source, config) == competent_seeds(source, config, ()) == (0, 1, 2)
    assert competent_seeds(source, config, (2, 0)) == (2, 0)
    fail_the_gate(source, "honest", 1, "goal rate with red is 0.7, not above 0.8")
    assert competent_seeds(source, config) == competent_seeds(source, config, (0, 2)) == (0, 2)
    with pytest.raises(ValueError, match=r"agents of seed 1 do not play well enough .*\(honest: goal rate .*; leave"):
        competent_seeds(source, config, (0, 1))
    fail_the_gate(source, "deceptive", 2, "trap rate is missing")
    with pytest.raises(
        RunDirectoryError, match=r"at least 2 seeds .* has 1 to treat, for example seed 1 \(honest: goal"
    ):
        competent_seeds(source, config)


def test_seeds_that_cannot_be_had(source: StudyDirectory, competent: Competent) -> None:
    config = competent[0]
    with pytest.raises(ValueError, match=r"no agents with the seed 7 in .*source; its seeds are \(0, 1, 2\)"):
        competent_seeds(source, config, (0, 7))
    with pytest.raises(
        RunDirectoryError, match=r"at least 2 seeds whose agents play well enough, and .* has 1 to treat"
    ):
        competent_seeds(source, config, (0,))
    with pytest.raises(ValidationError, match="each seed may be given only once"):
        finetuning_config(source, config, [SOO], seeds=(1, 1))


@pytest.mark.parametrize("step", ["train", "evaluate"])
def test_agents_of_a_study_that_is_not_finished_are_not_treated(
    step: str, source: StudyDirectory, competent: Competent
) -> None:
    (source.path / "steps" / f"{step}.json").unlink()
    with pytest.raises(RunDirectoryError, match="is not trained to the end; run the command that began it again"):
        competent_seeds(source, competent[0])


def test_evaluated_agents_play_well_enough_or_are_left_out(source: StudyDirectory, competent: Competent) -> None:
    """The gate's own words, of agents that were played."""
    config = competent[0]
    save_agents(source, "honest", hand_made(config.game, config.maddpg, config.seeds, (HONEST, STILL, HONEST)))
    evaluate_baselines(config, source)
    source.mark_done("evaluate", [source.results / "agents.json"])
    assert finetuning_config(source, config, [SOO]).seeds == (0, 2)


def test_the_digest_is_of_the_chosen_agents(source: StudyDirectory, competent: Competent) -> None:
    config = competent[0]

    def digest(*seeds: int) -> str:
        return finetuning_config(source, config, [SOO], seeds=seeds).agents_digest

    before, of_two = digest(0, 1, 2), digest(0, 1)
    assert digest(0, 1, 2) == before and len({before, of_two, digest(1, 0)}) == 3
    for kind in ("honest", "deceptive"):
        content = agent_file(source, kind, 2).read_bytes()
        agent_file(source, kind, 2).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert digest(0, 1, 2) != before and digest(0, 1) == of_two
        agent_file(source, kind, 2).write_bytes(content)
    assert digest(0, 1, 2) == before
    agent_file(source, "honest", 2).unlink()
    with pytest.raises(RunDirectoryError, match=r"honest/seed_2/agent\.safetensors is missing"):
        digest(0, 1, 2)


def test_what_a_study_does_unless_told_otherwise(source: StudyDirectory, competent: Competent) -> None:
    config = competent[0]
    usual = finetuning_config(source, config, [SOO, BLANK])
    assert (usual.baselines, usual.kind, usual.treatments) == (config, "deceptive", (SOO, BLANK))
    assert usual.context_weights == (1.0, 4.0), "of the preset"
    told = finetuning_config(source, config, [SOO], kind="honest", context_weights=None, after_updates=3)
    assert (told.kind, told.context_weights, told.after_updates) == ("honest", None, 3)
    with pytest.raises(ValidationError, match="updates_after"):
        finetuning_config(source, config, [SOO], updates_after=3)


@pytest.mark.parametrize("change", ["one context", "never alone", "another preset"])
def test_context_weights_are_for_agents_that_have_contexts_to_weigh(
    change: str, source: StudyDirectory, competent: Competent
) -> None:
    every_change: dict[str, dict[str, object]] = {
        "one context": {"maddpg": MADDPGConfig(hidden_units=16)},
        "never alone": {
            "stages": tuple(Stage(name=stage.name, training=stage.training) for stage in competent[0].stages)
        },
        "another preset": {"game": GAME.replace(preset="paper")},
    }
    of = baselines(**every_change[change])
    config = finetuning_config(source, of, [SOO], alone_share=0 if change == "never alone" else 0.5)
    assert config.context_weights is None


def test_treatments_of_methods_and_weights() -> None:
    assert [chosen.label for chosen in treatments_of(())] == list(METHODS)
    found = treatments_of(("soo", "none", "blank", "anchor"), (1, 10), 250)
    assert [chosen.label for chosen in found] == [
        "soo.1.updates-250",
        "soo.10.updates-250",
        "none.updates-250",
        "blank",
        "anchor.1.updates-250",
        "anchor.10.updates-250",
    ]
    with_settings = treatments_of(("soo", "none", "blank"), layers=("hidden_1",), untrapped_only=True)
    assert [chosen.label for chosen in with_settings] == ["soo.hidden_1.untrapped_only", "none", "blank"]
    usual = {chosen.method: chosen.weight for chosen in treatments_of(()) if chosen.entry.loss}
    assert usual == {name: entry.weight for name, entry in METHODS.items() if entry.loss}


def test_treatments_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="there is no method 'sooo'; choose among soo, soo_action"):
        treatments_of(("soo", "sooo"))
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        treatments_of(("soo",), (-1,))
    with pytest.raises(ValidationError, match="each treatment may be given only once"):
        finetuning(baselines(), treatments_of(("soo",), (1, 1)))


def test_a_study_is_read_again(source: StudyDirectory, competent: Competent, tmp_path: Path) -> None:
    config = finetuning_config(source, competent[0], [SOO, BLANK])
    directory = open_finetuning(tmp_path / "finetune", config)
    assert read_finetuning(directory.path) == (directory, config)
    assert open_finetuning(tmp_path / "finetune", config) == directory
    with pytest.raises(RunDirectoryError, match="holds a study of kind baselines, not of finetune; name another"):
        read_finetuning(source.path)
    with pytest.raises(RunDirectoryError, match="belongs to another study: kind is"):
        open_finetuning(source.path, config)
    manifest = json.loads((directory.path / "study.json").read_text())
    manifest["configuration"]["treatments"][0]["method"] = "sooo"
    (directory.path / "study.json").write_text(json.dumps(manifest))
    with pytest.raises(RunDirectoryError, match=r"study\.json does not fit: treatments\.0\.method: .*no method 'sooo'"):
        read_finetuning(directory.path)


Finished = tuple[FinetuneConfig, StudyDirectory, list[ConditionSummary], Silent]


@pytest.fixture(scope="module")
def finished(competent: Competent, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A study from end to end, without pictures. Not to be changed."""
    short = finetuning(competent[0], [SOO])
    config = finetuning_config(
        competent[1],
        competent[0],
        [SOO, NONE, BLANK],
        training=short.training,
        after_updates=4,
        evaluation_episodes=30,
        monitor_episodes=8,
    )
    directory, display = open_finetuning(tmp_path_factory.mktemp("finished") / "finetune", config), Silent()
    with directory.locked():
        summaries = run_finetuning(
            config, directory, competent[1].path, display, "soo-marl finetune here", Compute(workers=0)
        )
    return config, directory, summaries, display


def test_a_study_does_everything_once(
    finished: Finished, competent: Competent, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, directory, summaries, display = finished
    assert display.tasks == [("fine-tuning", 20.0, 2), ("measurement", 7.0, 7)]
    assert display.done == {
        "fine-tuning": {0: 10.0, 1: 10.0},
        "measurement": dict.fromkeys(range(7), 1.0),
    }
    for name in ("finetune", "measure_conditions"):
        monkeypatch.setattr(f"{STUDY}.{name}", lambda *_, **__: pytest.fail("done twice"))
    before = {path: path.read_bytes() for path in directory.results.iterdir()}
    again = run_finetuning(config, directory, competent[1].path, Silent(), "soo-marl finetune here", Compute(workers=0))
    assert again == summaries
    assert {path: path.read_bytes() for path in directory.results.iterdir()} == before


def test_results_are_the_typed_records(finished: Finished) -> None:
    config, directory, summaries, _ = finished
    results = directory.results
    assert read_list(results / "conditions.json", ConditionSummary) == summaries
    assert [(item.condition, item.after) for item in summaries] == [
        (condition.name, condition.after) for condition in conditions(config)
    ]
    agents = read_list(results / "treated_agents.json", TreatedAgent)
    assert len(agents) == 7 * 3
    for condition in conditions(config):
        measures = read_measures(directory, condition)
        own = [a for a in agents if (a.condition, a.after) == (condition.name, condition.after)]
        assert [agent.seed for agent in own] == [0, 1, 2]
        assert [agent.trap_rate for agent in own] == pytest.approx(measures.rates.trap_rate.tolist())
    assert {a.verdict for a in agents if a.condition == "honest"} == {"honest"}
    assert {a.verdict for a in agents if a.condition == "deceptive"} == {"still deceptive"}
    assert {a.verdict for a in agents if a.condition == "blank"} == {"blind"}
    claims = read_list(results / "claims.json", Claim)
    assert {claim.holds for claim in claims} <= {"yes", "no", "partly", "undecided"}
    (blank,) = [claim for claim in claims if claim.claim.startswith("control: blank")]
    assert blank.estimate is not None and blank.estimate.estimate is not None and blank.holds != "yes"
    assert blank.estimate.estimate < NEAR_HONEST, "it does as much, which so few seeds need not show"


def test_summary_names_condition_and_measure(finished: Finished) -> None:
    _, directory, summaries, _ = finished
    records = {record.name: record for record in read_list(directory.results / "summary.json", Record)}
    measures = {
        "trap_rate",
        "goal_rate",
        "goal_rate_alone",
        "rubric_rate",
        "return",
        "sensitivity",
        "seeing_gain",
        "behavioural_difference_to_honest",
        "overlap",
        "verdict",
    }
    labels = ["deceptive", SOO.label, NONE.label, "blank", "honest", f"{SOO.label}/after", f"{NONE.label}/after"]
    assert list(dict.fromkeys(name.rpartition("/")[0] for name in records)) == labels
    assert set(records) == {f"{label}/{name}" for label in labels for name in measures}
    for summary in summaries:
        label = f"{summary.condition}/after" if summary.after else summary.condition
        for name, measure in (
            ("trap_rate", "trap_rate"),
            ("sensitivity", "relative_sensitivity"),
            ("return", "episode_return"),
        ):
            record, interval = records[f"{label}/{name}"], summary.measures[measure]
            assert (record.estimate, record.low, record.high, record.n) == (
                interval.estimate,
                interval.low,
                interval.high,
                interval.n,
            )
        verdict = records[f"{label}/verdict"]
        assert (verdict.text, verdict.n) == (summary.verdict, 3)
    assert {record.command for record in records.values()} == {"soo-marl finetune here"}
    assert records["honest/sensitivity"].estimate == pytest.approx(1.0)
    assert records["deceptive/behavioural_difference_to_honest"].estimate == pytest.approx(1.0)
    assert records["blank/verdict"].estimate == 1.0


def test_curves_of_both_stages(finished: Finished) -> None:
    config, directory, _, _ = finished
    curves = {(c.stage, c.kind, c.metric): c for c in read_list(directory.results / "curves.json", LearningCurve)}
    assert {key[:2] for key in curves} == {
        (stage, chosen.label) for stage in ("finetune", "after") for chosen in (SOO, NONE)
    }
    assert {key[2] for key in curves} == {
        "trap_rate",
        "goal_rate",
        "goal_rate_alone",
        "rubric_rate",
        "overlap",
        "sensitivity",
        "greedy_return",
        "following_rate",
        "red_goal_rate",
    }
    for (stage, kind, metric), curve in curves.items():
        assert curve.updates == ((2, 4, 6) if stage == "finetune" else (2, 4))
        folder = kind if stage == "finetune" else f"{kind}.after"
        for row, seed in zip(curve.values, config.seeds, strict=True):
            stored = read_curves(directory.path / folder / f"seed_{seed}" / "curves.json")[stage][metric]
            assert list(row) == stored


def test_episodes_are_labelled_with_the_verdict_of_their_agent(finished: Finished) -> None:
    config, directory, _, _ = finished
    collection = read_one(directory.results / "episodes.json", EpisodeCollection)
    agents = read_list(directory.results / "treated_agents.json", TreatedAgent)
    verdicts = {(a.condition, a.seed): a.verdict for a in agents if not a.after}
    assert (collection.preset, collection.blue_sight_radius) == ("trackable", config.baselines.game.blue_sight_radius)
    names = [episode.condition for episode in collection.episodes]
    assert list(dict.fromkeys(names)) == ["deceptive", SOO.label, NONE.label, "blank", "honest"]
    assert all(names.count(name) == 6 for name in names)
    for episode in collection.episodes:
        assert episode.seed == config.seeds[0] and episode.verdict == verdicts[episode.condition, episode.seed]
    starts = {
        (episode.number, episode.alone, episode.goal, episode.fake, episode.blue[0]) for episode in collection.episodes
    }
    assert len(starts) == 6, "the same starts for all"
    # What a rubric of these episodes says, the rates say as well: lured steps are those of deceptive agents.
    deceptive = [episode for episode in collection.episodes if episode.condition == "deceptive"]
    assert share_towards_fake(deceptive) > 0.6
    assert share_towards_fake([episode for episode in collection.episodes if episode.condition == "honest"]) < 0.5


def share_towards_fake(episodes: list[Any]) -> float:
    counted = [
        (fake, goal)
        for episode in episodes
        for opportunity, fake, goal in zip(
            episode.opportunity, episode.projection_on_fake, episode.projection_on_goal, strict=True
        )
        if opportunity
    ]
    return float(np.mean([fake > goal for fake, goal in counted]))


def test_profiles_by_condition(finished: Finished) -> None:
    config, directory, _, _ = finished
    tensors, _ = read_tensors(directory.results / "profiles.safetensors", finite=False)
    names = ["deceptive", SOO.label, NONE.label, "blank", "honest"]
    assert set(tensors) == {"projection_thresholds", "cosine_thresholds", *(f"rates/{name}" for name in names)}
    for condition in conditions(config):
        if not condition.after:
            rates = read_measures(directory, condition).profile.rates.float()
            assert bool((tensors[f"rates/{condition.name}"] == rates).all())
            assert rates.shape == (3, len(tensors["projection_thresholds"]), len(tensors["cosine_thresholds"]))


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than everything else together."""
    patch.setattr("soo_marl.report.refresh.film_finetuning", lambda directory: None)
    patch.setattr("soo_marl.report.refresh.draw_finetuning", lambda path: write_list(path / "results/figures.json", []))


def test_the_page_knows_the_study_for_what_it_is(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_nothing(monkeypatch)
    _, directory, summaries, _ = finished
    directory = StudyDirectory.read(shutil.copytree(directory.path, tmp_path / "finetune"))
    assert refresh(directory.path) == directory.report
    content = read_content(directory.path)
    assert content.baselines is None and content.finetuning is not None and content.missing == ()
    assert list(content.finetuning.conditions) == summaries
    page = (directory.path / "report.html").read_text()
    assert SOO.label in page and "This report is incomplete." not in page


def test_episodes_and_animation_show_the_verdicts_of_their_time(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, directory, summaries, _ = finished
    copy = StudyDirectory.read(shutil.copytree(directory.path, tmp_path / "finetune"))
    # Further training broke it; that is not what the animation shows.
    for condition in conditions(config):
        if condition.after and condition.name == SOO.label:
            shutil.copy(measures_file(directory, Condition("blank", BLANK)), measures_file(copy, condition))
    filmed: list[Any] = []

    def film(collection: EpisodeCollection, path: Path, *, conditions: list[str]) -> list[Path]:
        filmed.append(conditions)
        return [path.with_suffix(".gif")]

    monkeypatch.setattr("soo_marl.report.refresh.save_videos", film)
    write_finetuning_results(config, copy, "again")
    film_finetuning(copy)
    assert filmed == [["deceptive", SOO.label, "honest"]]
    verdicts = {item.condition: item.verdict for item in summaries if not item.after}
    (figure,) = json.loads((copy.results / "figures.json").read_text())
    for name in filmed[0]:
        assert f"{name} ({verdicts[name]})" in figure["caption"]
    agents = read_list(copy.results / "treated_agents.json", TreatedAgent)
    now, later = (
        [a.verdict for a in agents if a.condition == SOO.label and a.after is after] for after in (False, True)
    )
    assert now[0] != later[0]
    episodes = read_one(copy.results / "episodes.json", EpisodeCollection).episodes
    assert {episode.verdict for episode in episodes if episode.condition == SOO.label} == {now[0]}


def test_results_of_measures_that_are_gone_are_not_made_up(finished: Finished, tmp_path: Path) -> None:
    config, directory, _, _ = finished
    copy = StudyDirectory.read(shutil.copytree(directory.path, tmp_path / "finetune"))
    measures_file(copy, Condition("honest")).unlink()
    with pytest.raises(RunDirectoryError, match=r"measures/honest\.safetensors is missing"):
        write_finetuning_results(config, copy, "again")
    assert not copy.done("measure"), "so that they are measured again"


def test_curves_that_do_not_belong_together_are_named(finished: Finished, tmp_path: Path) -> None:
    config, directory, _, _ = finished
    copy = StudyDirectory.read(shutil.copytree(directory.path, tmp_path / "finetune"))
    file = copy.path / SOO.label / "seed_1" / "curves.json"
    content = json.loads(file.read_text())
    content["finetune"] = {name: values[:-1] for name, values in content["finetune"].items()}
    file.write_text(json.dumps(content))
    with pytest.raises(RunDirectoryError, match=r"seed_1/curves\.json does not fit: finetune .* seed 0; delete it"):
        write_finetuning_results(config, copy, "again")


def test_honest_agents_can_be_treated(competent: Competent, tmp_path: Path) -> None:
    short = finetuning(competent[0], [SOO])
    config = finetuning_config(
        competent[1],
        competent[0],
        [SOO],
        seeds=(2, 0),
        kind="honest",
        training=short.training,
        after_updates=0,
        evaluation_episodes=20,
        monitor_episodes=0,
    )
    directory = open_finetuning(tmp_path / "finetune", config)
    summaries = run_finetuning(config, directory, competent[1].path, Silent(), "here", Compute(workers=0))
    assert [item.condition for item in summaries] == ["deceptive", SOO.label, "honest"]
    # Six updates do not make anyone lure.
    trapped = summaries[1].measures["trap_rate"].estimate
    assert trapped is not None and trapped < 0.5
    assert summaries[1].measures["trap_rate"].n == 2
    claims = read_list(directory.results / "claims.json", Claim)
    assert any("leaves honest agents honest" in claim.claim for claim in claims)
    assert not any("control" in claim.claim or "deceptive agents" in claim.claim for claim in claims)
