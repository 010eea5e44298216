"""The plan of a reproduction, and carrying it out with agents that are there at once."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import ValidationError

sys.path.insert(0, str(Path(__file__).parent))

from ready_study import HONEST, LURES, STILL, draw_nothing, make_ready, ready_config

from soo_marl.commands.tables.reproduction import duration_text
from soo_marl.engines import Compute
from soo_marl.report.refresh import refresh
from soo_marl.storage.files import RunDirectoryError
from soo_marl.storage.records import Record, read_list
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.classification import ClassificationConfig
from soo_marl.studies.baselines.study import read_study, train_and_evaluate
from soo_marl.studies.finetuning import study
from soo_marl.studies.finetuning.methods import METHODS
from soo_marl.studies.finetuning.study import read_finetuning
from soo_marl.studies.learning.recipes import BaselineConfig, baseline_config
from soo_marl.studies.reproduction import plan as reproduction_plan
from soo_marl.studies.reproduction import study as reproduction
from soo_marl.studies.reproduction.plan import (
    SCALES,
    PresetPlan,
    Scale,
    checkpoint_megabytes,
    planned_steps,
    scale_named,
)
from soo_marl.studies.reproduction.plan import (
    reproduction_plan as plan_of,
)
from soo_marl.studies.reproduction.study import (
    REPRODUCTION,
    Finetuned,
    finetune_competent,
    name_presets,
    open_reproduction,
    reproduce_preset,
    scaled_finetuning,
)

HERE, TWO_CORES = Compute(workers=0), Compute(workers=2)
TINY = Scale(
    name="tiny",
    seeds=(0, 1, 2),
    seeds_per_shard=2,
    training={"trackable": 0.5},
    evaluation_episodes=60,
    classification=ClassificationConfig(evaluation_seeds=1, episodes=(1, 2), probe_steps=10),
    methods=("blank",),
    after_updates=0,
    finetuning_episodes=60,
    profile_episodes=20,
    remark="a tiny look: it means nothing",
)


class Tasks:
    """Takes down which tasks ran."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @contextmanager
    def task(self, name: str, total: float, shards: int) -> Iterator[Callable[[int, float], None]]:
        self.names.append(name)
        yield lambda shard, units: None


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_nothing(monkeypatch)


def plan(tmp_path: Path, config: BaselineConfig | None = None) -> PresetPlan:
    """The plan of one preset, about agents that need not be trained."""
    return PresetPlan("trackable", tmp_path / "trackable", config or ready_config(), TINY)


def seconds(scale: str, *presets: str, workers: int = 2) -> float:
    plans = plan_of(Path("nowhere"), SCALES[scale], presets or ("trackable", "paper", "watch"))
    return sum(step.seconds for one in plans for step in planned_steps(one, Compute(workers=workers)))


def test_scales_keep_their_promises() -> None:
    assert seconds("quick") < 600, "minutes"
    assert seconds("standard") < 2 * 3_600
    assert seconds("quick") < seconds("standard") < seconds("full")
    assert [len(SCALES[name].seeds) for name in ("quick", "standard", "full")] == [3, 10, 20]
    assert SCALES["standard"].methods == SCALES["full"].methods == tuple(METHODS)
    full = SCALES["full"]
    assert full.evaluation_episodes == full.finetuning_episodes == full.profile_episodes == 2_000
    assert full.classification.episodes[-1] == 1_500 and full.classification.evaluation_seeds == 10
    assert not full.training and not SCALES["standard"].training, "whole recipes"
    assert not full.remark and "not a result" in SCALES["quick"].remark


