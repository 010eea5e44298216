"""``soo-marl finetune``: what it refuses, in one sentence each, and what it leaves behind."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hand_made_agents import HONEST, baselines, hand_made

from soo_marl.cli import main
from soo_marl.storage.records import Record, read_list, write_list
from soo_marl.storage.study_directory import StudyDirectory
from soo_marl.studies.baselines.evaluation import evaluate_baselines
from soo_marl.studies.baselines.study import open_study
from soo_marl.studies.finetuning.configuration import FinetuneConfig
from soo_marl.studies.finetuning.study import finetuning_config, open_finetuning, read_finetuning, treatments_of
from soo_marl.studies.learning.agents_on_disk import agent_file, save_agents
from soo_marl.studies.learning.checkpoints import ShardCheckpoint
from soo_marl.studies.learning.recipes import BaselineConfig
from soo_marl.studies.learning.records import AgentRecord

Competent = tuple[BaselineConfig, StudyDirectory]
Run = Callable[..., tuple[int, str]]

QUICK = ["--methods", "none", "--updates", 1, "--after-updates", 0, "--episodes", 20, "--workers", 0]
"""Options with which a study takes a moment."""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process; returns its exit status and what it wrote to stderr."""

    def run(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        try:
            status = main(["finetune", *map(str, arguments)])
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        return status, capsys.readouterr().err

    return run


@pytest.fixture
def study(competent: Competent, tmp_path: Path) -> Path:
    """A copy of a study whose agents play well enough."""
    return Path(shutil.copytree(competent[1].path, tmp_path / "study"))


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than everything else together."""
    for name in ("film_baselines", "film_finetuning", "draw_figures", "draw_finetuning"):
        monkeypatch.setattr(f"soo_marl.report.refresh.{name}", lambda path: [])


def refuse(result: tuple[int, str], *words: str) -> None:
    """One sentence, no traceback, a status that is not 0."""
    status, stderr = result
    assert status == 2
    assert stderr.startswith("soo-marl: ") and stderr.count("\n") == 1, stderr
    assert "Traceback" not in stderr
    for word in words:
        assert word in stderr


def contents(folder: Path) -> dict[str, bytes]:
    """Everything in a folder but locks, and events, whose names hold the time."""
    files = (path for path in folder.rglob("*") if path.is_file() and "tensorboard" not in path.parts)
    files = (path for path in files if path.suffix != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--methods", "soo", "sooo"], ["there is no method 'sooo'; choose among soo, soo_action"]),
        (["--weights", "-1"], ["weight: Input should be greater than or equal to 0 (given: -1.0)"]),
        (["--weights", "nan"], ["weight: ", "finite number"]),
        (["--methods", "soo", "--weights", "1", "1"], ["may be given only once, but soo.1 is repeated"]),
        (["--methods", "soo", "soo"], ["may be given only once, but soo is repeated"]),
        (["--layers", "output"], ["layers are hidden_1 and hidden_2, not output"]),
        (["--updates", "-1"], ["updates: Input should be greater than or equal to 0"]),
        (["--after-updates", "-1"], ["after_updates: Input should be greater than or equal to 0"]),
        (["--alone-share", "1.5"], ["alone_share: Input should be less than or equal to 1"]),
        (["--episodes", "1"], ["evaluation_episodes: Input should be greater than or equal to 2"]),
        (["--seeds", "0", "7"], ["there are no agents with the seed 7 in", "its seeds are (0, 1, 2)"]),
        (["--seeds", "0", "0"], ["each seed may be given only once"]),
        (["--seeds", "0"], ["an interval needs at least 2 seeds", "has 1 to treat"]),
        (["--workers", "-1"], ["workers must be 0 (this process alone) or more, not -1"]),
        (["--device", "abacus"], ["cannot compute on the device 'abacus'"]),
    ],
)
def test_bad_options(options: list[str], words: list[str], run: Run, study: Path) -> None:
    before = contents(study)
    refuse(run(study, *options), *words)
    assert contents(study) == before and not (study / "finetune").exists()


@pytest.mark.parametrize(
    "arguments", [["--kind", "sly"], ["--pairing", "imagined"], ["--weight", "1", "--colour", "red"]]
)
def test_options_that_nobody_knows(arguments: list[str], run: Run, study: Path) -> None:
    status, stderr = run(study, *arguments)
    assert status == 2 and stderr and "Traceback" not in stderr
    assert not (study / "finetune").exists()


def test_no_study(run: Run, tmp_path: Path) -> None:
    refuse(run(tmp_path / "nowhere"), "study.json is missing, so", "is not a study's directory")
    assert not list(tmp_path.iterdir())


def test_a_study_of_another_kind(run: Run, study: Path) -> None:
    source = StudyDirectory.read(study)
    config = BaselineConfig.model_validate(source.manifest.configuration)
    open_finetuning(study / "finetune", quick(source, config))
    refuse(run(study / "finetune"), "holds a study of kind finetune, not of baselines")


def quick(source: StudyDirectory, config: BaselineConfig, methods: Sequence[str] = ("none",)) -> FinetuneConfig:
    """The configuration that ``QUICK`` stands for."""
    return finetuning_config(source, config, treatments_of(methods, (), 1), after_updates=0, evaluation_episodes=20)


@pytest.mark.parametrize("step", ["train", "evaluate"])
def test_a_study_that_is_not_trained_to_the_end(step: str, run: Run, study: Path) -> None:
    (study / "steps" / f"{step}.json").unlink()
    before = contents(study)
    refuse(run(study), "is not trained to the end; run the command that began it again, then fine-tune")
    assert contents(study) == before


def test_a_study_in_which_too_few_pass_the_gate(run: Run, study: Path) -> None:
    file = study / "results" / "agents.json"
    agents = read_list(file, AgentRecord)
    failing = {"competent": False, "reasons": ("goal rate with red is 0.41, not above 0.8",)}
    write_list(file, [agent.model_copy(update=failing if agent.seed != 1 else {}) for agent in agents])
    StudyDirectory.read(study).mark_done("evaluate", [file])
    before = contents(study)
    refuse(
        run(study),
        "an interval needs at least 2 seeds whose agents play well enough",
        "has 1 to treat, for example seed 0 (honest: goal rate with red is 0.41, not above 0.8)",
        "train more seeds, or longer",
    )
    refuse(run(study, "--seeds", 1, 2), "the agents of seed 2 do not play well enough to be treated (honest: goal rate")
    assert contents(study) == before


def test_agents_that_learnt_nothing_are_not_treated(run: Run, trained: Any, tmp_path: Path) -> None:
    # From end to end: trained for a moment, and evaluated.
    study = Path(shutil.copytree(trained[1].path, tmp_path / "study"))
    directory = StudyDirectory.read(study)
    evaluate_baselines(trained[0], directory)
    for step in ("train", "evaluate"):
        directory.mark_done(step)
    refuse(run(study), "has 0 to treat, for example seed 0", "goal rate with red", "train more seeds, or longer")


def test_a_damaged_list_of_agents(run: Run, study: Path) -> None:
    file = study / "results" / "agents.json"
    file.write_text(file.read_text()[:100])
    refuse(run(study), "agents.json is not what this study wrote: edited since, or another study's; delete it")


def test_agents_that_were_never_alone(run: Run, study: Path) -> None:
    manifest = json.loads((study / "study.json").read_text())
    for stage in manifest["configuration"]["stages"]:
        stage["alone_share"] = 0.0
    (study / "study.json").write_text(json.dumps(manifest))
    refuse(run(study), "train.json belongs to another study; delete it")
    for step in ("train", "evaluate"):
        StudyDirectory.read(study).mark_done(step)
    refuse(run(study), "never trained alone", "set alone_share to 0")


def test_output_that_cannot_be_used(run: Run, study: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refuse(run(study, *QUICK, "--output", tmp_path / "file"), "is a file, not a folder; name another output folder")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("x")
    refuse(run(study, *QUICK, "--output", tmp_path / "thesis"), "holds files (thesis.tex) but no study.json")
    refuse(run(study, *QUICK, "--output", study), "belongs to another study: kind is")


def test_another_configuration_is_refused_by_its_field(run: Run, study: Path) -> None:
    source = StudyDirectory.read(study)
    config = BaselineConfig.model_validate(source.manifest.configuration)
    open_finetuning(study / "finetune", quick(source, config, ("soo",)))
    before = contents(study)
    for options, words in (
        (QUICK, ['configuration.treatments.0.label is "soo.updates-1" there and "none.updates-1" here']),
        (
            [*QUICK, "--methods", "soo", "--updates", 2],
            ['configuration.treatments.0.label is "soo.updates-1" there and "soo.updates-2" here'],
        ),
        (
            [*QUICK, "--methods", "soo", "--weights", 5],
            ['configuration.treatments.0.label is "soo.updates-1" there and "soo.5.updates-1" here'],
        ),
        ([*QUICK, "--methods", "soo", "--after-updates", 7], ["configuration.after_updates is 0 there and 7 here"]),
        (
            [*QUICK, "--methods", "soo", "--kind", "honest"],
            ['configuration.kind is "deceptive" there and "honest" here'],
        ),
        ([*QUICK, "--methods", "soo", "blank"], ["configuration.treatments.1"]),
        ([*QUICK, "--methods", "soo", "--seeds", 0, 1], ["configuration."]),
    ):
        refuse(run(study, *options), "belongs to another study: ", "name another folder", *words)
    assert contents(study) == before


def test_agents_that_changed_since_are_refused(run: Run, study: Path) -> None:
    source = StudyDirectory.read(study)
    config = BaselineConfig.model_validate(source.manifest.configuration)
    open_finetuning(study / "finetune", quick(source, config))
    save_agents(source, "deceptive", hand_made(config.game, config.maddpg, config.seeds, HONEST))
    before = contents(study)
    refuse(
        run(study, *QUICK), "belongs to another study: configuration.agents_digest is ", " there and ", "name another"
    )
    assert contents(study) == before


def test_agents_that_are_gone_or_damaged_are_named(run: Run, study: Path) -> None:
    file = agent_file(StudyDirectory.read(study), "deceptive", 1)
    content = file.read_bytes()
    file.write_bytes(content[:-10])
    refuse(run(study, *QUICK), str(file), "delete it")
    file.unlink()
    shutil.rmtree(study / "finetune", ignore_errors=True)
    refuse(run(study, *QUICK), f"{file} is missing")


def test_half_written_manifest(run: Run, study: Path) -> None:
    (study / "finetune").mkdir()
    manifest = study / "finetune" / "study.json"
    manifest.write_text((study / "study.json").read_text()[:100])
    before = contents(study)
    refuse(run(study, *QUICK), str(manifest), "is not readable JSON, perhaps half-written", "delete this one")
    assert contents(study) == before


@pytest.mark.usefixtures("without_pictures")
def test_half_written_files_of_a_study_under_way(run: Run, study: Path) -> None:
    source = StudyDirectory.read(study)
    config = quick(source, BaselineConfig.model_validate(source.manifest.configuration))
    directory = open_finetuning(study / "finetune", config)
    checkpoint = ShardCheckpoint.of(config, directory.path, config.seeds, config.treatments[0].label).path
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"half")
    refuse(run(study, *QUICK), str(checkpoint), "delete it to train the agents that it belongs to anew")
    checkpoint.unlink()
    assert run(study, *QUICK) == (0, "")
    label = config.treatments[0].label
    for file in (
        directory.path / "measures" / f"{label}.safetensors",
        directory.path / "measures" / f"{label}.json",
        directory.path / label / "seed_1" / "curves.json",
    ):
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        refuse(run(study, *QUICK), str(file), "delete it")
        file.unlink()
        assert run(study, *QUICK) == (0, ""), f"{file} is made again"
        assert file.read_bytes() == content


def test_baselines_that_behave_alike(run: Run, tmp_path: Path, competent: Competent) -> None:
    # The gate was passed on paper alone.
    config = baselines(seeds=(0, 1))
    directory = open_study(tmp_path / "study", config)
    for kind in ("honest", "deceptive"):
        save_agents(directory, kind, hand_made(config.game, config.maddpg, config.seeds, HONEST))
    agents = [agent for agent in read_list(competent[1].results / "agents.json", AgentRecord) if agent.seed < 2]
    write_list(directory.results / "agents.json", agents)
    for step in ("train", "evaluate"):
        directory.mark_done(step)
    refuse(
        run(directory.path, *QUICK),
        "the baselines fail the gate, so there is nothing to judge against",
        "trap rate is 0",
    )


@pytest.mark.usefixtures("without_pictures")
def test_a_study_from_the_command_line(run: Run, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [*QUICK, "--methods", "soo", "none", "blank", "--weights", 1, "--seeds", 2, 0, "--layers", "hidden_1"]
    assert run(study, *options) == (0, "")
    directory, config = read_finetuning(study / "finetune")
    assert config.seeds == (2, 0)
    labels = ["soo.1.updates-1.hidden_1", "none.updates-1", "blank"]
    assert [chosen.label for chosen in config.treatments] == labels
    records = read_list(directory.results / "summary.json", Record)
    assert {record.name for record in records} >= {f"{name}/trap_rate" for name in (*labels, "honest", "deceptive")}
    assert all(record.command.startswith(f"soo-marl finetune {study} --methods none") for record in records)
    assert (directory.path / "report.html").exists()
    # A second run does nothing twice.
    before = contents(directory.path)
    for name in ("finetune", "measure_conditions"):
        monkeypatch.setattr(f"soo_marl.studies.finetuning.study.{name}", lambda *_, **__: pytest.fail("done twice"))
    assert run(study, *options) == (0, "")
    assert contents(directory.path) == before


@pytest.mark.usefixtures("without_pictures")
def test_red_learns_on_where_it_is_told_to(run: Run, study: Path) -> None:
    assert run(study, *QUICK, "--train-red", "--alone-share", 0, "--output", study.parent / "elsewhere") == (0, "")
    _, config = read_finetuning(study.parent / "elsewhere")
    assert config.training.learners is None and config.alone_share == 0
    assert not (study / "finetune").exists()


def test_interruption_names_a_command_that_continues(run: Run, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("soo_marl.studies.finetuning.study.finetune", interrupt)
    status, stderr = run(study, *QUICK)
    assert status == 130
    assert f"continue with: soo-marl finetune {study} --methods none" in " ".join(stderr.split())


@pytest.mark.slow
def test_a_study_with_its_pictures(run: Run, study: Path) -> None:
    assert run(study, *QUICK, "--methods", "soo", "none", "blank", "--after-updates", 50) == (0, "")
    results = study / "finetune" / "results"
    figures = json.loads((results / "figures.json").read_text())
    assert figures and all((study / "finetune" / "figures" / figure["file"]).exists() for figure in figures)
    assert "This report is incomplete." not in (study / "finetune" / "report.html").read_text()