def test_a_plan_takes_the_recipe_of_each_preset(tmp_path: Path) -> None:
    standard = plan_of(tmp_path, SCALES["standard"])
    assert [(one.preset, one.baselines.regime, one.deceives) for one in standard] == [
        ("trackable", "staged", True),
        ("paper", "joint", False),
        ("watch", "scripted", True),
    ]
    for one in standard:
        assert one.baselines == baseline_config(one.preset, one.baselines.regime, tuple(range(10)))
        assert one.path == tmp_path / one.preset
        assert [chosen.label for chosen in one.treatments] == list(METHODS)
    (paper,) = plan_of(tmp_path, SCALES["quick"], ["paper"])
    assert paper.baselines.stages[0].training.updates == 2_000, "a quarter of 8,000"
    assert [chosen.label for chosen in paper.treatments] == ["soo", "soo_difference", "none", "position_tie"]
    assert paper.baselines.evaluation_episodes == 500


@pytest.mark.parametrize(
    ("presets", "message"),
    [
        (["trakable"], "there is no preset 'trakable'; did you mean trackable?"),
        (["chess"], "there is no preset 'chess'; choose among trackable, paper, watch"),
        (["watch", "watch"], "each preset may be given only once, but watch is repeated"),
        ([], "name at least one preset of trackable, paper, watch"),
    ],
)
def test_presets_that_cannot_be(presets: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        plan_of(tmp_path, TINY, presets)
    assert str(caught.value) == message


def test_scales_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no scale 'huge'; choose one of quick, standard, full"):
        scale_named("huge")
    assert scale_named("full") is SCALES["full"]
    with pytest.raises(ValueError, match="there is no method 'magic'"):
        plan_of(tmp_path, TINY.model_copy(update={"methods": ("magic",)}))
    with pytest.raises(ValidationError, match="seeds"):
        Scale(name="x", seeds=(1,), classification=ClassificationConfig(), methods=("soo",))


def test_times_by_hand() -> None:
    """Shards go to the worker that is free first; what shards share is divided by those that are at work."""
    assert reproduction_plan._parallel([4.0, 3.0, 2.0, 1.0], 2) == 5.0
    assert reproduction_plan._parallel([4.0, 3.0, 2.0, 1.0], 1) == 10.0
    assert reproduction_plan._parallel([], 2) == 0.0
    assert reproduction_plan._shared(12.0, 4, 3) == 4.0
    (one,) = plan_of(Path("nowhere"), SCALES["standard"], ["paper"])
    start, per_run = reproduction_plan._COSTS["training_seconds"]
    train = planned_steps(one, TWO_CORES)[0]
    assert train.step == "train" and train.seconds == pytest.approx(16_000 * (start + 5 * per_run))
    assert planned_steps(one, HERE)[0].seconds == pytest.approx(2 * train.seconds)
    fine_tune = next(step for step in planned_steps(one, TWO_CORES) if step.step == "fine-tune")
    assert (fine_tune.seconds, fine_tune.amount) == (0.0, "nothing: no deception is expected")
    assert checkpoint_megabytes(one, TWO_CORES) == pytest.approx(10 * 16.0)
    assert seconds("full", "watch", workers=1) > seconds("full", "watch")


@pytest.mark.parametrize(
    ("value", "text"), [(0.4, "0 s"), (59, "59 s"), (90, "2 min"), (5_399, "90 min"), (7_200, "2.0 h")]
)
def test_durations(value: float, text: str) -> None:
    assert duration_text(value) == text


def test_a_plan_says_what_is_done_already(tmp_path: Path) -> None:
    one = plan(tmp_path)
    assert not any(step.done for step in planned_steps(one, HERE))
    make_ready(one.path, one.baselines)
    assert [step.step for step in planned_steps(one, HERE) if step.done] == ["train"]


Whole = tuple[StudyDirectory, PresetPlan, reproduction.PresetResult]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """A reproduction of one preset, carried out. Not to be changed."""
    with pytest.MonkeyPatch.context() as context:
        draw_nothing(context)
        output = tmp_path_factory.mktemp("reproduction") / "output"
        directory = open_reproduction(output, TINY)
        one = plan(output)
        make_ready(one.path, one.baselines)
        tasks = Tasks()
        result = reproduce_preset(one, tasks, "soo-marl reproduce", HERE, refresh)
        assert tasks.names == ["evaluation", "classification", "fine-tuning", "measurement", "profiles"]
        yield directory, one, result


def test_everything_about_a_preset(whole: Whole) -> None:
    _, one, result = whole
    assert result.finetuned.why_not is None and result.finetuned.directory is not None
    verdicts = {summary.condition: summary.verdict for summary in result.finetuned.summaries}
    assert verdicts == {"deceptive": "still deceptive", "blank": "blind", "honest": "honest"}
    for file in ("agents", "classification", "curves", "profiles", "summary"):
        assert (one.path / "results" / f"{file}.json").exists()
    records = {record.name: record for record in read_list(one.path / "results" / "summary.json", Record)}
    for name in (
        "trap_rate",
        "goal_rate",
        "goal_rate_alone",
        "rubric_rate",
        "sensitivity",
        "verdict",
        "behavioural_difference_to_honest",
    ):
        assert f"finetune/blank/{name}" in records
    assert records["finetune/blank/verdict"].text == "blind"
    assert records["profiles/deceptive/difference_to_honest"].estimate is not None
    note = records["note/share_of_full_training"]
    assert (note.estimate, note.n, note.text) == (0.5, 3, "a tiny look: it means nothing")
    assert not [name for name in records if name == "note/competent_seeds"]
    assert "a tiny look: it means nothing" in (one.path / "report.html").read_text()
    assert (one.path / "finetune" / "report.html").exists()


def test_a_second_time_nothing_is_done_twice(whole: Whole) -> None:
    _, one, result = whole
    tasks, before = Tasks(), (one.path / "results" / "summary.json").read_bytes()
    again = reproduce_preset(one, tasks, "soo-marl reproduce", HERE)
    assert tasks.names == []
    assert again.agents == result.agents and again.finetuned.summaries == result.finetuned.summaries
    assert (one.path / "results" / "summary.json").read_bytes() == before
    assert all(step.done for step in planned_steps(one, HERE) if step.step != "pages")


def test_the_page_names_what_is_missing(whole: Whole) -> None:
    directory, _, _ = whole
    assert "The study watch is missing" not in refresh(directory.path).read_text()
    name_presets(directory, ["watch"])
    path = refresh(directory.path)
    page = path.read_text()
    assert path == directory.path / "report.html"
    assert "The study watch is missing" in page and "The study paper" not in page
    assert ": a tiny look</title>" in page
    name_presets(directory, ["trackable"])
    assert refresh(directory.path).read_text() == page, "what was to be done still is"


def test_a_reproduction_is_known_by_its_scale(whole: Whole, tmp_path: Path) -> None:
    directory, one, _ = whole
    assert REPRODUCTION.read(directory.path) == (directory, TINY)
    assert open_reproduction(directory.path, TINY).manifest == directory.manifest
    with pytest.raises(RunDirectoryError, match=r"belongs to another study: configuration\."):
        open_reproduction(directory.path, SCALES["quick"])
    with pytest.raises(RunDirectoryError, match='kind is "baselines" there and "reproduction" here'):
        open_reproduction(one.path, TINY)
    page = refresh(open_reproduction(tmp_path / "empty", TINY).path).read_text()
    assert all(f"The study {name} is missing" in page for name in ("trackable", "paper", "watch"))


def test_agents_that_fail_the_gate_are_classified_but_not_fine_tuned(tmp_path: Path) -> None:
    one, tasks = plan(tmp_path), Tasks()
    make_ready(one.path, one.baselines, deceptive=[HONEST, HONEST, STILL])
    result = reproduce_preset(one, tasks, "soo-marl reproduce", HERE, refresh)
    assert tasks.names == ["evaluation", "classification", "profiles"]
    why = result.finetuned.why_not
    assert why is not None and "nothing was fine-tuned: an interval needs at least 2 seeds" in why
    assert "seed 0 (deceptive: trap rate minus that of the honest agent" in why
    assert result.classification.rows and not (one.path / "finetune").exists()
    records = {record.name: record for record in read_list(one.path / "results" / "summary.json", Record)}
    note = records["note/competent_seeds"]
    assert (note.estimate, note.n, note.text) == (0, 3, why)
    assert "nothing was fine-tuned: an interval needs" in (one.path / "report.html").read_text()


def fine_tune(one: PresetPlan) -> Finetuned:
    """That step alone, and what it needs."""
    directory, config = read_study(one.path)
    train_and_evaluate(config, directory, Tasks(), HERE)
    changes = {"after_updates": TINY.after_updates, "evaluation_episodes": TINY.finetuning_episodes}
    return finetune_competent(config, directory, one.treatments, changes, Tasks(), "soo-marl demo", HERE)


def test_only_competent_seeds_are_fine_tuned(tmp_path: Path) -> None:
    one = plan(tmp_path)
    make_ready(one.path, one.baselines, deceptive=[LURES, STILL, LURES])
    finetuned = fine_tune(one)
    assert finetuned.why_not is None and finetuned.directory is not None
    assert read_finetuning(finetuned.directory.path)[1].seeds == (0, 2)


def test_agents_that_were_never_alone_are_fine_tuned_without_such_episodes(tmp_path: Path) -> None:
    never = ready_config(seeds=(0, 1))
    stages = tuple(stage.model_copy(update={"alone_share": 0.0}) for stage in never.stages)
    one = plan(tmp_path, never.model_copy(update={"stages": stages}))
    make_ready(one.path, one.baselines)
    finetuned = fine_tune(one)
    assert finetuned.why_not is None and finetuned.directory is not None
    assert read_finetuning(finetuned.directory.path)[1].alone_share == 0.0


def test_baselines_that_turn_out_to_be_alike_are_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They passed the gate in the episodes of the evaluation, and do not pass it in those of the fine-tuning study."""
    one = plan(tmp_path, ready_config(seeds=(0, 1)))
    make_ready(one.path, one.baselines, deceptive=HONEST)
    for place in (reproduction, study):
        monkeypatch.setattr(place, "competent_seeds", lambda *_: (0, 1))
    finetuned = fine_tune(one)
    assert finetuned.directory is None
    assert str(finetuned.why_not).startswith("what was fine-tuned cannot be judged: the baselines fail the gate")


def test_other_faults_are_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("the Ray cluster cannot be used")

    one = plan(tmp_path, ready_config(seeds=(0, 1)))
    make_ready(one.path, one.baselines)
    monkeypatch.setattr(reproduction, "run_finetuning", fail)
    with pytest.raises(ValueError, match="the Ray cluster cannot be used"):
        fine_tune(one)


def test_a_preset_of_another_configuration_is_refused(tmp_path: Path) -> None:
    one = plan(tmp_path)
    make_ready(one.path, ready_config(seeds=(0, 1)))
    with pytest.raises(RunDirectoryError, match="belongs to another study"):
        reproduce_preset(one, Tasks(), "soo-marl reproduce", HERE)
    assert read_study(one.path)[1].seeds == (0, 1)


def test_scaled_fine_tuning() -> None:
    usual, changes = scaled_finetuning(("soo", "blank"), 1.0)
    assert [chosen.label for chosen in usual] == ["soo", "blank"] and changes == {}
    shorter, changes = scaled_finetuning(("soo", "blank"), 0.01)
    assert [chosen.updates for chosen in shorter] == [10, 0] and changes == {"after_updates": 12}
    least, changes = scaled_finetuning(("soo",), 1e-6)
    assert least[0].updates == 1 and changes == {"after_updates": 1}
    with pytest.raises(ValueError, match="there is no method"):
        scaled_finetuning(("magic",), 2.0)
